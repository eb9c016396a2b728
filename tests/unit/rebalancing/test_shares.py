"""Shares by weight, by example."""

import pytest

from tests.unit.rebalancing.made import node
from timemachine import limits
from timemachine.model import Node
from timemachine.rebalancing.shares import Quotas, quotas
from timemachine.rebalancing.spread import Bounds, Topology


def _quotas(nodes: list[Node], *shapes: tuple[int, int], beside: list[int] | None = None) -> Quotas:
    """For vnodes of these shapes: so many, with so many replicas each."""
    topology = Topology(nodes)
    vnodes: list[Bounds] = []
    for count, replicas in shapes:
        vnodes += [Bounds(topology, replicas, 0, topology.everywhere)] * count
    return quotas(topology, vnodes, beside or [0] * len(nodes))


def _shares(found: Quotas) -> list[float]:
    return [each.share for each in found.nodes]


def test_without_nodes_or_vnodes_nothing_is_due() -> None:
    """And nothing fails."""
    assert Quotas([], []) == _quotas([])
    assert [0, 0] == _shares(_quotas([node(1), node(2)], (0, 1)))


def test_equal_nodes_have_equal_shares_rounded_down_or_up() -> None:
    """They share a pool, which has all that there is."""
    found = _quotas([node(number) for number in (1, 2, 3, 4)], (6, 3))
    assert [4.5] * 4 == _shares(found)
    assert {(4, 5, 0)} == {(each.least, each.most, each.pool) for each in found.nodes}
    assert [18] == found.sums


def test_shares_follow_weights_until_a_node_has_all_vnodes() -> None:
    """More than one replica of each it cannot have; the others have the rest, by weight."""
    nodes = [node(1, weight=1000), node(2), node(3), node(4, weight=200)]
    found = _quotas(nodes, (8, 2))
    assert [8, 2, 2, 4] == _shares(found)
    assert [8, 8] == sorted(found.sums)


def test_a_small_zone_has_more_on_each_node() -> None:
    """Where each zone must have one: all, a half, a third; nodes of one level are one pool."""
    nodes = [node(1, "a"), node(2, "b"), node(3, "b", weight=200)]
    nodes += [node(number, "c") for number in (4, 5, 6)]
    found = _quotas(nodes, (12, 3))
    assert [12, 4, 8, 4, 4, 4] == _shares(found)
    assert [0, 1, 1, 1, 1, 1] == [each.pool for each in found.nodes]
    assert [12, 24] == found.sums


def test_what_nodes_keep_beside_is_part_of_their_share() -> None:
    """Who has more than the others will have gets nothing, and the others are level."""
    found = _quotas([node(1), node(2), node(3)], (5, 1), beside=[9, 1, 0])
    assert [9, 3, 3] == _shares(found)


@pytest.mark.parametrize("weight", [1, limits.NODE_WEIGHT_MAX])
def test_whole_shares_are_whole_at_both_ends_of_weights(weight: int) -> None:
    """A share that is whole leaves nothing to round, as large as the cluster may be."""
    nodes = [node(number, weight=weight) for number in range(1, limits.NODES_MAX + 1)]
    found = _quotas(nodes, (limits.NODES_MAX * 60, 3))
    assert {(180, 180)} == {(each.least, each.most) for each in found.nodes}
    nodes[0] = node(1, weight=limits.NODE_WEIGHT_MAX + 1 - weight)
    found = _quotas(nodes, (limits.NODES_MAX * 60, 3))
    assert limits.NODES_MAX * 180 == sum(found.sums)
