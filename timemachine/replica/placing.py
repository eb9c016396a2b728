"""Where jobs with an ordering key are found by their ids.

They live in the vnode of their key. In the vnode of the id stands an alias, which says the key. It
is written before the job, so it may be there without one: for a create that is on its way, or that
never came, or since the job was forgotten. As long as it is there, the id belongs to that key.
"""

from timemachine import codec
from timemachine.replica import commands as c
from timemachine.replica.records import Alias, read_alias
from timemachine.replica.results import JobResult, refused
from timemachine.replica.rows import JobRows

TAKEN = "ordering_key_fixed"
"""The refusal where the id belongs to another ordering key, or to none."""


def alias_of(rows: JobRows, raw_id: bytes) -> Alias | None:
    """Where the job of an id of this vnode lives, if it is in the vnode of its ordering key."""
    data = rows.overlay.get(rows.keys.alias + raw_id)
    return None if data is None else read_alias(data)


def place_job(rows: JobRows, command: c.PlaceJob) -> JobResult:
    """Note which vnode a job will be in."""
    raw_id, key = command.job_id.encode(), command.ordering_key
    if rows.ids.add(raw_id) or not rows.ids.complete:
        record = rows.read(command.job_id)
        alias = alias_of(rows, raw_id)
        # Of another key: its own vnode may be this one, too.
        if (record is not None and record.ordering_key != key) or (
            alias is not None and alias.key != key
        ):
            return refused(TAKEN)
    _write(rows, raw_id, Alias(key, command.now_ms))
    return JobResult(kind="placed")


def unplace_jobs(rows: JobRows, command: c.UnplaceJobs) -> None:
    """Forget where jobs were that are gone."""
    for item in command.items:
        raw_id = item.job_id.encode()
        alias = alias_of(rows, raw_id)
        if alias == Alias(item.ordering_key, item.placed_ms):
            rows.overlay.delete(rows.keys.alias + raw_id)


def restore_aliases(rows: JobRows, placed: list[c.PlacedId], now_ms: int) -> None:
    """Note where jobs are that come out of a backup, unless their ids are taken."""
    for item in placed:
        raw_id = item.job_id.encode()
        if rows.ids.add(raw_id) or not rows.ids.complete:
            record = rows.read(item.job_id)
            if (record is not None and record.order is None) or alias_of(rows, raw_id):
                continue
        _write(rows, raw_id, Alias(item.ordering_key, now_ms))


def _write(rows: JobRows, raw_id: bytes, alias: Alias) -> None:
    rows.overlay.put(rows.keys.alias + raw_id, codec.encode(alias))
