"""Seals: what makes it certain that no node starts a send by a route that was closed.

A leader whose meta group is as far as the seal says, and whose delivery has let go of what is not
sent, commits the seal in its vnode. Whoever leads the vnode later has applied it, and fires for it
only when its own meta group is as far. So it does not matter who is cut off from what.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from node.env import World
from node.gathering.gathering import Gathering
from node.gathering.questions import Group, SealVnodes
from node.runtime import Runtime
from timemachine import limits
from timemachine.errors import TimeMachineError
from timemachine.replica.commands import Seal
from timemachine.replica.meta import MetaMachine
from timemachine.vnode import Vnode

_POLL_MS = 350.0
"""How long one round of questions waits for vnodes that nobody leads."""
_PAUSE_MS = 10.0
_PAUSE_MS_MAX = 200.0


class Seals:
    """Seals the vnodes that this node leads.

    `reconciled` tells whether deliveries know all that the meta group here has applied.
    """

    def __init__(
        self,
        world: World,
        runtime: Runtime,
        meta_vnode: Vnode,
        meta: MetaMachine,
        *,
        reconciled: Callable[[], bool],
    ) -> None:
        self._world = world
        self._runtime = runtime
        self._meta_vnode = meta_vnode
        self._meta = meta
        self._reconciled = reconciled
        self._asked: dict[Group, int] = {}
        self._sealed: dict[Group, int] = {}

    def sealed(self, meta_index: int, vnodes: Sequence[Vnode]) -> list[Group]:
        """Those of these vnodes that are sealed; the others will be, as soon as that can be."""
        knows = self._reconciled() and self._meta.applied_index >= meta_index
        if knows and self._meta_vnode.sole:
            # Who joins later learns which vnodes there are from a newer meta group.
            return [vnode.group for vnode in vnodes]
        found = []
        for vnode in vnodes:
            group = vnode.group
            if self._sealed.get(group, -1) >= meta_index:
                found.append(group)
            elif knows and self._asked.get(group, -1) < meta_index:
                self._asked[group] = meta_index
                command = Seal(now_ms=self._world.wall_ms(), meta_index=meta_index)
                self._runtime.propose(vnode, command, partial(self._answered, group, meta_index))
        return found

    def _answered(self, group: Group, meta_index: int, result: Any) -> None:
        if self._asked.get(group) == meta_index:
            del self._asked[group]
        if not isinstance(result, TimeMachineError):
            self._sealed[group] = max(self._sealed.get(group, -1), meta_index)

    def forget(self, group: Group) -> None:
        """This node has no replica of a vnode any more."""
        self._asked.pop(group, None)
        self._sealed.pop(group, None)


class Sealing:
    """Asks for seals until all vnodes are sealed. `done` gets those that are not, at the end."""

    def __init__(
        self,
        world: World,
        gathering: Gathering,
        groups: Sequence[Group],
        meta_index: int,
        done: Callable[[list[Group]], None],
    ) -> None:
        self._world = world
        self._gathering = gathering
        self._question = SealVnodes(meta_index)
        self._pending = dict.fromkeys(groups)
        self._done = done
        self._pause_ms = _PAUSE_MS
        self._until_ms = world.mono_ms() + limits.SEAL_WAIT_MS
        self._ask()

    def _ask(self) -> None:
        self._gathering.ask(
            self._question, list(self._pending), self._told, partly=True, patience_ms=_POLL_MS
        )

    def _told(self, result: list[Group] | TimeMachineError) -> None:
        if not isinstance(result, TimeMachineError):
            for uid, index in result:
                self._pending.pop((uid, index), None)
        over = self._world.mono_ms() + self._pause_ms >= self._until_ms
        if not self._pending or over or isinstance(result, TimeMachineError):
            self._done(list(self._pending))
            return
        self._world.call_later(self._pause_ms, self._ask)
        self._pause_ms = min(2 * self._pause_ms, _PAUSE_MS_MAX)
