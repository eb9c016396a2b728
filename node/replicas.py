"""The replicas that this node has: taken up from their rows, begun, and erased when they are gone.

Every replica has a range of keys of its own, by the number of its incarnation. Which group has
which, and which ranges are to be erased, are rows of the node itself, so a crash forgets neither.
"""

from collections.abc import Callable, Container
from functools import partial

import msgspec

from node.env import World
from node.runtime import Runtime
from timemachine.errors import CodecError, StoreDamaged
from timemachine.group import META_GROUP, SOLE, GroupConfig
from timemachine.members import read_members
from timemachine.raft import ConfState
from timemachine.replica.machine import JobMachine
from timemachine.replica.meta import MetaMachine
from timemachine.storage.api import Store
from timemachine.storage.keys import (
    ERASE_START,
    ERASE_STOP,
    GROUPS_START,
    GROUPS_STOP,
    INCARNATION_KEY,
    NODE_FENCE,
    QUARANTINE_START,
    QUARANTINE_STOP,
    ReplicaKeys,
    damaged_key,
    erase_key,
    group_key,
    group_of_key,
    incarnation_in,
    quarantine_key,
    read_u64,
    u32,
    u64,
)
from timemachine.storage.overlay import Overlay
from timemachine.vnode import Machine, Vnode

_RETIRE_PAUSE_MS = 50.0
_INCARNATION_BYTES = 4
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

    `quarantined` are the ids of replicas that are damaged, by group: they are never taken up
    again, also after a restart. `on_switched` hears of a replica that goes on from a snapshot.
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
        # Up to which key a range is erased: to begin at its prefix again would be to walk over all
        # that was deleted, each time.
        self._erased: tuple[int, bytes] = (0, b"")
        self._staged: set[int] = set()
        self.on_switched: Callable[[Vnode], None] = lambda _: None
        row = store.get(INCARNATION_KEY)
        self._next_incarnation = 1 if row is None else int.from_bytes(row, "big")
        self._incarnations: dict[tuple[int, int], int] = {}
        # Of which replica a range is: its id.
        self._ids: dict[tuple[int, int], int] = {}
        for key, value in store.scan(GROUPS_START, GROUPS_STOP, _ROWS_MAX):
            group = group_of_key(key)
            self._incarnations[group] = incarnation_in(value)
            # Where nothing is said it is the first replica that this node had of the group.
            self._ids[group] = int.from_bytes(value[_INCARNATION_BYTES:], "big") or config.id
        rows = store.scan(QUARANTINE_START, QUARANTINE_STOP, _ROWS_MAX)
        self.quarantined = {group_of_key(key): read_u64(value) for key, value in rows}

    def has(self, group: tuple[int, int], id: int) -> bool:
        """Whether this node has the replica of that id, with all that it ever promised."""
        return self._ids.get(group) == id

    def load_meta(self) -> tuple[Vnode, MetaMachine]:
        """Take up the meta group, or begin it."""
        keys = self._keys_for(META_GROUP, self._config.id)
        machine = MetaMachine(keys, self._overlay)
        rows = self._store.scan(keys.record, keys.prefix + b"d", _ROWS_MAX)
        machine.load(self._store.get(keys.state), rows)
        return self._replica(META_GROUP, keys, machine, self._config), machine

    def load(self, group: tuple[int, int], id: int, born: tuple[int, ...]) -> Vnode:
        """Take up a replica of a vnode, or begin it with the voters `born`.

        One that is to come to a group that has begun without it knows of no voters: it waits for
        a snapshot. An earlier replica of the group, of another id, is erased.
        """
        if not self.has(group, id):
            self.retire(group)
        keys = self._keys_for(group, id)
        machine = JobMachine(keys, self._overlay)
        rows = self._store.scan(keys.route_counters, keys.prefix + b"o", _ROWS_MAX)
        machine.load(self._store.get(keys.state), rows)
        config = msgspec.structs.replace(self._config, id=id, voters=born if id in born else ())
        return self._replica(group, keys, machine, config)

    def _replica(
        self, group: tuple[int, int], keys: ReplicaKeys, machine: Machine, config: GroupConfig
    ) -> Vnode:
        vnode = Vnode(group, keys, self._overlay, machine, self._store, config)
        vnode.switched = partial(self._switched, vnode)
        return vnode

    def _switched(self, vnode: Vnode, before: ReplicaKeys, keys: ReplicaKeys) -> None:
        """A replica goes on from the rows of a snapshot: in the batch being gathered, keep that."""
        self._keep(vnode.group, keys.incarnation, vnode.id)
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

    def _keys_for(self, group: tuple[int, int], id: int) -> ReplicaKeys:
        """The keys of this node's replica of a group; a new replica gets a new incarnation."""
        incarnation = self._incarnations.get(group)
        if incarnation is None:
            incarnation = self._new_incarnation()
            self._keep(group, incarnation, id)
        return ReplicaKeys(incarnation)

    def _keep(self, group: tuple[int, int], incarnation: int, id: int) -> None:
        """Remember where the rows of a group's replica are, and which one it is."""
        self._incarnations[group] = incarnation
        self._ids[group] = id
        row = u32(incarnation)
        if id != self._config.id:
            row += u64(id)
        self._overlay.put(group_key(*group), row)

    def _new_incarnation(self) -> int:
        incarnation = self._next_incarnation
        self._next_incarnation = incarnation + 1
        self._overlay.put(INCARNATION_KEY, u32(self._next_incarnation))
        self._overlay.put(NODE_FENCE, b"")
        for fence in ReplicaKeys(incarnation).fences:
            self._overlay.put(fence, b"")
        return incarnation

    def retire_others(self, kept: Container[tuple[int, int]]) -> None:
        """Forget the replicas of all groups but these and the meta group."""
        for group in [each for each in self._incarnations if each[0] and each not in kept]:
            self.retire(group)

    def retire(self, group: tuple[int, int]) -> None:
        """Forget the replica of a group, if there is one; what it holds is erased."""
        incarnation = self._incarnations.pop(group, None)
        if incarnation is None:
            return
        del self._ids[group]
        self._overlay.delete(group_key(*group))
        self._overlay.put(erase_key(incarnation), b"")
        self._runtime.write_soon()
        self._erase_after(_RETIRE_PAUSE_MS)

    # --- damage ----------------------------------------------------------------------------

    def group_of(self, incarnation: int) -> tuple[int, int] | None:
        """The group whose replica has that range of keys; None for none."""
        for group, each in self._incarnations.items():
            if each == incarnation:
                return group
        return None

    def members_of(self, group: tuple[int, int]) -> ConfState | None:
        """The members of a group, by the rows of its replica here; None if they do not tell."""
        try:
            row = self._store.get(ReplicaKeys(self._incarnations[group]).members)
            return None if row is None else read_members(row)
        except (StoreDamaged, CodecError):
            return None

    def quarantine(self, group: tuple[int, int]) -> None:
        """Forget the replica of a group for good, for it is damaged.

        What it holds is left as it is: to erase it would be to have LevelDB compact the table that
        is damaged, and that ends the node.
        """
        incarnation = self._incarnations.pop(group)
        keys = ReplicaKeys(incarnation)
        self.quarantined[group] = replica = self._ids.pop(group)
        self._overlay.forget(keys.prefix, keys.stop)
        self._overlay.delete(group_key(*group))
        self._overlay.put(quarantine_key(*group), u64(replica))
        self._overlay.put(damaged_key(incarnation), b"")
        self._runtime.write_soon()

    def release(self, group: tuple[int, int]) -> None:
        """Meta wants that replica no more: its id never comes back."""
        del self.quarantined[group]
        self._overlay.delete(quarantine_key(*group))
        self._runtime.write_soon()

    @property
    def next_incarnation(self) -> int:
        """The number of the range that the next new replica gets: all there are have less."""
        return self._next_incarnation

    @property
    def erasing(self) -> bool:
        """Whether ranges are left that are to be erased."""
        marks = self._store.scan(ERASE_START, ERASE_STOP, len(self._staged) + 1)
        left = [key for key, _ in marks if int.from_bytes(key[-4:], "big") not in self._staged]
        return bool(left or self._erasing)

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
        incarnation, cursor = self._erased
        if incarnation != keys.incarnation:
            # What was on its way to the disk when it was retired must not come behind the cursor.
            self._erased = (keys.incarnation, keys.prefix)
            self._erasing = True
            self._runtime.when_written(self._erase)
            return
        try:
            if self._store.get(cursor) is not None:
                # On a slow disk all that is deleted meanwhile would come to lie in one batch.
                self._erase_after(_ERASE_PAUSE_MS)
                return
            doomed = self._store.scan(cursor, keys.stop, _ERASE_ROWS)
        except StoreDamaged:
            # Nobody needs it, and nothing else depends on it: it is left as it is.
            doomed = []
            self._overlay.put(damaged_key(keys.incarnation), b"")
        for key, _ in doomed:
            self._overlay.delete(key)
            self._erased = (keys.incarnation, key)
        if not doomed:
            self._overlay.delete(rows[0][0])
        self._runtime.write_soon()
        self._erase_after(_ERASE_PAUSE_MS)
