"""The rows of a vnode's jobs, and what is counted of them: the only code that writes them.

A job has its own row and its meta, stands in several indexes and is counted in several ways. Here
all of them are kept in step, whatever a command makes of the job.
"""

import msgspec

from timemachine import codec, limits
from timemachine.model import JobRecord, Leadership
from timemachine.replica import commands as c
from timemachine.replica import ordering
from timemachine.replica.duecounts import DueCounts
from timemachine.replica.idfilter import IdFilter
from timemachine.replica.records import (
    NEVER_MS,
    BatchRow,
    MachineState,
    RouteCounts,
    find_attempt,
    find_leaders,
    read_attempt,
    read_batch,
    read_job,
    read_meta,
    read_route_counts,
    read_state,
    whole,
)
from timemachine.replica.results import (
    BatchDissolved,
    DueInserted,
    Effect,
    JobTouched,
    WaitingFreed,
)
from timemachine.replica.states import (
    BEHIND,
    DELIVERED,
    DUE,
    FIRING,
    MOVES,
    NO_ROW,
    PARKED,
    SCHEDULED,
    TERMINAL,
    WAITING,
)
from timemachine.storage.api import Reading
from timemachine.storage.keys import (
    ReplicaKeys,
    after_prefix,
    due_value,
    ordered_value,
    read_u64,
    u32,
    u64,
)
from timemachine.storage.overlay import Overlay

_ROUTES_MAX = 1_000_000
_SCHEDULED_BYTE = bytes((SCHEDULED,))
_DELIVERED_BYTE = bytes((DELIVERED,))

_encode = codec.encode


def queue_value(record: JobRecord) -> bytes:
    """What the due or the waiting index has of a job."""
    # While a claim is open the row keeps the number of attempts that are settled, so that
    # neither the claim nor its withdrawal touches the index.
    attempts = record.attempts if record.claim is None else record.attempts - 1
    made = due_value if record.order is None else ordered_value
    return made(record.route_uid, record.version, attempts, record.uid, record.batch)


def _batch_of(record: JobRecord) -> bytes:
    """The id of the batch in which a job is under way, or will be sent again; or nothing."""
    return record.batch if record.claim is None else record.claim.batch


class JobRows:
    """What one vnode holds of its jobs.

    state        what is stored beside the rows: applied, offset, counters
    routes       counters by route uid
    firing       the jobs that were claimed since the start and are not settled, by id
    ids          which ids may be there
    due_counts   jobs of the due index by minute
    effects      what the delivery is to hear of
    index, term  of the entry that is being applied
    settles      its Settle commands so far
    """

    def __init__(self, keys: ReplicaKeys, overlay: Overlay) -> None:
        self.keys = keys
        self.overlay = overlay
        self.state = MachineState()
        self.routes: dict[int, RouteCounts] = {}
        self.firing: dict[str, JobRecord] = {}
        self.ids = IdFilter(complete=False)
        self.due_counts = DueCounts(complete=False)
        self.effects: list[Effect] = []
        self.index = 0
        self.term = 0
        self.settles = 0
        self._touched_routes: set[int] = set()
        # Of whoever claimed last: term, and since when it fires.
        self._leader = (0, 0)

    # --- life ------------------------------------------------------------------------------

    def load(self, state: bytes | None, route_rows: list[tuple[bytes, bytes]]) -> None:
        """Take up the stored state: the machine's row and the rows of the route counters.

        Until `ids` is filled from the job rows and called complete, every create looks for its id
        in the store. Likewise `due_counts` is to be filled from the due index.
        """
        self.state = read_state(state) if state is not None else MachineState()
        self.ids = IdFilter(complete=state is None)
        self.due_counts = DueCounts(complete=state is None)
        start = len(self.keys.route_counters)
        self.routes = {read_u64(key[start:]): read_route_counts(row) for key, row in route_rows}
        self._leader = (0, 0)

    def rebase(self, keys: ReplicaKeys, store: Reading) -> None:
        """Go on with the rows of another range, as after a start: a snapshot was installed there.

        `store` shows all of them. What was not flushed belongs to the range that is left, and so
        do the effects that nobody took. `ids` and `due_counts` are new objects, to be filled anew.
        """
        self.keys = keys
        rows = store.scan(keys.route_counters, after_prefix(keys.route_counters), _ROUTES_MAX)
        self.load(store.get(keys.state), rows)
        self.firing = {}
        self.effects = []
        self.index = self.term = self.settles = 0
        self._touched_routes = set()

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

    def note_leader(self, node: int, since_ms: int) -> None:
        """A leader claims; write who it is, unless it is the one that did so last."""
        if self._leader == (self.term, since_ms):
            return
        self._leader = (self.term, since_ms)
        leaders = find_leaders(self.overlay, self.keys)
        this = Leadership(self.term, node, since_ms)
        if not leaders or leaders[-1] != this:
            leaders.append(this)
            row = _encode(leaders[-limits.LEADERS_PER_VNODE_KEPT :])
            self.overlay.put(self.keys.leaders, row)

    # --- one job ---------------------------------------------------------------------------

    def read(self, job_id: str) -> JobRecord | None:
        """The job as the log has it so far, durable or not."""
        data = self.overlay.get(self.keys.job + job_id.encode())
        return None if data is None else read_job(data)

    def in_turn(self, job_id: str) -> bool:
        """Whether a job may be claimed as far as its ordering key is concerned."""
        record = self.read(job_id)
        return record is None or record.order is None or ordering.has_turn(self, job_id, record)

    def read_meta(self, raw_id: bytes, record: JobRecord) -> bytes:
        """The meta of a job that is there."""
        return read_meta(self.overlay, self.keys, raw_id, record)

    def store_meta(self, raw_id: bytes, before: JobRecord, after: JobRecord, meta: bytes) -> None:
        """Write another meta where it has a row of its own; `after` has it otherwise."""
        if after.meta is None:
            self.overlay.put(self.keys.meta + raw_id, meta)
        elif before.meta is None:
            self.overlay.delete(self.keys.meta + raw_id)

    def read_attempt(self, raw_id: bytes, record: JobRecord, serial: int) -> bytes | None:
        """The encoded AttemptRecord of a job's attempt; None where it is not settled."""
        return find_attempt(self.overlay, self.keys, raw_id, record, serial)

    def store_attempt(self, raw_id: bytes, record: JobRecord, serial: int, attempt: bytes) -> None:
        """Write the encoded AttemptRecord of an attempt that is settled, and of nothing else."""
        if record.delivering and serial == record.serial:
            after = msgspec.structs.replace(record, delivering=attempt)
            self.overlay.put(self.keys.job + raw_id, _encode(after))
        else:
            self.overlay.put(self.keys.attempts + raw_id + b"\0" + u32(serial), attempt)

    def next_number(self) -> int:
        """The number of a job that is made with an ordering key."""
        self.state.ordered += 1
        return self.state.ordered

    def create(self, job_id: str, raw_id: bytes, record: JobRecord, meta: bytes) -> None:
        """Write the rows of a job that was not there: scheduled, and due at its time."""
        keys = self.keys
        if record.order is not None:
            record = ordering.moved(self, job_id, None, record) or record
        trigger = u64(record.trigger_ms)
        due_row = queue_value(record)
        if record.meta is None:
            self.overlay.put(keys.meta + raw_id, meta)
        self.overlay.put_all(
            {
                keys.job + raw_id: _encode(record),
                keys.due + u64(record.due_ms) + raw_id: due_row,
                keys.state_listing + _SCHEDULED_BYTE + trigger + raw_id: b"",
                keys.route + u64(record.route_uid) + trigger + raw_id: b"",
            }
        )
        if record.tags:
            self._list_tags(raw_id, record)
        self.due_counts.add(record.due_ms, raw_id)
        self.state.counts[SCHEDULED] += 1
        self._count_route(record.route_uid, 1, 0)
        self._announce(job_id, record, due_row)

    def restore(
        self,
        job_id: str,
        raw_id: bytes,
        record: JobRecord,
        meta: bytes,
        attempts: list[tuple[int, bytes]],
    ) -> None:
        """Write the rows of a job that was not there, and comes in any state but firing."""
        assert record.state != FIRING, "what becomes of an open attempt is said before"
        keys = self.keys
        if record.order is not None:
            self.state.ordered = max(self.state.ordered, record.order.number)
            record = ordering.moved(self, job_id, None, record) or record
        trigger = u64(record.trigger_ms)
        rows: dict[bytes, bytes | None] = {
            keys.job + raw_id: _encode(record),
            keys.state_listing + bytes((record.state,)) + trigger + raw_id: b"",
            keys.route + u64(record.route_uid) + trigger + raw_id: b"",
        }
        if record.meta is None:
            rows[keys.meta + raw_id] = meta
        for serial, attempt in attempts:
            rows[keys.attempts + raw_id + b"\0" + u32(serial)] = attempt
        if record.finished_ms:
            rows[keys.finished + u64(record.finished_ms) + raw_id] = b""
        if record.queue == DUE:
            value = queue_value(record)
            rows[self._queue_key(raw_id, record)] = value
            self.due_counts.add(record.due_ms, raw_id)
            self._announce(job_id, record, value)
        self.overlay.put_all(rows)
        self._list_tags(raw_id, record)
        self.state.counts[record.state] += 1
        if record.state not in TERMINAL:
            self._count_route(record.route_uid, 1, 0)

    def store(
        self,
        job_id: str,
        raw_id: bytes,
        before: JobRecord,
        after: JobRecord,
        *,
        in_order: bool = False,
    ) -> None:
        """Write a job and every index row that differs from before.

        With `in_order` all that follows from its ordering key is seen to.
        """
        if after.order is not None and not in_order:
            after = ordering.moved(self, job_id, before, after) or after
            self.store(job_id, raw_id, before, after, in_order=True)
            ordering.give_turns(self, job_id, before, after)
            return
        keys = self.keys
        overlay = self.overlay
        put = overlay.put
        state = after.state
        put(keys.job + raw_id, _encode(after))
        if before.delivering and not after.delivering:
            # What follows makes an attempt of its own, or none is the latest any more.
            attempt = whole(before, read_attempt(before.delivering))
            put(keys.attempts + raw_id + b"\0" + u32(before.serial), _encode(attempt))
        new_place = after.claim.prior if after.claim is not None else state
        trigger = u64(after.trigger_ms)
        route_uid = after.route_uid
        pending = 0 if state in TERMINAL else 1
        waiting = 1 if after.queue == WAITING else 0
        old_state = before.state
        if old_state != state:
            assert (old_state, state) in MOVES, f"a job cannot move {old_state} -> {state}"
            counts = self.state.counts
            counts[old_state] -= 1
            counts[state] += 1
            if old_state == FIRING:
                self.firing.pop(job_id, None)
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
        was_pending = 0 if old_state in TERMINAL else 1
        was_waiting = 1 if before.queue == WAITING else 0
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
        if state == FIRING:
            self.firing[job_id] = after
        self._queue(job_id, raw_id, before, after)
        batch = _batch_of(before)
        if batch and batch != _batch_of(after):
            self.dissolve(batch)

    def store_claimed(
        self, job_id: str, raw_id: bytes, before: JobRecord, after: JobRecord
    ) -> None:
        """What `store` does for a claim: it leaves every index as it was.

        But that its row names no batch any more to which it is not bound. Who leaves one like that
        calls `dissolve` for it, after all that is claimed with this job.
        """
        state = before.state
        assert (state, FIRING) in MOVES, f"a job cannot move {state} -> {FIRING}"
        counts = self.state.counts
        counts[state] -= 1
        counts[FIRING] += 1
        self.firing[job_id] = after
        self.overlay.put(self.keys.job + raw_id, _encode(after))
        if before.batch != after.batch:
            self.overlay.put(self._queue_key(raw_id, after), queue_value(after))
        if after.order is not None:
            ordering.moved(self, job_id, before, after)

    def store_delivered(
        self, job_id: str, raw_id: bytes, before: JobRecord, after: JobRecord
    ) -> None:
        """What `store` does where the open attempt of a due job has delivered it, all at once.

        The caller lists the attempt, which `after` holds, with its route: so `finished` does not
        tell of the job (see `keys`).
        """
        claim = before.claim
        assert claim is not None
        assert (before.state, before.queue, before.finished_ms) == (FIRING, DUE, 0)
        keys = self.keys
        listed = u64(before.trigger_ms) + raw_id
        self.overlay.put_all(
            {
                keys.job + raw_id: _encode(after),
                keys.state_listing + bytes((claim.prior,)) + listed: None,
                keys.state_listing + _DELIVERED_BYTE + listed: b"",
                keys.due + u64(before.due_ms) + raw_id: None,
            }
        )
        counts = self.state.counts
        counts[FIRING] -= 1
        counts[DELIVERED] += 1
        self.firing.pop(job_id, None)
        self._count_route(before.route_uid, -1, 0)
        self.due_counts.remove(before.due_ms, raw_id)
        self.effects.append(JobTouched(job_id))
        if claim.batch:
            self.dissolve(claim.batch)

    def store_mark(self, job_id: str, raw_id: bytes, after: JobRecord) -> None:
        """What `store` does where only the mark of an open claim has changed: no index tells."""
        self.firing[job_id] = after
        self.overlay.put(self.keys.job + raw_id, _encode(after))

    def erase(self, job_id: str, raw_id: bytes, record: JobRecord) -> None:
        """Delete every row of a job, those of its attempts too."""
        keys = self.keys
        delete = self.overlay.delete
        place = record.claim.prior if record.claim is not None else record.state
        trigger = u64(record.trigger_ms)
        delete(keys.job + raw_id)
        if record.meta is None:
            delete(keys.meta + raw_id)
        delete(keys.state_listing + bytes((place,)) + trigger + raw_id)
        delete(keys.route + u64(record.route_uid) + trigger + raw_id)
        if record.finished_ms:
            delete(keys.finished + u64(record.finished_ms) + raw_id)
        if record.queue:
            self._leave_queue(raw_id, record)
        self._unlist_tags(raw_id, record)
        if record.state not in TERMINAL:
            self._count_route(record.route_uid, -1, -(record.queue == WAITING))
        for serial in range(1, record.serial + (0 if record.delivering else 1)):
            delete(keys.attempts + raw_id + b"\0" + u32(serial))
        self.state.counts[record.state] -= 1
        self.firing.pop(job_id, None)
        self.effects.append(JobTouched(job_id))
        batch = _batch_of(record)
        if batch:
            self.dissolve(batch)
        if record.order is not None:
            ordering.moved(self, job_id, record, None)
            ordering.give_turns(self, job_id, record, None)

    def _list_tags(self, raw_id: bytes, record: JobRecord) -> None:
        for tag in record.tags:
            start, _ = self.keys.tag_range(tag)
            self.overlay.put(start + u64(record.trigger_ms) + raw_id, b"")

    def _unlist_tags(self, raw_id: bytes, record: JobRecord) -> None:
        for tag in record.tags:
            start, _ = self.keys.tag_range(tag)
            self.overlay.delete(start + u64(record.trigger_ms) + raw_id)

    def _count_route(self, route_uid: int, pending: int, waiting: int) -> None:
        counts = self.routes.get(route_uid)
        if counts is None:
            counts = self.routes[route_uid] = RouteCounts()
        counts.pending += pending
        counts.waiting += waiting
        self._touched_routes.add(route_uid)

    # --- batches ---------------------------------------------------------------------------

    def batch(self, batch: bytes) -> BatchRow | None:
        """The members of a batch; None where it is dissolved, or never was."""
        data = self.overlay.get(self.keys.batch + batch)
        return None if data is None else read_batch(data)

    def freeze(self, batch: bytes, row: BatchRow) -> None:
        """These jobs are sent together from now on, under that id, or not under it at all."""
        self.overlay.put(self.keys.batch + batch, _encode(row))

    def dissolve(self, batch: bytes) -> None:
        """One of its members is not what it was: the others are bound to it no more.

        Those under way go on, and are not bound to it when they have ended.
        """
        row = self.batch(batch)
        if row is None:
            return
        self.overlay.delete(self.keys.batch + batch)
        claimed = []
        for member in row.members:
            before = self.firing.get(member.job_id) or self.read(member.job_id)
            if before is None or before.batch != batch:
                continue
            if before.claim is not None:
                claimed.append(member.job_id)
                continue
            after = msgspec.structs.replace(before, batch=b"")
            self.store(member.job_id, member.job_id.encode(), before, after)
        if claimed:
            self.effects.append(BatchDissolved(batch, claimed))

    # --- the due and the waiting index -----------------------------------------------------

    def _queue(self, job_id: str, raw_id: bytes, before: JobRecord, after: JobRecord) -> None:
        """Keep the due and the waiting index in step, and tell the delivery."""
        if not after.queue or after.queue == BEHIND:
            if before.queue:
                self._leave_queue(raw_id, before)
                self.effects.append(JobTouched(job_id))
            return
        assert after.queue != PARKED, "only a restore parks"
        new_key = self._queue_key(raw_id, after)
        new_value = queue_value(after)
        if before.queue not in NO_ROW:
            old_key = self._queue_key(raw_id, before)
            if old_key == new_key and queue_value(before) == new_value:
                # An un-claimed job: its row never left, but the delivery forgot about it.
                if before.state == FIRING:
                    self.announce(job_id, after)
                return
            if old_key != new_key:
                self._leave_queue(raw_id, before)
        if after.queue == DUE and (before.queue != DUE or before.due_ms != after.due_ms):
            self.due_counts.add(after.due_ms, raw_id)
        self.effects.append(JobTouched(job_id))
        self.overlay.put(new_key, new_value)
        self._announce(job_id, after, new_value)
        if after.queue == WAITING and before.queue == WAITING:
            # Its row is another one, where rows of before may have been read.
            self.effects.append(WaitingFreed(after.due_ms, job_id, new_value))

    def announce(self, job_id: str, record: JobRecord) -> None:
        """Tell the delivery once more of a row of the due or the waiting index."""
        value = queue_value(record)
        if record.queue == WAITING:
            self.effects.append(WaitingFreed(record.due_ms, job_id, value))
        else:
            self._announce(job_id, record, value)

    def _queue_key(self, raw_id: bytes, record: JobRecord) -> bytes:
        if record.queue == DUE:
            return self.keys.due + u64(record.due_ms) + raw_id
        return self.keys.waiting + u64(record.route_uid) + u64(record.due_ms) + raw_id

    def _leave_queue(self, raw_id: bytes, before: JobRecord) -> None:
        if before.queue in NO_ROW:
            return
        self.overlay.delete(self._queue_key(raw_id, before))
        if before.queue == DUE:
            self.due_counts.remove(before.due_ms, raw_id)

    # --- the offset ------------------------------------------------------------------------

    def _announce(self, job_id: str, after: JobRecord, value: bytes) -> None:
        """Tell the delivery of a row of the due index, and keep the offset from passing it."""
        if after.queue != DUE:
            return
        state = self.state
        due_ms = after.due_ms
        if due_ms < state.low_due_ms:
            state.low_due_ms = due_ms
        state.low_index = self.index
        if due_ms < state.offset_due_ms or (
            due_ms == state.offset_due_ms and job_id < state.offset_job_id
        ):
            state.offset_due_ms = due_ms
            state.offset_job_id = job_id
        self.effects.append(DueInserted(due_ms, job_id, value))

    def move_offset(self, command: c.MoveOffset) -> None:
        """Raise the offset, as far as what was inserted since the leader looked lets it.

        The leader that raises it looks at an older state than the one its command is applied to.
        `seen_index` says which index it had seen. Inserts applied since the last move lower the
        bound to which this one can raise, unless the leader had seen them all. So an insert can
        never be skipped, whatever a leader believes.
        """
        state = self.state
        if command.seen_index < state.floor_index:
            return
        due_ms, job_id = command.due_ms, command.job_id
        if state.low_index > command.seen_index and state.low_due_ms <= due_ms:
            due_ms, job_id = state.low_due_ms, ""
        if (due_ms, job_id) > (state.offset_due_ms, state.offset_job_id):
            state.offset_due_ms, state.offset_job_id = due_ms, job_id
        state.low_due_ms = NEVER_MS
        state.floor_index = self.index
