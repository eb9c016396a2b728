"""Plans by example: what a human would be shown."""

from collections import Counter

from msgspec.structs import replace

from tests.unit.rebalancing.made import node, placed
from timemachine.group import node_of, replica_id
from timemachine.model import Collection, NodeState, Placement
from timemachine.placement import Move, initial
from timemachine.rebalancing import copies, drain, rebalance, replicate

_THREE = [node(1), node(2), node(3)]


def _collection(replicas: int = 3, num_vnodes: int = 12) -> Collection:
    return Collection(
        uid=1,
        db="default",
        name="c",
        num_vnodes=num_vnodes,
        replicas=replicas,
        history_retention_ms=0,
        created_ms=0,
    )


def test_what_is_even_stays() -> None:
    """Nothing moves for a rounding, nor in an empty cluster."""
    assert [] == rebalance([], [])
    assert [] == rebalance([], _THREE)
    assert [] == rebalance(placed((1,), (2,), (3,), (3,), (2,)), _THREE)
    assert [] == rebalance(initial(_collection(), _THREE, []), _THREE)


def test_a_node_that_joined_gets_its_share_and_nothing_else_moves() -> None:
    """A fourth takes nine of thirty-six, three from each; a move names the version it is of."""
    placements = [replace(each, version=5) for each in initial(_collection(), _THREE, [])]
    moves = rebalance(placements, [*_THREE, node(4)])
    assert {((4,), 1, 5)} == {(each.add, len(each.remove), each.version) for each in moves}
    assert {1: 3, 2: 3, 3: 3} == Counter(node_of(each.remove[0]) for each in moves)


def test_a_vnode_that_shares_a_zone_though_it_need_not_is_mended() -> None:
    """Zones were given to nodes later; counts were even all the while."""
    nodes = [node(1, "a"), node(2, "a"), node(3, "b"), node(4, "b")]
    moves = rebalance(placed((1, 2), (3, 4), (1, 3), (2, 4)), nodes)
    assert 2 == copies(moves) == len(moves)
    assert {0, 1} == {each.index for each in moves}


def test_what_a_heavier_node_gets() -> None:
    """Twice as much; and one of weight 0 keeps nothing."""
    nodes = [node(1), node(2), node(3, weight=200), node(4, weight=0)]
    placements = placed(*[(1,), (2,), (3,), (4,)] * 4)
    moves = rebalance(placements, nodes)
    assert 4 == copies(moves)
    assert {(4,)} == {each.remove for each in moves}
    assert {(3,)} == {each.add for each in moves}


def test_a_node_that_leaves_is_emptied() -> None:
    """By either plan; if the others are few, its replicas just go."""
    leaving = node(4, state=NodeState.LEAVING)
    placements = placed((1, 2, 4), (1, 2, 3), (4, 2, 3))
    expected = [Move(1, 0, 1, (3,), (4,)), Move(1, 2, 1, (1,), (4,))]
    assert expected == drain(placements, [*_THREE, leaving])
    assert expected == rebalance(placements, [*_THREE, leaving])
    few = [node(1), node(2), node(3, weight=0), leaving]
    assert [Move(1, 0, 1, (), (4,)), Move(1, 2, 1, (1,), (4,))] == drain(placements, few)


def _on_its_way(placement: Placement) -> Placement:
    """With a replica that is still to go from node 1."""
    return replace(placement, removing=(1,), generation=1)


def test_where_a_move_was_going_is_lost_and_it_goes_elsewhere() -> None:
    """Named regression: vnodes of one or two replicas could not be moved for ever after."""
    new = replica_id(4, 1)
    placements = [_on_its_way(each) for each in placed((new,), (2, new), (2, 3, new))]
    nodes = [*_THREE, node(4), node(5)]
    moves = drain(placements, nodes, {4}, lost={4})
    assert {(new,)} == {each.remove for each in moves}
    assert [0, 1, 2] == [each.index for each in moves]
    assert all(len(each.add) == 1 and 1 not in each.add for each in moves)


def test_who_was_replaced_keeps_nothing() -> None:
    """Two that are lost at once are no majority, though one is still to go."""
    (placement,) = placed((2, 4))
    placement = replace(_on_its_way(placement), removing=(9,))
    assert [] == drain([placement], [*_THREE, node(4)], {4}, lost={4})


def test_nothing_goes_to_where_a_replica_is_still_to_go() -> None:
    """Named regression: such moves are void, so the lost node could never be removed."""
    new = replica_id(4, 1)
    (three,) = map(_on_its_way, placed((2, 3, new)))
    assert [Move(1, 0, 1, (), (new,))] == drain([three], [*_THREE, node(4)], {4}, lost={4})
    (sole,) = map(_on_its_way, placed((new,)))
    assert [] == drain([sole], [node(1), node(4)], {4}, lost={4})


def test_a_lost_node_is_replaced_where_a_majority_is_left() -> None:
    """Its sole replicas stay its: an empty one must not pass for them."""
    placements = placed((1, 2, 4), (4,), (1, 4))
    moves = drain(placements, [*_THREE, node(4)], lost={4})
    assert [Move(1, 0, 1, (3,), (4,))] == moves
    # It can still be copied from while it is there.
    moves = drain(placements, [*_THREE, node(4)], {4})
    assert [0, 1, 2] == [each.index for each in moves]
    assert {(4,)} == {each.remove for each in moves}


def test_the_last_replica_never_goes_without_another() -> None:
    """A cluster of one node has nowhere to drain it to."""
    assert [] == drain(placed((1,), (1,)), [node(1)], {1})
    assert [] == rebalance(placed((1,), (1,)), [node(1, weight=0)])


def test_more_replicas_come_where_least_is() -> None:
    """And nothing goes."""
    placements = placed((1,), (1,), (2,), (2,))
    moves = replicate(_collection(1, 4), 2, placements, _THREE)
    assert {()} == {each.remove for each in moves}
    loads = Counter(node for each in placements for node in each.replicas)
    loads.update(number for each in moves for number in each.add)
    assert {2, 3} == set(loads.values())
    assert 3 in {number for each in moves for number in each.add}


def test_fewer_replicas_go_from_where_most_is() -> None:
    """And nothing comes; what shares a zone goes first."""
    placements = initial(_collection(), _THREE, [])
    moves = replicate(_collection(), 2, placements, _THREE)
    assert {((), 1)} == {(each.add, len(each.remove)) for each in moves}
    assert {1: 4, 2: 4, 3: 4} == Counter(node_of(each.remove[0]) for each in moves)
    nodes = [node(1, "a"), node(2, "a"), node(3, "b")]
    moves = replicate(_collection(), 2, placements, nodes)
    assert {1: 6, 2: 6} == Counter(node_of(each.remove[0]) for each in moves)


def test_ids_of_later_generations_are_named_as_they_are() -> None:
    """What goes is a replica, not a node."""
    later = 3 << 16 | 4
    placement = Placement(1, 0, (1, 2, 3), (1, later, 2), (), 9, 4)
    nodes = [*_THREE, node(4, state=NodeState.LEAVING)]
    assert [Move(1, 0, 9, (3,), (later,))] == drain([placement], nodes)
