"""The members of groups, brought to what meta says: each leader sees to its own group."""

from collections.abc import Callable

from node.env import Timer, World
from node.forwarding import Forwarding
from node.runtime import Runtime
from timemachine.group import META_GROUP, node_of
from timemachine.membership import (
    Standing,
    Wanted,
    next_change,
    settled,
    wanted_in_meta,
    wanted_of,
)
from timemachine.replica.meta import MetaMachine, Removed, going
from timemachine.vnode import Vnode

_LOOK_MS = 100.0

Group = tuple[int, int]
"""(collection uid, vnode index)."""


class Memberships:
    """Changes the members of the groups that this node leads, until they are as meta wants them.

    `hand_over(vnode, node, done)` has another node lead: a leader that is to leave does not remove
    itself while it is needed.
    """

    def __init__(
        self,
        world: World,
        runtime: Runtime,
        meta: MetaMachine,
        forwarding: Forwarding,
        *,
        hand_over: Callable[[Vnode, int, Callable[[bool], None]], None],
    ) -> None:
        self._world = world
        self._runtime = runtime
        self._meta = meta
        self._forwarding = forwarding
        self._hand_over = hand_over
        self._unsettled: dict[Group, None] = {}
        self._timer: Timer | None = None
        # Those whose placements may still have to hear that a replica has left.
        self._untold: dict[Group, None] = {}

    def look_at(self, group: Group) -> None:
        """Something has changed about a group: its leader, its members, or what meta wants."""
        self._unsettled[group] = None
        if self._timer is None:
            self._timer = self._world.call_later(0.0, self._look)

    def _look(self) -> None:
        self._timer = None
        if not self._runtime.working:
            return
        for group in list(self._unsettled):
            vnode = self._runtime.vnodes.get(group)
            if vnode is None or not vnode.serving or self._settle(vnode):
                del self._unsettled[group]
        if self._unsettled:
            # Not in step with the core, which forgets now and then whom it has heard.
            pause_ms = _LOOK_MS * (0.5 + self._world.random())
            self._timer = self._world.call_later(pause_ms, self._look)

    def _wanted(self, group: Group) -> Wanted:
        if group == META_GROUP:
            return wanted_in_meta(self._meta.nodes.values(), going(self._meta))
        return wanted_of(self._meta.placement(*group))

    def _settle(self, vnode: Vnode) -> bool:
        """Do the next step; whether there is none left."""
        group, core = vnode.group, vnode.core
        if group != META_GROUP and group[0] not in self._meta.collections_by_uid:
            return True
        wanted = self._wanted(group)
        members = vnode.members
        if settled(wanted, members):
            self._tell(vnode)
            return True
        if core.changes_members or core.hands_over:
            return False
        if vnode.id not in wanted.voters and self._give_up(vnode, wanted):
            return False
        if vnode.resting:
            # In its sleep the core hears nobody, and whom it has not heard it takes for dead.
            self._runtime.rouse(vnode)
        standings = {
            each: Standing(*core.standing(each)) for each in (*members.voters, *members.learners)
        }
        change = next_change(wanted, members, standings, vnode.last_index)
        if change is not None:
            vnode.change_members(change)
            self._runtime.stepped(vnode)
        return False

    def _give_up(self, vnode: Vnode, wanted: Wanted) -> bool:
        """Have a voter lead that is to stay, if there is one."""
        staying = [each for each in wanted.voters if each in vnode.members.voters]
        if not staying:
            return False
        standings = {each: Standing(*vnode.core.standing(each)) for each in staying}
        best = max(staying, key=lambda each: (standings[each].heard, standings[each].match, -each))
        self._hand_over(vnode, node_of(best), lambda _: None)
        return True

    def _tell(self, vnode: Vnode) -> None:
        """Tell meta who has left: its node may erase what it has."""
        if vnode.group == META_GROUP:
            return
        removing = self._meta.placement(*vnode.group).removing
        if removing:
            self._untold[vnode.group] = None
        for each in removing:
            command = Removed(
                now_ms=self._world.wall_ms(),
                uid=vnode.group[0],
                index=vnode.group[1],
                replica=each,
            )
            self._forwarding.add(META_GROUP, command, self._tell_again)

    def _tell_again(self) -> None:
        untold, self._untold = self._untold, {}
        for group in untold:
            self.look_at(group)
