"""Sends what is claimed, at its due moment, or takes the claim back."""

from collections.abc import Callable, Mapping
from functools import partial
from heapq import heappop, heappush
from types import MappingProxyType

import msgspec

from node.delivery.settling import Settles
from node.delivery.walltime import WallTime
from node.env import World
from node.runtime import Runtime
from node.webhook import Member, Prepared, build_batch_request, build_request
from timemachine.delivery.forming import Batch
from timemachine.delivery.item import CLAIMED, SENDING, Item
from timemachine.delivery.lateness import Lateness
from timemachine.delivery.routequeue import RouteQueue
from timemachine.delivery.window import Window
from timemachine.model import Route
from timemachine.outbound import Request, Sender
from timemachine.replica.commands import ClaimItem, Unclaim
from timemachine.replica.meta import MetaMachine
from timemachine.storage.api import Store

_NOTHING: Mapping[bytes, bytes] = MappingProxyType({})


class Sends:
    """Claimed jobs wait here for their moment. `started` counts the requests that began."""

    def __init__(
        self,
        window: Window,
        settles: Settles,
        world: World,
        wall_time: WallTime,
        store: Store,
        runtime: Runtime,
        meta: MetaMachine,
        sender: Sender,
        *,
        prepare: Callable[[Route], Prepared],
    ) -> None:
        self._window = window
        self._answered = settles.answered
        self._world = world
        self._wall_time = wall_time
        self._store = store
        self._runtime = runtime
        self._meta = meta
        self._sender = sender
        self._prepare = prepare
        self._prepared: dict[int, Prepared] = {}
        self._timed: list[tuple[int, int, Item]] = []
        self._sequence = 0
        self.started = 0
        self.lateness = Lateness()

    # --- claimed, not sent -----------------------------------------------------------------

    def hold(self, items: list[Item]) -> None:
        """These are claimed, all of one vnode: send each as soon as it is due."""
        now_ms = self._wall_time.now_ms()
        large = [item for item in items if item.record is not None and item.record.meta is None]
        near = _NOTHING
        if large:
            meta = large[0].head.vnode.keys.meta
            near = self._store.near(sorted([meta + item.job_id.encode() for item in large]))
        for item in items:
            if self._window.stopping:
                self.unclaim(item)
            elif item.due_ms <= now_ms:
                self._send(item, now_ms, near)
            else:
                self._sequence += 1
                heappush(self._timed, (item.due_ms, self._sequence, item))

    def hold_batch(self, batch: Batch) -> None:
        """The jobs of a batch are claimed: send it as soon as the last one is due, or not at all.

        Not if one was taken out meanwhile: under its id nothing else than what was frozen is sent.
        """
        items = [item for item in batch.items if item.stage == CLAIMED]
        if not items:
            return
        item = items[0]
        if len(items) < len(batch.items) or not item.head.fires:
            self.withdraw(item)
        elif self._window.stopping:
            self.unclaim(item)
        elif batch.due_ms <= (now_ms := self._wall_time.now_ms()):
            self._send(item, now_ms)
        else:
            self._sequence += 1
            heappush(self._timed, (batch.due_ms, self._sequence, item))

    def next_ms(self) -> int | None:
        """When the next claimed job is due, by the wall clock."""
        return self._timed[0][0] if self._timed else None

    def unclaim(self, item: Item) -> None:
        """Take back a claim whose send did not start; of a batch, those of all its jobs."""
        if item.stage != CLAIMED:
            return
        asked = []
        for each in _sent_with(item):
            self._window.forget(each)
            asked.append(ClaimItem(each.job_id, each.uid, each.version, each.attempts + 1, 0))
        command = Unclaim(now_ms=self._world.wall_ms(), items=asked)
        self._runtime.propose(item.head.vnode, command)

    def withdraw(self, item: Item) -> None:
        """Do not send what is claimed: take the claim back, or leave it to the next leader."""
        if item.head.vnode.is_leader():
            self.unclaim(item)
        elif item.stage == CLAIMED:
            for each in _sent_with(item):
                self._window.forget(each)

    def unclaim_after(self, due_ms: int) -> None:
        """Take back the claims of jobs that are due later than that."""
        for item in [item for at_ms, _, item in self._timed if at_ms > due_ms]:
            self.unclaim(item)

    def unclaim_route(self, queue: RouteQueue) -> None:
        """Take back the claims of one route's jobs, also where a request waits to leave."""
        for item in [item for _, _, item in self._timed if item.queue is queue]:
            self.unclaim(item)
        for item in self._window.sending():
            if item.queue is queue and item.take_unsent():
                self.withdraw(item)

    def stop(self) -> None:
        """Take back what is not sent."""
        for _, _, item in self._timed:
            self.unclaim(item)
        self._timed.clear()

    # --- sending ---------------------------------------------------------------------------

    def send_due(self, now_ms: int) -> None:
        """Send what is due by now."""
        timed = self._timed
        while timed and (timed[0][0] <= now_ms or timed[0][2].stage != CLAIMED):
            item = heappop(timed)[2]
            if item.stage == CLAIMED:
                self._send(item, now_ms)

    def _send(self, item: Item, now_ms: int, near: Mapping[bytes, bytes] = _NOTHING) -> None:
        """Send a claimed job. Its route may have changed since: look again, now.

        `near` may hold its meta, where that has a row of its own.
        """
        batch = item.batch
        assert now_ms >= (item.due_ms if batch is None else batch.due_ms), "a send before its time"
        record = item.record
        assert record is not None
        claim = record.claim
        assert claim is not None
        head = item.head
        vnode = head.vnode
        firing = head.machine.firing.get(item.job_id)
        if firing is not record and not (
            firing is not None
            and firing.version == record.version
            and firing.uid == record.uid
            and firing.claim is not None
            and firing.claim.index == claim.index
        ):
            # Another version has taken its place since, and its content is not there any more.
            self.withdraw(item)
            return
        if batch is not None and not all(map(_is_as_claimed, batch.items)):
            self.withdraw(item)
            return
        route = self._meta.routes_by_uid.get(item.queue.route.uid)
        if (
            route is None
            or not route.open
            or claim.term != vnode.term
            or not head.fires
            # Looked at now, for the process may have been asleep since the claim.
            or not (vnode.sole or vnode.may_fire(self._world.mono_ms()))
        ):
            self.withdraw(item)
            return
        queue = item.queue
        if queue.in_flight > queue.owned:
            # By what other nodes lend, or what was owned at the claim.
            timeout_ms = queue.timeout_ms(self._world.mono_ms())
            if not timeout_ms:
                self.withdraw(item)
                return
            if timeout_ms < route.timeout_ms:
                route = msgspec.structs.replace(route, timeout_ms=timeout_ms)
        prepared = self._prepared.get(route.uid)
        if prepared is None or not prepared.holds(route, now_ms):
            prepared = self._prepared[route.uid] = self._prepare(route)
        if batch is not None:
            self._send_batch(batch, route, prepared, now_ms)
            return
        meta = record.meta
        if meta is None:
            meta_key = vnode.keys.meta + item.job_id.encode()
            meta = near.get(meta_key) or self._store.get(meta_key) or b"null"
        request = build_request(
            prepared,
            route,
            record,
            job_id=item.job_id,
            meta=meta,
            db=head.db,
            collection=head.collection,
            attempt=claim.attempt,
            fence=f"{self._meta.settings.restore_epoch}.{claim.index}",
            now_ms=now_ms,
        )
        item.stage = SENDING
        item.started_ms = now_ms
        item.route = route
        item.key_ids = prepared.key_ids
        self.started += 1
        if claim.attempt == 1 and record.retry_reason is None:
            self.lateness.note(now_ms - item.due_ms)
        may_leave = None if vnode.sole else partial(self._may_leave, item)
        item.handle = self._sender.send(request, partial(self._answered, item), may_leave)

    def _send_batch(self, batch: Batch, route: Route, prepared: Prepared, now_ms: int) -> None:
        items = batch.items
        first = items[0]
        head = first.head
        vnode = head.vnode
        request = self._batch_request(batch, route, prepared, now_ms)
        for item in items:
            item.stage = SENDING
            item.started_ms = now_ms
            item.route = route
            item.key_ids = prepared.key_ids
            record = item.record
            assert record is not None
            if item.attempts == 0 and record.retry_reason is None:
                self.lateness.note(now_ms - item.due_ms)
        self.started += 1
        may_leave = None if vnode.sole else partial(self._may_leave, first)
        handle = self._sender.send(request, partial(self._answered, first), may_leave)
        for item in items:
            item.handle = handle

    def _batch_request(
        self, batch: Batch, route: Route, prepared: Prepared, now_ms: int
    ) -> Request:
        first = batch.items[0]
        head = first.head
        vnode = head.vnode
        meta_rows = vnode.keys.meta
        members = []
        for item in batch.items:
            record = item.record
            assert record is not None
            meta = record.meta
            if meta is None:
                meta = self._store.get(meta_rows + item.job_id.encode()) or b"null"
            members.append(Member(item.job_id, record, meta))
        claim = members[0].record.claim
        assert claim is not None
        row = batch.row
        assert row is not None
        return build_batch_request(
            prepared,
            route,
            members,
            batch=batch.id,
            format=row.format,
            body=row.body,
            db=head.db,
            collection=head.collection,
            attempt=claim.attempt,
            fence=f"{self._meta.settings.restore_epoch}.{claim.index}",
            now_ms=now_ms,
        )

    def _may_leave(self, item: Item) -> bool:
        """Whether the attempt may still begin, when its connection is there at last."""
        record = item.record
        assert record is not None
        assert record.claim is not None
        vnode = item.head.vnode
        return record.claim.term == vnode.term and vnode.may_fire(self._world.mono_ms())

    def forget_route(self, uid: int) -> None:
        """Let go of what was opened of a route, its secrets among it."""
        self._prepared.pop(uid, None)

    def abort_open(self) -> None:
        """Cut what is still open. It counts as our own fault."""
        for item in self._window.sending():
            if item.handle is not None:
                item.handle.abort()


def _sent_with(item: Item) -> list[Item]:
    """The claimed jobs of one request that was not sent."""
    batch = item.batch
    if batch is None:
        return [item]
    return [each for each in batch.items if each.stage == CLAIMED]


def _is_as_claimed(item: Item) -> bool:
    """Whether the job is the one that was claimed."""
    record, firing = item.record, item.head.machine.firing.get(item.job_id)
    return firing is record or (
        record is not None
        and firing is not None
        and record.claim is not None
        and firing.claim is not None
        and firing.version == record.version
        and firing.uid == record.uid
        and firing.claim.index == record.claim.index
    )
