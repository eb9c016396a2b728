"""The job machine: the sole writer of job state, a pure function of the log.

`apply` takes one log entry's commands and writes, through the overlay, every row that follows
from them. It asks nothing of the world: no clock (commands carry `now_ms`), no dice (they carry
uids), no meta state (they carry route uids). The same log gives the same rows on every replica,
byte for byte.

Invariants, each asserted here or held by a property test against a dumb twin:

* a job moves only along `model.JOB_TRANSITIONS`;
* every pending job stands in exactly one of the due and the waiting index, every other in none;
* every job stands exactly once in the listing by state (while firing under the state it was
  claimed from), in the listing by route, and in the listing by tag for each of its tags;
* no row of the due index lies below the offset;
* the counters equal what a count of the rows would give, those of due jobs as far as they cover;
* at most one claim of a (uid, version, attempt) ever holds.

The offset needs care, because the leader that raises it looks at an older state than the one its
command is applied to. `MoveOffset` says which index the leader had seen (`seen_index`). Inserts
applied since the last `MoveOffset` lower the bound to which this one can raise, unless the leader
had seen them all. So an insert can never be skipped, whatever a leader believes.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from timemachine import codec, limits
from timemachine.errors import ReplicaStopped
from timemachine.model import (
    ALLOWED_MOVES,
    AttemptRecord,
    ClaimMark,
    DeadReason,
    JobRecord,
    JobState,
    Queue,
)
from timemachine.replica import commands as c
from timemachine.replica.duecounts import DueCounts
from timemachine.replica.idfilter import IdFilter
from timemachine.replica.results import (
    BulkProgress,
    ClaimResult,
    DueInserted,
    Effect,
    JobResult,
    JobTouched,
    StoredAnswer,
    WaitingFreed,
)
from timemachine.storage.keys import ReplicaKeys, due_value, read_u64, u32, u64
from timemachine.storage.overlay import Overlay

_SCHEDULED = int(JobState.SCHEDULED)
_FIRING = int(JobState.FIRING)
_RETRYING = int(JobState.RETRYING)
_HELD = int(JobState.HELD)
_DELIVERED = int(JobState.DELIVERED)
_DEAD = int(JobState.DEAD)
_CANCELLED = int(JobState.CANCELLED)
_SCHEDULED_BYTE = bytes((_SCHEDULED,))
_CLAIMABLE = (_SCHEDULED, _RETRYING, _HELD)
_TERMINAL = (_DELIVERED, _DEAD, _CANCELLED)
_MOVES = frozenset((-1 if a is None else int(a), int(b)) for a, b in ALLOWED_MOVES)
_NO_QUEUE = int(Queue.NONE)
_DUE = int(Queue.DUE)
_WAITING = int(Queue.WAITING)
_NEVER_MS = 1 << 62
_STORED_META_BYTES_MAX = 4096

_encode = codec.encode
_replace = msgspec.structs.replace


class MachineState(msgspec.Struct, array_like=True):
    """What a machine remembers beside its rows; written with every batch that changes it."""

    applied_index: int = 0
    applied_term: int = 0
    offset_due_ms: int = 0
    offset_job_id: str = ""
    low_due_ms: int = _NEVER_MS
    low_index: int = 0
    floor_index: int = 0
    counts: list[int] = msgspec.field(default_factory=lambda: [0] * len(JobState))
    requests: int = 0


class RouteCounts(msgspec.Struct, array_like=True):
    """Jobs of one route in one vnode: pending ones, and those of them in the waiting index."""

    pending: int = 0
    waiting: int = 0


read_job: Callable[[bytes], JobRecord] = codec.decoder(JobRecord)
read_attempt: Callable[[bytes], AttemptRecord] = codec.decoder(AttemptRecord)
_read_state = codec.decoder(MachineState)
_read_counts = codec.decoder(RouteCounts)
_read_answer = codec.decoder(StoredAnswer)
read_progress: Callable[[bytes], BulkProgress] = codec.decoder(BulkProgress)
read_commands: Callable[[bytes], list[c.AnyCommand]] = codec.decoder(list[c.AnyCommand])


def refused(code: str, record: JobRecord | None = None) -> JobResult:
    """An answer that changes nothing."""
    return JobResult(kind="refused", code=code, record=record)


def _queue_value(record: JobRecord) -> bytes:
    # While a claim is open the row keeps the number of attempts that are settled, so that
    # neither the claim nor its withdrawal touches the index.
    attempts = record.attempts if record.claim is None else record.attempts - 1
    return due_value(record.route_uid, record.version, attempts, record.uid)


class JobMachine:
    """The state machine of one vnode. See the module's docstring for its invariants."""

    assert (-1, _SCHEDULED) in _MOVES, "jobs begin as scheduled"

    def __init__(self, keys: ReplicaKeys, overlay: Overlay) -> None:
        self.keys = keys
        self.overlay = overlay
        self.state = MachineState()
        self.routes: dict[int, RouteCounts] = {}
        self._open: dict[str, JobRecord] = {}
        self.ids = IdFilter(complete=False)
        self.due_counts = DueCounts(complete=False)
        self.effects: list[Effect] = []
        self._touched_routes: set[int] = set()
        self._index = 0
        self._term = 0
        self._settles = 0
        self._handlers: dict[type, Callable[[Any], Any]] = {
            c.PutJob: self._put_job,
            c.PatchJob: self._patch_job,
            c.DeleteJob: self._delete_job,
            c.RunJob: self._run_job,
            c.RedriveJob: self._redrive_job,
            c.Claim: self._claim,
            c.Settle: self._settle,
            c.Unclaim: self._unclaim,
            c.Wait: self._wait,
            c.Release: self._release,
            c.GiveUp: self._give_up,
            c.MoveOffset: self._move_offset,
            c.Purge: self._purge,
            c.Forget: self._forget,
            c.Bulk: self._bulk,
            c.BulkForget: self._bulk_forget,
            c.ForgetContent: self._forget_content,
        }

    # --- life ------------------------------------------------------------------------------

    def load(self, state: bytes | None, route_rows: list[tuple[bytes, bytes]]) -> None:
        """Take up the stored state: the machine's row and the rows of the route counters.

        Until `ids` is filled from the job rows and called complete, every create looks for its id
        in the store. Likewise `due_counts` is to be filled from the due index.
        """
        self.state = _read_state(state) if state is not None else MachineState()
        self.ids = IdFilter(complete=state is None)
        self.due_counts = DueCounts(complete=state is None)
        start = len(self.keys.route_counters)
        self.routes = {read_u64(key[start:]): _read_counts(value) for key, value in route_rows}

    @property
    def applied_index(self) -> int:
        """Index of the last entry applied."""
        return self.state.applied_index

    def apply(self, index: int, term: int, data: bytes, batch: list[Any] | None) -> list[Any]:
        """Apply one entry; returns one result per command.

        `batch` is the decoded form of `data`, where the caller still has it (it proposed the
        entry itself); otherwise it is decoded here. Raises ReplicaStopped for an entry that is out
        of order or holds what this version does not know.
        """
        state = self.state
        if index != state.applied_index + 1:
            raise ReplicaStopped(f"entry {index} does not follow {state.applied_index}")
        self._index = index
        self._term = term
        self._settles = 0
        if batch is None:
            batch = read_commands(data) if data else []
        handlers = self._handlers
        results = [handlers[type(command)](command) for command in batch]
        state.applied_index = index
        state.applied_term = term
        return results

    def flush(self) -> None:
        """Write what changed beside the job rows: once per batch, after its last `apply`."""
        put = self.overlay.put
        put(self.keys.state, _encode(self.state))
        for route_uid in self._touched_routes:
            counts = self.routes[route_uid]
            key = self.keys.route_counters + u64(route_uid)
            if counts.pending or counts.waiting:
                put(key, _encode(counts))
            else:
                del self.routes[route_uid]
                self.overlay.delete(key)
        self._touched_routes.clear()

    def take_effects(self) -> list[Effect]:
        """What the leader's delivery must know, since the last call; valid once durable."""
        effects, self.effects = self.effects, []
        return effects

    # --- rows ------------------------------------------------------------------------------

    def read(self, job_id: str) -> JobRecord | None:
        """The job as the log has it so far, durable or not."""
        data = self.overlay.get(self.keys.job + job_id.encode())
        return None if data is None else read_job(data)

    def _create(self, job_id: str, raw_id: bytes, record: JobRecord, meta: bytes) -> None:
        """Write the rows of a job that was not there."""
        keys = self.keys
        trigger = u64(record.trigger_ms)
        due_row = _queue_value(record)
        self.overlay.put_all(
            {
                keys.job + raw_id: _encode(record),
                keys.meta + raw_id: meta,
                keys.due + trigger + raw_id: due_row,
                keys.state_listing + _SCHEDULED_BYTE + trigger + raw_id: b"",
                keys.route + u64(record.route_uid) + trigger + raw_id: b"",
            }
        )
        if record.tags:
            self._list_tags(raw_id, record)
        self.due_counts.add(record.due_ms, raw_id)
        self.state.counts[_SCHEDULED] += 1
        self._count_route(record.route_uid, 1, 0)
        self._announce(job_id, record, due_row)

    def _list_tags(self, raw_id: bytes, record: JobRecord) -> None:
        for tag in record.tags:
            start, _ = self.keys.tag_range(tag)
            self.overlay.put(start + u64(record.trigger_ms) + raw_id, b"")

    def _unlist_tags(self, raw_id: bytes, record: JobRecord) -> None:
        for tag in record.tags:
            start, _ = self.keys.tag_range(tag)
            self.overlay.delete(start + u64(record.trigger_ms) + raw_id)

    def _store(self, job_id: str, raw_id: bytes, before: JobRecord, after: JobRecord) -> None:
        """Write a job and every index row that differs from before."""
        keys = self.keys
        overlay = self.overlay
        put = overlay.put
        state = after.state
        put(keys.job + raw_id, _encode(after))
        new_place = after.claim.prior if after.claim is not None else state
        trigger = u64(after.trigger_ms)
        route_uid = after.route_uid
        pending = 0 if state in _TERMINAL else 1
        waiting = 1 if after.queue == _WAITING else 0
        old_state = before.state
        if old_state != state:
            assert (old_state, state) in _MOVES, f"a job cannot move {old_state} -> {state}"
            counts = self.state.counts
            counts[old_state] -= 1
            counts[state] += 1
            if old_state == _FIRING:
                self._open.pop(job_id, None)
        old_place = before.claim.prior if before.claim is not None else old_state
        moved = before.trigger_ms != after.trigger_ms
        if moved or old_place != new_place:
            old_trigger = u64(before.trigger_ms)
            overlay.delete(keys.state_listing + bytes((old_place,)) + old_trigger + raw_id)
            put(keys.state_listing + bytes((new_place,)) + trigger + raw_id, b"")
        if moved or before.route_uid != route_uid:
            old_trigger = u64(before.trigger_ms)
            overlay.delete(keys.route + u64(before.route_uid) + old_trigger + raw_id)
            put(keys.route + u64(route_uid) + trigger + raw_id, b"")
        if moved or before.tags != after.tags:
            self._unlist_tags(raw_id, before)
            self._list_tags(raw_id, after)
        was_pending = 0 if old_state in _TERMINAL else 1
        was_waiting = 1 if before.queue == _WAITING else 0
        if before.route_uid != route_uid:
            self._count_route(before.route_uid, -was_pending, -was_waiting)
            self._count_route(route_uid, pending, waiting)
        elif was_pending != pending or was_waiting != waiting:
            self._count_route(route_uid, pending - was_pending, waiting - was_waiting)
        if before.finished_ms != after.finished_ms:
            if before.finished_ms:
                overlay.delete(keys.finished + u64(before.finished_ms) + raw_id)
            if after.finished_ms:
                put(keys.finished + u64(after.finished_ms) + raw_id, b"")
        if state == _FIRING:
            self._open[job_id] = after
        self._queue(job_id, raw_id, before, after)

    def _store_claimed(
        self, job_id: str, raw_id: bytes, before: JobRecord, after: JobRecord
    ) -> None:
        """What `_store` does for a claim: it leaves every index as it was."""
        state = before.state
        assert (state, _FIRING) in _MOVES, f"a job cannot move {state} -> {_FIRING}"
        counts = self.state.counts
        counts[state] -= 1
        counts[_FIRING] += 1
        self._open[job_id] = after
        self.overlay.put(self.keys.job + raw_id, _encode(after))

    def _queue(self, job_id: str, raw_id: bytes, before: JobRecord, after: JobRecord) -> None:
        """Keep the due and the waiting index in step, and tell the delivery."""
        if not after.queue:
            if before.queue:
                self._leave_queue(raw_id, before)
                self.effects.append(JobTouched(job_id))
            return
        new_key = self._queue_key(raw_id, after)
        new_value = _queue_value(after)
        if before.queue:
            old_key = self._queue_key(raw_id, before)
            if old_key == new_key and _queue_value(before) == new_value:
                # An un-claimed job: its row never left, but the delivery forgot about it.
                if before.state == _FIRING and after.queue == _WAITING:
                    self.effects.append(WaitingFreed(after.due_ms, job_id, new_value))
                elif before.state == _FIRING:
                    self._announce(job_id, after, new_value)
                return
            if old_key != new_key:
                self._leave_queue(raw_id, before)
        if after.queue == _DUE and (before.queue != _DUE or before.due_ms != after.due_ms):
            self.due_counts.add(after.due_ms, raw_id)
        self.effects.append(JobTouched(job_id))
        self.overlay.put(new_key, new_value)
        self._announce(job_id, after, new_value)

    def _leave_queue(self, raw_id: bytes, before: JobRecord) -> None:
        self.overlay.delete(self._queue_key(raw_id, before))
        if before.queue == _DUE:
            self.due_counts.remove(before.due_ms, raw_id)

    def _announce(self, job_id: str, after: JobRecord, value: bytes) -> None:
        if after.queue != _DUE:
            return
        state = self.state
        due_ms = after.due_ms
        if due_ms < state.low_due_ms:
            state.low_due_ms = due_ms
        state.low_index = self._index
        if due_ms < state.offset_due_ms or (
            due_ms == state.offset_due_ms and job_id < state.offset_job_id
        ):
            state.offset_due_ms = due_ms
            state.offset_job_id = job_id
        self.effects.append(DueInserted(due_ms, job_id, value))

    def _queue_key(self, raw_id: bytes, record: JobRecord) -> bytes:
        if record.queue == _DUE:
            return self.keys.due + u64(record.due_ms) + raw_id
        return self.keys.waiting + u64(record.route_uid) + u64(record.due_ms) + raw_id

    def _count_route(self, route_uid: int, pending: int, waiting: int) -> None:
        counts = self.routes.get(route_uid)
        if counts is None:
            counts = self.routes[route_uid] = RouteCounts()
        counts.pending += pending
        counts.waiting += waiting
        self._touched_routes.add(route_uid)

    # --- requests of creators --------------------------------------------------------------

    def _repeat(self, request: c.Request | None, now_ms: int) -> JobResult | None:
        """The stored answer of the same request, a refusal of a reused key, or None."""
        if request is None:
            return None
        data = self.overlay.get(self.keys.request + request.key)
        if data is None:
            return None
        stored: StoredAnswer = _read_answer(data)
        if stored.expires_ms <= now_ms:
            self._forget_request(stored.expires_ms, request.key)
            return None
        if stored.fingerprint != request.fingerprint:
            return refused("idempotency_key_reused")
        return _replace(stored.result, replayed=True)

    def _answer(self, request: c.Request | None, now_ms: int, result: JobResult) -> JobResult:
        """Keep the answer for repeats of its request."""
        if request is None:
            return result
        expires_ms = now_ms + limits.REQUESTS_KEPT_MS
        kept = result
        if result.meta is not None and len(result.meta) > _STORED_META_BYTES_MAX:
            kept = _replace(result, meta=None)
        answer = StoredAnswer(request.fingerprint, expires_ms, kept)
        self.overlay.put(self.keys.request + request.key, _encode(answer))
        self.overlay.put(self.keys.request_age + u64(expires_ms) + request.key, b"")
        self.state.requests += 1
        return result

    def _forget_request(self, expires_ms: int, key: bytes) -> None:
        self.overlay.delete(self.keys.request + key)
        self.overlay.delete(self.keys.request_age + u64(expires_ms) + key)
        self.state.requests -= 1

    def _put_job(self, command: c.PutJob) -> JobResult:
        now_ms = command.now_ms
        self._take_back(command.job_id, command.revoked, now_ms)
        if command.request is not None:
            repeat = self._repeat(command.request, now_ms)
            if repeat is not None:
                return repeat
        raw_id = command.job_id.encode()
        before: JobRecord | None = None
        if self.ids.add(raw_id) or not self.ids.complete:
            data = self.overlay.get(self.keys.job + raw_id)
            before = None if data is None else read_job(data)
        result = self._put(command, raw_id, before)
        if command.request is not None:
            self._answer(command.request, now_ms, result)
        return result

    def _put(self, command: c.PutJob, raw_id: bytes, before: JobRecord | None) -> JobResult:
        job_id = command.job_id
        now_ms = command.now_ms
        if before is None:
            if command.if_match is not None:
                return refused("precondition_failed")
            # By position: a dozen keywords cost as much as the rest of this function.
            record = JobRecord(
                command.uid,
                1,
                _SCHEDULED,
                command.trigger_ms,
                command.delay_ms,
                command.route,
                command.route_uid,
                command.tags,
                now_ms,
                now_ms,
                command.trigger_ms,
                _DUE,
                born_index=self._index,
            )
            self._create(job_id, raw_id, record, command.meta)
            return JobResult(kind="created", record=record)
        if command.if_none_match:
            return refused("precondition_failed", before)
        if command.if_match is not None and command.if_match != before.version:
            return refused("precondition_failed", before)
        if self._same(command, raw_id, before):
            return JobResult(kind="unchanged", record=before, replayed=command.create_only)
        if command.create_only:
            return refused("job_exists", before)
        record, previous = self._next_version(
            before,
            command.uid,
            now_ms,
            trigger_ms=command.trigger_ms,
            delay_ms=command.delay_ms,
            route=command.route,
            route_uid=command.route_uid,
            tags=command.tags,
        )
        self.overlay.put(self.keys.meta + raw_id, command.meta)
        self._store(job_id, raw_id, before, record)
        return JobResult(kind="replaced", record=record, previous=previous)

    def _same(self, command: c.PutJob, raw_id: bytes, before: JobRecord) -> bool:
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
        bound_anew = before.route_uid != command.route_uid and before.state not in _TERMINAL
        if bound_anew and not command.create_only:
            return False
        return self.overlay.get(self.keys.meta + raw_id) == command.meta

    def _next_version(
        self,
        before: JobRecord,
        uid: bytes,
        now_ms: int,
        *,
        trigger_ms: int,
        delay_ms: int | None,
        route: str,
        route_uid: int,
        tags: tuple[str, ...],
    ) -> tuple[JobRecord, tuple[int, str]]:
        """The changed job, and what became of the version it replaces.

        A terminal job, and one that was deleted while a send was under way, starts a new life.
        """
        new_life = before.state in _TERMINAL or before.outcome is not None
        if before.state == _FIRING:
            outcome = "in_flight"
        elif before.state == _DELIVERED:
            outcome = "already_delivered"
        else:
            outcome = "replaced"
        record = JobRecord(
            uid=uid if new_life else before.uid,
            version=before.version + 1,
            state=_SCHEDULED,
            trigger_ms=trigger_ms,
            delay_ms=delay_ms,
            route=route,
            route_uid=route_uid,
            tags=tags,
            created_ms=now_ms if new_life else before.created_ms,
            updated_ms=now_ms,
            due_ms=trigger_ms,
            queue=_DUE,
            serial=before.serial,
            born_index=before.born_index,
        )
        return record, (before.version, outcome)

    def _patch_job(self, command: c.PatchJob) -> JobResult:
        self._take_back(command.job_id, command.revoked, command.now_ms)
        repeat = self._repeat(command.request, command.now_ms)
        if repeat is not None:
            return repeat
        return self._answer(command.request, command.now_ms, self._patch(command))

    def _patch(self, command: c.PatchJob) -> JobResult:
        job_id = command.job_id
        raw_id = job_id.encode()
        before = self.read(job_id)
        if before is None:
            return refused("job_not_found")
        if command.if_match is not None and command.if_match != before.version:
            return refused("precondition_failed", before)
        if before.state in _TERMINAL or before.outcome is not None:
            return refused("job_finished", before)
        stored_meta = self.overlay.get(self.keys.meta + raw_id) or b""
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
        record, previous = self._next_version(
            before,
            before.uid,
            command.now_ms,
            trigger_ms=trigger_ms,
            delay_ms=command.delay_ms if command.trigger_ms is not None else before.delay_ms,
            route=before.route if command.route is None else command.route,
            route_uid=route_uid,
            tags=tags,
        )
        if command.meta is not None:
            self.overlay.put(self.keys.meta + raw_id, meta)
        self._store(job_id, raw_id, before, record)
        return JobResult(kind="changed", record=record, meta=meta, previous=previous)

    def _delete_job(self, command: c.DeleteJob) -> JobResult:
        self._take_back(command.job_id, command.revoked, command.now_ms)
        repeat = self._repeat(command.request, command.now_ms)
        if repeat is not None:
            return repeat
        return self._answer(command.request, command.now_ms, self._delete(command))

    def _delete(self, command: c.DeleteJob) -> JobResult:
        job_id = command.job_id
        raw_id = job_id.encode()
        before = self.read(job_id)
        if before is None:
            return refused("job_not_found")
        if command.if_match is not None and command.if_match != before.version:
            return refused("precondition_failed", before)
        meta = self.overlay.get(self.keys.meta + raw_id)
        record, outcome = self._cancel(job_id, raw_id, before, command.now_ms)
        if command.purge:
            self._erase(job_id, raw_id, record)
        return JobResult(kind="deleted", record=record, meta=meta, outcome=outcome)

    def _cancel(
        self, job_id: str, raw_id: bytes, before: JobRecord, now_ms: int
    ) -> tuple[JobRecord, str]:
        """Delete a job as far as it still can be: (the job, the outcome)."""
        if before.outcome is not None:
            return before, before.outcome
        if before.state == _DELIVERED:
            return before, "already_delivered"
        if before.state == _DEAD:
            return before, "already_dead"
        if before.state == _FIRING:
            outcome = "in_flight"
            record = _replace(before, outcome=outcome, updated_ms=now_ms)
        else:
            outcome = "cancelled"
            record = self._cancelled(before, now_ms, outcome)
        self._store(job_id, raw_id, before, record)
        return record, outcome

    def _cancelled(self, before: JobRecord, now_ms: int, outcome: str) -> JobRecord:
        return _replace(
            before,
            state=_CANCELLED,
            queue=_NO_QUEUE,
            due_ms=0,
            claim=None,
            outcome=outcome,
            updated_ms=now_ms,
            finished_ms=now_ms,
            retry_reason=None,
        )

    def _run_job(self, command: c.RunJob) -> JobResult:
        repeat = self._repeat(command.request, command.now_ms)
        if repeat is not None:
            return repeat
        return self._answer(command.request, command.now_ms, self._run(command))

    def _run(self, command: c.RunJob) -> JobResult:
        job_id = command.job_id
        raw_id = job_id.encode()
        before = self.read(job_id)
        if before is None:
            return refused("job_not_found")
        if before.state in _TERMINAL:
            return refused("job_finished", before)
        meta = self.overlay.get(self.keys.meta + raw_id)
        if before.state == _FIRING:
            return JobResult(kind="unchanged", record=before, meta=meta)
        record = _replace(before, due_ms=command.now_ms, queue=_DUE, retry_reason="manual")
        self._store(job_id, raw_id, before, record)
        return JobResult(kind="moved", record=record, meta=meta)

    def _redrive_job(self, command: c.RedriveJob) -> JobResult:
        repeat = self._repeat(command.request, command.now_ms)
        if repeat is not None:
            return repeat
        return self._answer(command.request, command.now_ms, self._redrive(command))

    def _redrive(self, command: c.RedriveJob) -> JobResult:
        job_id = command.job_id
        raw_id = job_id.encode()
        before = self.read(job_id)
        if before is None:
            return refused("job_not_found")
        if before.state == _DELIVERED and not command.force:
            return refused("job_delivered", before)
        if before.state not in (_DEAD, _DELIVERED):
            return refused("job_not_dead", before)
        meta = self.overlay.get(self.keys.meta + raw_id)
        record = self._redriven(before, command.route_uid, command.now_ms)
        self._store(job_id, raw_id, before, record)
        return JobResult(kind="redriven", record=record, meta=meta)

    def _redriven(self, before: JobRecord, route_uid: int, now_ms: int) -> JobRecord:
        return _replace(
            before,
            state=_SCHEDULED,
            route_uid=route_uid,
            due_ms=now_ms,
            queue=_DUE,
            tries=0,
            first_claim_ms=0,
            reason=None,
            outcome=None,
            finished_ms=0,
            retry_reason="redrive",
        )

    # --- many at once ----------------------------------------------------------------------

    def _bulk(self, command: c.Bulk) -> BulkProgress:
        now_ms = command.now_ms
        for item in command.items:
            self._take_back(item.job_id, item.revoked, now_ms)
        key = self.keys.task + command.task.encode()
        data = self.overlay.get(key)
        progress = BulkProgress() if data is None else read_progress(data)
        if progress.cursor != command.after:
            return progress
        counts = dict(progress.counts)
        for item in command.items:
            outcome = self._bulk_one(command, item)
            counts[outcome] = counts.get(outcome, 0) + 1
        progress = BulkProgress(command.cursor, counts)
        self.overlay.put(key, _encode(progress))
        return progress

    def _bulk_one(self, command: c.Bulk, item: c.BulkItem) -> str:
        job_id = item.job_id
        raw_id = job_id.encode()
        before = self.read(job_id)
        if before is None or before.uid != item.uid or before.version != item.version:
            return "skipped"
        now_ms = command.now_ms
        if command.kind == c.BULK_REDRIVE:
            if before.state != _DEAD:
                return "skipped"
            self._store(job_id, raw_id, before, self._redriven(before, command.route_uid, now_ms))
            return "redriven"
        if before.state in _TERMINAL or before.outcome is not None:
            return "skipped"
        if command.kind == c.BULK_CANCEL:
            return self._cancel(job_id, raw_id, before, now_ms)[1]
        trigger_ms = command.trigger_ms
        if trigger_ms is None:
            trigger_ms = before.trigger_ms + command.shift_ms
        if trigger_ms == before.trigger_ms and before.state == _SCHEDULED:
            return "unchanged"
        if not 0 <= trigger_ms <= limits.TIME_MS_MAX:
            return "skipped"
        record, (_, outcome) = self._next_version(
            before,
            before.uid,
            now_ms,
            trigger_ms=trigger_ms,
            delay_ms=None,
            route=before.route,
            route_uid=before.route_uid,
            tags=before.tags,
        )
        self._store(job_id, raw_id, before, record)
        return "rescheduled" if outcome == "replaced" else outcome

    def _bulk_forget(self, command: c.BulkForget) -> None:
        self.overlay.delete(self.keys.task + command.task.encode())

    # --- firing ----------------------------------------------------------------------------

    def _claim(self, command: c.Claim) -> list[ClaimResult]:
        results = []
        now_ms = command.now_ms
        in_term = command.term == self._term
        for item in command.items:
            raw_id = item.job_id.encode()
            data = self.overlay.get(self.keys.job + raw_id)
            before = None if data is None else read_job(data)
            if (
                not in_term
                or before is None
                or before.uid != item.uid
                or before.version != item.version
                or before.attempts + 1 != item.attempt
                or before.state not in _CLAIMABLE
            ):
                results.append(ClaimResult(False, before))
                continue
            serial = before.serial + 1
            record = _replace(
                before,
                state=_FIRING,
                attempts=item.attempt,
                serial=serial,
                first_claim_ms=before.first_claim_ms or now_ms,
                claim=ClaimMark(
                    command.term,
                    self._index,
                    item.attempt,
                    serial,
                    now_ms,
                    item.deadline_ms,
                    before.state,
                ),
            )
            self._store_claimed(item.job_id, raw_id, before, record)
            results.append(ClaimResult(True, record))
        return results

    def _settle(self, command: c.Settle) -> None:
        by_route: dict[int, list[tuple[str, int]]] = {}
        for item in command.items:
            self._settle_one(item, command.now_ms, by_route)
        # One row for all of them: a row for each would be paid by each job that is fired.
        number = u64(command.now_ms) + u64(self._index) + u32(self._settles)
        self._settles += 1
        for route_uid, attempts in by_route.items():
            key = self.keys.route_attempts + u64(route_uid) + number
            self.overlay.put(key, _encode(attempts))

    def _settle_one(
        self, item: c.SettleItem, now_ms: int, by_route: dict[int, list[tuple[str, int]]]
    ) -> None:
        job_id = item.job_id
        raw_id = job_id.encode()
        before = self._open.get(job_id) or self.read(job_id)
        if before is None:
            return
        if item.record and (
            before.uid == item.uid or read_attempt(item.record).fence > before.born_index
        ):
            self.overlay.put(self.keys.attempts + raw_id + b"\0" + u32(item.serial), item.record)
            # Not before.route_uid alone: the job may have been given another one meanwhile.
            route_uid = item.route_uid or before.route_uid
            by_route.setdefault(route_uid, []).append((job_id, item.serial))
        if before.uid != item.uid or before.version != item.version:
            return
        if before.claim is not None and before.claim.attempt == item.attempt:
            self._store(job_id, raw_id, before, self._settled(before, item, now_ms))
        elif (
            item.verdict == c.VERDICT_DELIVERED
            and before.state not in (_FIRING, _DELIVERED)
            and item.attempt <= before.attempts
        ):
            # An attempt that was given up as unknown did succeed, and no later one is under way.
            self._store(job_id, raw_id, before, self._delivered(before, now_ms))

    def _delivered(self, before: JobRecord, now_ms: int) -> JobRecord:
        return _replace(
            before,
            state=_DELIVERED,
            queue=_NO_QUEUE,
            due_ms=0,
            claim=None,
            reason=None,
            last_error=None,
            retry_reason=None,
            finished_ms=now_ms,
        )

    def _settled(self, before: JobRecord, item: c.SettleItem, now_ms: int) -> JobRecord:
        if item.verdict == c.VERDICT_DELIVERED:
            return self._delivered(before, now_ms)
        tries = before.tries + 1 if item.counts else before.tries
        if before.outcome is not None:
            cancelled = self._cancelled(before, now_ms, before.outcome)
            return _replace(cancelled, tries=tries, last_error=item.error)
        if item.verdict == c.VERDICT_DEAD:
            return _replace(
                before,
                state=_DEAD,
                queue=_NO_QUEUE,
                due_ms=0,
                claim=None,
                tries=tries,
                reason=item.reason or DeadReason.EXHAUSTED.value,
                last_error=item.error,
                retry_reason=None,
                finished_ms=now_ms,
            )
        return _replace(
            before,
            state=_RETRYING,
            queue=_DUE,
            # An attempt is claimed a little ahead; when it turns out that it never began (an orphan
            # of a crash, a clock that went back), the next one still waits for the job's time.
            due_ms=max(item.retry_ms, min(before.due_ms, before.trigger_ms)),
            claim=None,
            tries=tries,
            last_error=item.error,
            retry_reason=item.reason,
        )

    def _unclaimed(self, before: JobRecord, claim: ClaimMark) -> JobRecord:
        first = claim.attempt == 1 or before.tries == 0
        return _replace(
            before,
            state=claim.prior,
            attempts=before.attempts - 1,
            serial=before.serial - 1,
            first_claim_ms=0 if first else before.first_claim_ms,
            claim=None,
        )

    def _unclaim(self, command: c.Unclaim) -> None:
        for item in command.items:
            revoked = c.Revoked(item.uid, item.version, item.attempt)
            self._take_back(item.job_id, revoked, command.now_ms)

    def _take_back(self, job_id: str, revoked: c.Revoked | None, now_ms: int) -> None:
        """Undo a claim whose send never started.

        Comes first in whatever command carries it, because the leader has removed the send
        already, also if the command is then refused.
        """
        if revoked is None:
            return
        before = self.read(job_id)
        if before is None:
            return
        claim = before.claim
        if (
            claim is None
            or before.uid != revoked.uid
            or before.version != revoked.version
            or claim.attempt != revoked.attempt
        ):
            return
        if before.outcome is not None:
            # Deleted while claimed, and then never sent: nothing is left to wait for.
            after = self._cancelled(before, now_ms, before.outcome)
        else:
            after = self._unclaimed(before, claim)
        self._store(job_id, job_id.encode(), before, after)

    def _as_seen(self, item: c.PendingItem) -> JobRecord | None:
        """The job, if it still is pending and just as the leader saw it."""
        before = self.read(item.job_id)
        if (
            before is None
            or before.uid != item.uid
            or before.version != item.version
            or before.attempts != item.attempts
            or before.state not in _CLAIMABLE
        ):
            return None
        return before

    def _wait(self, command: c.Wait) -> None:
        for item in command.items:
            before = self._as_seen(item)
            if before is None:
                continue
            state = _HELD if command.held else before.state
            if before.queue == _WAITING and state == before.state:
                continue
            route_uid = before.route_uid or item.route_uid
            after = _replace(before, queue=_WAITING, state=state, route_uid=route_uid)
            self._store(item.job_id, item.job_id.encode(), before, after)

    def _release(self, command: c.Release) -> None:
        for item in command.items:
            before = self._as_seen(item)
            if before is None or before.state != _HELD:
                continue
            state = _RETRYING if before.attempts else _SCHEDULED
            after = _replace(before, state=state)
            self._store(item.job_id, item.job_id.encode(), before, after)

    def _give_up(self, command: c.GiveUp) -> None:
        for item in command.items:
            before = self._as_seen(item)
            if before is None:
                continue
            after = _replace(
                before,
                state=_DEAD,
                queue=_NO_QUEUE,
                due_ms=0,
                reason=command.reason,
                last_error=command.error,
                retry_reason=None,
                finished_ms=command.now_ms,
            )
            self._store(item.job_id, item.job_id.encode(), before, after)

    def _move_offset(self, command: c.MoveOffset) -> None:
        state = self.state
        if command.seen_index < state.floor_index:
            return
        due_ms, job_id = command.due_ms, command.job_id
        if state.low_index > command.seen_index and state.low_due_ms <= due_ms:
            due_ms, job_id = state.low_due_ms, ""
        if (due_ms, job_id) > (state.offset_due_ms, state.offset_job_id):
            state.offset_due_ms, state.offset_job_id = due_ms, job_id
        state.low_due_ms = _NEVER_MS
        state.floor_index = self._index

    # --- expiry ----------------------------------------------------------------------------

    def _purge(self, command: c.Purge) -> None:
        for job_id in command.job_ids:
            record = self.read(job_id)
            if record is None or record.state not in _TERMINAL:
                continue
            if record.finished_ms < command.before_ms:
                self._erase(job_id, job_id.encode(), record)
        before = u64(command.before_ms)
        for row in command.attempt_rows:
            if row[8:16] < before:
                self.overlay.delete(self.keys.route_attempts + row)

    def _erase(self, job_id: str, raw_id: bytes, record: JobRecord) -> None:
        keys = self.keys
        delete = self.overlay.delete
        place = record.claim.prior if record.claim is not None else record.state
        trigger = u64(record.trigger_ms)
        delete(keys.job + raw_id)
        delete(keys.meta + raw_id)
        delete(keys.state_listing + bytes((place,)) + trigger + raw_id)
        delete(keys.route + u64(record.route_uid) + trigger + raw_id)
        if record.finished_ms:
            delete(keys.finished + u64(record.finished_ms) + raw_id)
        if record.queue:
            self._leave_queue(raw_id, record)
        self._unlist_tags(raw_id, record)
        if record.state not in _TERMINAL:
            self._count_route(record.route_uid, -1, -(record.queue == _WAITING))
        for serial in range(1, record.serial + 1):
            delete(keys.attempts + raw_id + b"\0" + u32(serial))
        self.state.counts[record.state] -= 1
        self._open.pop(job_id, None)
        self.effects.append(JobTouched(job_id))

    def _forget_content(self, command: c.ForgetContent) -> JobResult:
        repeat = self._repeat(command.request, command.now_ms)
        if repeat is not None:
            return repeat
        record = self.read(command.job_id)
        if record is None:
            result = refused("job_not_found")
        elif not self._remove_content(command, record):
            result = refused("attempt_not_found")
        else:
            result = JobResult(kind="changed")
        return self._answer(command.request, command.now_ms, result)

    def _remove_content(self, command: c.ForgetContent, record: JobRecord) -> bool:
        start, _ = self.keys.attempts_range(command.job_id.encode())
        found = False
        for serial in range(1, record.serial + 1):
            key = start + u32(serial)
            data = self.overlay.get(key)
            attempt = None if data is None else read_attempt(data)
            if (
                attempt is not None
                and attempt.attempt == command.attempt
                and command.version in (None, attempt.version)
            ):
                found = True
                emptied = _replace(
                    attempt, response_headers=(), response_body=b"", content_removed=True
                )
                self.overlay.put(key, _encode(emptied))
        return found

    def _forget(self, command: c.Forget) -> None:
        for expires_ms, key in command.requests:
            data = self.overlay.get(self.keys.request + key)
            if data is None:
                continue
            stored: StoredAnswer = _read_answer(data)
            if stored.expires_ms == expires_ms:
                self._forget_request(expires_ms, key)
