"""What creators ask for: put, patch, delete, run and redrive a job, forget what was answered."""

from collections.abc import Callable
from functools import wraps
from typing import Final, TypeVar

import msgspec

from timemachine import codec, limits
from timemachine.model import JobRecord, Order
from timemachine.replica import commands as c
from timemachine.replica import placing
from timemachine.replica.answers import Answers, StoredAnswer
from timemachine.replica.claims import take_back
from timemachine.replica.records import read_attempt, read_job, without_content
from timemachine.replica.results import JobResult, refused
from timemachine.replica.rows import JobRows
from timemachine.replica.states import DEAD, DELIVERED, DUE, FIRING, SCHEDULED, TERMINAL
from timemachine.replica.transitions import deleted, next_version, reborn, redriven
from timemachine.smearing import first_due_ms

_STORED_META_BYTES_MAX: Final = 4096
_META_IN_ROW_BYTES_MAX: Final = 256
"""Each claim and each settle writes a job's row, and with it the meta that is in there."""

_replace = msgspec.structs.replace

Withdrawing = TypeVar("Withdrawing", bound=c.PatchJob | c.DeleteJob)
Asked = TypeVar(
    "Asked",
    bound=c.PatchJob | c.DeleteJob | c.RunJob | c.RedriveJob | c.ForgetContent,
)


def _in_row(meta: bytes) -> bytes | None:
    """A meta as the job's record has it: None where it gets a row of its own."""
    return meta if len(meta) <= _META_IN_ROW_BYTES_MAX else None


def _kept(result: JobResult) -> JobResult:
    """A result without a large meta, and without an attempt, whose answer may be forgotten."""
    if result.meta is not None and len(result.meta) > _STORED_META_BYTES_MAX:
        result = _replace(result, meta=None)
    record = result.record
    if record is not None and record.delivering:
        result = _replace(result, record=_replace(record, delivering=b""))
    return result


ANSWERS: Final = Answers[JobResult](codec.decoder(StoredAnswer[JobResult]), refused, _kept)


def _withdrawing(
    run: Callable[[JobRows, Withdrawing], JobResult],
) -> Callable[[JobRows, Withdrawing], JobResult]:
    """First take back the claim whose send the leader has removed for this command."""

    @wraps(run)
    def handler(rows: JobRows, command: Withdrawing) -> JobResult:
        if command.revoked is not None:
            take_back(rows, command.job_id, command.revoked, command.now_ms)
        return run(rows, command)

    return handler


def _once(run: Callable[[JobRows, Asked], JobResult]) -> Callable[[JobRows, Asked], JobResult]:
    """Do it once for each request; see `Answers.once`."""

    @wraps(run)
    def handler(rows: JobRows, command: Asked) -> JobResult:
        if command.request is None:
            return run(rows, command)
        return ANSWERS.once(rows, command.request, command, run)

    return handler


def put_job(rows: JobRows, command: c.PutJob) -> JobResult:
    """Create or replace a job."""
    # What the decorators of the others do, without their calls: this is on the path of every job.
    if command.revoked is not None:
        take_back(rows, command.job_id, command.revoked, command.now_ms)
    if command.ordering_key is not None and command.now_ms - command.placed_ms > limits.PLACED_MS:
        # Its alias may have been forgotten since, so no other request would find the job. Not kept
        # as an answer: who asks again has it placed anew.
        return refused("placed_too_long_ago")
    if command.request is None:
        return _put_job(rows, command)
    return ANSWERS.once(rows, command.request, command, _put_job)


def _put_job(rows: JobRows, command: c.PutJob) -> JobResult:
    job_id = command.job_id
    raw_id = job_id.encode()
    now_ms = command.now_ms
    before: JobRecord | None = None
    if rows.ids.add(raw_id) or not rows.ids.complete:
        data = rows.overlay.get(rows.keys.job + raw_id)
        before = None if data is None else read_job(data)
        if command.ordering_key is None and before is None and placing.alias_of(rows, raw_id):
            return refused("job_exists" if command.create_only else placing.TAKEN)
    if before is None:
        if command.if_match is not None:
            return refused("precondition_failed")
        # By position: a dozen keywords cost as much as the rest of this function.
        record = JobRecord(
            command.uid,
            1,
            SCHEDULED,
            command.trigger_ms,
            command.delay_ms,
            command.route,
            command.route_uid,
            command.tags,
            now_ms,
            now_ms,
            first_due_ms(command.trigger_ms, command.smear_ms),
            DUE,
            born_index=rows.index,
            meta=_in_row(command.meta),
            smear_ms=command.smear_ms,
            accepted_term=rows.term,
        )
        if command.ordering_key is not None:
            order = Order(command.ordering_key, rows.next_number())
            record = _replace(record, order=order)
        rows.create(job_id, raw_id, record, command.meta)
        return JobResult(kind="created", record=record)
    if command.create_only and command.uid == before.uid:
        # A node that did not hear that this was done has asked for it again.
        return JobResult(kind="created", record=_as_created(command, before))
    if command.if_none_match:
        return refused("precondition_failed", before)
    if command.if_match is not None and command.if_match != before.version:
        return refused("precondition_failed", before)
    if command.ordering_key != before.ordering_key:
        return refused("job_exists" if command.create_only else placing.TAKEN, before)
    if _same(rows, command, raw_id, before):
        return JobResult(kind="unchanged", record=before, replayed=command.create_only)
    if command.create_only:
        return refused("job_exists", before)
    record, previous = next_version(
        before,
        command.uid,
        now_ms,
        trigger_ms=command.trigger_ms,
        delay_ms=command.delay_ms,
        smear_ms=command.smear_ms,
        route=command.route,
        route_uid=command.route_uid,
        tags=command.tags,
        meta=_in_row(command.meta),
        term=rows.term,
    )
    if record.order is not None and record.uid == command.uid:
        # A new life, which stands behind what was made before it.
        record = _replace(record, order=Order(record.order.key, rows.next_number()))
    rows.store_meta(raw_id, before, record, command.meta)
    rows.store(job_id, raw_id, before, record)
    return JobResult(kind="replaced", record=record, previous=previous)


def _as_created(command: c.PutJob, now: JobRecord) -> JobRecord:
    """The job as the first answer to its creator told it, whatever it is now."""
    created_ms = now.created_ms
    trigger_ms = command.trigger_ms
    if command.delay_ms is not None:
        trigger_ms = created_ms + command.delay_ms  # the repeat may have begun it anew
    return JobRecord(
        command.uid,
        1,
        SCHEDULED,
        trigger_ms,
        command.delay_ms,
        command.route,
        command.route_uid,
        command.tags,
        created_ms,
        created_ms,
        first_due_ms(trigger_ms, command.smear_ms),
        DUE,
        born_index=now.born_index,
        meta=_in_row(command.meta),
        smear_ms=command.smear_ms,
        accepted_term=now.accepted_term,
        order=now.order,
    )


def _same(rows: JobRows, command: c.PutJob, raw_id: bytes, before: JobRecord) -> bool:
    """Whether the request asks for just what is stored."""
    if command.delay_ms is not None:
        # A delay starts anew on PUT; a POST repeats itself when its delay is the same.
        if not command.create_only or command.delay_ms != before.delay_ms:
            return False
    elif command.trigger_ms != before.trigger_ms:
        return False
    if command.route != before.route or command.tags != before.tags:
        return False
    # PUT binds a job anew; for a POST the name says it: its route may have come after the job.
    bound_anew = before.route_uid != command.route_uid and before.state not in TERMINAL
    if bound_anew and not command.create_only:
        return False
    return rows.read_meta(raw_id, before) == command.meta


@_withdrawing
@_once
def patch_job(rows: JobRows, command: c.PatchJob) -> JobResult:
    """Replace the given fields of a pending job."""
    job_id = command.job_id
    raw_id = job_id.encode()
    before = rows.read(job_id)
    if before is None:
        return refused("job_not_found")
    if command.if_match is not None and command.if_match != before.version:
        return refused("precondition_failed", before)
    if before.state in TERMINAL or before.outcome is not None:
        return refused("job_finished", before)
    stored_meta = rows.read_meta(raw_id, before)
    meta = stored_meta if command.meta is None else command.meta
    trigger_ms = before.trigger_ms if command.trigger_ms is None else command.trigger_ms
    route_uid = before.route_uid if command.route is None else command.route_uid
    tags = before.tags if command.tags is None else command.tags
    if (
        command.delay_ms is None
        and trigger_ms == before.trigger_ms
        and route_uid == before.route_uid
        and command.route in (None, before.route)
        and tags == before.tags
        and meta == stored_meta
    ):
        return JobResult(kind="unchanged", record=before, meta=stored_meta)
    record, previous = next_version(
        before,
        before.uid,
        command.now_ms,
        trigger_ms=trigger_ms,
        delay_ms=command.delay_ms if command.trigger_ms is not None else before.delay_ms,
        smear_ms=before.smear_ms if command.route is None else command.smear_ms,
        route=before.route if command.route is None else command.route,
        route_uid=route_uid,
        tags=tags,
        meta=_in_row(meta),
        term=rows.term,
    )
    if command.meta is not None:
        rows.store_meta(raw_id, before, record, meta)
    rows.store(job_id, raw_id, before, record)
    return JobResult(kind="changed", record=record, meta=meta, previous=previous)


@_withdrawing
@_once
def delete_job(rows: JobRows, command: c.DeleteJob) -> JobResult:
    """Cancel a job as far as it still can be; with `purge` forget it altogether."""
    job_id = command.job_id
    raw_id = job_id.encode()
    before = rows.read(job_id)
    if before is None:
        return refused("job_not_found")
    if command.if_match is not None and command.if_match != before.version:
        return refused("precondition_failed", before)
    meta = rows.read_meta(raw_id, before)
    record, outcome = deleted(before, command.now_ms)
    if record is not before:
        rows.store(job_id, raw_id, before, record)
    if command.purge:
        rows.erase(job_id, raw_id, record)
    return JobResult(kind="deleted", record=record, meta=meta, outcome=outcome)


@_once
def run_job(rows: JobRows, command: c.RunJob) -> JobResult:
    """Move the next attempt of a pending job to now; one that is due already stays where it is.

    Moved, it would be due later: by this clock, which may be ahead of that of who claims it.
    """
    job_id = command.job_id
    raw_id = job_id.encode()
    before = rows.read(job_id)
    if before is None:
        return refused("job_not_found")
    if before.state in TERMINAL:
        return refused("job_finished", before)
    meta = rows.read_meta(raw_id, before)
    if before.state == FIRING:
        return JobResult(kind="unchanged", record=before, meta=meta)
    due_ms = min(before.due_ms, command.now_ms)
    # Whatever batch it was in: it is sent now, and the others when they are due.
    record = _replace(before, due_ms=due_ms, queue=DUE, retry_reason="manual", batch=b"")
    rows.store(job_id, raw_id, before, record)
    return JobResult(kind="moved", record=record, meta=meta)


@_once
def redrive_job(rows: JobRows, command: c.RedriveJob) -> JobResult:
    """Fire a dead job again, with `force` a delivered one."""
    job_id = command.job_id
    raw_id = job_id.encode()
    before = rows.read(job_id)
    if before is None:
        return refused("job_not_found")
    if before.state == DELIVERED and not command.force:
        return refused("job_delivered", before)
    if before.state not in (DEAD, DELIVERED):
        return refused("job_not_dead", before)
    meta = rows.read_meta(raw_id, before)
    if command.uid:
        record, previous = reborn(before, command.uid, command.route_uid, command.now_ms, rows.term)
    else:
        record, previous = redriven(before, command.route_uid, command.now_ms), None
    rows.store(job_id, raw_id, before, record)
    return JobResult(kind="redriven", record=record, meta=meta, previous=previous)


@_once
def forget_content(rows: JobRows, command: c.ForgetContent) -> JobResult:
    """Remove what a recipient answered to one attempt, or to those of this number."""
    record = rows.read(command.job_id)
    if record is None:
        return refused("job_not_found")
    raw_id = command.job_id.encode()
    found = False
    for serial in range(1, record.serial + 1):
        data = rows.read_attempt(raw_id, record, serial)
        attempt = None if data is None else read_attempt(data)
        if (
            attempt is not None
            and attempt.attempt == command.attempt
            and command.version in (None, attempt.version)
        ):
            found = True
            emptied = _replace(without_content(attempt), content_removed=True)
            rows.store_attempt(raw_id, record, serial, codec.encode(emptied))
    return JobResult(kind="changed") if found else refused("attempt_not_found")
