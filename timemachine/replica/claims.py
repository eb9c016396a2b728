"""The attempts of a job: claimed, settled, or taken back before they began."""

from typing import Final

import msgspec

from timemachine import codec
from timemachine.model import AttemptStatus, ClaimMark, JobRecord
from timemachine.replica import commands as c
from timemachine.replica import events, ordering
from timemachine.replica.records import (
    BatchMember,
    BatchRow,
    read_attempt,
    read_job,
    whole,
    without_content,
)
from timemachine.replica.results import ClaimResult
from timemachine.replica.rows import JobRows
from timemachine.replica.states import CLAIMABLE, DELIVERED, DUE, RETRYING
from timemachine.replica.transitions import cancelled, claimed, delivered, settled, unclaimed
from timemachine.storage.keys import read_u64, u32, u64

_encode = codec.encode
_replace = msgspec.structs.replace
_UNKNOWN = AttemptStatus.UNKNOWN.value

_ATTEMPT_IN_ROW_BYTES_MAX: Final = 512
"""A list of jobs reads their rows, and what is in there."""


def _is_as_seen(before: JobRecord, item: c.ClaimItem | c.Revoked) -> bool:
    """Whether the next attempt of a job may be claimed, and is the one that its leader means."""
    return (
        before.uid == item.uid
        and before.version == item.version
        and before.attempts + 1 == item.attempt
        and before.state in CLAIMABLE
    )


def fits(rows: JobRows, before: JobRecord, item: c.ClaimItem, now_ms: int) -> bool:
    """Whether the next attempt of a job may be claimed as its leader saw it, and it is its turn."""
    return _is_as_seen(before, item) and (
        before.order is None or ordering.may_be_claimed(rows, item.job_id, before, now_ms)
    )


def claim(rows: JobRows, command: c.Claim) -> list[ClaimResult]:
    """Commit the intent of attempts; void for a job that is not exactly as the leader saw it.

    At most one claim of a (uid, version, attempt) ever holds.
    """
    results = []
    left: dict[bytes, None] = {}
    now_ms = command.now_ms
    in_term = command.term == rows.term
    if in_term and command.node:
        rows.note_leader(command.node, command.since_ms)
    read = rows.overlay.get
    job = rows.keys.job
    raw_ids = [item.job_id.encode() for item in command.items]
    near = rows.overlay.near([job + raw_id for raw_id in raw_ids])
    for item, raw_id in zip(command.items, raw_ids, strict=True):
        data = read(job + raw_id, near)
        before = None if data is None else read_job(data)
        if not in_term or before is None or not fits(rows, before, item, now_ms):
            if before is not None and before.order is not None and before.state in CLAIMABLE:
                ordering.put_behind(rows, item.job_id, before)
            results.append(ClaimResult(False, before))
            continue
        if before.batch:
            # Its route sends no batches any more.
            left[before.batch] = None
        record = claimed(before, item, command.term, rows.index, now_ms)
        rows.store_claimed(item.job_id, raw_id, before, record)
        results.append(ClaimResult(True, record))
    for batch in left:
        rows.dissolve(batch)
    return results


def settle(rows: JobRows, command: c.Settle) -> None:
    """Commit the outcomes of attempts, and list those that are kept with their routes."""
    by_route: dict[int, list[tuple[str, int]]] = {}
    if command.split is not None:
        rows.dissolve(command.split.batch)
    for item in command.items:
        _settle_one(rows, item, command.now_ms, by_route)
    if command.split is not None:
        _freeze_parts(rows, command.split)
    # One row for all of them: a row for each would be paid by each job that is fired.
    number = u64(command.now_ms) + u64(rows.index) + u32(rows.settles)
    rows.settles += 1
    for route_uid, attempts in by_route.items():
        key = rows.keys.route_attempts + u64(route_uid) + number
        rows.overlay.put(key, _encode(attempts))


def _settle_one(
    rows: JobRows, item: c.SettleItem, now_ms: int, by_route: dict[int, list[tuple[str, int]]]
) -> None:
    job_id = item.job_id
    raw_id = job_id.encode()
    before = rows.firing.get(job_id) or rows.read(job_id)
    if before is None:
        return
    claim = before.claim
    if (
        claim is None
        or claim.attempt != item.attempt
        or before.version != item.version
        or before.uid != item.uid
    ):
        _settle_late(rows, item, raw_id, before, now_ms, by_route)
        return
    attempt = item.record
    if attempt:
        # Not before.route_uid alone: the job may have been given another one meanwhile.
        route_uid = item.route_uid or before.route_uid
        by_route.setdefault(route_uid, []).append((job_id, item.serial))
        if (
            item.verdict == c.VERDICT_DELIVERED
            and before.queue == DUE
            and item.serial == claim.serial
            and item.route_uid in (0, before.route_uid)
            and claim.term == rows.term
            and len(attempt) <= _ATTEMPT_IN_ROW_BYTES_MAX
            and before.order is None
        ):
            after = delivered(before, now_ms, attempt)
            if after.alerted is not None:
                after = events.delivered(rows, job_id, after, now_ms)
            rows.store_delivered(job_id, raw_id, before, after)
            return
        attempt = _with_place(rows, before, item, now_ms)
        rows.overlay.put(rows.keys.attempts + raw_id + b"\0" + u32(item.serial), attempt)
    # What was sent in a batch is sent again in the same one, as long as that is what it was.
    batch = claim.batch
    if batch and rows.batch(batch) is None:
        batch = b""
    after = events.settled(rows, job_id, settled(before, item, now_ms, batch), item, now_ms)
    rows.store(job_id, raw_id, before, after)


def _freeze_parts(rows: JobRows, split: c.Split) -> None:
    """Bind the jobs of a batch that was split to its parts; not to one that has lost a job."""
    for batch, job_ids in split.parts:
        jobs = [rows.read(job_id) for job_id in job_ids]
        free = [job for job in jobs if job is not None and job.state == RETRYING and not job.batch]
        if len(free) < len(job_ids):
            continue
        members = [
            BatchMember(job_id, job.uid, job.version)
            for job_id, job in zip(job_ids, free, strict=True)
        ]
        rows.freeze(batch, BatchRow(split.format, split.body, members))
        for job_id, job in zip(job_ids, free, strict=True):
            rows.store(job_id, job_id.encode(), job, _replace(job, batch=batch))


def _settle_late(
    rows: JobRows,
    item: c.SettleItem,
    raw_id: bytes,
    before: JobRecord,
    now_ms: int,
    by_route: dict[int, list[tuple[str, int]]],
) -> None:
    """The outcome of an attempt that is not open: of an old version, given up, or told twice."""
    job_id = item.job_id
    if item.record:
        if before.uid != item.uid and read_attempt(item.record).fence <= before.born_index:
            return  # of a job that was purged
        known = rows.read_attempt(raw_id, before, item.serial)
        if known is None:
            route_uid = item.route_uid or before.route_uid
            by_route.setdefault(route_uid, []).append((job_id, item.serial))
        elif read_attempt(known).status != _UNKNOWN:
            # Told already. Since then the job may have been redriven, and must be sent once more.
            return
        attempt = _with_place(rows, before, item, now_ms)
        forgotten = rows.overlay.get(rows.keys.contents)
        if (
            known is not None
            and forgotten is not None
            and whole(before, read_attempt(known)).settled_ms < read_u64(forgotten)
        ):
            # It stands where it was given up, and nobody comes there any more.
            attempt = _encode(without_content(read_attempt(attempt)))
        rows.store_attempt(raw_id, before, item.serial, attempt)
    if (
        before.uid != item.uid
        or before.version != item.version
        or item.verdict != c.VERDICT_DELIVERED
        or item.attempt > before.attempts
        or before.state == DELIVERED
    ):
        return
    # An attempt that was given up as unknown did succeed.
    claim = before.claim
    if claim is None:
        after = events.delivered(rows, job_id, delivered(before, now_ms), now_ms)
        rows.store(job_id, raw_id, before, after)
    else:
        # A later one is under way, and is the last, however it ends.
        after = _replace(before, claim=_replace(claim, delivered=True))
        rows.store_mark(job_id, raw_id, after)


def _with_place(rows: JobRows, before: JobRecord, item: c.SettleItem, now_ms: int) -> bytes:
    """The encoded AttemptRecord of an attempt with what the job's row may not have any more."""
    attempt = read_attempt(item.record)
    same = before.uid == item.uid and before.version == item.version
    attempt = _replace(
        attempt,
        uid=item.uid,
        trigger_ms=before.trigger_ms if same else None,
        route=before.route if same else "",
        due_ms=attempt.due_ms or (before.trigger_ms if same else 0),
        settled_ms=now_ms,
        settled_term=rows.term,
    )
    return _encode(attempt)


def unclaim(rows: JobRows, command: c.Unclaim) -> None:
    """Take back claims whose sends never started."""
    for item in command.items:
        revoked = c.Revoked(item.uid, item.version, item.attempt, command.term)
        take_back(rows, item.job_id, revoked, command.now_ms)


def hand_over(rows: JobRows, command: c.Handover) -> None:
    """Mark open claims: their outcomes will be told by a node that does not lead any more."""
    for item in command.items:
        found = _open_claim(rows, item.job_id, item)
        if found is None:
            continue
        before, claim = found
        mark = _replace(claim, handed_over=True, deadline_ms=item.deadline_ms)
        rows.store_mark(item.job_id, item.job_id.encode(), _replace(before, claim=mark))


def take_back(rows: JobRows, job_id: str, revoked: c.Revoked, now_ms: int) -> None:
    """Undo a claim whose send never started.

    Comes first in whatever command carries it, because the leader has removed the send already,
    also if the command is then refused.
    """
    found = _open_claim(rows, job_id, revoked)
    if found is None:
        before = rows.read(job_id)
        if before is not None and _is_as_seen(before, revoked):
            # The claim did not hold, of a batch that was full: the leader has forgotten the job.
            rows.announce(job_id, before)
        return
    before, mark = found
    if revoked.term not in (0, mark.term):
        return
    if mark.delivered:
        after = events.delivered(rows, job_id, delivered(before, now_ms), now_ms)
    elif before.outcome is not None:
        # Deleted while claimed, and then never sent: nothing is left to wait for.
        after = cancelled(before, before.outcome, now_ms)
    else:
        after = unclaimed(before, mark)
        if after.batch and rows.batch(after.batch) is None:
            after = _replace(after, batch=b"")
    rows.store(job_id, job_id.encode(), before, after)


def _open_claim(
    rows: JobRows, job_id: str, attempt: c.ClaimItem | c.Revoked
) -> tuple[JobRecord, ClaimMark] | None:
    """The job and its claim, if that is the open one of just this attempt."""
    before = rows.read(job_id)
    if before is None:
        return None
    claim = before.claim
    if (
        claim is None
        or claim.attempt != attempt.attempt
        or before.version != attempt.version
        or before.uid != attempt.uid
    ):
        return None
    return before, claim
