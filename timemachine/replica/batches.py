"""The claim of a batch: one request for many jobs, frozen when it is claimed for the first time."""

from timemachine.model import JobRecord
from timemachine.replica import commands as c
from timemachine.replica import ordering
from timemachine.replica.claims import fits
from timemachine.replica.records import BatchMember, BatchRow, read_job
from timemachine.replica.results import ClaimResult
from timemachine.replica.rows import JobRows
from timemachine.replica.states import CLAIMABLE
from timemachine.replica.transitions import claimed

COMMAS_BYTES = 2
"""The brackets around the items; each item counts its comma itself."""


def claim_batch(rows: JobRows, command: c.ClaimBatch) -> list[ClaimResult]:
    """Commit the intent of a request that takes many jobs, and freeze which ones.

    Under its id nothing but just these jobs, of these versions and in this order, is ever sent. So
    a batch that was sent before is claimed as it was, or not at all.
    """
    in_term = command.term == rows.term
    if in_term and command.node:
        rows.note_leader(command.node, command.since_ms)
    read = rows.overlay.get
    job = rows.keys.job
    raw_ids = [item.job_id.encode() for item in command.items]
    near = rows.overlay.near([job + raw_id for raw_id in raw_ids])
    found: list[JobRecord | None] = []
    for raw_id in raw_ids:
        data = read(job + raw_id, near)
        found.append(None if data is None else read_job(data))
    fit = [
        in_term and before is not None and fits(rows, before, item, command.now_ms)
        for before, item in zip(found, command.items, strict=True)
    ]
    if command.again:
        if not all(fit) or not _is_whole(rows, command):
            fit = [False] * len(fit)
        elif len({item.attempt for item in command.items}) > 1:
            # A claim of it was taken back for some of its jobs, and for the others its leader was
            # gone. One request cannot be two attempts.
            rows.dissolve(command.batch)
            found = [rows.read(item.job_id) for item in command.items]
            fit = [False] * len(fit)
    else:
        _cut(rows, command, raw_ids, found, fit)
    results = []
    members = []
    left: dict[bytes, None] = {}
    for item, raw_id, before, holds in zip(command.items, raw_ids, found, fit, strict=True):
        if not holds or before is None:
            if before is not None and before.order is not None and before.state in CLAIMABLE:
                ordering.put_behind(rows, item.job_id, before)
            results.append(ClaimResult(False, before))
            continue
        if before.batch and not command.again:
            # That one is not sent again: no job is in two of them.
            left[before.batch] = None
        after = claimed(
            before,
            item,
            command.term,
            rows.index,
            command.now_ms,
            command.batch,
            again=command.again,
        )
        rows.store_claimed(item.job_id, raw_id, before, after)
        members.append(BatchMember(item.job_id, item.uid, item.version))
        results.append(ClaimResult(True, after))
    if members and not command.again:
        rows.freeze(command.batch, BatchRow(command.format, command.body, members))
    for batch in left:
        rows.dissolve(batch)
    return results


def _is_whole(rows: JobRows, command: c.ClaimBatch) -> bool:
    """Whether these are the members of the batch, all of them, in their order."""
    row = rows.batch(command.batch)
    return row is not None and row.members == [
        BatchMember(item.job_id, item.uid, item.version) for item in command.items
    ]


def _cut(
    rows: JobRows,
    command: c.ClaimBatch,
    raw_ids: list[bytes],
    found: list[JobRecord | None],
    fit: list[bool],
) -> None:
    """Leave out what would make the body too large: all from the first on that does.

    One job is sent however large it is.
    """
    size = COMMAS_BYTES
    count = 0
    for number, before in enumerate(found):
        if not fit[number] or before is None:
            continue
        meta = before.meta
        if meta is None:
            meta = rows.read_meta(raw_ids[number], before)
        size += command.item_bytes + len(meta)
        if count and size > command.max_bytes:
            fit[number:] = [False] * (len(fit) - number)
            return
        count += 1
