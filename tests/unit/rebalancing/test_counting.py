"""The lower bound by example: what each count sees."""

from tests.unit.rebalancing.made import node, placed
from timemachine.model import NodeState
from timemachine.rebalancing import lower_bound

_THREE = [node(1), node(2), node(3)]


def test_nothing_has_to_move_where_all_is_well() -> None:
    """Or where there is nothing."""
    assert 0 == lower_bound([], [])
    assert 0 == lower_bound(placed((1, 2), (2, 3), (3, 1)), _THREE)


def test_what_nodes_lack_has_to_come() -> None:
    """A node that joined lacks its share."""
    assert 2 == lower_bound(placed((1,), (2,), (1,), (2,), (1,), (2,)), _THREE)


def test_what_is_too_much_has_to_go() -> None:
    """One of four on one of two nodes, though the other lacks nothing when rounded down."""
    assert 1 == lower_bound(placed((1,), (1,), (1,)), [node(1), node(2)])


def test_what_nodes_must_not_have_has_to_go_beside_what_is_too_much() -> None:
    """The two are never the same replica."""
    nodes = [node(1), node(2), node(4, state=NodeState.LEAVING), node(5, weight=0)]
    assert 3 == lower_bound(placed((4,), (5,), (1,), (1,), (1,), (1,)), nodes)


def test_what_is_spread_badly_has_to_go() -> None:
    """Two in a zone where another has none; or on a host, though the other one is free."""
    nodes = [node(1, "a"), node(2, "a"), node(3, "b"), node(4, "b")]
    assert 2 == lower_bound(placed((1, 2), (3, 4), (1, 3), (2, 4)), nodes)
    nodes = [node(1, host="x"), node(2, host="x"), node(3, host="y"), node(4, host="y")]
    assert 2 == lower_bound(placed((1, 2), (3, 4), (1, 3), (2, 4)), nodes)


def test_what_comes_for_another_reason_may_mend_as_well() -> None:
    """Two in a zone and one on a node that is lost: that one comes to the zone that has none."""
    nodes = [node(1, "a"), node(2, "a"), node(3, "b"), node(4, "b")]
    assert 1 == lower_bound(placed((1, 2, 4)), nodes, {4})
