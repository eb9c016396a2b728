"""Replicas that are missing, added by themselves: the node leader decides where they come."""

from node.env import Timer, World
from node.runtime import Runtime
from timemachine.placement import additions
from timemachine.replica.meta import MetaMachine, Place
from timemachine.vnode import Vnode

_WAIT_MS = 200.0
"""Nodes that join together are placed together."""


class Healing:
    """Proposes to meta, while this node leads it, what replicas vnodes are to get."""

    def __init__(
        self, world: World, runtime: Runtime, meta_vnode: Vnode, meta: MetaMachine
    ) -> None:
        self._world = world
        self._runtime = runtime
        self._meta_vnode = meta_vnode
        self._meta = meta
        self._timer: Timer | None = None

    def look_soon(self) -> None:
        """Nodes, collections or placements have changed, or who leads the meta group."""
        if self._timer is None and self._meta_vnode.serving:
            self._timer = self._world.call_later(_WAIT_MS, self._look)

    def _look(self) -> None:
        self._timer = None
        if not self._runtime.working or not self._meta_vnode.serving:
            return
        meta = self._meta
        moves = additions(
            meta.collections_by_uid.values(), meta.all_placements(), meta.nodes.values()
        )
        if moves:
            command = Place(now_ms=self._world.wall_ms(), moves=moves)
            self._runtime.propose(self._meta_vnode, command, self._placed)

    def _placed(self, _: object) -> None:
        # There may be more than one command takes; and one that came to nothing, because of a
        # handover that came to nothing as well, is to be repeated.
        self.look_soon()
