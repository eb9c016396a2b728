"""How a leader brings its group to what meta wants, by what it asks of its vnode."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from node.membership import Memberships
from tests.sim.world import SimWorld
from timemachine import limits
from timemachine.group import replica_id
from timemachine.model import Node, NodeState, Placement
from timemachine.raft import ConfChangeV2, ConfState
from timemachine.replica.meta import Removed

GROUP = (7, 0)
LOOK_MS = 150.0
"""Within this time it looks once, at least."""
META = (0, 0)


class _Vnode:
    """A leader, replica 1. What it is asked is noted, and happens when `happen` is called."""

    id = 1
    last_index = 9
    resting = 0

    def __init__(self, group: tuple[int, int], members: ConfState) -> None:
        self.group = group
        self.members = members
        self.serving = True
        self.asked: list[list[tuple[str, int]]] = []
        self.standings: dict[int, tuple[int, bool]] = {}
        self.core: Any = SimpleNamespace(
            changes_members=False, hands_over=False, standing=self._standing
        )

    def _standing(self, member: int) -> tuple[int, bool]:
        return self.standings.get(member, (9, True))

    def change_members(self, change: ConfChangeV2) -> None:
        self.asked.append([(each.type.name, each.node_id) for each in change.changes])

    def become(self, voters: tuple[int, ...], learners: tuple[int, ...] = ()) -> None:
        """The change is applied."""
        self.members = ConfState(voters, learners)


class _Node:
    """Node 1, which leads one group."""

    def __init__(
        self, placement: Placement | None, members: ConfState, group: tuple[int, int] = GROUP
    ) -> None:
        self.world = SimWorld(1)
        self.vnode = _Vnode(group, members)
        self.placement = placement
        self.nodes = {"n1": _meta_node(1)}
        meta: Any = SimpleNamespace(
            collections_by_uid={} if placement is None else {7: None},
            placement=lambda *_: self.placement,
            nodes=self.nodes,
            plans={},
        )
        self.roused: list[Any] = []
        runtime: Any = SimpleNamespace(
            working=True,
            vnodes={group: self.vnode},
            rouse=self.roused.append,
            stepped=lambda _: None,
        )
        self.runtime = runtime
        self.told: list[tuple[tuple[int, int], Any]] = []
        forwarding: Any = SimpleNamespace(add=self._forward)
        self.handed: list[int] = []
        self.memberships = Memberships(
            self.world,
            runtime,
            meta,
            forwarding,
            hand_over=lambda _, node, done: self.handed.append(node),
        )

    def _forward(self, group: tuple[int, int], command: Any, look: Callable[[], None]) -> None:
        self.told.append((group, command))
        self.world.call_later(limits.FORWARDS_KEPT_MS, look)

    def look(self, for_ms: float = 0.0) -> list[list[tuple[str, int]]]:
        """Something has changed; what is asked of the vnode in this time."""
        self.vnode.asked.clear()
        wait_ms = 0.0 if self.memberships._timer is None else LOOK_MS
        self.memberships.look_at(self.vnode.group)
        self.world.run_for(for_ms or wait_ms)
        return self.vnode.asked

    def rests(self) -> bool:
        """Whether nothing rings any more."""
        events = self.world.events
        self.world.run_for(5_000.0)
        return events == self.world.events


def _meta_node(number: int, state: NodeState = NodeState.MEMBER) -> Node:
    return Node(
        id=f"n{number}", name="", http="", rpc="", zone="", version="", number=number, state=state
    )


def test_what_is_as_wanted_is_left_alone() -> None:
    """And not looked at again before something changes."""
    node = _Node(Placement(7, 0, (1, 2, 3), (1, 2, 3)), ConfState((1, 2, 3)))
    assert [] == node.look(1_000.0)
    assert node.rests()
    assert [] == node.told


def test_a_replica_is_replaced_step_by_step_and_meta_is_told() -> None:
    """It is looked at again and again meanwhile, for nobody tells that a learner has caught up."""
    node = _Node(Placement(7, 0, (1, 2, 3), (1, 2, 4), (3,)), ConfState((1, 2, 3)))
    assert [[("ADD_LEARNER", 4)]] == node.look()
    node.vnode.become((1, 2, 3), (4,))
    node.vnode.standings[4] = (0, False)
    assert [] == node.look(1_000.0)
    node.vnode.standings[4] = (9, True)
    node.world.run_for(LOOK_MS)
    assert [("ADD_NODE", 4), ("REMOVE_NODE", 3)] == node.vnode.asked[0]
    node.vnode.become((1, 2, 4))
    assert [] == node.look()
    ((group, command),) = node.told
    assert META == group
    assert isinstance(command, Removed)
    assert (7, 0, 3) == (command.uid, command.index, command.replica)
    node.placement = Placement(7, 0, (1, 2, 3), (1, 2, 4))
    assert node.rests()


@pytest.mark.parametrize("what", ["changes_members", "hands_over"])
def test_one_change_at_a_time(what: str) -> None:
    """While one is on its way, or the leadership, nothing is asked."""
    node = _Node(Placement(7, 0, (1,), (1, 2)), ConfState((1,)))
    setattr(node.vnode.core, what, True)
    assert [] == node.look(1_000.0)
    setattr(node.vnode.core, what, False)
    node.world.run_for(LOOK_MS)
    assert [("ADD_LEARNER", 2)] == node.vnode.asked[0]


def test_it_does_not_look_in_step_with_the_core() -> None:
    """The core forgets in steps of its own whom it has heard, and hears of them soon after."""
    node = _Node(Placement(7, 0, (1,), (1, 2)), ConfState((1,), (2,)))
    period_ms, asked = 100.0, False
    node.memberships.look_at(GROUP)
    for _ in range(100):
        node.vnode.standings[2] = (9, False)
        node.world.run_for(0.3 * period_ms)
        node.vnode.standings[2] = (9, True)
        node.world.run_for(0.7 * period_ms)
        asked = asked or bool(node.vnode.asked)
    assert asked


def test_a_leader_that_sleeps_is_woken_first() -> None:
    """Nothing may leave of a group that others believe asleep."""
    node = _Node(Placement(7, 0, (1, 2), (1, 2, 3)), ConfState((1, 2)))
    node.vnode.resting = 1
    assert [[("ADD_LEARNER", 3)]] == node.look()
    assert [node.vnode] == node.roused


def test_a_leader_that_is_to_leave_hands_over_first() -> None:
    """To a voter that stays, that is there, and that has most of the log."""
    node = _Node(Placement(7, 0, (1, 2, 3), (2, 3, 4), (1,)), ConfState((1, 2, 3)))
    node.vnode.standings = {2: (9, False), 3: (8, True)}
    assert [] == node.look()
    assert {3} == set(node.handed)
    node.handed.clear()
    node.vnode.standings = {2: (8, True), 3: (7, True)}
    node.world.run_for(LOOK_MS)
    assert {2} == set(node.handed)
    node.vnode.serving = False
    node.world.run_for(LOOK_MS)
    assert node.rests()


def test_a_leader_to_which_nobody_stays_hands_over_as_well() -> None:
    """To the first that comes, which therefore votes before anybody leaves."""
    there = replica_id(2, 1)
    node = _Node(Placement(7, 0, (1,), (there,), (1,)), ConfState((1,)))
    assert [[("ADD_LEARNER", there)]] == node.look()
    node.vnode.become((1,), (there,))
    assert [[("ADD_NODE", there)]] == node.look()
    assert [] == node.handed
    node.vnode.become((1, there), ())
    assert [] == node.look()
    assert {2} == set(node.handed)


def test_the_meta_group_follows_the_nodes() -> None:
    """The first vote, the others learn, and who is removed goes; nobody has to be told."""
    node = _Node(None, ConfState((1,)), META)
    for number in range(2, limits.META_VOTERS_MAX + 2):
        node.nodes[f"n{number}"] = _meta_node(number)
    assert [[("ADD_LEARNER", 2)]] == node.look()
    last = limits.META_VOTERS_MAX + 1
    node.vnode.become((1, 2, 3, 4, 5), (last,))
    assert [] == node.look()
    node.nodes["n2"] = _meta_node(2, NodeState.REMOVED)
    assert [[("ADD_NODE", last), ("REMOVE_NODE", 2)]] == node.look()
    node.vnode.become((1, 3, 4, 5, last))
    assert [] == node.look()
    assert [] == node.told
    assert node.rests()


def test_a_group_without_its_collection_or_its_leader_is_forgotten() -> None:
    """Others see to it, or nobody has to."""
    node = _Node(None, ConfState((1,)))
    assert [] == node.look(1_000.0)
    assert node.rests()
    node = _Node(Placement(7, 0, (1,), (1, 2)), ConfState((1,)))
    node.vnode.serving = False
    assert [] == node.look(1_000.0)
    assert node.rests()
    node.vnode.serving = True
    node.runtime.vnodes.clear()
    assert [] == node.look(1_000.0)
    assert node.rests()


def test_a_node_that_stops_looks_no_more() -> None:
    """Its store may be closed."""
    node = _Node(Placement(7, 0, (1,), (1, 2)), ConfState((1,)))
    node.runtime.working = False
    assert [] == node.look(1_000.0)
    assert node.rests()


def test_meta_is_told_until_it_has_heard() -> None:
    """What is forwarded may be dropped while nobody leads the meta group."""
    node = _Node(Placement(7, 0, (1, 2), (1,), (2,)), ConfState((1,)))
    node.look()
    assert 1 == len(node.told)
    node.world.run_for(limits.FORWARDS_KEPT_MS * 2.0)
    assert 2 <= len(node.told) <= 4
    node.placement = Placement(7, 0, (1, 2), (1,))
    node.world.run_for(limits.FORWARDS_KEPT_MS * 2.0)
    assert node.rests()


def test_a_leader_that_sleeps_is_roused_to_hear_who_is_there() -> None:
    """Named regression: asleep it heard nobody, took all for dead, and never removed a dead one."""
    node = _Node(Placement(7, 0, (1, 2, 3), (1, 3)), ConfState((1, 2, 3)))
    node.vnode.resting = 1
    node.vnode.standings = {1: (9, True), 2: (4, False), 3: (9, False)}
    assert [] == node.look()
    assert node.roused
    node.vnode.standings[3] = (9, True)
    node.vnode.resting = 0
    assert [[("REMOVE_NODE", 2)]] == node.look()
