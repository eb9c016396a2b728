"""Gives free slots to due jobs, and commits the intent of their attempts."""

from collections.abc import Callable
from functools import partial
from typing import Any

from node.delivery.admitting import Admission
from node.delivery.orphans import Orphans
from node.delivery.sending import Sends
from node.env import World
from node.runtime import Runtime
from node.webhook import batch_item_bytes
from timemachine import limits
from timemachine.delivery.forming import Batch
from timemachine.delivery.item import CLAIMED, CLAIMING, Item
from timemachine.delivery.routequeue import TURN_JOBS
from timemachine.delivery.vnodehead import VnodeHead
from timemachine.delivery.window import Window
from timemachine.replica.commands import Claim, ClaimBatch, ClaimItem, PendingItem
from timemachine.replica.records import BatchRow
from timemachine.replica.results import ClaimResult
from timemachine.replica.states import CLAIMABLE
from timemachine.vnode import Vnode


class Claims:
    """Asks for claims, and hands those that hold over to be sent.

    `number` is this node's. `suspend` is told of a vnode that leads and may not fire.
    """

    def __init__(
        self,
        window: Window,
        admission: Admission,
        sends: Sends,
        orphans: Orphans,
        world: World,
        runtime: Runtime,
        *,
        number: int,
        suspend: Callable[[Vnode], None],
    ) -> None:
        self._window = window
        self._admission = admission
        self._sends = sends
        self._orphans = orphans
        self._world = world
        self._runtime = runtime
        self._number = number
        self._suspend = suspend

    def grant(self, now_ms: int) -> None:
        """Give free slots to due jobs, one route after the other, and ask for their claims."""
        window = self._window
        ready = [queue for queue in window.queues.values() if queue.size and queue.route.open]
        granted: dict[VnodeHead, list[Item]] = {}
        batches: list[Batch] = []
        mono_ms = self._world.mono_ms()
        while ready:
            following = []
            for queue in ready:
                room = limits.SENDS_PER_NODE_MAX - window.in_flight
                if queue.forming is not None:
                    given = queue.grant_batches(now_ms, mono_ms, room)
                    window.in_flight += len(given)
                    batches += given
                    if len(given) == TURN_JOBS and queue.size:
                        following.append(queue)
                    continue
                items = queue.grant(now_ms, mono_ms, room)
                window.in_flight += len(items)
                for item in items:
                    granted.setdefault(item.head, []).append(item)
                if len(items) == TURN_JOBS and queue.size:
                    following.append(queue)
            ready = following
        for head, items in granted.items():
            vnode = head.vnode
            if not vnode.sole and not vnode.may_fire(self._world.mono_ms()):
                for item in items:
                    window.forget(item)
                self._suspend(vnode)
                continue
            for start in range(0, len(items), limits.CLAIMS_PER_COMMAND_MAX):
                self._claim(head, items[start : start + limits.CLAIMS_PER_COMMAND_MAX], now_ms)
        for batch in batches:
            self._claim_batch(batch, now_ms)

    def _claim_batch(self, batch: Batch, now_ms: int) -> None:
        head = batch.items[0].head
        vnode = head.vnode
        if not head.fires or not (vnode.sole or vnode.may_fire(self._world.mono_ms())):
            for item in batch.items:
                self._window.forget(item)
            if head.fires:
                self._suspend(vnode)
            return
        route = batch.items[0].queue.route
        again = batch.row is not None
        if not again:
            batch.id = self._world.random_bytes(limits.BATCH_ID_BYTES)
        deadline_ms = max(now_ms, batch.due_ms) + route.timeout_ms
        names = route.name, head.db, head.collection
        command = ClaimBatch(
            now_ms=now_ms,
            term=vnode.term,
            batch=batch.id,
            items=[
                ClaimItem(item.job_id, item.uid, item.version, item.attempts + 1, deadline_ms)
                for item in batch.items
            ],
            format=route.batch.format,
            body=route.body,
            max_bytes=route.batch.max_bytes,
            item_bytes=batch_item_bytes([item.job_id for item in batch.items], *names),
            again=again,
            node=self._number,
            since_ms=head.since_ms,
        )
        row = BatchRow(command.format, command.body, [])
        self._runtime.propose(vnode, command, partial(self._batch_claimed, batch, row))

    def _batch_claimed(self, batch: Batch, row: BatchRow, results: Any) -> None:
        items = batch.items
        if isinstance(results, list):
            # Frozen are those whose claims hold, and just these are sent.
            batch.items = [
                item for item, result in zip(items, results, strict=True) if result.holds
            ]
            batch.row = batch.row or row
        self._claimed(items, results)

    def _claim(self, head: VnodeHead, items: list[Item], now_ms: int) -> None:
        asked = [
            ClaimItem(
                item.job_id,
                item.uid,
                item.version,
                item.attempts + 1,
                max(now_ms, item.due_ms) + item.queue.route.timeout_ms,
            )
            for item in items
        ]
        command = Claim(
            now_ms=now_ms,
            term=head.vnode.term,
            items=asked,
            node=self._number,
            since_ms=head.since_ms,
        )
        self._runtime.propose(head.vnode, command, partial(self._claimed, items))

    def _claimed(self, items: list[Item], results: Any) -> None:
        if not isinstance(results, list):
            # The node stops, or the vnode is gone: nothing may be sent.
            for item in items:
                if item.stage == CLAIMING:
                    self._window.forget(item)
            return
        held = []
        for item, result in zip(items, results, strict=True):
            if item.stage != CLAIMING:
                # Revoked meanwhile: the command that revoked it takes the claim back. But not that
                # of a leader before, which nobody else would look at again.
                if not result.holds:
                    seen = PendingItem(item.job_id, item.uid, item.version, item.attempts)
                    self._orphans.look(item.head, item.due_ms, seen)
                continue
            if result.holds:
                item.stage = CLAIMED
                item.record = result.record
                held.append(item)
            else:
                self._failed(item, result)
        if items[0].batch is not None:
            self._sends.hold_batch(items[0].batch)
        elif items[0].head.fires:
            self._sends.hold(held)
        else:
            for item in held:
                self._sends.withdraw(item)
        self._window.wake()

    def _failed(self, item: Item, result: ClaimResult) -> None:
        """The job is not what was seen. If it is an orphan of a dead leader, close its attempt."""
        self._window.forget(item)
        record = result.record
        if record is None or record.uid != item.uid or record.version != item.version:
            return
        head = item.head
        if item.batch is not None and record.attempts == item.attempts:
            # Nothing is wrong with the job: its batch was full, or cannot be sent as it was.
            if head.fires and record.order is not None:
                self._admission.look_for_turn(head, item.job_id)
            elif head.fires and record.state in CLAIMABLE:
                self._admission.look_again(head, item.job_id, record)
            return
        if self._orphans.close(head, item.due_ms, item.job_id, record):
            return
        if head.fires and record.claim is not None:
            # It was moved while it was being claimed: that claim holds, and its send goes on. Until
            # its end nothing may pass the row by, or the next leader would not find it open.
            head.moving[item.job_id] = item.due_ms
        elif record.order is not None:
            self._admission.look_for_turn(head, item.job_id)
