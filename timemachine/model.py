"""What TimeMachine stores: jobs, attempts, routes, collections, databases; and how a job may move.

Every type here is frozen. The ones kept on disk are `array_like`: their fields are written in
order, so a new field is only ever appended, with a default. Times are integer milliseconds since
the Unix epoch, UTC; durations are integer milliseconds.
"""

from enum import IntEnum, StrEnum
from typing import Final

import msgspec

from timemachine import limits


class JobState(IntEnum):
    """Where a job stands. The number is stored; the lower-case name is what users see."""

    SCHEDULED = 0
    """Waits for its trigger time."""
    FIRING = 1
    """Claimed: one attempt's intent is committed, its outcome is not."""
    RETRYING = 2
    """An attempt failed; the next one has a time."""
    HELD = 3
    """Due, but its route is paused or disabled, or it was past due when it was restored."""
    DELIVERED = 4
    """A recipient answered 2xx."""
    DEAD = 5
    """Given up, with a reason; listed and redrivable."""
    CANCELLED = 6
    """Deleted before it was delivered."""

    @property
    def text(self) -> str:
        """The name users see."""
        return self.name.lower()


STATES_BY_TEXT: Final = {state.text: state for state in JobState}

PENDING_STATES: Final = frozenset(
    {JobState.SCHEDULED, JobState.FIRING, JobState.RETRYING, JobState.HELD}
)

_S = JobState
JOB_TRANSITIONS: Final[dict[JobState | None, dict[str, JobState]]] = {
    None: {"create": _S.SCHEDULED},
    _S.SCHEDULED: {
        "change": _S.SCHEDULED,
        "claim": _S.FIRING,
        "hold": _S.HELD,
        "delete": _S.CANCELLED,
        "give up": _S.DEAD,
        "late success": _S.DELIVERED,
    },
    _S.FIRING: {
        "change": _S.SCHEDULED,
        "un-claim first": _S.SCHEDULED,
        "un-claim retry": _S.RETRYING,
        "un-claim held": _S.HELD,
        "succeed": _S.DELIVERED,
        "fail": _S.RETRYING,
        "give up": _S.DEAD,
        "fail after delete": _S.CANCELLED,
    },
    _S.RETRYING: {
        "change": _S.SCHEDULED,
        "claim": _S.FIRING,
        "hold": _S.HELD,
        "delete": _S.CANCELLED,
        "give up": _S.DEAD,
        "run": _S.RETRYING,
        "late success": _S.DELIVERED,
    },
    _S.HELD: {
        "change": _S.SCHEDULED,
        "claim": _S.FIRING,
        "release first": _S.SCHEDULED,
        "release retry": _S.RETRYING,
        "delete": _S.CANCELLED,
        "give up": _S.DEAD,
        "late success": _S.DELIVERED,
    },
    _S.DELIVERED: {"new life": _S.SCHEDULED, "redrive": _S.SCHEDULED},
    _S.DEAD: {
        "new life": _S.SCHEDULED,
        "redrive": _S.SCHEDULED,
        "late success": _S.DELIVERED,
    },
    _S.CANCELLED: {"new life": _S.SCHEDULED, "late success": _S.DELIVERED},
}
"""The one table of allowed moves: state -> {what happened: next state}. None is "no such job".

The figure in `docs/semantics.md` is drawn from it, and the machine asserts every move against it.
"""

ALLOWED_MOVES: Final = frozenset(
    (before, after) for before, moves in JOB_TRANSITIONS.items() for after in moves.values()
)


class DeadReason(StrEnum):
    """Why a job was given up."""

    EXHAUSTED = "exhausted"
    GONE = "gone"
    ABORTED = "aborted"
    ROUTE_DELETED = "route_deleted"
    EXPIRED = "expired"
    UNKNOWN = "unknown"


class HeldUp(IntEnum):
    """What an attempt that was due waited for before its claim, as its leader saw it.

    The number is stored; the lower-case name is what users see.
    """

    NOTHING = 0
    IN_FLIGHT = 1
    """Its route had as many attempts in flight as it may."""
    RATE = 2
    """Its route had begun as many attempts as it may in a period."""
    RECIPIENT = 3
    """Its route waited because its recipient was overloaded."""
    ROUTE = 4
    """It stood apart: its route was paused or disabled, or far behind."""
    NODE = 5
    """The node had as many attempts in flight as it may."""
    BATCH = 6
    """Its batch waited for others."""

    @property
    def text(self) -> str | None:
        """The name users see."""
        return self.name.lower() if self else None


class Queue(IntEnum):
    """Which index holds a pending job's next attempt."""

    NONE = 0
    DUE = 1
    """The due index, which the delivery's cursor reads."""
    WAITING = 2
    """Its route's waiting index, out of the offset's way."""
    PARKED = 3
    """None: it was past due when it was restored, and an admin is to say what becomes of it."""
    BEHIND = 4
    """None: it is due, and an earlier job of its route and ordering key has not ended."""


class ClaimMark(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The committed intent of one attempt, kept in the job until it is settled.

    `index` is the log index of the claim: with the restore epoch it is the fence number, which
    rises over all leaders. `deadline_ms` bounds the send on the leader's wall clock.
    `handed_over` says that this leader gave its leadership away while the send was open, and tells
    its outcome to the next. `delivered` says that an earlier attempt, given up as unknown, turned
    out to have succeeded: after this one there is none. `batch` is the id of the batch in which it
    is sent, empty where it is sent alone.
    """

    term: int
    index: int
    attempt: int
    serial: int
    claimed_ms: int
    deadline_ms: int
    prior: int
    handed_over: bool = False
    delivered: bool = False
    batch: bytes = b""


class Order(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a job stands among those of its route that have the same ordering key.

    key      the ordering key
    number   rises with each job of its vnode that is made with one
    turn_ms  when it got its turn, if it had to wait for that (0: it had not)
    behind   the id of the job that it waited for last
    """

    key: str
    number: int
    turn_ms: int = 0
    behind: str = ""


class JobRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One job as stored. A large meta has a row of its own, so that claims stay small.

    uid             16 bytes, drawn anew for each life of a job id
    version         1 at first, +1 with each change by a creator, never reset while the id is kept
    trigger_ms      when the creator wants it
    delay_ms        the delay that `trigger_ms` was made from, or None
    route/route_uid the route's name, and the uid it was bound to (0: did not exist then)
    due_ms          time of the next attempt, while pending
    queue           which index holds it (`Queue`)
    attempts        attempts claimed for this version
    tries           those of them that count against the retry budget
    serial          attempts claimed in all lives of this id: numbers the attempt rows
    first_claim_ms  when the first counted attempt was claimed (0: none yet); bounds the age
    claim           the open attempt, while firing
    reason          why it is dead
    last_error      one sentence about the last failed attempt
    outcome         what DELETE answered first, once deleted
    retry_reason    why the next attempt is made, when it is not the first
    finished_ms     when it became terminal
    occurrence      0 (recurring schedules will count here)
    born_index      log index at which this id began to be kept; what was claimed before is of a
                    job that was purged
    meta            the creator's bytes, if they are few; None where they have a row of their own
    delivering      the AttemptRecord of the latest attempt, encoded, if it has delivered the job
                    and is short; empty where all attempts have rows of their own
    restored        the restore epoch in which it came out of a backup, until it is changed (0: it
                    was made here). Its next version gets a uid of its own: the cluster that was
                    backed up may have had such a version too, with another content
    smear_ms        how long after `trigger_ms` its first attempt is due: its part of its route's
                    `smear_ms`, as that was when the job was made or was last given a route
    accepted_term   the term in which this version was taken (0: in another cluster)
    batch           the id of the batch in which it was sent and will be sent again: one with the
                    same members in the same order, whose row says which. Empty where its next
                    attempt is not bound to any
    alerted         the route that was told that it fails, or is dead (`timemachine.events`); the
                    same one is told when it is delivered
    order           its ordering key, and what follows from that; None without one
    """

    uid: bytes
    version: int
    state: int
    trigger_ms: int
    delay_ms: int | None
    route: str
    route_uid: int
    tags: tuple[str, ...]
    created_ms: int
    updated_ms: int
    due_ms: int
    queue: int
    attempts: int = 0
    tries: int = 0
    serial: int = 0
    first_claim_ms: int = 0
    claim: ClaimMark | None = None
    reason: str | None = None
    last_error: str | None = None
    outcome: str | None = None
    retry_reason: str | None = None
    finished_ms: int = 0
    occurrence: int = 0
    born_index: int = 0
    meta: bytes | None = None
    delivering: bytes = b""
    restored: int = 0
    smear_ms: int = 0
    accepted_term: int = 0
    batch: bytes = b""
    alerted: str | None = None
    order: Order | None = None

    @property
    def ordering_key(self) -> str | None:
        """Its ordering key, if it has one."""
        return None if self.order is None else self.order.key

    def home(self, job_id: str) -> str:
        """What its vnode is found by (`timemachine.ring`): its ordering key, else its id."""
        return job_id if self.order is None else self.order.key


class AttemptStatus(StrEnum):
    """How one attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"
    """A claim without a settle after a crash: it may or may not have reached the recipient."""


class AttemptRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One HTTP request for a job: what was sent where, what came back, how long each phase took.

    A request for several jobs leaves a record with each of them.

    uid             of the job's life; empty where the attempt is kept in the job's row: then this,
                    `trigger_ms`, `route`, the settle's time and term are as in there, and so is a
                    `due_ms` of 0 (`replica.records.whole`)
    trigger_ms, route
                    of the version that was sent; None and empty where that was replaced while the
                    attempt was under way
    due_ms          when the attempt was due
    settled_ms, settled_term
                    when its outcome was proposed to the log, by that leader's clock, and in which
                    term that was taken; the node is that of the leader
    queue_ms        how long it waited for a connection to be free; not in `total_ms`
    key_ids         which keys signed it (`signing.key_id`)
    held_up         what it waited for before it was claimed (`HeldUp`)
    batch           the id of the batch, `batch_size` how many jobs that had (0: not known)
    answer_in       the job whose attempt has what was answered to the batch; None where it is this
    """

    attempt: int
    version: int
    status: str
    node: str
    term: int
    fence: int
    url: str
    claimed_ms: int
    started_ms: int
    ended_ms: int
    resolve_ms: float = 0.0
    connect_ms: float = 0.0
    tls_ms: float = 0.0
    first_byte_ms: float = 0.0
    total_ms: float = 0.0
    remote_ip: str | None = None
    response_status: int | None = None
    response_headers: tuple[tuple[str, str], ...] = ()
    response_body: bytes = b""
    response_truncated: bool = False
    error_code: str | None = None
    error_message: str | None = None
    error_phase: str | None = None
    retry_after: str | None = None
    next_attempt_ms: int | None = None
    trigger: str = "scheduled"
    content_removed: bool = False
    uid: bytes = b""
    trigger_ms: int | None = None
    route: str = ""
    due_ms: int = 0
    settled_ms: int = 0
    settled_term: int = 0
    queue_ms: float = 0.0
    key_ids: tuple[int, ...] = ()
    held_up: int = 0
    batch: bytes = b""
    batch_size: int = 0
    answer_in: str | None = None


class Leadership(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A leader of a vnode that has claimed something: its term, its node's number, since when.

    One that ceased to fire for a while, in the same term, has begun anew.
    """

    term: int
    node: int
    since_ms: int


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """When and how often a failed delivery is tried again (`delivery.md` C)."""

    schedule_ms: tuple[int, ...] = (
        5_000,
        300_000,
        1_800_000,
        7_200_000,
        18_000_000,
        36_000_000,
        50_400_000,
        72_000_000,
        86_400_000,
    )
    max_attempts: int = 10
    max_age_ms: int = 345_600_000
    jitter: float = 0.2


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """At most `count` attempts start per `period_ms`; no limit when `count` is None."""

    count: int | None = None
    period_ms: int = 1000


class Breaker(msgspec.Struct, frozen=True, kw_only=True):
    """When a node stops sending to a recipient that fails (`timemachine.delivery.breaker`).

    failure_ratio       the share of attempts that opens it, of those that ended in `window_ms`
    min_requests        of fewer attempts nothing is concluded
    window_ms           how far back is looked
    open_ms             for so long nothing is sent, at most: less after its first failures
    half_open_requests  as many then try the recipient
    """

    failure_ratio: float = 0.7
    min_requests: int = 100
    window_ms: int = 300_000
    open_ms: int = 30_000
    half_open_requests: int = 3


class Failing(msgspec.Struct, frozen=True, array_like=True):
    """What meta knows of the failures of a route; 0 is never (`timemachine.failing`).

    first_ms    of a failure, with no success since
    clock_ms    of one so long after it that `disable_after_ms` counts from then on
    cleared_ms  what was before does not count: a success, or the route was opened or sent elsewhere
    """

    first_ms: int = 0
    clock_ms: int = 0
    cleared_ms: int = 0


class Batching(msgspec.Struct, frozen=True, kw_only=True):
    """Whether one request takes several jobs, and how many at most; with `max_jobs` 1 it does not.

    A batch that is not full waits until `max_wait_ms` after its first job was due. `format` is
    `jobs` or `cloudevents`.
    """

    max_jobs: int = 1
    max_bytes: int = 262_144
    max_wait_ms: int = 0
    format: str = "jobs"


class SealedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A signing secret, sealed; the current one has no `expires_ms`."""

    sealed: bytes
    expires_ms: int | None = None


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Where jobs are sent. Secrets, header values, URL credentials are sealed before they get here.

    `webhook_url` is without credentials; `basic_auth` seals the ones that it came with.
    `paused` is the operator's wish, `disabled` the reason why the system stopped it, if it did;
    `closed_ms` is when it became what it is of these. `breaker` is None where there is none,
    `disable_after_ms` 0. `failing` and `closed_ms` are kept by meta, whoever writes the route.
    `alert_route` names the route of the same database that is told what fails here, if any is.
    """

    uid: int
    db: str
    name: str
    version: int
    webhook_url: str
    created_ms: int
    updated_ms: int
    secrets: tuple[SealedKey, ...]
    https_only: bool = False
    headers: dict[str, bytes] = {}
    basic_auth: bytes | None = None
    body: str = "job"
    timeout_ms: int = 15_000
    delivery: str = "at_least_once"
    retry: Retry = Retry()
    non_retryable_status: tuple[int, ...] = ()
    max_in_flight: int = 64
    rate: Rate = Rate()
    breaker: Breaker | None = Breaker()
    disable_after_ms: int = 432_000_000
    batch: Batching = Batching()
    ca_pem: str | None = None
    client_cert_pem: str | None = None
    client_key_pem: bytes | None = None
    dangerous_skip_tls_verify: bool = False
    enabled: bool = True
    paused: bool = False
    disabled: str | None = None
    closed_ms: int = 0
    failing: Failing = Failing()
    smear_ms: int = 0
    alert_route: str | None = None

    @property
    def open(self) -> bool:
        """Whether attempts may start."""
        return self.enabled and not self.paused and self.disabled is None

    @property
    def seals(self) -> list[bytes]:
        """All that is sealed of it."""
        more = [each for each in (self.basic_auth, self.client_key_pem) if each is not None]
        return [*(each.sealed for each in self.secrets), *self.headers.values(), *more]

    @property
    def batched(self) -> bool:
        """Whether its requests are arrays of jobs."""
        return self.batch.max_jobs > 1


class Database(msgspec.Struct, frozen=True, kw_only=True):
    """A namespace of collections and routes."""

    uid: int
    name: str
    created_ms: int


class Collection(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs that share vnodes, replicas and retention.

    `content_retention_ms` is for how long what recipients answered is kept; None as long as the
    attempts themselves.
    """

    uid: int
    db: str
    name: str
    num_vnodes: int
    replicas: int
    history_retention_ms: int
    created_ms: int
    version: int = 1
    content_retention_ms: int | None = None


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for all nodes of the cluster."""

    allowed_private_cidrs: tuple[str, ...] = ()
    restore_epoch: int = 1
    allowed_ports: tuple[int, ...] = ()


class PastDue(StrEnum):
    """What becomes of jobs that are past due when they are restored."""

    HOLD = "hold"
    """They are held until an admin says what becomes of them."""
    FIRE = "fire"
    """They are sent at once."""
    DROP = "drop"
    """They end as dead, reason expired; they can be redriven."""


class Restore(msgspec.Struct, frozen=True, array_like=True):
    """A backup that is restored here, or was.

    backup      the id of the backup
    epoch       the restore epoch that began with it
    cut_ms      when it began: what is due until then is past due
    scope       names which collections it makes, and with how many vnodes: whoever goes on with it
                must mean the same, or it would end with some of them empty
    """

    id: str
    backup: str
    epoch: int
    cut_ms: int
    past_due: PastDue
    finished_ms: int | None = None
    scope: str = ""


class NodeState(StrEnum):
    """How a node belongs to the cluster."""

    MEMBER = "member"
    LEAVING = "leaving"
    """It keeps what it has until that is elsewhere, and gets nothing new."""
    REMOVED = "removed"
    """It is no part of the cluster any more and never will be again."""


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One process of the cluster, as the others know it. `https`: how to speak at `http`.

    number   given when it joins, from 1 on, and never given again; its replicas are named by it
    formats  the versions of stored and sent bytes that its program knows (`codec.VERSION`)
    weight   how much it is to have beside the others; 0: no replica, as soon as a plan moves them
    keys     ids of the master keys that it has, in the order of its key file
    """

    id: str
    name: str
    http: str
    rpc: str
    zone: str
    version: str
    https: bool = False
    number: int = 1
    state: NodeState = NodeState.MEMBER
    formats: tuple[int, ...] = (1,)
    weight: int = limits.NODE_WEIGHT_DEFAULT
    keys: tuple[str, ...] = ()

    @property
    def present(self) -> bool:
        """Whether it belongs to the cluster; also while it leaves."""
        return self.state is not NodeState.REMOVED

    @property
    def host(self) -> str:
        """The machine that it runs on, as far as its RPC address tells."""
        return self.rpc.rpartition(":")[0].strip("[]").lower()


class JoinToken(msgspec.Struct, frozen=True, array_like=True):
    """Lets one node join the cluster.

    id           the part of the token that is no secret
    secret_hash  SHA-256 of the other part
    expires_ms   when it is void, or once used when it is forgotten
    node         id of the node that joined with it
    """

    id: str
    secret_hash: bytes
    expires_ms: int
    node: str | None = None


class Placement(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Which replicas a vnode has, and which it is to have. Ids as of `timemachine.group`.

    uid, index  the vnode: collection's uid, and number
    born        the replicas that its group began with, as voters
    replicas    those that are to vote; the first is to lead at first
    removing    those that are to leave the group, or have left it and were not reported yet
    version     +1 with each change
    generation  what the next replica that comes is numbered with: higher than in any id that left
    """

    uid: int
    index: int
    born: tuple[int, ...] = (1,)
    replicas: tuple[int, ...] = (1,)
    removing: tuple[int, ...] = ()
    version: int = 1
    generation: int = 0


class PlanKind(StrEnum):
    """What a plan changes: where replicas are, or how much space they take."""

    REBALANCE = "rebalance"
    """All nodes get their shares."""
    DRAIN = "drain"
    """Some nodes give all that they have to others."""
    REMOVE = "remove"
    """As drained; then they are no part of the cluster any more. Also for those that are dead."""
    REPLICATE = "replicate"
    """A collection gets another count of replicas."""
    COMPACT = "compact"
    """Nothing moves: nodes give the space of what was deleted back to their disks."""

    @property
    def empties(self) -> bool:
        """Whether the nodes that it names give all that they have to others."""
        return self in (PlanKind.DRAIN, PlanKind.REMOVE)


class PlanState(StrEnum):
    """How far a plan is."""

    PROPOSED = "proposed"
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


class CompactionPart(msgspec.Struct, frozen=True, kw_only=True):
    """What one node does for a plan that compacts.

    range_bytes   about how much there was to compact when the plan was made
    before_bytes  what the whole store of the node took on its disk then; None if it did not answer
    after_bytes   and when its part had ended
    steps, compacted_bytes
                  in how many steps that was, and how much its store read and wrote for that
    begun, ended  whether the node leader has had it begin, and has heard that it is done
    error         why it came to nothing
    """

    node: int
    range_bytes: int = 0
    before_bytes: int | None = None
    after_bytes: int | None = None
    steps: int = 0
    compacted_bytes: int = 0
    begun: bool = False
    ended: bool = False
    error: str | None = None

    @property
    def at_work(self) -> bool:
        """Whether its node has to compact now."""
        return self.begun and not self.ended


class Compaction(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan compacts, and how fast. Each node that has any of it has a part.

    uid          the collection, 0 for all that nodes have
    indexes      its vnodes; none given are all
    bytes_per_s  that a node reads and writes for it at most, on average
    """

    uid: int = 0
    indexes: tuple[int, ...] = ()
    bytes_per_s: int = limits.COMPACT_RATE_BYTES_DEFAULT
    parts: tuple[CompactionPart, ...] = ()


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Moves of replicas that somebody has asked for, and that run once they are confirmed.

    basis      a hash of what it was made from: it is void when that has changed
    nodes      the numbers of the nodes that are emptied; of a rebalance, of those taken back
    marked     which of them are leaving because it was confirmed
    uid        the collection that gets another count of `replicas`
    transfers  how many vnodes change at once; of a plan that compacts, how many nodes do
    moves      how many moves it has; they are stored beside it
    left       how many more there would be, for another plan
    begun      how many of its moves were begun, in their order
    void       which of these came to nothing, because their vnode had changed meanwhile
    copied_bytes, estimate_ms, writes_per_s, fires_per_s, risks
               what was known when it was made: how much is copied, how long that may take, how
               busy the cluster was, and what to think of before
    error      why it failed
    compaction
               what it compacts, if it does
    """

    id: str
    kind: PlanKind
    basis: bytes
    created_ms: int
    expires_ms: int
    nodes: tuple[int, ...] = ()
    marked: tuple[int, ...] = ()
    uid: int = 0
    replicas: int = 0
    transfers: int = limits.PLAN_TRANSFERS_DEFAULT
    moves: int = 0
    left: int = 0
    begun: int = 0
    void: tuple[int, ...] = ()
    copied_bytes: int = 0
    estimate_ms: int = 0
    writes_per_s: float = 0.0
    fires_per_s: float = 0.0
    risks: tuple[str, ...] = ()
    state: PlanState = PlanState.PROPOSED
    confirmed_ms: int | None = None
    finished_ms: int | None = None
    error: str | None = None
    compaction: Compaction | None = None

    @property
    def under_way(self) -> bool:
        """Whether it was confirmed and has not ended."""
        return self.state in (PlanState.RUNNING, PlanState.PAUSED)

    @property
    def completed(self) -> bool:
        """Whether it ended after its last step. A cancelled one may still have moves under way."""
        return self.state in (PlanState.DONE, PlanState.FAILED)

    @property
    def ended(self) -> bool:
        """Whether it will never begin anything more."""
        return self.completed or self.state is PlanState.CANCELLED


class TaskKind(StrEnum):
    """What a bulk task does with the jobs that it finds."""

    CANCEL = "cancel"
    RESCHEDULE = "reschedule"
    REDRIVE = "redrive"
    REPLAY_MISSING = "replay_missing"


class TaskState(StrEnum):
    """How far a task is."""

    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is done to many jobs, step by step, through crashes.

    collections  uids of the collections that it walks through
    states, route, route_uid, tag, from_ms, to_ms
                 which jobs; see `node.selection.Selection`
    unattempted  only jobs that never had an attempt
    trigger_ms   where they are moved to, or
    shift_ms     by how much
    counts       jobs by what became of them, once it has ended
    error        why it failed
    """

    id: str
    kind: TaskKind
    db: str
    collections: tuple[int, ...]
    states: tuple[int, ...]
    created_ms: int
    route: str | None = None
    route_uid: int = 0
    tag: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None
    unattempted: bool = False
    trigger_ms: int | None = None
    shift_ms: int = 0
    state: TaskState = TaskState.RUNNING
    counts: dict[str, int] = {}
    error: str | None = None
    finished_ms: int | None = None
