"""The steps of bulk tasks: one change to many jobs, each step done once."""

from timemachine import codec, limits
from timemachine.replica import commands as c
from timemachine.replica.claims import take_back
from timemachine.replica.records import read_progress
from timemachine.replica.results import BulkProgress
from timemachine.replica.rows import JobRows
from timemachine.replica.states import DEAD, SCHEDULED, TERMINAL
from timemachine.replica.transitions import deleted, next_version, redriven


def bulk(rows: JobRows, command: c.Bulk) -> BulkProgress:
    """Do one step, unless it is done already; how far the task is now."""
    for item in command.items:
        if item.revoked is not None:
            take_back(rows, item.job_id, item.revoked, command.now_ms)
    key = rows.keys.task + command.task.encode()
    data = rows.overlay.get(key)
    progress = BulkProgress() if data is None else read_progress(data)
    if progress.cursor != command.after or progress.finished:
        return progress
    counts = dict(progress.counts)
    for item in command.items:
        outcome = _bulk_one(rows, command, item)
        counts[outcome] = counts.get(outcome, 0) + 1
    progress = BulkProgress(command.cursor, counts, command.finished)
    rows.overlay.put(key, codec.encode(progress))
    return progress


def _bulk_one(rows: JobRows, command: c.Bulk, item: c.BulkItem) -> str:
    """Change one job; returns what became of it, see `BulkProgress`."""
    before = rows.read(item.job_id)
    if before is None or before.uid != item.uid or before.version != item.version:
        return "skipped"
    now_ms = command.now_ms
    if command.kind == c.BULK_REDRIVE:
        if before.state != DEAD:
            return "skipped"
        after, outcome = redriven(before, command.route_uid, now_ms), "redriven"
    elif before.state in TERMINAL or before.outcome is not None:
        return "skipped"
    elif command.kind == c.BULK_CANCEL:
        after, outcome = deleted(before, now_ms)
    else:
        trigger_ms = command.trigger_ms
        if trigger_ms is None:
            trigger_ms = before.trigger_ms + command.shift_ms
        if trigger_ms == before.trigger_ms and before.state == SCHEDULED:
            return "unchanged"
        if not 0 <= trigger_ms <= limits.TIME_MS_MAX:
            return "skipped"
        after, (_, outcome) = next_version(
            before,
            before.uid,
            now_ms,
            trigger_ms=trigger_ms,
            delay_ms=None,
            smear_ms=before.smear_ms,
            route=before.route,
            route_uid=before.route_uid,
            tags=before.tags,
            meta=before.meta,
            term=rows.term,
        )
        if outcome == "replaced":
            outcome = "rescheduled"
    rows.store(item.job_id, item.job_id.encode(), before, after)
    return outcome


def bulk_forget(rows: JobRows, command: c.BulkForget) -> None:
    """A task is over: its progress need not be kept."""
    rows.overlay.delete(rows.keys.task + command.task.encode())
