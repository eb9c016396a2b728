"""Takes rows of the due index into the window, or sends them where they do not hold it up."""

from functools import partial

from node.delivery.parking import Parking
from node.env import World
from timemachine import limits
from timemachine.delivery.item import Item
from timemachine.delivery.routequeue import RouteQueue
from timemachine.delivery.vnodehead import VnodeHead
from timemachine.delivery.window import Window
from timemachine.model import JobRecord, Route
from timemachine.replica.commands import PendingItem
from timemachine.replica.meta import MetaMachine
from timemachine.replica.records import read_batch, read_job
from timemachine.replica.rows import queue_value
from timemachine.replica.states import DUE, NO_ROW, WAITING
from timemachine.storage.api import Store
from timemachine.storage.keys import batch_of_due, is_ordered, read_due_value, u64


class Admission:
    """Decides by route what becomes of a due row: queued, left behind, parked, or given up."""

    def __init__(
        self, window: Window, parking: Parking, world: World, store: Store, meta: MetaMachine
    ) -> None:
        self._window = window
        self._parking = parking
        self._world = world
        self._store = store
        self._meta = meta

    def admit(self, head: VnodeHead, key: bytes, value: bytes) -> None:
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
                and (known.queue.forming is None or known.bound == batch_of_due(value))
            ):
                # Moved here while it was being claimed out of its waiting index: that claim holds,
                # and until it is settled the offset must not pass the row.
                known.waiting = False
                return
            head.let_go(known)
        if job_id in head.moving:
            return
        if is_ordered(value) and not head.machine.in_turn(job_id):
            self.stand_aside(head, key[at:], value)
            return
        route = self._meta.routes_by_uid.get(route_uid)
        if route is None and route_uid == 0:
            route = self.late_route(head, job_id)
        if route is not None and route.open:
            lag = head.lag.get(route.uid)
            if lag is not None:
                if key < lag:
                    head.lag[route.uid] = key
                return
            queue = self._window.queue(route)
            if queue.shut:
                # Where it waits for the breaker it takes no room, and holds up no offset.
                seen = PendingItem(job_id, uid, version, attempts, route.uid)
                self._parking.park(head, due_ms, seen, held=False)
                return
            if queue.size >= limits.ROUTE_WINDOW_JOBS_MAX:
                head.lag[route.uid] = key
                if not queue.lagging:
                    queue.lagging_since_ms = self._world.mono_ms()
                queue.lagging[head] = None
                return
            item = Item(head, queue, due_ms, job_id, version, attempts, uid, waiting=False)
            item.alone = is_ordered(value)
            if queue.forming is not None:
                self.bind(item, batch_of_due(value))
            head.known[job_id] = item
            queue.push(item)
            return
        now_ms = self._world.wall_ms()
        if route is not None:
            seen = PendingItem(job_id, uid, version, attempts, route.uid)
            self._parking.park(head, due_ms, seen, held=True)
        elif route_uid and self._meta.may_come(route_uid):
            head.moving[job_id] = due_ms
            again = partial(self._admit_again, head, due_ms, job_id)
            self._world.call_later(limits.META_BEHIND_MS, again)
        elif due_ms <= now_ms:
            self._parking.give_up(head, due_ms, PendingItem(job_id, uid, version, attempts))
        else:
            # Until then the route may still come.
            head.moving[job_id] = due_ms
            again = partial(self._admit_again, head, due_ms, job_id)
            self._world.call_later(due_ms - now_ms, again)

    def _admit_again(self, head: VnodeHead, due_ms: int, job_id: str) -> None:
        """Its time has come; whatever happened to the job meanwhile took it from `moving`."""
        if head.fires and head.moving.get(job_id) == due_ms:
            key = head.vnode.keys.due + u64(due_ms) + job_id.encode()
            del head.moving[job_id]
            value = self._store.get(key)
            if value is not None:
                self.admit(head, key, value)
                self._window.wake()

    def stand_aside(self, head: VnodeHead, row: bytes, value: bytes) -> None:
        """Have the job of a due or waiting row, given from its due time on, wait for its turn."""
        due_ms, job_id = int.from_bytes(row[:8], "big"), row[8:].decode()
        _, version, attempts, uid = read_due_value(value)
        self._parking.stand_aside(head, due_ms, PendingItem(job_id, uid, version, attempts))

    def look_for_turn(self, head: VnodeHead, job_id: str) -> None:
        """Take a job that was not taken, if it is due all the same: it has got its turn since."""
        record = head.machine.read(job_id) if head.fires else None
        if record is None or record.claim is not None:
            return
        if record.queue == WAITING:
            self.look_again(head, job_id, record)
        elif record.queue == DUE:
            key = head.vnode.keys.due + u64(record.due_ms) + job_id.encode()
            if key < head.cursor:
                self.admit(head, key, queue_value(record))
                self._window.wake()

    def look_again(self, head: VnodeHead, job_id: str, record: JobRecord) -> None:
        """A pending job was not claimed, and nothing of it has changed: read its row once more."""
        if record.queue == WAITING:
            seen = PendingItem(
                job_id, record.uid, record.version, record.attempts, record.route_uid
            )
            self._parking.read_again(head, record.due_ms, seen)
            return
        key = head.vnode.keys.due + u64(record.due_ms) + job_id.encode()
        value = self._store.get(key)
        if value is not None:
            self.admit(head, key, value)

    def bind(self, item: Item, batch: bytes) -> None:
        """A job that was sent in a batch, and is bound to it, goes on in that one."""
        forming = item.queue.forming
        if not batch or forming is None:
            return
        head = item.head
        if not forming.knows(head, batch):
            data = self._store.get(head.vnode.keys.batch + batch)
            if data is None:
                return
            forming.expect(head, batch, read_batch(data))
        item.bound = batch

    def complete(self, queue: RouteQueue) -> None:
        """Fetch what is missing of batches that were sent before.

        Their rows may lie where nothing is read for now, because the queue is full of others like
        them: then all would wait for each other.
        """
        forming = queue.forming
        assert forming is not None
        for head, batch, job_ids in forming.take_lacking():
            for job_id in job_ids:
                if job_id in head.known or job_id in head.moving:
                    # On its way: when it comes back there may be no room for its row.
                    forming.lack(head, batch)
                    continue
                data = self._store.get(head.vnode.keys.job + job_id.encode())
                record = None if data is None else read_job(data)
                if record is None or record.queue in NO_ROW:
                    continue
                # Claimed by a leader of before it is no retry yet, and the claim finds that out.
                settled = record.attempts if record.claim is None else record.attempts - 1
                item = Item(
                    head,
                    queue,
                    record.due_ms,
                    job_id,
                    record.version,
                    settled,
                    record.uid,
                    waiting=record.queue == WAITING,
                    bound=record.batch if record.batch == batch else b"",
                )
                item.alone = record.order is not None
                head.known[job_id] = item
                queue.push(item)

    def admit_lag(self, head: VnodeHead, route_uid: int, count: int) -> int:
        """Look again at rows that stayed behind of a route, at most `count`; how many were there.

        While more may follow, the route goes on to lag.
        """
        start = head.lag.pop(route_uid, None)
        if start is None or start >= head.cursor:
            return 0
        rows = self._store.scan(start, head.cursor, count)
        ours = (u64(route_uid), u64(0))
        for key, value in rows:
            if value[:8] in ours:
                self.admit(head, key, value)
        if len(rows) == count:
            head.lag.setdefault(route_uid, rows[-1][0] + b"\0")
        return len(rows)

    def late_route(self, head: VnodeHead, job_id: str) -> Route | None:
        """The route of a job that was accepted before its route existed.

        Its rows carry the route uid 0 until it is moved to a waiting index, which is by route.
        """
        data = self._store.get(head.vnode.keys.job + job_id.encode())
        if data is None:
            return None
        return self._meta.routes.get((head.db, read_job(data).route))
