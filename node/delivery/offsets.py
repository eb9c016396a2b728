"""Raises the committed offsets of the vnodes to their lowest rows that are not settled."""

from typing import Any

from node.env import World
from node.runtime import Runtime
from timemachine.delivery.vnodehead import VnodeHead
from timemachine.delivery.window import Window
from timemachine.replica.commands import MoveOffset


class Offsets:
    """Asks for higher offsets, one at a time in each vnode."""

    def __init__(self, window: Window, world: World, runtime: Runtime) -> None:
        self._window = window
        self._world = world
        self._runtime = runtime

    def raise_all(self) -> None:
        """Raise each offset that is worth it."""
        for head in self._window.heads.values():
            if not head.offset_asked:
                self._raise(head)

    def _raise(self, head: VnodeHead) -> None:
        higher = head.higher_offset()
        if higher is None:
            return
        due_ms, job_id = higher
        head.offset_asked = True

        def moved(_: Any) -> None:
            head.offset_asked = False

        command = MoveOffset(
            now_ms=self._world.wall_ms(),
            due_ms=due_ms,
            job_id=job_id,
            seen_index=head.seen_index,
        )
        self._runtime.propose(head.vnode, command, moved)
