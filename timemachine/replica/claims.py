"""The attempts of a job: claimed, settled, or taken back before they began."""

import msgspec

from timemachine import codec
from timemachine.model import ClaimMark
from timemachine.replica import commands as c
from timemachine.replica.records import read_attempt, read_job
from timemachine.replica.results import ClaimResult
from timemachine.replica.rows import JobRows
from timemachine.replica.states import CLAIMABLE, DELIVERED, FIRING
from timemachine.replica.transitions import cancelled, delivered, settled, unclaimed
from timemachine.storage.keys import u32, u64

_encode = codec.encode
_replace = msgspec.structs.replace


def claim(rows: JobRows, command: c.Claim) -> list[ClaimResult]:
    """Commit the intent of attempts; void for a job that is not exactly as the leader saw it.

    At most one claim of a (uid, version, attempt) ever holds.
    """
    results = []
    now_ms = command.now_ms
    in_term = command.term == rows.term
    for item in command.items:
        raw_id = item.job_id.encode()
        data = rows.overlay.get(rows.keys.job + raw_id)
        before = None if data is None else read_job(data)
        if (
            not in_term
            or before is None
            or before.uid != item.uid
            or before.version != item.version
            or before.attempts + 1 != item.attempt
            or before.state not in CLAIMABLE
        ):
            results.append(ClaimResult(False, before))
            continue
        serial = before.serial + 1
        record = _replace(
            before,
            state=FIRING,
            attempts=item.attempt,
            serial=serial,
            first_claim_ms=before.first_claim_ms or now_ms,
            claim=ClaimMark(
                command.term,
                rows.index,
                item.attempt,
                serial,
                now_ms,
                item.deadline_ms,
                before.state,
            ),
        )
        rows.store_claimed(item.job_id, raw_id, before, record)
        results.append(ClaimResult(True, record))
    return results


def settle(rows: JobRows, command: c.Settle) -> None:
    """Commit the outcomes of attempts, and list those that are kept with their routes."""
    by_route: dict[int, list[tuple[str, int]]] = {}
    for item in command.items:
        _settle_one(rows, item, command.now_ms, by_route)
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
    if item.record and (
        before.uid == item.uid or read_attempt(item.record).fence > before.born_index
    ):
        rows.overlay.put(rows.keys.attempts + raw_id + b"\0" + u32(item.serial), item.record)
        # Not before.route_uid alone: the job may have been given another one meanwhile.
        route_uid = item.route_uid or before.route_uid
        by_route.setdefault(route_uid, []).append((job_id, item.serial))
    if before.uid != item.uid or before.version != item.version:
        return
    if before.claim is not None and before.claim.attempt == item.attempt:
        rows.store(job_id, raw_id, before, settled(before, item, now_ms))
    elif (
        item.verdict == c.VERDICT_DELIVERED
        and before.state not in (FIRING, DELIVERED)
        and item.attempt <= before.attempts
    ):
        # An attempt that was given up as unknown did succeed, and no later one is under way.
        rows.store(job_id, raw_id, before, delivered(before, now_ms))


def unclaim(rows: JobRows, command: c.Unclaim) -> None:
    """Take back claims whose sends never started."""
    for item in command.items:
        revoked = c.Revoked(item.uid, item.version, item.attempt)
        take_back(rows, item.job_id, revoked, command.now_ms)


def take_back(rows: JobRows, job_id: str, revoked: c.Revoked, now_ms: int) -> None:
    """Undo a claim whose send never started.

    Comes first in whatever command carries it, because the leader has removed the send already,
    also if the command is then refused.
    """
    before = rows.read(job_id)
    if before is None:
        return
    mark = before.claim
    if (
        mark is None
        or before.uid != revoked.uid
        or before.version != revoked.version
        or mark.attempt != revoked.attempt
    ):
        return
    if before.outcome is not None:
        # Deleted while claimed, and then never sent: nothing is left to wait for.
        after = cancelled(before, before.outcome, now_ms)
    else:
        after = unclaimed(before, mark)
    rows.store(job_id, job_id.encode(), before, after)
