"""What applying a command answers: a value, never an exception.

A refusal that follows from the log alone (the id exists, the version does not match) is an answer
like any other, the same on every replica. Exceptions mean that this replica must stop.
"""

import msgspec

from timemachine.model import JobRecord


class JobResult(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """The answer to a creator's command.

    kind      created, replaced, unchanged, changed, deleted, moved, redriven, refused, placed; of
              a step of a restore: restored, or unchanged where it was done before
    record    the job after the command, or as it stands where it was refused
    meta      its bytes, where the command did not bring them
    previous  (version, outcome) of the version that was replaced
    outcome   of a delete
    code      why it was refused
    replayed  the stored answer of an earlier request with the same key
    """

    kind: str
    record: JobRecord | None = None
    meta: bytes | None = None
    previous: tuple[int, str] | None = None
    outcome: str | None = None
    code: str | None = None
    replayed: bool = False


def refused(code: str, record: JobRecord | None = None) -> JobResult:
    """An answer that changes nothing."""
    return JobResult(kind="refused", code=code, record=record)


class BulkProgress(msgspec.Struct, frozen=True, array_like=True):
    """How far a bulk task got in one vnode: its cursor there, and jobs by what became of them.

    cancel      cancelled, in_flight, skipped
    reschedule  rescheduled, in_flight (the version before is being sent), unchanged, skipped
    redrive     redriven, skipped

    Skipped are jobs that changed after the task had seen them, and those that would be moved to
    before 1970 or beyond the year 9999.

    `finished` says that nothing is left to do here.
    """

    cursor: bytes = b""
    counts: dict[str, int] = {}
    finished: bool = False


class ClaimResult(msgspec.Struct, frozen=True, gc=False):
    """The answer for one item of a Claim: the job, firing if the claim `holds`, or as it is."""

    holds: bool
    record: JobRecord | None


class DueInserted(msgspec.Struct, frozen=True, gc=False):
    """Effect: a row of the due index is new. `value` is `keys.due_value`."""

    due_ms: int
    job_id: str
    value: bytes


class WaitingFreed(msgspec.Struct, frozen=True, gc=False):
    """Effect: a job of a waiting index is to be read again, where its row had stayed.

    A claim of it was taken back, or it was set free of its batch.
    """

    due_ms: int
    job_id: str
    value: bytes


class JobTouched(msgspec.Struct, frozen=True, gc=False):
    """Effect: what was known of this job's next attempt does not hold any more."""

    job_id: str


class BatchDissolved(msgspec.Struct, frozen=True, gc=False):
    """Effect: a batch that was sent before is not sent again.

    `job_ids` are members whose claims are open, so that no row of theirs tells of it.
    """

    batch: bytes
    job_ids: list[str]


Effect = DueInserted | WaitingFreed | JobTouched | BatchDissolved
