"""What may change and what is left alone, by example."""

import pytest
from msgspec.structs import replace

from tests.unit.rebalancing.made import node, placed
from timemachine.model import NodeState
from timemachine.rebalancing.wishes import changeable, to_drain, to_rebalance, to_replicate

_NEW = 1 << 16  # of the next generation
_NODES = [node(1), node(2), node(3), node(4)]


@pytest.mark.parametrize(
    ("replicas", "removing", "lost", "may"),
    [
        ((1, 2, 3), (), (), True),
        ((1, 2, 3), (4,), (), False),
        ((1, 2, 3), (), (1,), True),
        ((1, 2, 3), (), (1, 2), False),
        ((1, 2), (), (1,), False),
        ((1,), (), (1,), False),
        ((1,), (), (2,), True),
        # On its way to a node that is lost: it is still where it was.
        ((_NEW | 1,), (2,), (1,), True),
        ((_NEW | 1,), (2,), (1, 2), False),
        ((1, _NEW | 2), (3,), (2,), True),
        ((1, _NEW | 2), (3,), (2, 3), False),
        ((1, _NEW | 2), (3,), (1,), False),
        ((1, 2, _NEW | 4), (3,), (2, 4), True),
        ((1, 2, _NEW | 4), (3,), (1, 2), False),
        # What is damaged is nobody.
        ((_NEW | 1, 2), (1,), (2,), False),
    ],
)
def test_a_group_changes_when_it_is_settled_and_has_a_majority(
    replicas: tuple[int, ...], removing: tuple[int, ...], lost: tuple[int, ...], may: bool
) -> None:
    """Of what lives."""
    (placement,) = placed(replicas)
    assert may is changeable(replace(placement, removing=removing), set(lost))


def test_what_is_left_alone_counts_beside() -> None:
    """By the nodes that may have replicas."""
    placements = placed((1, 2, 3), (1, 2, 4), (2, 3, 4))
    placements[0] = replace(placements[0], removing=(4,))
    wishes = to_rebalance(placements, _NODES, set())
    assert [1, 1, 1, 0] == wishes.beside
    assert [1, 2] == [wish.placement.index for wish in wishes.all]


def test_a_vnode_keeps_its_count_as_far_as_there_are_nodes() -> None:
    """Two stay two, and three become two where two nodes are left."""
    placements = placed((1, 2), (1, 2, 3))
    assert [2, 3] == [each.bounds.count for each in to_rebalance(placements, _NODES, set()).all]
    few = [_NODES[0], _NODES[1], node(3, weight=0)]
    assert [2, 2] == [each.bounds.count for each in to_rebalance(placements, few, set()).all]
    none = [node(number, weight=0) for number in (1, 2, 3)]
    assert [] == to_rebalance(placements, none, set()).all


def test_nodes_that_are_unknown_or_removed_are_lost() -> None:
    """What they had is to come elsewhere, if a majority lives."""
    nodes = [*_NODES[:3], node(4, state=NodeState.REMOVED)]
    wishes = to_rebalance(placed((1, 2, 4), (1, 2, 9), (1, 4, 9)), nodes, set())
    assert [0, 1] == [wish.placement.index for wish in wishes.all]
    assert {0b011} == {wish.origin for wish in wishes.all}
    assert [1, 0, 0] == wishes.beside


def test_a_drain_fixes_what_stays() -> None:
    """Also on nodes that get nothing new, unless they leave."""
    nodes = [*_NODES, node(5, weight=0), node(6, state=NodeState.LEAVING)]
    wishes = to_drain(placed((1, 2, 3), (1, 2, 5), (2, 3, 6), (2, 3, 5)), nodes, {1}, set())
    assert [0, 1, 2] == [wish.placement.index for wish in wishes.all]
    assert [(), (5,), ()] == [wish.keeps for wish in wishes.all]
    assert [3, 2, 3] == [wish.bounds.count for wish in wishes.all]
    assert all(wish.bounds.fixed == wish.origin for wish in wishes.all)
    assert [1, 1, 0] == wishes.beside


def test_the_first_to_go_are_on_nodes_that_get_nothing_new() -> None:
    """When a collection is to have fewer replicas; others are not touched."""
    nodes = [*_NODES, node(5, weight=0)]
    placements = placed((1, 2, 5), (1, 2, 3)) + placed((1, 2, 3), uid=2)
    wishes = to_replicate(1, 2, placements, nodes)
    assert [(0b0011, ()), (0b0111, ())] == [(each.origin, each.keeps) for each in wishes.all]
    assert [0b0011, 0] == [each.bounds.fixed for each in wishes.all]
    assert [1, 1, 1, 0] == wishes.beside
    wishes = to_replicate(1, 4, placements, nodes)
    assert [(3, (5,)), (4, ())] == [(each.bounds.count, each.keeps) for each in wishes.all]
