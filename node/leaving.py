"""How a node gives up what it leads; and how it leaves the others when it is asked to stop.

First it hands over all that it leads, so that others fire on at once. Then its open sends end, and
what became of them is told to whoever leads their vnodes by then: until that is committed the node
waits, for a successor that hears nothing sends again.
"""

from collections.abc import Callable
from functools import partial

from node.consensus import Consensus
from node.env import World
from node.gathered import Gathered
from node.runtime import Runtime
from timemachine import limits
from timemachine.group import node_of
from timemachine.vnode import Vnode

_LOOK_MS = 20.0


class Leaving:
    """What a node with peers does that stops, or that must not lead for now.

    `fit` says whether another node may lead.
    """

    def __init__(
        self,
        world: World,
        runtime: Runtime,
        consensus: Consensus,
        fit: Callable[[int], bool],
    ) -> None:
        self._world = world
        self._runtime = runtime
        self._consensus = consensus
        self._fit = fit
        self._taken: dict[int, int] = {}

    def hand_over(self, done: Callable[[], None]) -> None:
        """Have others lead what this node leads, as far as they can; `done` when that is over.

        From now on this node stands for no election, until `stay`.
        """
        self._consensus.sleeping.leaving = True
        led = [vnode for vnode in self._runtime.vnodes.values() if vnode.serving and not vnode.sole]
        moves = [(vnode, node) for vnode in led if (node := self._successor(vnode))]
        if not moves:
            done()
            return
        gathered = Gathered(len(moves), lambda _: done())
        for number, (vnode, node) in enumerate(moves):
            self._consensus.handovers.start(vnode, node, partial(gathered.take, number))

    def relieve(self, has_room: Callable[[int], bool]) -> None:
        """Have others lead what nodes that have room can take, for this one is nearly full.

        It stands for election as before: a leader that refuses creators is better than none.
        """
        for vnode in list(self._runtime.vnodes.values()):
            if vnode.serving and not vnode.sole and vnode.group[0]:
                node = self._successor(vnode, has_room)
                if node:
                    self._consensus.handovers.start(vnode, node, lambda _: None)

    def stay(self) -> None:
        """This node may lead again."""
        self._consensus.sleeping.leaving = False

    def _successor(self, vnode: Vnode, suits: Callable[[int], bool] = lambda _: True) -> int:
        """The voter that is furthest, of such the one that has taken the fewest; 0 for none."""
        best, best_rank = 0, (0, 0, 0)
        for voter in vnode.members.voters:
            match, heard = vnode.core.standing(voter)
            node = node_of(voter)
            if voter == vnode.id or not heard or not self._consensus.sleeping.alive(node):
                continue
            if not (self._fit(node) and suits(node)):
                continue
            rank = (match, -self._taken.get(node, 0), -node)
            if not best or rank > best_rank:
                best, best_rank = node, rank
        if best:
            self._taken[best] = self._taken.get(best, 0) + 1
        return best

    def tell(self, done: Callable[[], None]) -> None:
        """Wait until others have committed what this node had for them, but not for ever."""
        until_ms = self._world.mono_ms() + limits.SHUTDOWN_TELLING_MS

        def look() -> None:
            waiting = self._consensus.forwarding.waiting
            if not waiting or not self._runtime.working or self._world.mono_ms() >= until_ms:
                done()
                return
            self._world.call_later(_LOOK_MS, look)

        look()
