"""Commands that this node wants committed in groups that other nodes may lead.

What became of a send that ended when another node led its group, and that a recipient wants no
more: nobody else knows it, and it belongs into the log. So each is offered to whoever leads the
group, again and again, until it is committed. Only such commands are forwarded to which a repeat
adds nothing; settles are matched by attempt. (Creators' requests carry a request id for that, and
are answered NotLeader instead.)

What cannot be told in time is dropped and counted: then an attempt stays `unknown`, which is what
it was called meanwhile.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from node.env import Timer, World
from node.runtime import Runtime
from timemachine import limits
from timemachine.errors import TimeMachineError
from timemachine.replica.commands import Settle
from timemachine.replica.meta import (
    DisableRoute,
    PutNode,
    Removed,
    Retire,
    RouteFailed,
    RouteSucceeded,
)

Group = tuple[int, int]
"""(collection uid, vnode index)."""

FORWARDED: Final = (
    Settle,
    DisableRoute,
    RouteFailed,
    RouteSucceeded,
    PutNode,
    Removed,
    Retire,
)
"""The commands to which a repeat adds nothing. What other commands a node sends is not taken."""

Forward = Callable[[Group, int, Any], None]
"""Sends a command to the leader of a group, with the number to acknowledge; it may be lost."""


class _Open:
    """A command that is not known to be committed. `size` counts the settles in it."""

    __slots__ = ("command", "group", "proposed", "since_ms", "size")

    def __init__(self, group: Group, command: Any, since_ms: float) -> None:
        self.group = group
        self.command = command
        self.size = len(getattr(command, "items", (None,)))
        self.since_ms = since_ms
        self.proposed = False


class Forwarding:
    """What this node has for the leaders of groups, and what others have for it.

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
        self._open: dict[int, _Open] = {}
        # The same by group: thousands of groups may change their leader at once.
        self._of_group: dict[Group, dict[int, _Open]] = {}
        # An answer that was meant for a life of this process before must not fit.
        self._number = int.from_bytes(world.random_bytes(6), "big")
        self._count = 0
        self._timer: Timer | None = None
        self._looks: set[Callable[[], None]] = set()
        self.dropped = 0

    @property
    def waiting(self) -> int:
        """Settles and other commands that nobody has taken yet."""
        return self._count

    # --- for other nodes -------------------------------------------------------------------

    def add(self, group: Group, command: Any, look: Callable[[], None] | None = None) -> None:
        """Keep a command, and offer it at once.

        Nothing is kept for ever, and a group may be without a leader for long. `look` is called
        when it is time to look whether the command was to any avail; once for all that are added
        with it until then.
        """
        self._number += 1
        waiting = self._open[self._number] = _Open(group, command, self._world.mono_ms())
        self._of_group.setdefault(group, {})[self._number] = waiting
        self._count += waiting.size
        self._drop_oldest()
        if self._number in self._open:
            self._offer(self._number, waiting)
        self._wait()
        if look is not None and look not in self._looks:
            self._looks.add(look)
            self._world.call_later(limits.FORWARDS_KEPT_MS, partial(self._look, look))

    def _look(self, look: Callable[[], None]) -> None:
        self._looks.discard(look)
        if self._runtime.working:
            look()

    def wake(self, group: Group) -> None:
        """The leader of a group has become known, or is this node: offer what there is."""
        for number, waiting in list(self._of_group.get(group, {}).items()):
            self._offer(number, waiting)

    def acknowledged(self, number: int) -> None:
        """Another node has committed what was forwarded with this number."""
        waiting = self._open.pop(number, None)
        if waiting is not None:
            self._count -= waiting.size
            of_group = self._of_group[waiting.group]
            del of_group[number]
            if not of_group:
                del self._of_group[waiting.group]

    def _offer(self, number: int, waiting: _Open) -> None:
        """Commit it here, where this node leads its group by now, else send it to who does."""
        if waiting.proposed:
            return
        waiting.proposed = True  # a leader that is about to go refuses it from inside this call
        if not self.receive(waiting.group, waiting.command, partial(self._proposed, number)):
            waiting.proposed = False
            self._forward(waiting.group, number, waiting.command)

    def _proposed(self, number: int, error: TimeMachineError | None) -> None:
        waiting = self._open.get(number)
        if error is None:
            self.acknowledged(number)
        elif waiting is not None:
            waiting.proposed = False

    def _drop_oldest(self) -> None:
        """Give up what is too old, and the oldest of what is too much."""
        oldest_ms = self._world.mono_ms() - limits.FORWARDS_KEPT_MS
        dropped = 0
        for number, waiting in list(self._open.items()):
            if waiting.since_ms > oldest_ms and self._count <= limits.FORWARDS_MAX:
                break
            dropped += waiting.size
            self.acknowledged(number)
        if dropped:
            self.dropped += dropped
            self._on_dropped(dropped)

    def _wait(self) -> None:
        if self._open and self._timer is None:
            self._timer = self._world.call_later(limits.FORWARDS_RETRY_MS, self._again)

    def _again(self) -> None:
        self._timer = None
        if not self._runtime.working:
            return
        self._drop_oldest()
        for number, waiting in list(self._open.items()):
            self._offer(number, waiting)
        self._wait()

    # --- of other nodes --------------------------------------------------------------------

    def receive(
        self,
        group: Group,
        command: Any,
        done: Callable[[TimeMachineError | None], None],
    ) -> bool:
        """Commit a command here; False, and nothing is done, where the group is not served.

        Else `done` gets None when it is committed, and may be acknowledged, or an error.
        """
        vnode = self._runtime.vnodes.get(group)
        if vnode is None or not vnode.serving or not self._runtime.working:
            return False

        def answered(result: Any) -> None:
            done(result if isinstance(result, TimeMachineError) else None)

        self._runtime.propose(vnode, command, answered)
        return True
