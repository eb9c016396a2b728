"""The replicas that this node has: taken up from their rows, begun, and erased when they are gone.

Every replica has a range of keys of its own, by the number of its incarnation. Which group has
which, and which ranges are to be erased, are rows of the node itself, so a crash forgets neither.
"""

from collections.abc import Callable, Container
from functools import partial

from node.env import World
from node.runtime import Runtime
from timemachine.group import SOLE, GroupConfig
from timemachine.replica.machine import JobMachine
from timemachine.replica.meta import MetaMachine
from timemachine.storage.api import Store
from timemachine.storage.keys import (
    ERASE_START,
    ERASE_STOP,
    GROUPS_START,
    GROUPS_STOP,
    INCARNATION_KEY,
    ReplicaKeys,
    erase_key,
    group_key,
    group_of_key,
    u32,
)
from timemachine.storage.overlay import Overlay
from timemachine.vnode import Machine, Vnode

META_GROUP = (0, 0)
_RETIRE_PAUSE_MS = 50.0
_ERASE_PAUSE_MS = 20.0
_ERASE_ROWS = 2_000
_ROWS_MAX = 1_000_000


def job_machine(vnode: Vnode) -> JobMachine:
    """The machine of a vnode that is not the meta group."""
    machine = vnode.machine
    assert isinstance(machine, JobMachine)
    return machine


class Replicas:
    """Loads and erases replicas. A group is (collection uid, vnode index).

    `on_switched` hears of a replica that goes on from a snapshot.
    """

    def __init__(
        self,
        world: World,
        store: Store,
        overlay: Overlay,
        runtime: Runtime,
        config: GroupConfig = SOLE,
    ) -> None:
        self._config = config
        self._world = world
        self._store = store
        self._overlay = overlay
        self._runtime = runtime
        self._erasing = False
        self._staged: set[int] = set()
        self.on_switched: Callable[[Vnode], None] = lambda _: None
        row = store.get(INCARNATION_KEY)
        self._next_incarnation = 1 if row is None else int.from_bytes(row, "big")
        self._incarnations = {
            group_of_key(key): int.from_bytes(value, "big")
            for key, value in store.scan(GROUPS_START, GROUPS_STOP, _ROWS_MAX)
        }

    def load_meta(self) -> tuple[Vnode, MetaMachine]:
        """Take up the meta group, or begin it."""
        keys = self._keys_for(META_GROUP)
        machine = MetaMachine(keys, self._overlay)
        rows = self._store.scan(keys.record, keys.prefix + b"d", _ROWS_MAX)
        machine.load(self._store.get(keys.state), rows)
        return self._replica(META_GROUP, keys, machine), machine

    def load(self, group: tuple[int, int]) -> Vnode:
        """Take up a vnode, or begin it."""
        keys = self._keys_for(group)
        machine = JobMachine(keys, self._overlay)
        rows = self._store.scan(keys.route_counters, keys.prefix + b"o", _ROWS_MAX)
        machine.load(self._store.get(keys.state), rows)
        return self._replica(group, keys, machine)

    def _replica(self, group: tuple[int, int], keys: ReplicaKeys, machine: Machine) -> Vnode:
        vnode = Vnode(group, keys, self._overlay, machine, self._store, self._config)
        vnode.switched = partial(self._switched, vnode)
        return vnode

    def _switched(self, vnode: Vnode, before: ReplicaKeys, keys: ReplicaKeys) -> None:
        """A replica goes on from the rows of a snapshot: in the batch being gathered, keep that."""
        group = vnode.group
        self._incarnations[group] = keys.incarnation
        self._overlay.put(group_key(*group), u32(keys.incarnation))
        self._overlay.delete(erase_key(keys.incarnation))
        self._overlay.put(erase_key(before.incarnation), b"")
        self._staged.discard(keys.incarnation)
        self._erase_after(_RETIRE_PAUSE_MS)
        self.on_switched(vnode)

    def stage(self) -> ReplicaKeys:
        """Keys for an image that comes in: a range that is erased unless it is switched to."""
        incarnation = self._new_incarnation()
        self._overlay.put(erase_key(incarnation), b"")
        self._staged.add(incarnation)
        self._runtime.write_soon()
        return ReplicaKeys(incarnation)

    def unstage(self, keys: ReplicaKeys) -> None:
        """That image will not be switched to."""
        self._staged.discard(keys.incarnation)
        self._erase_after(_RETIRE_PAUSE_MS)

    def _keys_for(self, group: tuple[int, int]) -> ReplicaKeys:
        """The keys of this node's replica of a group; a new replica gets a new incarnation."""
        incarnation = self._incarnations.get(group)
        if incarnation is None:
            incarnation = self._incarnations[group] = self._new_incarnation()
            self._overlay.put(group_key(*group), u32(incarnation))
        return ReplicaKeys(incarnation)

    def _new_incarnation(self) -> int:
        incarnation = self._next_incarnation
        self._next_incarnation = incarnation + 1
        self._overlay.put(INCARNATION_KEY, u32(self._next_incarnation))
        return incarnation

    def retire_others(self, collections: Container[int]) -> None:
        """Forget the replicas of all collections but these; what they hold is erased."""
        for group in [g for g in self._incarnations if g[0] and g[0] not in collections]:
            incarnation = self._incarnations.pop(group)
            self._overlay.delete(group_key(*group))
            self._overlay.put(erase_key(incarnation), b"")
            self._runtime.write_soon()
            self._erase_after(_RETIRE_PAUSE_MS)

    def erase(self) -> None:
        """Erase what is to be erased, some rows at a time, also what a crash has left."""
        self._erase_after(0.0)

    def _erase_after(self, pause_ms: float) -> None:
        if not self._erasing:
            self._erasing = True
            self._world.call_later(pause_ms, self._erase)

    def _erase(self) -> None:
        self._erasing = False
        if not self._runtime.working:
            return
        # Not those that are coming in: each of them is a row as well.
        marks = self._store.scan(ERASE_START, ERASE_STOP, len(self._staged) + 1)
        rows = [
            row
            for row in marks
            if int.from_bytes(row[0][-4:], "big") not in self._staged
            # On its way to the disk may be that it has become a replica.
            and self._overlay.get(row[0]) is not None
        ]
        if not rows:
            if self._overlay.pending(ERASE_START, ERASE_STOP):
                # Retired a moment ago, and on its way to the disk.
                self._erase_after(_RETIRE_PAUSE_MS)
            return
        keys = ReplicaKeys(int.from_bytes(rows[0][0][-4:], "big"))
        doomed = self._store.scan(keys.prefix, keys.stop, _ERASE_ROWS)
        for key, _ in doomed:
            self._overlay.delete(key)
        if not doomed:
            self._overlay.delete(rows[0][0])
        self._runtime.write_soon()
        self._erase_after(_ERASE_PAUSE_MS)
