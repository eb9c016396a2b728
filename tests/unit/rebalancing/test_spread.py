"""Which sets of nodes are spread best, by example."""

import pytest

from tests.unit.rebalancing.made import node
from timemachine.model import NodeState
from timemachine.rebalancing.spread import Bounds, Topology, each_of

# One node in a, two on two hosts in b, three in c of which two are on one host.
_NODES = [
    node(1, "a"),
    node(2, "b"),
    node(3, "b"),
    node(4, "c", host="x"),
    node(5, "c", host="x"),
    node(6, "c", host="y"),
]
_TOPOLOGY = Topology(_NODES)


def _bounds(count: int, fixed: int = 0, allowed: int | None = None) -> Bounds:
    return Bounds(_TOPOLOGY, count, fixed, _TOPOLOGY.everywhere if allowed is None else allowed)


def test_only_members_with_a_weight_may_have_replicas() -> None:
    """Not those that leave, are removed, are named, or weigh nothing."""
    nodes = [
        node(5),
        node(1, weight=0),
        node(2, state=NodeState.LEAVING),
        node(3, state=NodeState.REMOVED),
        node(4),
        node(6),
    ]
    topology = Topology(nodes, {6})
    assert (4, 5) == topology.numbers
    assert {4: 0, 5: 1} == topology.positions


def test_a_host_with_nodes_in_two_zones_counts_as_two() -> None:
    """Zones hold hosts, whatever nodes say."""
    topology = Topology([node(1, "a", host="x"), node(2, "b", host="x"), node(3, host="x")])
    assert 3 == len(topology.zones) == len(topology.hosts)


@pytest.mark.parametrize(
    ("count", "zone_low", "zone_high"),
    [
        (1, [0, 0, 0], [1, 1, 1]),
        (2, [0, 0, 0], [1, 1, 1]),
        (3, [1, 1, 1], [1, 1, 1]),
        (4, [1, 1, 1], [1, 2, 2]),
        (5, [1, 2, 2], [1, 2, 2]),
        (6, [1, 2, 3], [1, 2, 3]),
    ],
)
def test_zones_have_equally_many_as_far_as_they_have_nodes(
    count: int, zone_low: list[int], zone_high: list[int]
) -> None:
    """And the bounds differ by one at most."""
    bounds = _bounds(count)
    assert (zone_low, zone_high) == (bounds.zone_low, bounds.zone_high)


def test_of_two_zones_one_more_comes_to_where_it_shares_no_host() -> None:
    """Both zones have room; in the second all nodes are on one host."""
    topology = Topology(
        [node(1, "a"), node(2, "a"), node(3, "b", host="x"), node(4, "b", host="x")]
    )
    bounds = Bounds(topology, 3, 0, topology.everywhere)
    assert ([2, 1], [2, 1]) == (bounds.zone_low, bounds.zone_high)


def test_what_is_fixed_is_counted_before_others_are_spread() -> None:
    """With two fixed in one zone, the third comes to another one, and the zone stays as it is."""
    bounds = _bounds(3, fixed=0b000110)
    assert ([0, 2, 0], [1, 2, 1]) == (bounds.zone_low, bounds.zone_high)
    assert (1, 1) == bounds.node_bounds(1)
    assert (0, 1) == bounds.node_bounds(0)
    bounds = _bounds(3, fixed=0b000010)
    assert (0, 0) == bounds.node_bounds(2)


def test_of_what_is_allowed_the_best_is_kept() -> None:
    """Two of three are to stay, and two of these share a zone: one of those goes."""
    bounds = _bounds(2, allowed=0b000111)
    assert bounds.best(0b000011)
    assert bounds.best(0b000101)
    assert not bounds.best(0b000110)
    assert not bounds.best(0b001001)


@pytest.mark.parametrize(
    ("count", "chosen", "best"),
    [
        (3, 0b001011, True),
        (3, 0b000011, True),  # as far as it goes
        (3, 0b000110, False),  # two in b, and none in a or c
        (4, 0b101011, True),
        (4, 0b011011, False),  # two on host x, though y is free
        (2, 0b001011, False),  # one too many
        (4, 0b000110, True),
        (4, 0b101110, False),  # no room is left for a
    ],
)
def test_whether_nodes_are_spread_best_or_can_become_so(
    count: int, chosen: int, best: bool
) -> None:
    """Each zone and host has what it must have, or others can still bring it."""
    assert best is _bounds(count).best(chosen)


def test_who_may_stand_in_for_whom() -> None:
    """One of the same zone where each zone must have one; anybody spread as well elsewhere."""
    found = _bounds(3).substitutes(0b001011)
    assert {0: [], 1: [2], 3: [4, 5]} == {each: list(each_of(able)) for each, able in found.items()}
    # Of four, two are in b; the zone c may have them instead, on the host that is free.
    found = _bounds(4).substitutes(0b001111)
    assert {0: [], 1: [5], 2: [5], 3: [4, 5]} == {
        each: list(each_of(able)) for each, able in found.items()
    }


def test_nobody_stands_in_for_what_is_fixed() -> None:
    """Nor does anybody who is not allowed."""
    found = _bounds(2, fixed=0b000001, allowed=0b001111).substitutes(0b000011)
    assert {1: [2, 3]} == {each: list(each_of(able)) for each, able in found.items()}
