"""Walks over indexes in the background, some rows at a time, after a change of a route."""

from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import Any

from node.delivery.admitting import Admission
from node.delivery.orphans import Orphans
from node.delivery.parking import Parking
from node.delivery.waits import Waits
from node.env import World
from node.runtime import Runtime
from timemachine import limits
from timemachine.delivery.routequeue import RouteQueue
from timemachine.delivery.vnodehead import VnodeHead
from timemachine.delivery.window import Window
from timemachine.replica.commands import PendingItem, Release, Wait
from timemachine.replica.meta import MetaMachine
from timemachine.replica.records import read_job
from timemachine.storage.api import Store
from timemachine.storage.keys import read_due_value
from timemachine.vnode import Vnode

_ROWS = 500
_WALKS_A_STEP = 4
_MOVING_MAX = 1_000
"""Of one vnode at a time: what else is asked of it stands behind these."""


class Sweeps:
    """Walks that are under way. Each ends when its vnode is gone, or what it is for."""

    def __init__(
        self,
        window: Window,
        admission: Admission,
        parking: Parking,
        orphans: Orphans,
        world: World,
        store: Store,
        runtime: Runtime,
        meta: MetaMachine,
        waits: Waits,
    ) -> None:
        self._window = window
        self._waits = waits
        self._admission = admission
        self._parking = parking
        self._orphans = orphans
        self._world = world
        self._store = store
        self._runtime = runtime
        self._meta = meta
        self._walks: deque[Iterator[None]] = deque()

    @property
    def idle(self) -> bool:
        """Whether no walk is under way."""
        return not self._walks

    def step(self) -> None:
        """Give the first walks one step each; their next turn comes after that of all others.

        One that waits for its vnode does not hold up those of other vnodes.
        """
        for _ in range(min(_WALKS_A_STEP, len(self._walks))):
            walk = self._walks.popleft()
            try:
                next(walk)
            except StopIteration:
                continue
            self._walks.append(walk)

    def release(self, head: VnodeHead, route_uid: int) -> None:
        """Held jobs of a route that is open again are scheduled or retrying once more."""
        self._walks.append(self._walk_waiting(head, route_uid, opened=True))

    def hold(self, head: VnodeHead, route_uid: int) -> None:
        """Jobs that wait for a route which was open until now, and is closed, are held."""
        self._walks.append(self._walk_waiting(head, route_uid, opened=False))

    def park_lag(self, queue: RouteQueue, *, held: bool) -> None:
        """Move what stayed behind of a route, in all vnodes, to its waiting indexes."""
        for head in queue.lagging:
            self._walks.append(self._park_lag(head, queue.route.uid, held=held))
        queue.lagging.clear()

    def park_old_lag(self, mono_ms: float) -> None:
        """The same for all routes that have been lagging for too long.

        So that one that waits for long does not hold up the window, and the offset, it lags.
        """
        for queue in self._window.queues.values():
            if queue.waits and queue.size and self._waits.is_long(queue.route.uid):
                self._window.leave_behind(queue, mono_ms)
            if queue.lagging and mono_ms - queue.lagging_since_ms > limits.LAG_TO_WAITING_MS:
                self.park_lag(queue, held=False)

    def give_up(self, head: VnodeHead, route_uid: int) -> None:
        """End the pending jobs of a deleted route in one vnode."""
        self._walks.append(self._give_up(head, route_uid))
        self._window.wake()

    def _walk_waiting(self, head: VnodeHead, route_uid: int, *, opened: bool) -> Iterator[None]:
        """Have the jobs that wait for a route be held, or not, as it was closed or opened."""
        cursor, stop = head.vnode.keys.waiting_range(route_uid)
        at = len(cursor)
        while True:
            route = self._meta.routes_by_uid.get(route_uid)
            if route is None or route.open is not opened or not head.fires:
                return
            rows = self._store.scan(cursor, stop, _ROWS)
            if not rows:
                return
            items = []
            for key, value in rows:
                _, version, attempts, uid = read_due_value(value)
                items.append(PendingItem(key[at + 8 :].decode(), uid, version, attempts, route_uid))
            now_ms = self._world.wall_ms()
            command = (
                Release(now_ms=now_ms, items=items)
                if opened
                else Wait(now_ms=now_ms, items=items, held=True)
            )
            open_ones = [command]
            done = partial(self._walked, open_ones, head.vnode, route_uid, held=not opened)
            self._runtime.propose(head.vnode, command, done)
            cursor = rows[-1][0] + b"\0"
            yield
            while open_ones and head.fires:
                yield

    def _walked(
        self, open_ones: list[Any], vnode: Vnode, route_uid: int, _: Any, *, held: bool
    ) -> None:
        """A step of a walk is committed, or will not be: the next one may be made."""
        open_ones.clear()
        if held:
            self._held(vnode, route_uid)

    def _held(self, vnode: Vnode, route_uid: int) -> None:
        """Jobs were held. One that had been run meanwhile was due, and has been moved back by that.

        Where the route is open again by now, nobody else reads it.
        """
        route = self._meta.routes_by_uid.get(route_uid)
        head = self._window.heads.get(vnode)
        if head is not None and route is not None and route.open:
            self._window.queue(route).waiting[head] = b""
            self._window.wake()

    def _park_lag(self, head: VnodeHead, route_uid: int, *, held: bool) -> Iterator[None]:
        at = len(head.vnode.keys.due)
        while head.fires:
            if route_uid not in self._meta.routes_by_uid:
                return  # `_give_up` ends what is left
            if self._parking.under_way[head] >= _MOVING_MAX:
                yield
                continue
            # Asked anew at each step: an insert meanwhile may have lowered it.
            cursor = head.lag.get(route_uid)
            if cursor is None or cursor >= head.cursor:
                break
            rows = self._store.scan(cursor, head.cursor, _ROWS)
            for key, value in rows:
                uid_there, version, attempts, uid = read_due_value(value)
                job_id = key[at + 8 :].decode()
                if uid_there == 0:
                    late = self._admission.late_route(head, job_id)
                    uid_there = 0 if late is None else late.uid
                if (
                    uid_there == route_uid
                    and job_id not in head.known
                    and job_id not in head.moving
                ):
                    due_ms = int.from_bytes(key[at : at + 8], "big")
                    seen = PendingItem(job_id, uid, version, attempts, route_uid)
                    self._parking.park(head, due_ms, seen, held=held)
            if len(rows) < _ROWS:
                break
            head.lag[route_uid] = rows[-1][0] + b"\0"
            yield
        head.lag.pop(route_uid, None)

    def _give_up(self, head: VnodeHead, route_uid: int) -> Iterator[None]:
        keys = head.vnode.keys
        cursor, stop = keys.route_range(route_uid)
        at = len(cursor)
        while head.fires:
            rows = self._store.scan(cursor, stop, _ROWS)
            items = []
            for key, _ in rows:
                job_id = key[at + 8 :].decode()
                data = self._store.get(keys.job + job_id.encode())
                record = None if data is None else read_job(data)
                if record is None or not record.queue:
                    continue
                if record.claim is None:
                    items.append(PendingItem(job_id, record.uid, record.version, record.attempts))
                elif job_id not in head.known and job_id not in head.moving:
                    self._orphans.close(head, record.due_ms, job_id, record)
            if items:
                self._parking.give_up_all(head, items, "The route was deleted.")
            if len(rows) < _ROWS:
                break
            cursor = rows[-1][0] + b"\0"
            yield
        # What stayed behind and is not listed, or came meanwhile, does not hold the offset either.
        while head.fires and route_uid in head.lag:
            self._admission.admit_lag(head, route_uid, _ROWS)
            yield
