"""Commits what follows from attempts that ended: delivered, tried again, or dead."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from node.delivery.breakers import Breakers
from node.delivery.failures import Failures
from node.delivery.waits import Waits
from node.env import World
from node.runtime import Runtime
from timemachine import limits
from timemachine.delivery.breaker import says
from timemachine.delivery.forming import Batch
from timemachine.delivery.item import GONE, SENDING, Item
from timemachine.delivery.settlement import settle_batch, settle_outcome
from timemachine.delivery.vnodehead import VnodeHead
from timemachine.delivery.waits import wait_ms
from timemachine.delivery.window import Window
from timemachine.errors import TimeMachineError
from timemachine.outbound import Outcome
from timemachine.replica.commands import VERDICT_DELIVERED, Settle, SettleItem, Split
from timemachine.replica.meta import DisableRoute
from timemachine.retry import is_success
from timemachine.vnode import Vnode

Late = Callable[[tuple[int, int], list[SettleItem]], None]
"""Takes what became of attempts of a group that another node leads."""


class Settles:
    """Settles of one turn of the loop become one command a vnode; `flushed` hears of each turn.

    `late` gets those of a group that this node cannot commit, or may not have committed.
    `outcomes` counts attempts by what followed: delivered, or the reason of failure.
    """

    def __init__(
        self,
        window: Window,
        world: World,
        runtime: Runtime,
        *,
        node_id: str,
        disable_route: Callable[[DisableRoute], None],
        flushed: Callable[[], None],
        late: Late,
        waits: Waits,
        breakers: Breakers,
        failures: Failures,
    ) -> None:
        self._window = window
        self._world = world
        self._runtime = runtime
        self._node_id = node_id
        self._disable_route = disable_route
        self._flushed = flushed
        self._late = late
        self._waits = waits
        self._breakers = breakers
        self._failures = failures
        self._waiting: dict[VnodeHead, list[SettleItem]] = {}
        self._given_up: dict[VnodeHead, list[SettleItem]] = {}
        self.outcomes: dict[str, int] = {}

    @property
    def idle(self) -> bool:
        """Whether every settle has become a command."""
        return not self._waiting

    def answered(self, item: Item, outcome: Outcome) -> None:
        """A request ended: decide what follows, and commit it."""
        if item.stage != SENDING:
            return  # revoked before its first byte
        window = self._window
        queue = item.queue
        window.free(item)
        item.stage = GONE
        item.handle = None
        now_ms = self._world.wall_ms()
        # Drawn where it is used, for it costs as much as all else that is decided.
        random = 0.0 if is_success(outcome.status) else self._world.random()
        others: list[SettleItem] = []
        split: Split | None = None
        if item.batch is None:
            settle, decision = settle_outcome(
                item, outcome, node_id=self._node_id, now_ms=now_ms, random=random
            )
        else:
            self._end(item.batch)
            (settle, *others), decision, split = settle_batch(
                item.batch,
                outcome,
                node_id=self._node_id,
                now_ms=now_ms,
                random=random,
                draw=partial(self._world.random_bytes, limits.BATCH_ID_BYTES),
            )
        if settle.verdict == VERDICT_DELIVERED:
            queue.succeeded += 1
            queue.last_success_ms = now_ms
            if queue.breaker is not None:
                self._breakers.noted(item, good=True)
            if queue.failing_since_ms is not None or item.route.failing.first_ms:
                self._failures.succeeded(item, now_ms)
        elif decision.counts:
            # What is our own fault says nothing of the recipient.
            queue.failed += 1
            queue.last_failure_ms = now_ms
            queue.last_failure = settle.error
            route = item.route
            asked_ms = wait_ms(
                outcome.status, outcome.headers.get("retry-after"), route.retry, now_ms
            )
            if asked_ms:
                self._waits.asked(route, asked_ms)
            if says(outcome.status, outcome.error_code, decision.reason, route) is False:
                self._breakers.noted(item, good=False)
                self._failures.failed(item, now_ms)
        key = settle.reason or "delivered"
        self.outcomes[key] = self.outcomes.get(key, 0) + 1
        # What was sent by an earlier version says nothing of the recipient of this one.
        if decision.disable_route is not None and item.route.version == queue.route.version:
            self._disable_route(
                DisableRoute(
                    now_ms=now_ms,
                    uid=settle.route_uid,
                    version=item.route.version,
                    reason=decision.disable_route,
                )
            )
        if split is not None:
            self._commit_split(item.head.vnode, [settle, *others], split)
        else:
            self.add(item.head, settle)
            for other in others:
                self.add(item.head, other)
        if queue.size or queue.waiting or queue.lagging:
            window.wake()

    def _end(self, batch: Batch) -> None:
        """The request of a batch has ended for all of its jobs but the first."""
        for item in batch.items[1:]:
            self._window.free(item)
            item.stage = GONE
            item.handle = None

    def _commit_split(self, vnode: Vnode, settles: list[SettleItem], split: Split) -> None:
        # Alone: its halves are frozen where all of its settles are.
        done = None if vnode.sole else partial(self._settled, vnode.group, settles)
        command = Settle(now_ms=self._world.wall_ms(), items=settles, split=split)
        self._runtime.propose(vnode, command, done)

    def add(self, head: VnodeHead, settle: SettleItem) -> None:
        """Commit a settle with the others of this turn."""
        waiting = self._waiting
        if not waiting:
            self._world.call_soon(self.flush)
        settles = waiting.get(head)
        if settles is None:
            waiting[head] = [settle]
        else:
            settles.append(settle)

    def give_up(self, head: VnodeHead, settle: SettleItem) -> None:
        """Commit that nobody knows how an attempt ended, if this node goes on to lead.

        The next leader may be the one that does know.
        """
        if not self._given_up:
            self._world.call_soon(self.flush)
        self._given_up.setdefault(head, []).append(settle)

    def flush(self) -> None:
        """Make commands of what waits, now."""
        waiting, self._waiting = self._waiting, {}
        for head, settles in waiting.items():
            self._commit(head.vnode, settles, forwards=not head.vnode.sole)
            if not head.fires:
                self._window.leave_open(head.vnode.group, [])
        if self._given_up:
            given_up, self._given_up = self._given_up, {}
            for head, settles in given_up.items():
                if head.fires:
                    self._commit(head.vnode, settles, forwards=False)
        self._flushed()

    def _commit(self, vnode: Vnode, settles: list[SettleItem], *, forwards: bool) -> None:
        now_ms = self._world.wall_ms()
        for chunk in _chunks(settles):
            done = partial(self._settled, vnode.group, chunk) if forwards else None
            self._runtime.propose(vnode, Settle(now_ms=now_ms, items=chunk), done)

    def _settled(self, group: tuple[int, int], settles: list[SettleItem], result: Any) -> None:
        if isinstance(result, TimeMachineError) and self._runtime.working:
            self._late(group, settles)

    def forget(self, head: VnodeHead) -> None:
        """Nobody asks any more what became of a vnode's attempts."""
        self._waiting.pop(head, None)


def _chunks(settles: list[SettleItem]) -> Iterator[list[SettleItem]]:
    """Settles in parts that fit an entry of the log, whatever recipients have answered."""
    most, bytes_max = limits.CLAIMS_PER_COMMAND_MAX, limits.ENTRY_BYTES_TARGET
    if len(settles) <= most and sum([len(each.record) for each in settles]) <= bytes_max:
        yield settles
        return
    chunk: list[SettleItem] = []
    size = 0
    for each in settles:
        if chunk and (len(chunk) == most or size + len(each.record) > bytes_max):
            yield chunk
            chunk, size = [], 0
        chunk.append(each)
        size += len(each.record)
    yield chunk
