"""Damaged replicas: stopped at once, never taken up again, and replaced by new ones of another id.

A row that fails its checksum says nothing about the others of its replica, so all of that replica
is given up: what it had promised, others have as well. Meta is asked for the next generation on
this node (`Retire`), which begins empty and gets a snapshot.

That is not enough where nobody else has what is lost (the only voter of a vnode, although others
may be about to come; a node without peers), nor for what every node has under its own number (its
own rows, its replica of the meta group): then the node ends, and another one has to take its place.
The same goes for rows that contradict each other: if the store has lost writes, no promise of this
node can be relied on.
"""

from collections.abc import Callable
from functools import partial

from node.env import World
from node.forwarding import Forwarding
from node.replicas import Replicas
from node.runtime import Runtime
from timemachine.errors import StoreDamaged
from timemachine.group import META_GROUP
from timemachine.replica.meta import MetaMachine, Retire
from timemachine.vnode import Vnode

Group = tuple[int, int]
"""(collection uid, vnode index)."""


class Quarantine:
    """What a node does about damage.

    `drop(vnode)` stops a replica; `told(group, error)` hears of each that is given up.
    """

    def __init__(
        self,
        world: World,
        runtime: Runtime,
        replicas: Replicas,
        meta: MetaMachine,
        forwarding: Forwarding,
        *,
        drop: Callable[[Vnode], None],
        told: Callable[[Group, StoreDamaged], None],
    ) -> None:
        self._world = world
        self._runtime = runtime
        self._replicas = replicas
        self._meta = meta
        self._forwarding = forwarding
        self._drop = drop
        self._told = told
        self._asked: set[tuple[Group, int]] = set()

    # --- damage is found -------------------------------------------------------------------

    def found(self, error: StoreDamaged) -> None:
        """A row cannot be read: its replica is stopped in the next turn of the loop.

        Who reads is in the middle of something, maybe for many replicas.
        """
        self._world.call_soon(partial(self._found, error))

    def _found(self, error: StoreDamaged) -> None:
        if not self._runtime.working or error.key is None:
            return
        incarnation = int.from_bytes(error.key[:4], "big")
        group = self._replicas.group_of(incarnation)
        if not incarnation or group == META_GROUP:
            self._runtime.fail(error)
        elif group is not None and group in self._runtime.vnodes:
            self.stop(self._runtime.vnodes[group], error)
        # Else it is given up already, is being erased, or was not switched to yet.

    def stop(self, vnode: Vnode, error: StoreDamaged) -> None:
        """Give a replica up, now, in the middle of whatever it was doing; or end the node."""
        if self.give_up(vnode.group, vnode.id, error):
            self._drop(vnode)
        else:
            self._runtime.fail(error)

    def give_up(self, group: Group, id: int, error: StoreDamaged) -> bool:
        """Give a replica up that is not taken up; False where the node must not go on."""
        if error.key is None or not self._replaceable(group, id):
            return False
        self._replicas.quarantine(group)
        self._told(group, error)
        # Not before it is durable: a restart must not bring it back beside its successor.
        self._runtime.when_written(self._ask)
        return True

    def _replaceable(self, group: Group, id: int) -> bool:
        """Whether other nodes have what this replica has."""
        if group == META_GROUP:
            return False
        if group[0] not in self._meta.collections_by_uid:
            return True  # it is being deleted
        if all(each == id for each in self._meta.placement(*group).replicas):
            return False
        # Those that are to come have to get it from somebody who votes.
        vnode = self._runtime.vnodes.get(group)
        members = self._replicas.members_of(group) if vnode is None else vnode.members
        if members is None:
            return self._meta.placement(*group).born != (id,)
        return members.voters != (id,) or bool(members.voters_outgoing)

    # --- and what becomes of it ------------------------------------------------------------

    def holds(self, group: Group, id: int) -> bool:
        """Whether that replica was given up."""
        return self._replicas.quarantined.get(group) == id

    def reconcile(self) -> None:
        """Meta has placed replicas: forget those given up that it wants no more."""
        for group, replica in list(self._replicas.quarantined.items()):
            known = group[0] in self._meta.collections_by_uid
            if not known or replica not in self._meta.placement(*group).replicas:
                self._replicas.release(group)
        self._ask()

    def _ask(self) -> None:
        """Ask meta for successors, again and again."""
        left = self._replicas.quarantined
        if not left or not self._runtime.working:
            return
        for group, replica in left.items():
            if (group, replica) not in self._asked:
                self._asked.add((group, replica))
                now_ms = self._world.wall_ms()
                command = Retire(now_ms=now_ms, uid=group[0], index=group[1], replica=replica)
                self._forwarding.add(META_GROUP, command, self._ask_again)

    def _ask_again(self) -> None:
        self._asked.clear()
        self._ask()
