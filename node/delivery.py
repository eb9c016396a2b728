"""Firing: from the due index to a settled attempt. See `docs/design/delivery.md`.

    scan -> queue of the route -> claim (committed) -> send at the due moment -> outcome -> settle

Rules kept here: a send needs its claim applied as valid in the current term and `now >= due`; a
claim is asked for only when the job's route and the node have a free slot, at most CLAIM_LEAD_MS
ahead; what is in flight is remembered, so nothing is claimed twice; what its route cannot take
moves to the route's waiting index, so that neither window nor offset is held up by one route.

Everything is driven by `pump`, which runs at the next moment that anything can happen.
"""

from bisect import bisect_left
from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from itertools import islice
from typing import Any

from node.env import Timer, World
from node.runtime import Runtime
from node.webhook import Prepared, build_request
from node.window import (
    CLAIMED,
    CLAIMING,
    GONE,
    QUEUED,
    SENDING,
    Item,
    RouteQueue,
    VnodeHead,
)
from timemachine import codec, limits
from timemachine.model import (
    AttemptRecord,
    AttemptStatus,
    Collection,
    DeadReason,
    Route,
)
from timemachine.outbound import Outcome, Sender
from timemachine.replica import commands as c
from timemachine.replica.machine import JobMachine
from timemachine.replica.meta import DisableRoute, MetaMachine
from timemachine.replica.records import read_job
from timemachine.replica.results import ClaimResult, DueInserted, JobTouched, WaitingFreed
from timemachine.retry import AttemptFacts, Verdict, decide
from timemachine.storage.api import Store
from timemachine.storage.keys import read_due_value, u64
from timemachine.vnode import Vnode

_IDLE_MS = 500.0
_TICK_MS = 1.0
_MOVE_BATCH = 500
_STEP_BACK_MS = 1_000
_SUCCEEDED = AttemptStatus.SUCCEEDED.value
_FAILED = AttemptStatus.FAILED.value
LATENESS_BOUNDS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000, 60000)


class Delivery:
    """The firing side of one node: all vnodes that it leads, all routes."""

    def __init__(
        self,
        world: World,
        store: Store,
        runtime: Runtime,
        meta: MetaMachine,
        sender: Sender,
        *,
        node_id: str,
        prepare: Callable[[Route], Prepared],
        collection_of: Callable[[Vnode], Collection | None],
        disable_route: Callable[[DisableRoute], None],
    ) -> None:
        self._world = world
        self._store = store
        self._runtime = runtime
        self._meta = meta
        self._sender = sender
        self._node_id = node_id
        self._prepare = prepare
        self._collection_of = collection_of
        self._disable_route = disable_route
        self._heads: dict[Vnode, VnodeHead] = {}
        self._queues: dict[int, RouteQueue] = {}
        self._prepared: dict[int, tuple[int, Prepared]] = {}
        self._wakes: list[tuple[int, int, VnodeHead]] = []
        self._timed: list[tuple[int, int, Item]] = []
        self._sequence = 0
        self._in_flight = 0
        self._queued = 0
        self._timer: Timer | None = None
        self._timer_at_ms = 0.0
        self._pump_scheduled = False
        self._settling: dict[VnodeHead, None] = {}
        self._settle_scheduled = False
        self._sweeps: list[Any] = []
        self._last_wall_ms = world.wall_ms()
        self._next_offsets_ms = 0.0
        self._stopping = False
        self._when_drained: Callable[[], None] | None = None
        self.fired = 0
        self.sends = 0
        self.lateness = [0] * (len(LATENESS_BOUNDS_MS) + 1)
        self.lateness_sum_ms = 0
        self.outcomes: dict[str, int] = {}

    # --- vnodes and routes come and go -----------------------------------------------------

    def lead(self, vnode: Vnode) -> None:
        """Start firing for a vnode, from its committed offset on."""
        machine = vnode.machine
        assert isinstance(machine, JobMachine)
        state = machine.state
        start = vnode.keys.due + u64(state.offset_due_ms) + state.offset_job_id.encode()
        head = VnodeHead(vnode, start, machine.applied_index)
        head.scanned_ms = state.offset_due_ms
        self._heads[vnode] = head
        self._wake(head, 0)
        for uid, counts in machine.routes.items():
            if counts.waiting:
                route = self._meta.routes_by_uid.get(uid)
                if route is None:
                    self.give_up_route(vnode, uid)
                elif route.open:
                    self._queue(route).waiting[head] = b""
            elif uid and uid not in self._meta.routes_by_uid:
                self.give_up_route(vnode, uid)

    def leave(self, vnode: Vnode) -> None:
        """Stop firing for a vnode that is gone."""
        head = self._heads.pop(vnode, None)
        if head is None:
            return
        for item in list(head.known.values()):
            self._forget(item)
        for queue in self._queues.values():
            queue.lagging.pop(head, None)
            queue.waiting.pop(head, None)

    def route_changed(self, uid: int) -> None:
        """A route was created, replaced, paused, resumed, disabled or deleted."""
        self._prepared.pop(uid, None)
        route = self._meta.routes_by_uid.get(uid)
        queue = self._queues.get(uid)
        if route is None:
            for vnode in list(self._heads):
                self.give_up_route(vnode, uid)
            if queue is not None:
                # By job: those that were accepted before the route existed are not listed by it.
                for item in queue.take_all():
                    self._give_up(item.head, item)
                del self._queues[uid]
        elif queue is not None or route.open:
            queue = self._queue(route)
            queue.route = route
            if route.open:
                self._reopen(route, queue)
            else:
                self._close(queue)
        self.wake()

    def _close(self, queue: RouteQueue) -> None:
        """Move what the window holds of a closed route to its waiting index."""
        for item in queue.take_all():
            self._move(item.head, item, queue.route.uid, held=True)
        for head in list(queue.lagging):
            self._sweeps.append(self._sweep_lag(head, queue, held=True))
        queue.lagging.clear()
        queue.waiting.clear()
        for item in [item for _, _, item in self._timed if item.queue is queue]:
            self._unclaim(item)

    def _reopen(self, route: Route, queue: RouteQueue) -> None:
        for vnode, head in self._heads.items():
            counts = vnode.machine.routes.get(route.uid)  # type: ignore[attr-defined]
            if counts is not None and counts.waiting:
                queue.waiting.setdefault(head, b"")
                self._sweeps.append(self._sweep_held(head, route.uid))

    def give_up_route(self, vnode: Vnode, uid: int) -> None:
        """End the pending jobs of a deleted route in one vnode."""
        head = self._heads.get(vnode)
        if head is not None:
            self._sweeps.append(self._sweep_deleted(head, uid))
            self.wake()

    def _queue(self, route: Route) -> RouteQueue:
        queue = self._queues.get(route.uid)
        if queue is None:
            queue = self._queues[route.uid] = RouteQueue(route)
        return queue

    # --- what the log tells ----------------------------------------------------------------

    def on_effects(self, vnode: Vnode, effects: list[Any], applied_index: int) -> None:
        """The durable effects of one cycle of a vnode."""
        head = self._heads.get(vnode)
        if head is None:
            return
        cursor = head.cursor
        due_prefix = vnode.keys.due
        for effect in effects:
            if type(effect) is DueInserted:
                if effect.due_ms > head.scanned_ms:
                    if effect.due_ms < head.next_due_ms:
                        self._wake(head, effect.due_ms)
                    continue
                key = due_prefix + u64(effect.due_ms) + effect.job_id.encode()
                if key < cursor:
                    head.moving.pop(effect.job_id, None)
                    self._admit(head, key, effect.value)
                    self.wake()
                elif effect.due_ms < head.next_due_ms:
                    self._wake(head, effect.due_ms)
            elif type(effect) is JobTouched:
                head.moving.pop(effect.job_id, None)
                item = head.known.get(effect.job_id)
                if item is not None and item.stage != CLAIMING:
                    del head.known[effect.job_id]
                    if item.stage == QUEUED and item.queue is not None:
                        item.queue.drop(item)
            elif type(effect) is WaitingFreed:
                route_uid, version, attempts, uid = read_due_value(effect.value)
                item = Item(
                    head, effect.due_ms, effect.job_id, version, attempts, uid, waiting=True
                )
                self._read_again(head, item, route_uid)
        head.seen_index = applied_index

    def revoke(self, vnode: Vnode, job_id: str) -> c.Revoked | None:
        """Remove a claimed send before its first byte, if that is still possible."""
        head = self._heads.get(vnode)
        item = head.known.get(job_id) if head is not None else None
        if item is None or head is None:
            return None
        if item.stage == SENDING:
            if item.handle is None or not item.handle.abort_if_unsent():
                return None
        elif item.stage not in (CLAIMING, CLAIMED):
            return None
        self._forget(item)
        return c.Revoked(item.uid, item.version, item.attempts + 1)

    def _forget(self, item: Item) -> None:
        """Drop an item at whatever stage, and give its slots back."""
        if item.stage == QUEUED:
            if item.queue is not None:
                item.queue.drop(item)
        elif item.stage in (CLAIMING, CLAIMED, SENDING):
            self._free(item)
        item.stage = GONE
        if item.head.known.get(item.job_id) is item:
            del item.head.known[item.job_id]

    def _free(self, item: Item) -> None:
        if self._in_flight >= limits.SENDS_PER_NODE_MAX:
            self.wake()  # the slot may be what another route waits for
        self._in_flight -= 1
        if item.queue is not None:
            item.queue.in_flight -= 1
            item.queue.completed += 1

    # --- the pump --------------------------------------------------------------------------

    def wake(self) -> None:
        """Run the pump after what is already due."""
        if not self._pump_scheduled:
            self._pump_scheduled = True
            self._world.call_soon(self._pump_now)

    def _wake(self, head: VnodeHead, due_ms: int) -> None:
        head.next_due_ms = due_ms
        self._sequence += 1
        heappush(self._wakes, (due_ms, self._sequence, head))
        self.wake()

    def _pump_now(self) -> None:
        self._pump_scheduled = False
        self.pump()

    def _pump_timer(self) -> None:
        self._timer = None
        self.pump()

    def pump(self) -> None:
        """Do all that can be done now, and set the timer for the next moment."""
        if self._runtime.failure is not None:
            return
        now_ms = self._world.wall_ms()
        if now_ms < self._last_wall_ms - _STEP_BACK_MS:
            self._stepped_back(now_ms)
        self._last_wall_ms = now_ms
        self._send_due(now_ms)
        if not self._stopping:
            self._scan(now_ms)
            self._refill(now_ms)
            self._grant(now_ms)
        self._sweep()
        self._move_offsets()
        # A claim that was taken back, or did not hold, was the last one open.
        self._check_drained()
        self._arm(self._world.wall_ms())

    def _arm(self, now_ms: int) -> None:
        delay_ms = _IDLE_MS
        if self._timed:
            delay_ms = min(delay_ms, self._timed[0][0] - now_ms)
        if not self._stopping:
            if self._wakes:
                delay_ms = min(delay_ms, self._wakes[0][0] - limits.SCAN_AHEAD_MS // 2 - now_ms)
            for queue in self._queues.values():
                if queue.size:
                    delay_ms = min(delay_ms, self._queue_opens_in(queue, now_ms))
        if self._sweeps:
            delay_ms = min(delay_ms, _TICK_MS)
        delay_ms = max(_TICK_MS, delay_ms)
        at_ms = self._world.mono_ms() + delay_ms
        if self._timer is not None:
            if self._timer_at_ms <= at_ms:
                return
            self._timer.cancel()
        self._timer_at_ms = at_ms
        self._timer = self._world.call_later(delay_ms, self._pump_timer)

    def _queue_opens_in(self, queue: RouteQueue, now_ms: int) -> float:
        """When a queue can be served next; a queue without a free slot is woken by an outcome."""
        if queue.in_flight >= queue.route.max_in_flight:
            return _IDLE_MS
        rate_ms = queue.rate_opens_ms()
        if rate_ms is not None and rate_ms > now_ms:
            return rate_ms - now_ms
        due_ms = queue.next_due_ms()
        if due_ms is None or self._in_flight >= limits.SENDS_PER_NODE_MAX:
            return _IDLE_MS
        return due_ms - self._lead_ms(queue.route) // 2 - now_ms

    @staticmethod
    def _lead_ms(route: Route) -> int:
        return limits.CLAIM_LEAD_MS if route.delivery == "at_least_once" else 0

    def _stepped_back(self, now_ms: int) -> None:
        """The wall clock went back: claims that are not due for long are taken back."""
        far = [item for due_ms, _, item in self._timed if due_ms - now_ms > _STEP_BACK_MS]
        for item in far:
            self._unclaim(item)

    # --- scanning --------------------------------------------------------------------------

    def _scan(self, now_ms: int) -> None:
        """Read the due index of every vnode whose next moment has come."""
        horizon_ms = now_ms + limits.SCAN_AHEAD_MS
        soon_ms = now_ms + limits.SCAN_AHEAD_MS // 2
        budget = limits.SCAN_ROWS_MAX
        wakes = self._wakes
        # Not each vnode at each tick: what a scan costs is mostly its beginning.
        while wakes and wakes[0][0] <= soon_ms and budget > 0:
            due_ms, _, head = heappop(wakes)
            if due_ms != head.next_due_ms or head.vnode not in self._heads:
                continue
            if self._queued_now() >= limits.WINDOW_JOBS_MAX:
                self._wake_later(head, now_ms)
                return
            budget -= self._scan_head(head, horizon_ms, budget)

    def _queued_now(self) -> int:
        return sum([queue.size for queue in self._queues.values()])

    def _scan_head(self, head: VnodeHead, horizon_ms: int, budget: int) -> int:
        keys = head.vnode.keys
        stop = keys.due + u64(horizon_ms)
        if head.cursor < stop:
            rows = self._store.scan(head.cursor, stop, budget)
        else:
            rows = []
        at = len(keys.due)
        behind = {u64(uid) for uid in head.lag}
        for key, value in rows:
            if value[:8] in behind:
                continue  # its route lags already, from an earlier row on
            self._admit(head, key, value)
            if len(head.lag) != len(behind):
                behind = {u64(uid) for uid in head.lag}
        if len(rows) == budget:
            head.cursor = rows[-1][0] + b"\0"
            head.scanned_ms = max(head.scanned_ms, horizon_ms)
            self._wake(head, horizon_ms - limits.SCAN_AHEAD_MS)
            return budget
        if head.cursor < stop:
            head.cursor, head.scanned_ms = stop, horizon_ms
        following = self._store.scan(head.cursor, keys.due_stop, 1)
        if following:
            next_ms = int.from_bytes(following[0][0][at : at + 8], "big")
            self._wake_later(head, next_ms)
        else:
            head.next_due_ms = 1 << 62
        return len(rows) + 1

    def _wake_later(self, head: VnodeHead, due_ms: int) -> None:
        head.next_due_ms = due_ms
        self._sequence += 1
        heappush(self._wakes, (due_ms, self._sequence, head))

    def _admit(self, head: VnodeHead, key: bytes, value: bytes) -> None:
        """Take a row of the due index into the window, or note that it stays behind."""
        at = len(head.vnode.keys.due)
        due_ms = int.from_bytes(key[at : at + 8], "big")
        job_id = key[at + 8 :].decode()
        route_uid, version, attempts, uid = read_due_value(value)
        known = head.known.get(job_id)
        if known is not None:
            if (
                known.version == version
                and known.attempts == attempts
                and known.uid == uid
                and known.due_ms == due_ms
            ):
                return
            self._forget_stale(known)
        if job_id in head.moving:
            return
        route = self._meta.routes_by_uid.get(route_uid)
        if route is None and route_uid == 0:
            route = self._late_route(head, job_id)
        if route is not None and route.open:
            lag = head.lag.get(route.uid)
            if lag is not None:
                if key < lag:
                    head.lag[route.uid] = key
                return
            queue = self._queue(route)
            if queue.size >= limits.ROUTE_WINDOW_JOBS_MAX:
                head.lag[route.uid] = key
                if not queue.lagging:
                    queue.lagging_since_ms = self._world.mono_ms()
                queue.lagging[head] = None
                return
            item = Item(head, due_ms, job_id, version, attempts, uid, waiting=False)
            head.known[job_id] = item
            queue.push(item)
            return
        item = Item(head, due_ms, job_id, version, attempts, uid, waiting=False)
        now_ms = self._world.wall_ms()
        if route is not None:
            self._move(head, item, route.uid, held=True)
        elif due_ms <= now_ms:
            self._give_up(head, item)
        else:
            # Until then the route may still come.
            head.moving[job_id] = due_ms
            again = partial(self._admit_again, head, due_ms, job_id, key)
            self._world.call_later(due_ms - now_ms, again)

    def _admit_again(self, head: VnodeHead, due_ms: int, job_id: str, key: bytes) -> None:
        """Its time has come; whatever happened to the job meanwhile took the mark away."""
        if head.vnode in self._heads and head.moving.get(job_id) == due_ms:
            del head.moving[job_id]
            value = self._store.get(key)
            if value is not None:
                self._admit(head, key, value)
                self.wake()

    def _forget_stale(self, item: Item) -> None:
        """The row changed under an item: what is queued is dropped, what is under way goes on."""
        if item.stage == QUEUED and item.queue is not None:
            item.queue.drop(item)
        item.head.known.pop(item.job_id, None)

    def _late_route(self, head: VnodeHead, job_id: str) -> Route | None:
        """The route of a job that was accepted before its route existed.

        Its rows carry the route uid 0 until it is moved to a waiting index, which is by route.
        """
        collection = self._collection_of(head.vnode)
        data = self._store.get(head.vnode.keys.job + job_id.encode())
        if collection is None or data is None:
            return None
        return self._meta.routes.get((collection.db, read_job(data).route))

    def _refill(self, now_ms: int) -> None:
        """Fetch what stayed behind of routes that have room again."""
        budget = limits.SCAN_ROWS_MAX
        for queue in list(self._queues.values()):
            if queue.size > limits.ROUTE_WINDOW_JOBS_MAX // 2 or not queue.route.open:
                continue
            if queue.waiting:
                budget -= self._refill_waiting(queue, now_ms)
            if queue.lagging and budget > 0:
                budget -= self._refill_lag(queue)
            if budget <= 0:
                self.wake()
                return

    def _refill_lag(self, queue: RouteQueue) -> int:
        uid = queue.route.uid
        looked = 0
        ours = (u64(uid), u64(0))
        room = limits.ROUTE_WINDOW_JOBS_MAX - queue.size
        share = max(64, room // len(queue.lagging))
        for head in list(queue.lagging):
            start = head.lag.pop(uid, None)
            del queue.lagging[head]
            if start is None or start >= head.cursor:
                continue
            rows = self._store.scan(start, head.cursor, share)
            looked += len(rows)
            for key, value in rows:
                if value[:8] in ours:
                    self._admit(head, key, value)
            if len(rows) == share and uid not in head.lag:
                head.lag[uid] = rows[-1][0] + b"\0"
                queue.lagging[head] = None
        return looked

    def _refill_waiting(self, queue: RouteQueue, now_ms: int) -> int:
        uid = queue.route.uid
        looked = 0
        share = max(64, limits.ROUTE_WINDOW_JOBS_MAX // (2 * len(queue.waiting)))
        for head, cursor in list(queue.waiting.items()):
            start, stop = head.vnode.keys.waiting_range(uid)
            rows = self._store.scan(max(cursor, start), stop, share)
            looked += len(rows)
            at = len(start)
            for key, value in rows:
                job_id = key[at + 8 :].decode()
                if job_id in head.known:
                    continue
                _, version, attempts, uid_bytes = read_due_value(value)
                due_ms = int.from_bytes(key[at : at + 8], "big")
                item = Item(head, due_ms, job_id, version, attempts, uid_bytes, waiting=True)
                head.known[job_id] = item
                queue.push(item)
            if len(rows) < share:
                del queue.waiting[head]
            else:
                queue.waiting[head] = rows[-1][0] + b"\0"
        return looked

    # --- moving out of the way -------------------------------------------------------------

    def _move(self, head: VnodeHead, item: Item, route_uid: int, *, held: bool) -> None:
        """Move a due job to its route's waiting index."""
        head.known.pop(item.job_id, None)
        head.moving[item.job_id] = item.due_ms
        item.stage = GONE
        seen = c.PendingItem(item.job_id, item.uid, item.version, item.attempts, route_uid)
        command = c.Wait(now_ms=self._world.wall_ms(), items=[seen], held=held)
        self._runtime.propose(head.vnode, command, lambda _: self._moved(head, item, route_uid))

    def _moved(self, head: VnodeHead, item: Item, route_uid: int) -> None:
        head.moving.pop(item.job_id, None)
        self._read_again(head, item, route_uid)

    def _read_again(self, head: VnodeHead, item: Item, route_uid: int) -> None:
        """A job stands in its route's waiting index: what is read of it next must include its row.

        A closed route's is read when it opens; a deleted route's nobody reads any more.
        """
        if head.vnode not in self._heads:
            return
        route = self._meta.routes_by_uid.get(route_uid)
        if route is None:
            self._give_up(head, item)
        elif route.open:
            waiting = self._queue(route).waiting
            start, _ = head.vnode.keys.waiting_range(route_uid)
            key = start + u64(item.due_ms) + item.job_id.encode()
            waiting[head] = min(waiting.get(head, key), key)
            self.wake()

    def _give_up(self, head: VnodeHead, item: Item) -> None:
        head.known.pop(item.job_id, None)
        head.moving[item.job_id] = item.due_ms
        item.stage = GONE
        seen = c.PendingItem(item.job_id, item.uid, item.version, item.attempts)
        command = c.GiveUp(
            now_ms=self._world.wall_ms(),
            items=[seen],
            reason=DeadReason.ROUTE_DELETED.value,
            error="The route does not exist any more.",
        )
        self._runtime.propose(head.vnode, command, lambda _: self._given_up(head, item))

    @staticmethod
    def _given_up(head: VnodeHead, item: Item) -> None:
        head.moving.pop(item.job_id, None)

    def _sweep(self) -> None:
        """Give each background walk over an index one step."""
        for sweep in list(islice(self._sweeps, 4)):
            try:
                next(sweep)
            except StopIteration:
                self._sweeps.remove(sweep)

    def _sweep_held(self, head: VnodeHead, uid: int) -> Any:
        """Held jobs of a route that is open again are scheduled or retrying once more."""
        cursor, stop = head.vnode.keys.waiting_range(uid)
        at = len(cursor)
        while True:
            route = self._meta.routes_by_uid.get(uid)
            if route is None or not route.open or head.vnode not in self._heads:
                return
            rows = self._store.scan(cursor, stop, _MOVE_BATCH)
            if not rows:
                return
            items = []
            for key, value in rows:
                _, version, attempts, uid_bytes = read_due_value(value)
                items.append(c.PendingItem(key[at + 8 :].decode(), uid_bytes, version, attempts))
            command = c.Release(now_ms=self._world.wall_ms(), items=items)
            self._runtime.propose(head.vnode, command)
            cursor = rows[-1][0] + b"\0"
            yield

    def _sweep_lag(self, head: VnodeHead, queue: RouteQueue, *, held: bool) -> Any:
        """Move what stayed behind in the due index to the route's waiting index."""
        uid = queue.route.uid
        at = len(head.vnode.keys.due)
        while head.vnode in self._heads:
            if uid not in self._meta.routes_by_uid:
                return  # `_sweep_deleted` ends what is left
            # Asked anew at each step: an insert meanwhile may have lowered it.
            cursor = head.lag.get(uid)
            if cursor is None or cursor >= head.cursor:
                break
            rows = self._store.scan(cursor, head.cursor, _MOVE_BATCH)
            for key, value in rows:
                route_uid, version, attempts, uid_bytes = read_due_value(value)
                job_id = key[at + 8 :].decode()
                if route_uid == 0:
                    late = self._late_route(head, job_id)
                    route_uid = 0 if late is None else late.uid
                if route_uid == uid and job_id not in head.known and job_id not in head.moving:
                    due_ms = int.from_bytes(key[at : at + 8], "big")
                    item = Item(
                        head,
                        due_ms,
                        job_id,
                        version,
                        attempts,
                        uid_bytes,
                        waiting=False,
                    )
                    item.queue = queue
                    self._move(head, item, uid, held=held)
            if len(rows) < _MOVE_BATCH:
                break
            head.lag[uid] = rows[-1][0] + b"\0"
            yield
        head.lag.pop(uid, None)

    def _sweep_deleted(self, head: VnodeHead, uid: int) -> Any:
        """End every pending job of a deleted route."""
        keys = head.vnode.keys
        cursor, stop = keys.route_range(uid)
        at = len(cursor)
        while head.vnode in self._heads:
            rows = self._store.scan(cursor, stop, _MOVE_BATCH)
            items = []
            for key, _ in rows:
                job_id = key[at + 8 :].decode()
                data = self._store.get(keys.job + job_id.encode())
                record = None if data is None else read_job(data)
                if record is not None and record.queue and record.claim is None:
                    items.append(c.PendingItem(job_id, record.uid, record.version, record.attempts))
            if items:
                command = c.GiveUp(
                    now_ms=self._world.wall_ms(),
                    items=items,
                    reason=DeadReason.ROUTE_DELETED.value,
                    error="The route was deleted.",
                )
                self._runtime.propose(head.vnode, command)
            if len(rows) < _MOVE_BATCH:
                break
            cursor = rows[-1][0] + b"\0"
            yield
        # What stayed behind and is not listed, or came meanwhile, does not hold the offset either.
        ours = (u64(uid), u64(0))
        while head.vnode in self._heads:
            mark = head.lag.get(uid)
            if mark is None or mark >= head.cursor:
                break
            rows = self._store.scan(mark, head.cursor, _MOVE_BATCH)
            for key, value in rows:
                if value[:8] in ours:
                    self._admit(head, key, value)
            if len(rows) < _MOVE_BATCH:
                break
            head.lag[uid] = rows[-1][0] + b"\0"
            yield
        head.lag.pop(uid, None)

    def _move_offsets(self) -> None:
        """Once a second: raise the offsets, and move what lags for too long out of the way."""
        mono_ms = self._world.mono_ms()
        if mono_ms < self._next_offsets_ms:
            return
        self._next_offsets_ms = mono_ms + 1_000.0
        for queue in self._queues.values():
            if not queue.lagging:
                continue
            if mono_ms - queue.lagging_since_ms > limits.LAG_TO_WAITING_MS:
                for head in list(queue.lagging):
                    self._sweeps.append(self._sweep_lag(head, queue, held=False))
                queue.lagging.clear()
        for head in self._heads.values():
            self._move_offset(head)

    def _move_offset(self, head: VnodeHead) -> None:
        if head.offset_asked:
            return
        machine = head.vnode.machine
        assert isinstance(machine, JobMachine)
        low = head.low_mark()
        if len(low) < 8:
            return
        due_ms = int.from_bytes(low[:8], "big")
        state = machine.state
        if due_ms - state.offset_due_ms < 1_000 or not machine.applied_index:
            return
        if not head.known and not head.lag and not head.moving and not any(state.counts[:4]):
            # Nothing is pending: there is nothing that a higher offset would spare anybody.
            return
        job_id = low[8:].rstrip(b"\0").decode()
        head.offset_asked = True

        def moved(_: Any) -> None:
            head.offset_asked = False

        command = c.MoveOffset(
            now_ms=self._world.wall_ms(),
            due_ms=due_ms,
            job_id=job_id,
            seen_index=head.seen_index,
        )
        self._runtime.propose(head.vnode, command, moved)

    # --- claiming --------------------------------------------------------------------------

    def _grant(self, now_ms: int) -> None:
        """Give free slots to due jobs, one route after the other, and ask for their claims."""
        ready = [queue for queue in self._queues.values() if queue.size and queue.route.open]
        granted: dict[VnodeHead, list[Item]] = {}
        while ready:
            following = []
            for queue in ready:
                share = min(queue.slots(now_ms), limits.SENDS_PER_NODE_MAX - self._in_flight, 64)
                if share <= 0:
                    continue
                lead_ms = self._lead_ms(queue.route)
                until_ms = now_ms + lead_ms
                due_ms = queue.next_due_ms()
                if due_ms is None or due_ms > until_ms - lead_ms // 2:
                    continue  # claims of the same moments are made together
                taken = 0
                while taken < share:
                    item = queue.pop(until_ms)
                    if item is None:
                        break
                    taken += 1
                    item.stage = CLAIMING
                    granted.setdefault(item.head, []).append(item)
                self._in_flight += taken
                queue.in_flight += taken
                queue.rate_count += taken
                if taken == share and queue.size:
                    following.append(queue)
            ready = following
            if self._in_flight >= limits.SENDS_PER_NODE_MAX:
                break
        for head, items in granted.items():
            for start in range(0, len(items), limits.CLAIMS_PER_COMMAND_MAX):
                self._claim(head, items[start : start + limits.CLAIMS_PER_COMMAND_MAX], now_ms)

    def _claim(self, head: VnodeHead, items: list[Item], now_ms: int) -> None:
        asked = [
            c.ClaimItem(
                item.job_id,
                item.uid,
                item.version,
                item.attempts + 1,
                max(now_ms, item.due_ms) + (item.queue.route.timeout_ms if item.queue else 0),
            )
            for item in items
        ]
        command = c.Claim(now_ms=now_ms, term=head.vnode.term, items=asked)
        self._runtime.propose(
            head.vnode, command, lambda results: self._claimed(head, items, results)
        )

    def _claimed(self, head: VnodeHead, items: list[Item], results: Any) -> None:
        if not isinstance(results, list):
            # The node stops, or the vnode is gone: nothing may be sent.
            for item in items:
                if item.stage == CLAIMING:
                    self._forget(item)
            return
        now_ms = self._world.wall_ms()
        for item, result in zip(items, results, strict=True):
            if item.stage != CLAIMING:
                continue  # revoked meanwhile; the command that revoked it takes the claim back
            if not result.holds:
                self._claim_failed(item, result)
                continue
            item.record = result.record
            item.stage = CLAIMED
            if self._stopping:
                self._unclaim(item)
            elif item.due_ms <= now_ms:
                self._send(item, now_ms)
            else:
                self._sequence += 1
                heappush(self._timed, (item.due_ms, self._sequence, item))
        self.wake()

    def _claim_failed(self, item: Item, result: ClaimResult) -> None:
        """The job is not what was seen. If it is an orphan of a dead leader, close its attempt."""
        self._forget(item)
        record = result.record
        if record is None or record.claim is None:
            return
        if record.uid != item.uid or record.version != item.version:
            return
        claim = record.claim
        if claim.term >= item.head.vnode.term:
            return
        route = item.queue.route if item.queue is not None else None
        once = route is not None and route.delivery == "at_most_once"
        now_ms = self._world.wall_ms()
        attempt = AttemptRecord(
            attempt=claim.attempt,
            version=record.version,
            status=AttemptStatus.UNKNOWN.value,
            node=self._node_id,
            term=claim.term,
            fence=claim.index,
            url=route.webhook_url if route is not None else "",
            claimed_ms=claim.claimed_ms,
            started_ms=claim.claimed_ms,
            ended_ms=now_ms,
            error_code="orphaned",
            error_message="The node stopped while this attempt was open; its outcome is unknown.",
            next_attempt_ms=None if once else now_ms,
        )
        settle = c.SettleItem(
            job_id=item.job_id,
            uid=record.uid,
            version=record.version,
            attempt=claim.attempt,
            serial=claim.serial,
            verdict=c.VERDICT_DEAD if once else c.VERDICT_RETRY,
            record=codec.encode(attempt),
            retry_ms=now_ms,
            reason=DeadReason.UNKNOWN.value if once else "unknown",
            error=attempt.error_message,
            counts=False,
            route_uid=0 if route is None else route.uid,
        )
        self._settle(item.head, settle)

    def _unclaim(self, item: Item) -> None:
        """Take back a claim whose send did not start."""
        if item.stage != CLAIMED:
            return
        self._forget(item)
        asked = c.ClaimItem(item.job_id, item.uid, item.version, item.attempts + 1, 0)
        command = c.Unclaim(now_ms=self._world.wall_ms(), items=[asked])
        self._runtime.propose(item.head.vnode, command)

    # --- sending ---------------------------------------------------------------------------

    def _send_due(self, now_ms: int) -> None:
        timed = self._timed
        while timed and (timed[0][0] <= now_ms or timed[0][2].stage != CLAIMED):
            item = heappop(timed)[2]
            if item.stage == CLAIMED:
                self._send(item, now_ms)

    def _send(self, item: Item, now_ms: int) -> None:
        """Send a claimed job. Its route may have changed since: look again, now."""
        assert now_ms >= item.due_ms, "a send before its time"
        record = item.record
        assert record is not None
        assert record.claim is not None
        queue = item.queue
        route = self._meta.routes_by_uid.get(queue.route.uid) if queue is not None else None
        if route is None or not route.open or record.claim.term != item.head.vnode.term:
            self._unclaim(item)
            return
        collection = self._collection_of(item.head.vnode)
        if collection is None:
            self._forget(item)
            return
        meta = self._store.get(item.head.vnode.keys.meta + item.job_id.encode()) or b"null"
        prepared = self._prepared_for(route, now_ms)
        request = build_request(
            prepared,
            route,
            record,
            job_id=item.job_id,
            meta=meta,
            db=collection.db,
            collection=collection.name,
            attempt=item.attempts + 1,
            fence=f"{self._meta.settings.restore_epoch}.{record.claim.index}",
            now_ms=now_ms,
        )
        item.stage = SENDING
        item.started_ms = now_ms
        item.url = prepared.url
        self.sends += 1
        if not item.attempts and record.retry_reason is None:
            self._note_lateness(now_ms - record.trigger_ms)
        item.handle = self._sender.send(request, lambda outcome: self._answered(item, outcome))

    def _prepared_for(self, route: Route, now_ms: int) -> Prepared:
        known = self._prepared.get(route.uid)
        if known is not None and known[0] == route.version:
            expires_ms = known[1].expires_ms
            if expires_ms is None or now_ms < expires_ms:
                return known[1]
        prepared = self._prepare(route)
        self._prepared[route.uid] = (route.version, prepared)
        return prepared

    def _note_lateness(self, late_ms: int) -> None:
        self.fired += 1
        self.lateness_sum_ms += late_ms
        self.lateness[bisect_left(LATENESS_BOUNDS_MS, late_ms)] += 1

    # --- settling --------------------------------------------------------------------------

    def _answered(self, item: Item, outcome: Outcome) -> None:
        """An attempt ended: decide what follows, and commit it."""
        if item.stage != SENDING:
            return  # revoked before its first byte
        record = item.record
        queue = item.queue
        assert record is not None
        assert record.claim is not None
        assert queue is not None
        self._free(item)
        item.stage = GONE
        item.handle = None
        now_ms = self._world.wall_ms()
        route = queue.route
        decision = decide(
            AttemptFacts(
                status=outcome.status,
                error_code=outcome.error_code,
                retry_after=outcome.headers.get("retry-after"),
                webhook_delivery=outcome.headers.get("webhook-delivery"),
                bytes_sent=outcome.bytes_sent,
            ),
            route.retry,
            attempt=record.tries + 1,
            first_attempt_ms=record.first_claim_ms,
            ended_ms=now_ms,
            random=self._world.random(),
            delivery=route.delivery,
            non_retryable_status=route.non_retryable_status,
        )
        delivered = decision.verdict is Verdict.DELIVERED
        retry = decision.verdict is Verdict.RETRY
        error = None if delivered else _failure_sentence(outcome)
        # By position: so many keywords cost more than sending does.
        attempt = AttemptRecord(
            item.attempts + 1,
            record.version,
            _SUCCEEDED if delivered else _FAILED,
            self._node_id,
            record.claim.term,
            record.claim.index,
            item.url,
            record.claim.claimed_ms,
            item.started_ms,
            now_ms,
            outcome.resolve_ms,
            outcome.connect_ms,
            outcome.tls_ms,
            outcome.first_byte_ms,
            outcome.total_ms,
            outcome.remote_ip,
            outcome.status,
            tuple(outcome.headers.items()),
            outcome.body,
            outcome.truncated,
            outcome.error_code or (None if delivered else "status"),
            error,
            outcome.error_phase,
            outcome.headers.get("retry-after"),
            decision.retry_at_ms if retry else None,
            record.retry_reason or "scheduled",
        )
        reason = decision.reason.value if decision.reason is not None else None
        if retry:
            reason = outcome.error_code or f"status_{outcome.status}"
        settle = c.SettleItem(
            item.job_id,
            record.uid,
            record.version,
            record.claim.attempt,
            record.claim.serial,
            int(decision.verdict),
            codec.encode(attempt),
            decision.retry_at_ms,
            reason,
            error,
            decision.counts,
            route.uid,
        )
        if delivered:
            queue.succeeded += 1
            queue.last_success_ms = now_ms
        else:
            queue.failed += 1
            queue.last_failure_ms = now_ms
            queue.last_failure = error
        key = reason or "delivered"
        self.outcomes[key] = self.outcomes.get(key, 0) + 1
        if decision.disable_route is not None:
            self._disable_route(
                DisableRoute(now_ms=now_ms, uid=route.uid, reason=decision.disable_route)
            )
        self._settle(item.head, settle)
        if queue.size or queue.waiting or queue.lagging:
            self.wake()
        self._check_drained()

    def _settle(self, head: VnodeHead, settle: c.SettleItem) -> None:
        """Collect settles of one turn of the loop into one command a vnode."""
        head.settles.append(settle)
        self._settling[head] = None
        if not self._settle_scheduled:
            self._settle_scheduled = True
            self._world.call_soon(self._flush_settles)

    def _flush_settles(self) -> None:
        self._settle_scheduled = False
        settling, self._settling = self._settling, {}
        now_ms = self._world.wall_ms()
        for head in settling:
            settles, head.settles = head.settles, []
            for start in range(0, len(settles), limits.CLAIMS_PER_COMMAND_MAX):
                chunk = settles[start : start + limits.CLAIMS_PER_COMMAND_MAX]
                self._runtime.propose(head.vnode, c.Settle(now_ms=now_ms, items=chunk))
        self._check_drained()

    # --- stopping --------------------------------------------------------------------------

    def stop(self, drained: Callable[[], None]) -> None:
        """Claim nothing more, take back what is not sent; `drained` when no send is open."""
        self._stopping = True
        self._when_drained = drained
        for _, _, item in list(self._timed):
            self._unclaim(item)
        self._timed.clear()
        self._check_drained()

    def abort_open_sends(self) -> None:
        """The grace is over: cut what is still open. It counts as our own fault."""
        for head in self._heads.values():
            for item in list(head.known.values()):
                if item.stage == SENDING and item.handle is not None:
                    item.handle.abort()

    def _check_drained(self) -> None:
        if self._when_drained is None or self._in_flight > 0 or self._settling:
            return
        drained, self._when_drained = self._when_drained, None
        self._world.call_soon(drained)

    # --- what others may see ---------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """Attempts claimed or under way."""
        return self._in_flight

    def queue_of(self, route: Route) -> RouteQueue:
        """What this node knows of a route since it started."""
        return self._queues.get(route.uid) or RouteQueue(route)

    def backlog(self, vnode: Vnode) -> int:
        """Due jobs of a vnode that the window holds."""
        head = self._heads.get(vnode)
        return 0 if head is None else len(head.known)


def _failure_sentence(outcome: Outcome) -> str:
    if outcome.error_message:
        return outcome.error_message
    return f"The recipient answered {outcome.status}."
