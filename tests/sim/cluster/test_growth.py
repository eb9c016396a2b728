"""Clusters that grow, lose nodes and replace replicas: what operators do, and what follows."""

import pytest

from tests.sim.cluster.growth import draw_growth, unsettled
from tests.sim.cluster.harness import Harness
from tests.sim.cluster.knobs import Knobs, draw
from tests.sim.cluster.nemesis import Fault
from timemachine import limits
from timemachine.group import META_GROUP, node_of

_QUIET = Knobs(
    seed=1,
    num_vnodes=2,
    safety_ms=4_000.0,
    fault_pace_ms=1e9,
    due_ms_max=1_000.0,
    client_pace_ms=90,
)


def _run(**knobs: object) -> Harness:
    harness = Harness(_QUIET.changed(**knobs))
    result = harness.run()
    assert ([], []) == (result.judgement.broken, result.judgement.undecided)
    assert [] == unsettled(harness.members)
    return harness


@pytest.mark.parametrize("born", [1, 2, 3])
def test_a_cluster_grows_while_it_is_used(born: int) -> None:
    """Every vnode has replicas on all nodes in the end, and nothing was repeated for it."""
    harness = _run(nodes=4, born=born)
    assert [1, 2, 3, 4] == sorted(harness.members.numbers)
    assert [{1, 2, 3, 4}] * 3 == [set(each.voters) for each in harness.members.memberships()]


def test_vnodes_are_on_as_many_nodes_as_they_want() -> None:
    """And the meta group on all of them; only the first vote there."""
    harness = _run(nodes=7, born=3, replicas=2)
    meta, *vnodes = harness.members.memberships()
    assert META_GROUP == meta.group
    assert limits.META_VOTERS_MAX == len(meta.voters)
    assert 7 - limits.META_VOTERS_MAX == len(meta.learning)
    assert [2, 2] == [len(each.voters) for each in vnodes]


def test_a_node_that_is_lost_is_replaced() -> None:
    """By one of another number, in all groups; the lost one never starts again."""
    harness = _run(nodes=3, losses=1)
    members = harness.members
    (lost,) = {1, 2, 3} - set(members.numbers)
    assert members.members[lost].lost
    assert not members.start(lost)
    assert all(lost not in map(node_of, each.voters) for each in members.memberships())


def test_a_replica_that_is_retired_comes_back_under_another_id() -> None:
    """On the same node."""
    harness = _run(nodes=3, retires=2)
    retired = harness.members.retired
    assert 2 == len(retired)
    for group, replica in retired:
        (found,) = [each for each in harness.members.memberships() if each.group == group]
        assert replica not in found.voters
        assert {1, 2, 3} == set(map(node_of, found.voters))


def test_nobody_is_taken_whom_a_group_needs() -> None:
    """Of two voters neither can be spared; of three one, and then no other, nor who is to come."""
    harness = Harness(_QUIET.changed(nodes=3, replicas=2))
    harness.boot()
    members = harness.members
    assert [] == [number for number in members.numbers if members.can_lose(number)]
    harness = Harness(_QUIET.changed(nodes=3))
    harness.boot()
    members = harness.members
    assert [1, 2, 3] == [number for number in members.numbers if members.can_lose(number)]
    members.lose(3)
    assert [] == [number for number in members.numbers if members.can_lose(number)]
    assert not any(members.can_spare(group, replica) for group, replica in members.placed())


def test_nobody_is_taken_whom_events_that_are_to_come_may_need() -> None:
    """Their collection is made with the first of them, on any three nodes, also on dead ones."""
    for alerts, spare in ((0, [2, 3, 4, 5]), (1, [])):
        harness = Harness(_QUIET.changed(nodes=5, alerts=alerts))
        harness.boot()
        members = harness.members
        assert [1, 2, 3, 4, 5] == [each for each in members.numbers if members.can_lose(each)]
        members.lose(1)
        assert spare == [each for each in members.numbers if members.can_lose(each)]
    members.plan("p", (), (), (2, 3))
    assert members.can_carry("p")
    # Of the two that are to be left one is gone.
    members.plan("q", (), (), (2, 3, 4))
    assert not members.can_carry("q")


def test_damage_leaves_room_for_events_that_are_to_come() -> None:
    """Named regression: two of seven nodes were damaged, and their collection was placed on both.

    It has three replicas, although all other groups are on all nodes.
    """
    for alerts, most in ((0, 2), (1, 1)):
        plan = [Fault(100.0 + 20.0 * number, "flip_bits", number) for number in range(60)]
        harness = Harness(_QUIET.changed(nodes=7, mood="healthy", alerts=alerts), plan)
        harness.boot()
        harness.live()
        assert most == len(harness.nemesis.damaged)


def test_a_plan_is_as_long_as_its_knobs_say() -> None:
    """And a seed has one; some seeds leave their members as they are."""
    knobs = _QUIET.changed(nodes=5, born=2, losses=1, retires=2)
    plan = draw_growth(knobs)
    assert ["join"] * 3 + ["replace"] + ["retire"] * 2 == sorted(step.kind for step in plan)
    assert plan == draw_growth(knobs)
    assert [] == draw_growth(_QUIET)
    drawn = [draw(seed) for seed in range(300)]
    assert 50 < sum(not knobs.moves for knobs in drawn) < 150
    assert {1, 2, 3} < {knobs.born_nodes for knobs in drawn}
    assert all(not knobs.losses and not knobs.retires for knobs in drawn if not knobs.fault_kinds)
