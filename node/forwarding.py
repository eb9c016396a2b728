"""Commands that this node wants committed in groups that other nodes may lead.

A forward is repeated until its leader, whoever that is by then, says that it is committed. So only
such commands are forwarded to which a repeat adds nothing: how an attempt ended, that a recipient
wants no more. Creators' requests carry a request id for that, and are answered NotLeader instead.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from node.env import World
from node.peers import Peers
from node.runtime import Runtime
from timemachine import codec, limits
from timemachine.errors import CodecError, TimeMachineError
from timemachine.frames import Forward
from timemachine.replica.machine import read_commands
from timemachine.replica.meta import read_meta_commands

_AGAIN_MS: Final = 300.0


class Forwarding:
    """Keeps what is to be forwarded until it is done, or given up as too old or too much."""

    def __init__(self, world: World, runtime: Runtime, peers: Peers) -> None:
        self._world = world
        self._runtime = runtime
        self._peers = peers
        self._open: OrderedDict[int, tuple[tuple[int, int], bytes, float]] = OrderedDict()
        self._numbers = 0
        self._timed = False
        self.given_up = 0

    def add(self, group: tuple[int, int], commands: list[Any]) -> None:
        """Have these commands committed in a group."""
        self._numbers += 1
        until_ms = self._world.mono_ms() + limits.FORWARD_MS
        self._open[self._numbers] = (group, codec.encode(commands), until_ms)
        if len(self._open) > limits.FORWARDS_MAX:
            self._open.popitem(last=False)
            self.given_up += 1
        self._try(self._numbers)
        self._peers.flush()
        self._try_later()

    def _try_later(self) -> None:
        if self._open and not self._timed:
            self._timed = True
            self._world.call_later(_AGAIN_MS, self._try_all)

    def _try_all(self) -> None:
        self._timed = False
        if not self._runtime.working:
            return
        now_ms = self._world.mono_ms()
        for number in list(self._open):
            if self._open[number][2] < now_ms:
                del self._open[number]
                self.given_up += 1
            else:
                self._try(number)
        self._peers.flush()
        self._try_later()

    def _try(self, number: int) -> None:
        (uid, index), commands, _ = self._open[number]
        vnode = self._runtime.vnodes.get((uid, index))
        if vnode is None:
            return
        if vnode.is_leader():
            self._propose(vnode.group, commands, lambda: self.done(number))
        elif vnode.leader:
            self._peers.forward(vnode.leader, Forward(number, uid, index, commands))

    def take(self, sender: int, forward: Forward) -> None:
        """`sender` asks for commands to be committed."""

        def committed() -> None:
            self._peers.forwarded(sender, forward.number)
            self._peers.flush()

        self._propose((forward.uid, forward.index), forward.commands, committed)

    def _propose(self, group: tuple[int, int], data: bytes, committed: Callable[[], None]) -> None:
        vnode = self._runtime.vnodes.get(group)
        if vnode is None or not vnode.is_leader():
            return
        try:
            commands = read_commands(data) if group[0] else read_meta_commands(data)
        except CodecError:
            return
        left = len(commands)

        def answered(result: Any) -> None:
            nonlocal left
            left -= not isinstance(result, TimeMachineError)
            if not left:
                committed()

        for command in commands:
            self._runtime.propose(vnode, command, answered)

    def done(self, number: int) -> None:
        """That one is committed."""
        self._open.pop(number, None)
