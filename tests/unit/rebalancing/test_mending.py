"""Vnodes that may not stay as they are, by example."""

from tests.unit.rebalancing.made import node
from timemachine.rebalancing.mending import mend
from timemachine.rebalancing.shares import quotas
from timemachine.rebalancing.spread import Bounds, Topology, each_of

# Two nodes in each of three zones.
_TOPOLOGY = Topology([node(number, "abc"[(number - 1) // 2]) for number in range(1, 7)])


def _mended(bounds: Bounds, origin: int, loads: list[int]) -> list[int]:
    """The positions after it; nodes are to have six replicas each."""
    due = quotas(_TOPOLOGY, [Bounds(_TOPOLOGY, 3, 0, _TOPOLOGY.everywhere)] * 12, [0] * 6)
    counted = list(loads)
    chosen = mend((1, 0), bounds, origin, counted, due)
    change = [(chosen >> each & 1) - (origin >> each & 1) for each in range(6)]
    assert [load + more for load, more in zip(loads, change, strict=True)] == counted
    return list(each_of(chosen))


def test_what_is_spread_best_stays_however_full_its_nodes_are() -> None:
    """Loads are what the exchange is for."""
    bounds = Bounds(_TOPOLOGY, 3, 0, _TOPOLOGY.everywhere)
    assert [0, 2, 4] == _mended(bounds, 0b010101, [99, 0, 99, 0, 99, 0])


def test_of_two_in_a_zone_the_fuller_goes_to_the_emptier_of_where_none_is() -> None:
    """One move, not more."""
    bounds = Bounds(_TOPOLOGY, 3, 0, _TOPOLOGY.everywhere)
    assert [0, 2, 4] == _mended(bounds, 0b000111, [6, 7, 6, 6, 4, 5])
    assert [1, 2, 5] == _mended(bounds, 0b000111, [7, 6, 6, 6, 5, 4])


def test_what_is_fixed_stays_and_what_lacks_comes() -> None:
    """Also where two that are fixed share a zone."""
    bounds = Bounds(_TOPOLOGY, 4, 0b000011, _TOPOLOGY.everywhere)
    assert [0, 1, 3, 4] == _mended(bounds, 0b000011, [9, 9, 6, 5, 5, 6])


def test_fewer_replicas_are_those_that_are_spread_best() -> None:
    """Of the fuller nodes go the replicas, where spread leaves a choice."""
    bounds = Bounds(_TOPOLOGY, 2, 0, 0b010011)
    assert [0, 4] == _mended(bounds, 0b010011, [6, 7, 0, 0, 9, 0])
    assert [1, 4] == _mended(bounds, 0b010011, [7, 6, 0, 0, 9, 0])
