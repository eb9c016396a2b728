"""Placement by example: what is spread over what, and what does not move."""

from collections import Counter

import pytest
from msgspec.structs import replace

from timemachine import limits
from timemachine.group import node_of
from timemachine.model import Collection, Node, NodeState, Placement
from timemachine.placement import (
    Move,
    additions,
    first_leader,
    initial,
    leader_moves,
    may_retire,
    no_fault_tolerance,
    present,
    under_replicated,
    weight_of,
)

_ID_2 = 1 << 16 | 2
_ID_4 = 1 << 16 | 4
"""Replicas of the first generation that comes after the one that a group began with."""


def _node(number: int, host: str = "", zone: str = "", state: NodeState = NodeState.MEMBER) -> Node:
    rpc = f"{host or f'10.0.0.{number}'}:9001"
    return Node(
        id=f"n{number}",
        name="",
        http="",
        rpc=rpc,
        zone=zone,
        version="",
        number=number,
        state=state,
    )


def _collection(uid: int = 1, num_vnodes: int = 12, replicas: int = 3) -> Collection:
    return Collection(
        uid=uid,
        db="default",
        name=f"c{uid}",
        num_vnodes=num_vnodes,
        replicas=replicas,
        history_retention_ms=0,
        created_ms=0,
    )


def _loads(placements: list[Placement]) -> Counter[int]:
    return Counter(node_of(each) for one in placements for each in one.replicas)


def test_three_nodes_on_one_machine_hold_three_replicas() -> None:
    """Where there is but one host, nothing is avoidable."""
    nodes = [_node(number, host="127.0.0.1") for number in (1, 2, 3)]
    placements = initial(_collection(), nodes, [])
    assert {(1, 2, 3)} == {tuple(sorted(each.replicas)) for each in placements}
    assert {1: 4, 2: 4, 3: 4} == Counter(map(first_leader, placements))


def test_a_small_cluster_holds_what_it_can() -> None:
    """One replica on one node, two on two; said by both words."""
    collection = _collection()
    for count in (1, 2, 3):
        nodes = [_node(number) for number in range(1, count + 1)]
        placements = initial(collection, nodes, [])
        assert {count} == {len(each.replicas) for each in placements}
        there = present(nodes)
        assert (12 if count < 3 else 0) == under_replicated(collection, placements, there)
        assert (count < 3) == no_fault_tolerance(placements, there)
    assert 0 == under_replicated(_collection(replicas=1), placements, there)


def test_without_members_the_vnodes_are_those_of_node_one() -> None:
    """Which is how a meta machine without nodes was always understood."""
    assert [Placement(1, 0), Placement(1, 1)] == initial(_collection(num_vnodes=2), [], [])


def test_hosts_and_zones_are_kept_apart_before_loads_are_even() -> None:
    """The one node of a zone has a replica of everything, though it has most."""
    nodes = [
        _node(1, "a", "east"),
        _node(2, "a", "east"),
        _node(3, "b", "east"),
        _node(4, "c", "west"),
    ]
    for placement in initial(_collection(replicas=2), nodes, []):
        assert 4 in placement.replicas
    for placement in initial(_collection(replicas=3), nodes, []):
        # Two in the east, on two hosts.
        assert {3, 4} < set(placement.replicas)


def test_nodes_without_zones_are_zones_of_their_hosts() -> None:
    """So zones can be given to some nodes and not to others."""
    nodes = [_node(1, "a"), _node(2, "a"), _node(3, "b", "east"), _node(4, "c", "east")]
    for placement in initial(_collection(replicas=2), nodes, []):
        assert 1 == len({1, 2} & set(placement.replicas))


def test_nodes_that_leave_get_nothing_new() -> None:
    """They keep what they have."""
    leaving = _node(2, state=NodeState.LEAVING)
    nodes = [_node(1), leaving, _node(3), _node(4, state=NodeState.REMOVED)]
    assert {1, 3} == set(_loads(initial(_collection(), nodes, [])))
    assert {1, 2, 3} == present(nodes)


def test_counts_are_even_over_all_collections() -> None:
    """Of replicas and of first leaders, with many small collections as with one large."""
    nodes = [_node(number) for number in range(1, 8)]
    placements: list[Placement] = []
    for uid in range(1, 40):
        placements += initial(_collection(uid, num_vnodes=1 + uid % 5), nodes, placements)
        loads = _loads(placements)
        assert max(loads.values()) - min(loads[node.number] for node in nodes) <= 1
        # What leads already is not moved, and a small collection is not everywhere.
        leads = Counter(map(first_leader, placements))
        assert max(leads.values()) - min(leads[node.number] for node in nodes) <= 2


def test_a_lost_node_is_shared_by_all() -> None:
    """The vnodes of a node are no stretch, and each other node has some of what it has."""
    nodes = [_node(number) for number in range(1, 7)]
    placements = initial(_collection(num_vnodes=60), nodes, [])
    for lost in nodes:
        of_it = [each for each in placements if lost.number in each.replicas]
        assert 6 == len(_loads(of_it))
        stretches = sum(each.index + 1 not in {other.index for other in of_it} for each in of_it)
        assert stretches > 5


def test_additions_fill_up_and_move_nothing() -> None:
    """Two nodes join one; then all have three, and the leaders were not touched."""
    collection = _collection()
    placements = initial(collection, [_node(1)], [])
    nodes = [_node(1), _node(2)]
    moves = additions([collection], placements, nodes)
    assert [Move(1, index, 1, (2,)) for index in range(12)] == moves
    nodes.append(_node(3))
    moves = additions([collection], placements, nodes, limit=5)
    assert [(0, {2, 3}), (1, {2, 3}), (2, {2, 3}), (3, {2, 3}), (4, {2, 3})] == [
        (each.index, set(each.add)) for each in moves
    ]
    assert all(each.remove == () for each in moves)


def test_nothing_is_added_where_a_replica_is_still_to_leave() -> None:
    """It may be the only one that there is, and would be erased for the new one."""
    placement = Placement(1, 0, (1,), (_ID_2,), (1,), 2, 1)
    nodes = [_node(number) for number in (1, 2, 3)]
    (move,) = additions([_collection(num_vnodes=1)], [placement], nodes)
    assert ((3,), ()) == (move.add, move.remove)
    assert [] == additions([_collection(num_vnodes=1)], [placement], nodes[:2])


def test_additions_keep_hosts_apart_from_what_is_there() -> None:
    """A second replica goes to the other host, be it as full as it may."""
    collection = _collection(replicas=2)
    nodes = [_node(1, "a"), _node(2, "a"), _node(3, "b")]
    placements = initial(collection, [nodes[0]], [])
    assert {(3,)} == {each.add for each in additions([collection], placements, nodes)}


def test_nothing_is_added_where_nothing_is_missing_or_nothing_left() -> None:
    """Enough, too many, or no replica to copy from."""
    nodes = [_node(1), _node(2), _node(3), _node(4, state=NodeState.REMOVED)]
    enough = Placement(1, 0, (1, 2, 3), (1, 2, 3))
    more = Placement(1, 1, (1, 2, 3), (1, 2, 3))
    lost = Placement(1, 2, (4,), (4,))
    collection = _collection(num_vnodes=3, replicas=2)
    assert [] == additions([collection], [enough, more, lost], nodes)
    half = Placement(1, 2, (4, 1), (4, 1), version=8)
    assert [Move(1, 2, 8, (2,))] == [
        replace(each, add=(2,)) for each in additions([collection], [half], nodes)
    ]
    assert 1 == under_replicated(collection, [enough, half], present(nodes))


@pytest.mark.parametrize("count", [0, 1, 2, 5, 12, 30])
def test_leaders_are_spread_after_a_node_comes_back(count: int) -> None:
    """It leads nothing; afterwards no two nodes differ by more than one, with fewest transfers."""
    voters = {(1, index): (1, 2, 3) for index in range(count)}
    leaders = {(1, index): 1 + index % 2 for index in range(count)}
    moves = leader_moves(leaders, voters)
    assert count // 3 == len(moves)
    for move in moves:
        assert leaders[move.uid, move.index] == move.source
        leaders[move.uid, move.index] = move.target
    counts = Counter(leaders.values())
    assert (
        max(counts.values(), default=0) - min((counts[each] for each in (1, 2, 3)), default=0) < 2
    )


@pytest.mark.parametrize(
    ("replicas", "removing", "retired", "gone", "may"),
    [
        # Nothing else is lost.
        ((1, 2, 3), (), 2, (), True),
        ((1, 2), (), 2, (), True),
        # The first one's successor does not vote yet.
        ((1, 3, _ID_2), (2,), 3, (), False),
        ((1, 3, _ID_2), (2,), 1, (), False),
        ((1, 3, _ID_2), (2,), _ID_2, (), True),
        # The same with a node in the place of a lost one.
        ((1, 3, _ID_4), (2,), 3, (2,), False),
        ((1, 3, _ID_4), (2,), _ID_4, (2,), True),
        # Successors that were damaged on their way never voted.
        ((1, 3, 2 << 16 | 4), (2, _ID_4), 3, (2,), False),
        ((1, 3, 2 << 16 | 4), (2, _ID_4), 2 << 16 | 4, (2,), True),
        # A move that somebody has planned: who goes is whole, and votes until then.
        ((1, 2, _ID_4), (3,), 2, (), True),
        # One of five may follow another, and a third may not.
        ((1, 3, 4, 5, _ID_2), (2,), 3, (), True),
        ((1, 4, 5, _ID_2, 2 << 16 | 3), (2, 3), 4, (), False),
        ((1, 4, 5, _ID_2, 2 << 16 | 3), (2, 3), _ID_2, (), True),
        # The first of an earlier generation votes like any other.
        ((1, 3 << 16 | 2, 4 << 16 | 3), (3,), 3 << 16 | 2, (), False),
    ],
)
def test_when_a_damaged_replica_may_make_way(
    replicas: tuple[int, ...],
    removing: tuple[int, ...],
    retired: int,
    gone: tuple[int, ...],
    *,
    may: bool,
) -> None:
    """As long as a majority of those that vote is whole without it."""
    placement = Placement(7, 0, (1, 2, 3), replicas, removing)
    assert may is may_retire(placement, retired, gone)


def test_leaders_move_through_others_where_there_is_no_straight_way() -> None:
    """Node 1 has too much and node 3 too little, and only node 2 shares vnodes with both."""
    leaders = {(1, 0): 1, (1, 1): 1, (1, 2): 2}
    voters = {(1, 0): (1, 2), (1, 1): (1, 2), (1, 2): (2, 3)}
    moves = leader_moves(leaders, voters)
    assert {(1, 2), (2, 3)} == {(each.source, each.target) for each in moves}


def test_a_vnode_without_a_leader_or_voters_is_left_alone() -> None:
    """It elects, or it cannot move."""
    assert [] == leader_moves({}, {(1, 0): (1, 2)})
    assert [] == leader_moves({(1, 0): 1, (1, 1): 1}, {})


def test_of_a_collection_goes_first_what_is_uneven() -> None:
    """A node that leads all of one collection and half of another gives of the first."""
    leaders = {(1, 0): 1, (1, 1): 1, (2, 0): 1, (2, 1): 2}
    (move,) = leader_moves(leaders, dict.fromkeys(leaders, (1, 2)))
    assert move.uid == 1


def test_new_replicas_and_first_leaders_come_by_weight() -> None:
    """Twice as many on a node of twice the weight, none on one of weight 0."""
    nodes = [_node(1), _node(2), _node(3), replace(_node(4), weight=200)]
    nodes.append(replace(_node(5), weight=0))
    placements = initial(_collection(num_vnodes=50, replicas=2), nodes, [])
    assert {1: 20, 2: 20, 3: 20, 4: 40} == _loads(placements)
    assert {1: 10, 2: 10, 3: 10, 4: 20} == Counter(map(first_leader, placements))
    few = initial(_collection(num_vnodes=50, replicas=3), [_node(1), nodes[3], nodes[4]], [])
    assert {1: 50, 4: 50} == _loads(few)


def test_what_is_missing_comes_by_weight() -> None:
    """Not to a node of weight 0, though it has least."""
    collection = _collection(num_vnodes=15, replicas=2)
    placements = initial(collection, [_node(1)], [])
    nodes = [_node(1), _node(2), replace(_node(3), weight=200), replace(_node(4), weight=0)]
    moves = additions([collection], placements, nodes)
    assert {2: 5, 3: 10} == Counter(number for each in moves for number in each.add)


def test_a_weight_out_of_bounds_counts_as_the_bound() -> None:
    """Whatever a node says of itself."""
    assert 0 == weight_of(replace(_node(1), weight=-1))
    most = limits.NODE_WEIGHT_MAX
    assert most == weight_of(replace(_node(1), weight=most + 1))


def test_leaders_are_spread_by_weight() -> None:
    """No transfer is made for a rounding; a node of weight 0 leads nothing that another could."""
    voters = {(1, index): (1, 2, 3) for index in range(12)}
    leaders = dict.fromkeys(voters, 1)
    for move in leader_moves(leaders, voters, {1: 100, 2: 200, 3: 0}):
        leaders[move.uid, move.index] = move.target
    assert {1: 4, 2: 8} == Counter(leaders.values())
    assert [] == leader_moves(leaders, voters, {1: 100, 2: 190, 3: 0})
    (move,) = leader_moves({(1, 0): 3}, {(1, 0): (1, 3)}, {1: 100, 3: 0})
    assert 1 == move.target
    assert [] == leader_moves({(1, 0): 3}, {(1, 0): (3,)}, {3: 0})
