"""Forgets aliases of jobs with ordering keys that are not there any more.

The alias of a job stands in the vnode of its id, the job in that of its key, so neither can be
forgotten in one step with the other. Who leads the vnode of the id looks through its aliases now
and then, and asks the leaders of the others which jobs are gone. What was placed lately is left:
its job may be on its way (`limits.PLACED_MS`).
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from node.env import World
from node.gathering import Gathering
from node.gathering.questions import MissingJobs
from node.runtime import Runtime
from timemachine import limits
from timemachine.errors import TimeMachineError
from timemachine.model import Collection
from timemachine.replica.commands import PlacedId, UnplaceJobs
from timemachine.replica.records import read_alias
from timemachine.ring import vnode_of
from timemachine.storage.api import Store
from timemachine.storage.keys import ReplicaKeys, after_prefix
from timemachine.vnode import Vnode

_ROWS = 500
"""As many as jobs are purged at a time: else aliases would pile up."""


class _Pass:
    """How far one replica with these keys is looked through, and when to go on."""

    __slots__ = ("again_ms", "busy", "cursor", "keys")

    def __init__(self, keys: ReplicaKeys) -> None:
        self.keys = keys
        self.cursor = keys.alias
        self.busy = False
        self.again_ms = 0.0


class Aliases:
    """Looks at some aliases of a vnode at a time. `collections` are the engine's, by uid."""

    def __init__(
        self,
        world: World,
        store: Store,
        runtime: Runtime,
        gathering: Gathering,
        collections: Mapping[int, Collection],
    ) -> None:
        self._world = world
        self._store = store
        self._runtime = runtime
        self._gathering = gathering
        self._collections = collections
        self._passes: dict[tuple[int, int], _Pass] = {}

    def forget_vnode(self, group: tuple[int, int]) -> None:
        """A vnode is gone."""
        self._passes.pop(group, None)

    def look(self, vnode: Vnode) -> None:
        """Look at the next aliases of a vnode that this node leads."""
        looked = self._passes.get(vnode.group)
        if looked is None or looked.keys is not vnode.keys:
            looked = self._passes[vnode.group] = _Pass(vnode.keys)
        mono_ms = self._world.mono_ms()
        if looked.busy or mono_ms < looked.again_ms:
            return
        table = vnode.keys.alias
        rows = self._store.scan(looked.cursor, after_prefix(table), _ROWS)
        following = rows[-1][0] + b"\0" if len(rows) == _ROWS else table
        before_ms = self._world.wall_ms() - limits.ALIAS_KEPT_MS
        old = []
        for key, value in rows:
            alias = read_alias(value)
            if alias.placed_ms < before_ms:
                old.append(PlacedId(key[len(table) :].decode(), alias.key, alias.placed_ms))
        if not old:
            self._go_on(looked, following)
            return
        looked.busy = True
        uid = vnode.group[0]
        num_vnodes = self._collections[uid].num_vnodes
        places = [(vnode_of(each.ordering_key, num_vnodes), each.job_id) for each in old]
        groups = sorted({(uid, index) for index, _ in places})
        done = partial(self._answered, vnode, looked, old, following)
        self._gathering.ask(MissingJobs(places), groups, done)

    def _go_on(self, looked: _Pass, following: bytes) -> None:
        looked.cursor = following
        if following == looked.keys.alias:
            looked.again_ms = self._world.mono_ms() + limits.ALIAS_KEPT_MS

    def _answered(
        self, vnode: Vnode, looked: _Pass, old: list[PlacedId], following: bytes, missing: Any
    ) -> None:
        looked.busy = False
        if isinstance(missing, TimeMachineError):
            return  # it is asked again
        self._go_on(looked, following)
        gone = {job_id for _, job_id in missing}
        items = [each for each in old if each.job_id in gone]
        if items and self._runtime.working and self._runtime.holds(vnode) and vnode.serving:
            self._runtime.propose(vnode, UnplaceJobs(now_ms=self._world.wall_ms(), items=items))
