"""What the nodes answer, as types.

Members that a newer node adds are ignored, members that an older one leaves out have defaults.
Times are integer milliseconds since the Unix epoch, UTC: `trigger_time` and the like. Those that
programs compute with are there as aware datetimes too: `trigger_at` and the like.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, Final, Generic, TypeVar

import msgspec

from timemachine.client.problems import Problem, api_error
from timemachine.errors import ApiError, ClientError

T = TypeVar("T")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def moment(time_ms: int) -> datetime:
    """Milliseconds since the Unix epoch as an aware datetime in UTC."""
    return _EPOCH + timedelta(milliseconds=time_ms)


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One page of a list; `next_cursor` asks for the next one, None when there is none.

    Lists of attempts have a `previous_cursor` as well, which asks for the page before.
    """

    items: tuple[T, ...]
    next_cursor: str | None = None
    previous_cursor: str | None = None


class Database(msgspec.Struct, frozen=True, kw_only=True):
    """A namespace of collections and routes."""

    name: str
    created_time: int = 0


class Collection(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs that share vnodes, replicas and retention. `counts` are jobs by state."""

    name: str
    db: str = ""
    num_vnodes: int = 0
    replicas: int = 0
    history_retention_ms: int = 0
    content_retention_ms: int | None = None
    version: int = 0
    created_time: int = 0
    counts: dict[str, int] = {}
    under_replicated: bool = False
    no_fault_tolerance: bool = False


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """When and how often a failed delivery is tried again."""

    schedule_ms: tuple[int, ...] = ()
    max_attempts: int = 0
    max_age_ms: int = 0
    jitter: float = 0.0


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """At most `count` attempts per `period_ms`; no limit when `count` is None."""

    count: int | None = None
    period_ms: int = 0


class Breaker(msgspec.Struct, frozen=True, kw_only=True):
    """When nothing is sent for a while to a recipient that fails."""

    failure_ratio: float = 0.0
    min_requests: int = 0
    window_ms: int = 0
    open_ms: int = 0
    half_open_requests: int = 0


class PendingVnode(msgspec.Struct, frozen=True, kw_only=True):
    """A vnode that may still start a send to a route that was paused, disabled or deleted."""

    collection: str
    index: int


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Where jobs are sent. Header values and credentials are masked; the secret is elsewhere.

    `paused` is what an operator asked for, `disabled` the reason why the cluster stopped the route;
    `state` is active, paused, disabled, throttled, breaker_open or breaker_half_open, with the
    reason, since when and until when, as far as the node knows that was asked.
    `pending_vnodes`, of a route that was just closed, are those that may still start a send.
    """

    name: str = ""
    db: str = ""
    version: int = 0
    type: str = "webhook"
    webhook_url: str = ""
    https_only: bool = False
    headers: dict[str, str] = {}
    body: str = "job"
    timeout_ms: int = 0
    delivery: str = "at_least_once"
    retry: Retry = Retry()
    non_retryable_status: tuple[int, ...] = ()
    smear_ms: int = 0
    max_in_flight: int = 0
    rate: Rate = Rate()
    breaker: Breaker | None = None
    disable_after_ms: int | None = None
    alert_route: str | None = None
    batch: dict[str, Any] | None = None
    ca_pem: str | None = None
    client_cert_pem: str | None = None
    client_key_pem: str | None = None
    dangerous_skip_tls_verify: bool = False
    enabled: bool = True
    paused: bool = False
    disabled: str | None = None
    state: str = ""
    state_reason: str | None = None
    state_since_time: int | None = None
    state_until_time: int | None = None
    created_time: int = 0
    updated_time: int = 0
    pending_vnodes: tuple[PendingVnode, ...] = ()


class PreviousSecret(msgspec.Struct, frozen=True, kw_only=True):
    """A secret that webhooks are still signed with, until `expires_time`.

    `public_key` is what recipients verify with where the secret is a private key, `whsk_`.
    """

    secret: str
    expires_time: int
    public_key: str | None = None
    key_id: str = ""

    def __repr__(self) -> str:
        """Without the secret."""
        return f"PreviousSecret(expires_time={self.expires_time})"


class RouteSecret(msgspec.Struct, frozen=True, kw_only=True):
    """The signing secrets of a route.

    `public_key` is what recipients verify with where the secret is a private key, `whsk_`. Attempts
    name the keys that signed them by `key_id`.
    """

    secret: str
    public_key: str | None = None
    previous: tuple[PreviousSecret, ...] = ()
    key_id: str = ""

    def __repr__(self) -> str:
        """Without the secrets."""
        return f"RouteSecret(<1 current, {len(self.previous)} previous>)"


class Previous(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the version that a PUT or PATCH replaced.

    `outcome`: `replaced`, or `in_flight` / `already_delivered` when it was already claimed.
    """

    version: int
    outcome: str


class ExplainedStep(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to a job, or is to happen; `node` is an id, where it is known."""

    step: str
    time: int
    attempt: int | None = None
    node: str | None = None
    term: int | None = None
    detail: str | None = None


class ExplainedPhase(msgspec.Struct, frozen=True, kw_only=True):
    """Where some of the time since a job's trigger time went, and why."""

    phase: str
    attempt: int | None = None
    from_time: int
    duration_ms: float
    reason: str | None = None


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why a job was late: in a sentence, by what happened when, and by where the time went."""

    sentence: str
    late_ms: int | None = None
    steps: tuple[ExplainedStep, ...] = ()
    phases: tuple[ExplainedPhase, ...] = ()


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job.

    `state` is one of scheduled, firing, retrying, held, delivered, dead (with `reason`) and
    cancelled. After a delete `outcome` says what became of it, after a change `previous` what
    became of the version before. Only `get_job(..., explain=True)` gives an `explanation`.
    """

    id: str
    db: str = ""
    collection: str = ""
    uid: str = ""
    state: str = ""
    version: int = 0
    vnode: int | None = None
    trigger_time: int = 0
    route: str = ""
    meta: Any = None
    tags: tuple[str, ...] = ()
    ordering_key: str | None = None
    created_time: int = 0
    updated_time: int = 0
    attempts: int = 0
    next_attempt_time: int | None = None
    last_error: str | None = None
    webhook_id: str | None = None
    reason: str | None = None
    past_due: bool = False
    smear_ms: int = 0
    outcome: str | None = None
    previous: Previous | None = None
    explanation: Explanation | None = None

    @property
    def trigger_at(self) -> datetime:
        """`trigger_time` as a datetime in UTC."""
        return moment(self.trigger_time)

    @property
    def created_at(self) -> datetime:
        """`created_time` as a datetime in UTC."""
        return moment(self.created_time)

    @property
    def updated_at(self) -> datetime:
        """`updated_time` as a datetime in UTC."""
        return moment(self.updated_time)

    @property
    def next_attempt_at(self) -> datetime | None:
        """`next_attempt_time` as a datetime in UTC."""
        return None if self.next_attempt_time is None else moment(self.next_attempt_time)


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP request for a job. `status` is succeeded, failed or unknown.

    A response that is not UTF-8 is base64; `response_body_encoding` says which. `content_removed`
    tells that it was forgotten. `trigger` is scheduled, retry, orphan, manual or redrive, and
    `held_up` what it waited for when it was due. What became of it was committed at `settled_time`,
    in `settled_term`.
    """

    id: str = ""
    webhook_id: str = ""
    job_id: str = ""
    db: str = ""
    collection: str = ""
    route: str | None = None
    attempt: int = 0
    version: int = 0
    status: str = ""
    trigger: str = ""
    retry_reason: str | None = None
    key_ids: tuple[str, ...] = ()
    node: str = ""
    term: int = 0
    fence: int | str = 0
    url: str = ""
    trigger_time: int | None = None
    due_time: int | None = None
    held_up: str | None = None
    claimed_time: int | None = None
    started_time: int | None = None
    ended_time: int | None = None
    settled_time: int | None = None
    settled_term: int | None = None
    duration_ms: float | None = None
    phases_ms: dict[str, float] = {}
    remote_ip: str | None = None
    response_status: int | None = None
    response_headers: dict[str, str] = {}
    response_body: str = ""
    response_body_encoding: str = "utf-8"
    response_truncated: bool = False
    content_removed: bool = False
    error_code: str | None = None
    error_message: str | None = None
    error_phase: str | None = None
    retry_after: str | None = None
    next_attempt_time: int | None = None
    batch: dict[str, Any] | None = None

    @property
    def started_at(self) -> datetime | None:
        """`started_time` as a datetime in UTC."""
        return None if self.started_time is None else moment(self.started_time)

    @property
    def ended_at(self) -> datetime | None:
        """`ended_time` as a datetime in UTC."""
        return None if self.ended_time is None else moment(self.ended_time)


class BatchItem(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one job of a batch: `job`, or `error` when it was refused.

    `status` is 201 for a new job, 200 when the same job was there already.
    """

    status: int
    job: Job | None = None
    problem: Problem | None = msgspec.field(default=None, name="error")

    @property
    def error(self) -> ApiError | None:
        """Why there is no such job; pointers of its `errors` begin with the place in the batch."""
        if self.problem is None:
            return None
        return api_error(self.problem, self.status)

    def result(self) -> Job:
        """The job. Raises its error."""
        if self.job is None:
            raise api_error(self.problem or Problem(), self.status)
        return self.job


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a batch, in the order of its jobs."""

    items: tuple[BatchItem, ...]
    created: int = 0
    failed: int = 0


class CreateResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one job of many: `job`, or `error` when it was not created.

    number   its place among all, from 0 on
    id       its id, the client's when it came without one
    created  False also when the same job was there already: then it has a `job` and no `error`
    error    ApiError for what a node refused, NoAnswer and the like when nobody knows
    """

    number: int
    id: str
    job: Job | None = None
    created: bool = False
    error: ClientError | None = None

    def result(self) -> Job:
        """The job. Raises its error."""
        if self.error is not None:
            raise self.error
        assert self.job is not None
        return self.job


class Bulk(msgspec.Struct, frozen=True, kw_only=True):
    """The beginning of a task that changes many jobs; give it to `wait_task`.

    After a dry run `task` is None, `count` is how many jobs there are, `sample` some of them.
    """

    task: str | None = None
    count: int | None = None
    sample: tuple[Job, ...] = ()


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is done to many jobs, in the background, through crashes.

    `kind` is cancel, reschedule, redrive or replay_missing; `state` is running, done, cancelled or
    failed (with `error`). `progress` counts jobs, `done` of them in all, others by what became of
    them; `result` is there at the end.
    """

    id: str = ""
    kind: str = ""
    db: str = ""
    state: str = ""
    progress: dict[str, Any] = {}
    result: Any = None
    created_time: int | None = None
    updated_time: int | None = None
    finished_time: int | None = None
    error: str | None = None

    @property
    def running(self) -> bool:
        """Whether it goes on."""
        return self.state == "running"


class Bucket(msgspec.Struct, frozen=True, kw_only=True):
    """How many jobs are due from `from_time` on and before `to_time`."""

    from_time: int = msgspec.field(name="from")
    to_time: int = msgspec.field(name="to")
    count: int = 0

    @property
    def from_at(self) -> datetime:
        """`from_time` as a datetime in UTC."""
        return moment(self.from_time)

    @property
    def to_at(self) -> datetime:
        """`to_time` as a datetime in UTC."""
        return moment(self.to_time)


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """How an example webhook went. `status` is succeeded or failed."""

    status: str = ""
    response_status: int | None = None
    error_code: str | None = None
    error_message: str | None = None
    webhook_id: str | None = None
    duration_ms: float | None = None


class RouteStats(msgspec.Struct, frozen=True, kw_only=True):
    """How a route does.

    `pending` are its jobs that have not ended, `waiting` those of them that are due, `in_flight`
    the requests under way. `succeeded` and `failed` count attempts since `since_time`. The state is
    that of the `Route`; `failing_since_time` is there where attempts have only failed for long.
    """

    state: str = ""
    state_reason: str | None = None
    state_since_time: int | None = None
    state_until_time: int | None = None
    failing_since_time: int | None = None
    pending: int = 0
    waiting: int = 0
    in_flight: int = 0
    since_time: int | None = None
    succeeded: int = 0
    failed: int = 0
    last_success_time: int | None = None
    last_failure_time: int | None = None
    last_failure: str | None = None


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for all nodes: private networks and further ports that webhooks may go to."""

    allowed_private_cidrs: tuple[str, ...] = ()
    allowed_ports: tuple[int, ...] = ()


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """A node can serve."""

    status: str = ""


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """The version of the software of a node."""

    version: str = ""


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One process of the cluster; `state` is up, down, leaving or removed."""

    id: str
    number: int = 0
    name: str = ""
    http: str = ""
    rpc: str = ""
    zone: str = ""
    weight: int = 0
    state: str = ""
    version: str = ""
    formats: tuple[int, ...] = ()
    keys: tuple[str, ...] = ()
    vnodes: int = 0
    leaders: int = 0
    clock_offset_ms: float | None = None


class MasterKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key that secrets are sealed with, by its id; `needed` where nodes must have it."""

    id: str
    current: bool = False
    routes: int = 0
    nodes: tuple[str, ...] = ()
    first_of: tuple[str, ...] = ()
    needed: bool = False


class Resealed(msgspec.Struct, frozen=True, kw_only=True):
    """How far sealing again with `current` is: ask again until nothing is `left`."""

    current: str
    resealed: int = 0
    left: int = 0


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster, as the answering node (`node_id`) sees it."""

    cluster_id: str
    node_id: str
    cluster_version: int = 0
    known_version: int = 0
    node_leader: str | None = None
    under_replicated: int = 0
    no_fault_tolerance: bool = False
    nodes: tuple[Node, ...] = ()


class Finalised(msgspec.Struct, frozen=True, kw_only=True):
    """The format that the cluster uses from now on."""

    cluster_version: int = 0


class JoinToken(msgspec.Struct, frozen=True, kw_only=True):
    """Lets one node join the cluster, before `expires_time`."""

    token: str
    expires_time: int = 0


class Replica(msgspec.Struct, frozen=True, kw_only=True):
    """One copy of a vnode; `lag` is how many entries of its log it is behind."""

    node: str = ""
    role: str = ""
    lag: int | None = None


class Offset(msgspec.Struct, frozen=True, kw_only=True):
    """How far a vnode has fired: everything due before was begun."""

    time: int | None = None
    job_id: str | None = None


class Vnode(msgspec.Struct, frozen=True, kw_only=True):
    """One vnode: who leads it, who has copies, and how many of its jobs are overdue."""

    db: str = ""
    collection: str = ""
    index: int = 0
    leader: str | None = None
    term: int = 0
    replicas: tuple[Replica, ...] = ()
    offset: Offset = Offset()
    due_backlog: int = 0


class PlannedMove(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan changes about one vnode: the nodes that get and that lose a replica of it.

    `state` is waiting, moving, done, or void: the vnode had changed meanwhile, or is gone.
    """

    db: str = ""
    collection: str = ""
    index: int = 0
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    copied_bytes: int = 0
    state: str = ""


class PlanProgress(msgspec.Struct, frozen=True, kw_only=True):
    """The moves of a plan in numbers.

    `copies` are replicas that are copied, `left` moves beyond those that one plan takes.
    """

    total: int = 0
    copies: int = 0
    waiting: int = 0
    moving: int = 0
    done: int = 0
    void: int = 0
    left: int = 0


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """How busy the cluster was when a plan was made."""

    writes_per_s: float = 0.0
    fires_per_s: float = 0.0


class NodeCompaction(msgspec.Struct, frozen=True, kw_only=True):
    """What one node does for a plan that compacts.

    `state` is waiting, trimming, compacting, paused, low_space, silent, done, or failed (with
    `error`). `range_bytes` is about what there was to compact, `before_bytes` and `disk_bytes`
    what its whole store took on its disk before, and takes now.
    """

    node: str = ""
    state: str = ""
    range_bytes: int = 0
    before_bytes: int | None = None
    disk_bytes: int | None = None
    steps: int = 0
    steps_done: int = 0
    compacted_bytes: int = 0
    error: str | None = None


class Compaction(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan compacts: these `vnodes`, or all; and how far each node is."""

    vnodes: tuple[int, ...] = ()
    bytes_per_s: int = 0
    nodes: tuple[NodeCompaction, ...] = ()


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to move between nodes, once it is confirmed.

    `kind` is rebalance, drain, remove, replicate or compact; `state` is proposed, running, paused,
    done, cancelled or failed (with `error`). `risks` are sentences to think of before confirming
    it, `waits_for` nodes that do not answer and that moves under way or the next go to, or that
    are to compact; `vnodes` are the moves, empty in lists; `compaction` is of a plan that compacts.
    """

    id: str
    kind: str = ""
    state: str = ""
    nodes: tuple[str, ...] = ()
    db: str | None = None
    collection: str | None = None
    replicas: int | None = None
    transfers: int = 0
    moves: PlanProgress = PlanProgress()
    copied_bytes: int = 0
    estimate_ms: int = 0
    traffic: Traffic = Traffic()
    risks: tuple[str, ...] = ()
    waits_for: tuple[str, ...] = ()
    error: str | None = None
    created_time: int = 0
    expires_time: int = 0
    confirmed_time: int | None = None
    finished_time: int | None = None
    vnodes: tuple[PlannedMove, ...] = ()
    compaction: Compaction | None = None

    @property
    def under_way(self) -> bool:
        """Whether it was confirmed and has not ended."""
        return self.state in ("running", "paused")
