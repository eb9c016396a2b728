"""Jobs that come out of a backup, and those of them that wait for an admin's word."""

from typing import Final

import msgspec

from timemachine.model import DeadReason
from timemachine.replica import commands as c
from timemachine.replica.placing import restore_aliases
from timemachine.replica.results import JobResult
from timemachine.replica.rows import JobRows
from timemachine.replica.states import DUE, PARKED, RETRYING, SCHEDULED
from timemachine.replica.transitions import dead
from timemachine.replica.waiting import as_seen
from timemachine.storage.keys import read_u64, u32, u64

_replace = msgspec.structs.replace

DROPPED: Final = "It was past due when it was restored."


def restore_jobs(rows: JobRows, command: c.RestoreJobs) -> JobResult:
    """Do one step of a restore, unless it is done already."""
    # Also of a repeat: what was there of a step that broke off may have been forgotten since.
    restore_aliases(rows, command.placed, command.now_ms)
    key = rows.keys.restore + command.restore.encode() + b"\0" + u32(command.part)
    last = rows.overlay.get(key)
    if last is not None and command.number <= read_u64(last):
        return JobResult(kind="unchanged")
    for item in command.items:
        raw_id = item.job_id.encode()
        if (rows.ids.add(raw_id) or not rows.ids.complete) and rows.read(item.job_id) is not None:
            continue
        # Whom it was batched with is not in the backup.
        record = _replace(item.record, born_index=rows.index, accepted_term=0, batch=b"")
        rows.restore(item.job_id, raw_id, record, item.meta, item.attempts)
    rows.overlay.put(key, u64(command.number))
    return JobResult(kind="restored")


def unpark(rows: JobRows, command: c.Unpark) -> JobResult:
    """Have jobs that were held by a restore go on, or end."""
    for item in command.items:
        before = as_seen(rows, item)
        if before is None or before.queue != PARKED:
            continue
        if command.drop:
            reason = DeadReason.EXPIRED.value
            after = dead(before, before.tries, reason, DROPPED, command.now_ms)
        else:
            state = RETRYING if before.attempts else SCHEDULED
            after = _replace(before, state=state, queue=DUE)
        rows.store(item.job_id, item.job_id.encode(), before, after)
    return JobResult(kind="changed")
