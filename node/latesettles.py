"""Outcomes of sends that ended when another node led their group: kept until that one has them.

A node that loses a leadership goes on with the requests that are under way, and what becomes of
them belongs into the log. So each group's are offered to whoever leads it, again and again, until
they are committed. Settles are matched by attempt, so one that arrives twice does no harm.

What cannot be told in time is dropped and counted: then its attempt stays `unknown`, which is what
it was called meanwhile.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from node.env import Timer, World
from node.runtime import Runtime
from timemachine import limits
from timemachine.errors import TimeMachineError
from timemachine.replica.commands import Settle, SettleItem

Group = tuple[int, int]
"""(collection uid, vnode index)."""

Forward = Callable[[Group, int, list[SettleItem]], None]
"""Sends settles of a group to the node that leads it, with the number to acknowledge; may lose
them."""


class _Batch:
    """Some settles of one group, on their way together."""

    __slots__ = ("group", "items", "proposed", "since_ms")

    def __init__(self, group: Group, items: list[SettleItem], since_ms: float) -> None:
        self.group = group
        self.items = items
        self.since_ms = since_ms
        self.proposed = False


class LateSettles:
    """What this node knows of attempts of others' groups, and what it hears of attempts of its own.

    `on_dropped` hears how many settles were given up at once; `dropped` counts all of them.
    """

    def __init__(
        self,
        world: World,
        runtime: Runtime,
        *,
        forward: Forward,
        on_dropped: Callable[[int], None],
    ) -> None:
        self._world = world
        self._runtime = runtime
        self._forward = forward
        self._on_dropped = on_dropped
        self._batches: dict[int, _Batch] = {}
        # An answer that was meant for a life of this process before must not fit.
        self._number = int.from_bytes(world.random_bytes(6), "big")
        self._count = 0
        self._timer: Timer | None = None
        self.dropped = 0

    @property
    def waiting(self) -> int:
        """Settles that nobody has taken yet."""
        return self._count

    # --- of this node's sends --------------------------------------------------------------

    def add(self, group: Group, settles: list[SettleItem]) -> None:
        """Keep what became of attempts of a group, and offer it at once. At most one command."""
        self._number += 1
        self._batches[self._number] = _Batch(group, settles, self._world.mono_ms())
        self._count += len(settles)
        self._drop_oldest()
        batch = self._batches.get(self._number)
        if batch is not None:
            self._offer(self._number, batch)
        self._wait()

    def wake(self, group: Group) -> None:
        """The leader of a group has become known, or is this node: offer what there is."""
        for number, batch in list(self._batches.items()):
            if batch.group == group:
                self._offer(number, batch)

    def acknowledged(self, number: int) -> None:
        """Another node has committed the settles that were forwarded with this number."""
        batch = self._batches.pop(number, None)
        if batch is not None:
            self._count -= len(batch.items)

    def _offer(self, number: int, batch: _Batch) -> None:
        """Commit it here, where this node leads its group by now, else send it to who does."""
        if batch.proposed:
            return
        batch.proposed = self.receive(batch.group, batch.items, partial(self._proposed, number))
        if not batch.proposed:
            self._forward(batch.group, number, batch.items)

    def _proposed(self, number: int, error: TimeMachineError | None) -> None:
        batch = self._batches.get(number)
        if error is None:
            self.acknowledged(number)
        elif batch is not None:
            batch.proposed = False

    def _drop_oldest(self) -> None:
        """Give up what is too old, and the oldest of what is too much."""
        oldest_ms = self._world.mono_ms() - limits.LATE_SETTLES_KEPT_MS
        dropped = 0
        for number, batch in list(self._batches.items()):
            if batch.since_ms > oldest_ms and self._count <= limits.LATE_SETTLES_MAX:
                break
            dropped += len(batch.items)
            self.acknowledged(number)
        if dropped:
            self.dropped += dropped
            self._on_dropped(dropped)

    def _wait(self) -> None:
        if self._batches and self._timer is None:
            self._timer = self._world.call_later(limits.LATE_SETTLES_RETRY_MS, self._again)

    def _again(self) -> None:
        self._timer = None
        if not self._runtime.working:
            return
        self._drop_oldest()
        for number, batch in list(self._batches.items()):
            self._offer(number, batch)
        self._wait()

    # --- of other nodes' sends -------------------------------------------------------------

    def receive(
        self,
        group: Group,
        settles: list[SettleItem],
        done: Callable[[TimeMachineError | None], None],
    ) -> bool:
        """Commit settles here; False, and nothing is done, where the group is not served.

        Else `done` gets None when they are committed, and may be acknowledged, or an error.
        """
        vnode = self._runtime.vnodes.get(group)
        if vnode is None or not vnode.serving or not self._runtime.working:
            return False
        command = Settle(now_ms=self._world.wall_ms(), items=settles)

        def answered(result: Any) -> None:
            done(result if isinstance(result, TimeMachineError) else None)

        self._runtime.propose(vnode, command, answered)
        return True
