"""The closed set of commands that a vnode's log may carry.

An entry holds a list of them. Each carries the proposer's wall clock (`now_ms`) and every value
that applying needs from outside, so that applying is a pure function of the log. The tags are
stored: a number is never reused, and a replica that meets a number it does not know stops.
"""

from typing import ClassVar, Final

import msgspec

from timemachine.model import JobRecord


class Request(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Identity of a write, so that a repeat is answered and not done again.

    `key` is the 16-byte hash of scope and Idempotency-Key; `fingerprint` the 16-byte hash of what
    was asked, to tell a repeat from a reuse; `MADE_BY_NODE` where no client has given a key.
    """

    key: bytes
    fingerprint: bytes


MADE_BY_NODE: Final = b""
"""The fingerprint of a key that a node made for a command of its own: it never means another."""


class Revoked(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A claimed attempt whose send the claiming leader removed before its first byte.

    `term` is that of its claim. The same attempt may have been claimed by a leader before, who may
    have sent it: that claim is not this leader's to take back. 0 is any.
    """

    uid: bytes
    version: int
    attempt: int
    term: int = 0


class Command(msgspec.Struct, frozen=True, array_like=True, tag_field="t", kw_only=True):
    """Base of all commands. `since` is the format that it came with, see `timemachine.formats`."""

    since: ClassVar[int] = 1

    now_ms: int


class PutJob(Command, frozen=True, tag=1):
    """Create or replace a job. `create_only` is POST: it never changes a job that is kept.

    `smear_ms` is as in the record. One with an `ordering_key` goes to the vnode of that; its id was
    placed before, by a `PlaceJob` that was asked for at `placed_ms`.
    """

    job_id: str
    uid: bytes
    trigger_ms: int
    delay_ms: int | None
    route: str
    route_uid: int
    meta: bytes
    tags: tuple[str, ...] = ()
    create_only: bool = False
    if_match: int | None = None
    if_none_match: bool = False
    request: Request | None = None
    revoked: Revoked | None = None
    smear_ms: int = 0
    ordering_key: str | None = None
    placed_ms: int = 0


class PatchJob(Command, frozen=True, tag=2):
    """Replace the given fields of a job; None keeps what is stored.

    `smear_ms` comes with a route, and is as in the record.
    """

    job_id: str
    trigger_ms: int | None = None
    delay_ms: int | None = None
    route: str | None = None
    route_uid: int = 0
    meta: bytes | None = None
    tags: tuple[str, ...] | None = None
    if_match: int | None = None
    request: Request | None = None
    revoked: Revoked | None = None
    smear_ms: int = 0


class DeleteJob(Command, frozen=True, tag=3):
    """Cancel a job; with `purge` forget it altogether."""

    job_id: str
    purge: bool = False
    if_match: int | None = None
    request: Request | None = None
    revoked: Revoked | None = None


class RunJob(Command, frozen=True, tag=4):
    """Move the next attempt of a pending job to now."""

    job_id: str
    request: Request | None = None


class RedriveJob(Command, frozen=True, tag=5):
    """Fire a dead job (or, with `force`, a delivered one) again, under the same webhook id.

    With a `uid` as a new life with that, and so under another one.
    """

    job_id: str
    route_uid: int
    force: bool = False
    request: Request | None = None
    uid: bytes = b""


class ClaimItem(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One attempt to claim: the `attempt`th of this life and version of a job."""

    job_id: str
    uid: bytes
    version: int
    attempt: int
    deadline_ms: int


class Claim(Command, frozen=True, tag=6):
    """Commit the intent of attempts. Void for each job that is not exactly as the leader saw it.

    `node` is the leader's number, and `since_ms` when it began to fire for the vnode.
    """

    term: int
    items: list[ClaimItem]
    node: int = 0
    since_ms: int = 0


class SettleItem(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How one attempt ended and what follows.

    `verdict`: 0 delivered, 1 retry at `retry_ms`, 2 dead with `reason`. `counts` tells whether it
    uses up the retry budget. `record` is the encoded AttemptRecord, stored under `serial` and
    listed with the route that it was made for; 0 is the one that the job has. `alert` names the
    route that is to be told of what fails.
    """

    job_id: str
    uid: bytes
    version: int
    attempt: int
    serial: int
    verdict: int
    record: bytes
    retry_ms: int = 0
    reason: str | None = None
    error: str | None = None
    counts: bool = True
    route_uid: int = 0
    alert: str | None = None


class Split(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A batch was too large for its recipient: its jobs go on in others, each with a new id."""

    batch: bytes
    format: str
    body: str
    parts: list[tuple[bytes, list[str]]]


class Settle(Command, frozen=True, tag=7):
    """Commit the outcomes of attempts. Matched by (uid, version, attempt), whatever the term.

    `split` is of a batch whose items are all here.
    """

    items: list[SettleItem]
    split: Split | None = None


class Unclaim(Command, frozen=True, tag=8):
    """Take back claims whose sends never started; of one `term` only, unless that is 0."""

    items: list[ClaimItem]
    term: int = 0


class PendingItem(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A pending job exactly as the leader saw it.

    `route_uid` is the route that it waits for, where the job may have been accepted before that
    existed; 0 leaves it as it is.
    """

    job_id: str
    uid: bytes
    version: int
    attempts: int
    route_uid: int = 0


class Wait(Command, frozen=True, tag=9):
    """Move due jobs to their route's waiting index; `held` when it is paused or disabled."""

    items: list[PendingItem]
    held: bool


class Release(Command, frozen=True, tag=10):
    """Held jobs whose route is open again are scheduled or retrying once more."""

    items: list[PendingItem]


class GiveUp(Command, frozen=True, tag=11):
    """End pending jobs as dead without an attempt."""

    items: list[PendingItem]
    reason: str
    error: str


class MoveOffset(Command, frozen=True, tag=12):
    """Raise the offset: all below (due_ms, job_id) was settled when `seen_index` was applied."""

    due_ms: int
    job_id: str
    seen_index: int


class Purge(Command, frozen=True, tag=13):
    """Forget terminal jobs that finished before `before_ms`; others named are left alone.

    `attempt_rows` are rows of the attempts by route, without the table's prefix: those that were
    settled before `before_ms` go too.
    """

    before_ms: int
    job_ids: list[str]
    attempt_rows: list[bytes] = []


class Forget(Command, frozen=True, tag=14):
    """Forget stored answers by (expires_ms, request hash)."""

    requests: list[tuple[int, bytes]]


class BulkItem(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One job of a bulk task, exactly as the task saw it."""

    job_id: str
    uid: bytes
    version: int
    revoked: Revoked | None = None


class Bulk(Command, frozen=True, tag=15):
    """One step of a bulk task in one vnode.

    `kind` is one of the BULK_ constants. The step is done if the task got as far as `after` here,
    which then becomes `cursor`; otherwise it is a repeat of a step that a crash or a change of
    leader left unanswered, and changes nothing. So nothing is shifted twice.

    With `finished` nothing is left to do here, and no later step is done.

    Reschedule takes `trigger_ms`, or `shift_ms` to add to what each job has; redrive takes the
    `route_uid` that jobs are bound to anew.
    """

    task: str
    kind: int
    items: list[BulkItem]
    after: bytes
    cursor: bytes
    trigger_ms: int | None = None
    shift_ms: int = 0
    route_uid: int = 0
    finished: bool = False


class BulkForget(Command, frozen=True, tag=16):
    """A bulk task is over: its progress here need not be kept."""

    task: str


class ForgetContent(Command, frozen=True, tag=17):
    """Remove what a recipient answered to the `attempt`th attempt of a job.

    With a `version`, only where the attempt was of that version.
    """

    job_id: str
    attempt: int
    version: int | None = None
    request: Request | None = None


class Handover(Command, frozen=True, tag=18):
    """The leader is about to give its leadership away, and these sends of its are open.

    It forwards their outcomes, so the next leader waits for each until `deadline_ms`.
    """

    items: list[ClaimItem]


class Seal(Command, frozen=True, tag=19):
    """No attempt starts by routes that are older than the meta group's entry `meta_index`.

    Who proposes it knows that entry. Whoever leads later fires only when it knows it, too.
    """

    meta_index: int


class RestoreItem(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A job out of a backup as it is to be here, but for `born_index`.

    `meta` are its bytes where they have a row of their own; `attempts` are its encoded
    AttemptRecords by their serials.
    """

    job_id: str
    record: JobRecord
    meta: bytes = b""
    attempts: list[tuple[int, bytes]] = []


class PlacedId(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An id whose job lives in the vnode of its ordering key, as that was placed at `placed_ms`."""

    job_id: str
    ordering_key: str
    placed_ms: int = 0


class RestoreJobs(Command, frozen=True, tag=20):
    """One step of a restore in one vnode: jobs of a `part` of the backup.

    The steps of a part come in the order of their `number`, with gaps. A step that is not behind
    the last one is a repeat, and changes nothing: so what has been restored, sent and purged does
    not come back. A job whose id is there already is left alone. `placed` are ids of this vnode
    whose jobs come into others; these are placed by a repeat as well.
    """

    restore: str
    part: int
    number: int
    items: list[RestoreItem]
    placed: list[PlacedId] = []


class Unpark(Command, frozen=True, tag=21):
    """An admin has said what becomes of jobs that were past due when they were restored.

    They are scheduled or retrying, or with `drop` end as dead.
    """

    items: list[PendingItem]
    drop: bool


class ClaimBatch(Command, frozen=True, tag=22):
    """Commit the intent of one request that takes all of these jobs, in this order.

    A batch that is new is frozen: of its jobs those belong to it that are exactly as the leader saw
    them, as many as stay within `max_bytes` with `item_bytes` for each beside its meta, one at
    least. With `again` it is one that was frozen before, and claimed as a whole or not at all.
    `node` and `since_ms` are as in `Claim`.
    """

    term: int
    batch: bytes
    items: list[ClaimItem]
    format: str = "jobs"
    body: str = "job"
    max_bytes: int = 0
    item_bytes: int = 0
    again: bool = False
    node: int = 0
    since_ms: int = 0


class ForgetContents(Command, frozen=True, tag=23):
    """Remove what recipients answered to attempts, (job id, serial), settled before `before_ms`.

    With `until_ms`, nothing of before that is left in this vnode.
    """

    before_ms: int
    items: list[tuple[str, int]]
    until_ms: int = 0


class EventsTold(Command, frozen=True, tag=30):
    """The jobs that tell of all events before the `until`th are there."""

    until: int


class CloseEventHours(Command, frozen=True, tag=31):
    """Hours of events that may be over, by their keys without the table's prefix."""

    counts: list[bytes]


class PlaceJob(Command, frozen=True, tag=34):
    """In the vnode of an id: its job is to live in the vnode of its ordering key.

    Refused where a job of the id lives elsewhere, or may.
    """

    job_id: str
    ordering_key: str


class UnplaceJobs(Command, frozen=True, tag=35):
    """In the vnode of ids: their jobs are gone. Void for those that were placed anew since."""

    items: list[PlacedId]


class StandAside(Command, frozen=True, tag=36):
    """Have due jobs with an ordering key wait until it is their turn, unless it is."""

    items: list[PendingItem]


AnyCommand = (
    PutJob
    | PatchJob
    | DeleteJob
    | RunJob
    | RedriveJob
    | Claim
    | Settle
    | Unclaim
    | Wait
    | Release
    | GiveUp
    | MoveOffset
    | Purge
    | Forget
    | Bulk
    | BulkForget
    | ForgetContent
    | ForgetContents
    | Handover
    | Seal
    | RestoreJobs
    | Unpark
    | ClaimBatch
    | EventsTold
    | CloseEventHours
    | PlaceJob
    | UnplaceJobs
    | StandAside
)

VERDICT_DELIVERED = 0
VERDICT_RETRY = 1
VERDICT_DEAD = 2
BULK_CANCEL = 0
BULK_RESCHEDULE = 1
BULK_REDRIVE = 2
