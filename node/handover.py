"""Planned changes of leader: open sends are told, the log goes first, then the leadership."""

from collections.abc import Callable

from node.env import World
from node.members import Rhythm
from node.runtime import Runtime
from timemachine.vnode import Vnode


class Handovers:
    """Hands vnodes over to other nodes, one attempt each.

    `prepare(vnode, done)` stops firing for a vnode and commits what its successor must know;
    `resume(vnode)` fires on.
    """

    def __init__(
        self,
        world: World,
        runtime: Runtime,
        rhythm: Rhythm,
        *,
        prepare: Callable[[Vnode, Callable[[], None]], None],
        resume: Callable[[Vnode], None],
    ) -> None:
        self._world = world
        self._runtime = runtime
        self._rhythm = rhythm
        self._prepare = prepare
        self._resume = resume
        self._open: dict[Vnode, None] = {}

    def start(self, vnode: Vnode, to: int, done: Callable[[bool], None]) -> None:
        """Hand a vnode over; `done` hears whether another node leads by then.

        Nothing happens to a vnode that this node does not serve, or hands over already.
        """
        if not vnode.serving or vnode in self._open:
            self._world.call_soon(lambda: done(False))
            return
        self._open[vnode] = None
        term = vnode.term

        def prepared() -> None:
            if self._is_here(vnode) and vnode.serving and vnode.term == term:
                self._runtime.rouse(vnode)
                vnode.transfer(to)
                self._runtime.stepped(vnode)
            self._look(vnode, term, done)

        self._prepare(vnode, prepared)

    def _look(self, vnode: Vnode, term: int, done: Callable[[bool], None]) -> None:
        """See how far the core is, once in a tick."""
        if not self._runtime.working:
            return
        if not self._is_here(vnode):
            del self._open[vnode]
            done(False)
            return
        core = vnode.core
        if core.leads and core.term == term and core.hands_over:
            self._world.call_later(self._rhythm.tick_ms, lambda: self._look(vnode, term, done))
            return
        del self._open[vnode]
        moved = not core.leads or core.term != term
        if not moved:
            if core.lease_given_up:
                # It could commit and never fire: anybody is a better leader, itself in a new term.
                vnode.resign()
                self._runtime.stepped(vnode)
            else:
                self._resume(vnode)
        done(moved)

    def _is_here(self, vnode: Vnode) -> bool:
        """Whether this node still has the vnode; nobody ticks one that is gone."""
        return self._runtime.holds(vnode)
