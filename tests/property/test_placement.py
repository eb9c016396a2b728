"""Placement against a dumb twin that tries everything, on small rings; and on large ones."""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations, product

from hypothesis import given, settings
from hypothesis import strategies as st

from timemachine.group import node_of
from timemachine.model import Collection, Node, Placement
from timemachine.placement import additions, first_leader, initial, leader_moves

HOSTS = {"a": "east", "b": "east", "c": "west", "d": "west", "e": "", "f": ""}
"""A host is in one zone."""
NODES = st.lists(st.sampled_from(sorted(HOSTS)), min_size=1, max_size=7).map(
    lambda hosts: [_node(number, host) for number, host in enumerate(hosts, 1)]
)


def _node(number: int, host: str) -> Node:
    return Node(
        id=str(number),
        name="",
        http="",
        rpc=f"{host}:1",
        zone=HOSTS[host],
        version="",
        number=number,
    )


def _collection(uid: int, num_vnodes: int, replicas: int) -> Collection:
    return Collection(
        uid=uid,
        db="d",
        name=str(uid),
        num_vnodes=num_vnodes,
        replicas=replicas,
        history_retention_ms=0,
        created_ms=0,
    )


def _cost(nodes: Sequence[Node]) -> tuple[int, int]:
    """Pairs in one zone, pairs on one host."""
    zones = Counter(node.zone or f" {node.host}" for node in nodes)
    hosts = Counter(node.host for node in nodes)
    return tuple(  # type: ignore[return-value]
        sum(count * (count - 1) for count in counted.values()) for counted in (zones, hosts)
    )


def _of(placement: Placement, nodes: Sequence[Node]) -> list[Node]:
    numbers = [node_of(each) for each in placement.replicas]
    assert len(set(numbers)) == len(numbers)
    return [node for node in nodes if node.number in numbers]


def _spread_is_best(placements: Sequence[Placement], nodes: Sequence[Node], replicas: int) -> None:
    count = min(replicas, len(nodes))
    best = min(_cost(chosen) for chosen in combinations(nodes, count))
    for placement in placements:
        assert len(placement.replicas) == count
        assert _cost(_of(placement, nodes)) == best


@settings(max_examples=200, deadline=None)
@given(NODES, st.lists(st.tuples(st.integers(1, 6), st.integers(1, 4)), min_size=1, max_size=4))
def test_no_choice_of_nodes_is_better_spread(
    nodes: list[Node], shapes: list[tuple[int, int]]
) -> None:
    """As few as possible share a zone, then a host, in whatever order what is known comes."""
    placements: list[Placement] = []
    for uid, (num_vnodes, replicas) in enumerate(shapes, 1):
        collection = _collection(uid, num_vnodes, replicas)
        made = initial(collection, nodes, placements)
        assert made == initial(collection, nodes[::-1], placements[::-1])
        assert all(each.born == each.replicas for each in made)
        assert [each.index for each in made] == list(range(num_vnodes))
        _spread_is_best(made, nodes, replicas)
        placements += made


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 8), st.lists(st.tuples(st.integers(1, 9), st.integers(1, 4)), max_size=6))
def test_where_all_nodes_are_alike_counts_are_even(
    count: int, shapes: list[tuple[int, int]]
) -> None:
    """Replicas by one at most; first leaders, as far as any choice allows."""
    nodes = [_node(number, "a") for number in range(1, count + 1)]
    placements: list[Placement] = []
    for uid, (num_vnodes, replicas) in enumerate(shapes, 1):
        placements += initial(_collection(uid, num_vnodes, replicas), nodes, placements)
        loads = Counter(node_of(each) for one in placements for each in one.replicas)
        numbers = range(1, count + 1)
        assert max(loads[each] for each in numbers) - min(loads[each] for each in numbers) <= 1


@settings(max_examples=200, deadline=None)
@given(NODES, st.integers(1, 7), st.integers(1, 4), st.data())
def test_what_is_missing_is_added_and_nothing_else(
    nodes: list[Node], num_vnodes: int, replicas: int, data: st.DataObject
) -> None:
    """Each vnode has what it can have, as well spread as what it had allows."""
    collection = _collection(1, num_vnodes, replicas)
    before = initial(collection, nodes[: data.draw(st.integers(1, len(nodes)))], [])
    moves = additions([collection], before, nodes)
    assert moves == additions([collection], before[::-1], nodes[::-1])
    added = {move.index: move.add for move in moves}
    assert all(move.remove == () and move.version == 1 for move in moves)
    for placement in before:
        had = _of(placement, nodes)
        come = [node for node in nodes if node.number in added.get(placement.index, ())]
        assert len(had) + len(come) == min(replicas, len(nodes))
        others = [node for node in nodes if node not in had]
        best = min(_cost([*had, *chosen]) for chosen in combinations(others, len(come)))
        assert _cost([*had, *come]) == best


RINGS = st.lists(
    st.tuples(st.integers(1, 2), st.lists(st.integers(1, 4), min_size=1, max_size=3, unique=True)),
    max_size=6,
)


@settings(max_examples=300, deadline=None)
@given(RINGS, st.data())
def test_no_other_leaders_are_more_even(
    ring: list[tuple[int, list[int]]], data: st.DataObject
) -> None:
    """By the sum of squares, over all that are possible; as few transfers as any way takes."""
    voters = {(uid, index): tuple(nodes) for index, (uid, nodes) in enumerate(ring)}
    leaders = {group: data.draw(st.sampled_from(nodes)) for group, nodes in voters.items()}
    moves = leader_moves(leaders, voters)
    after = dict(leaders)
    for move in moves:
        group = move.uid, move.index
        assert after[group] == move.source != move.target
        assert move.target in voters[group]
        after[group] = move.target
    assert len({(move.uid, move.index) for move in moves}) == len(moves)
    every = [dict(zip(voters, chosen, strict=True)) for chosen in product(*voters.values())]
    assert _squares(after) == min(map(_squares, every))
    assert moves == leader_moves(dict(reversed(leaders.items())), voters)


def _squares(leaders: dict[tuple[int, int], int]) -> int:
    return sum(count * count for count in Counter(leaders.values()).values())


def test_a_hundred_nodes_and_ten_thousand_vnodes() -> None:
    """In seconds; even, and even again after three nodes were away."""
    nodes = [
        Node(
            id=str(number),
            name="",
            http="",
            rpc=f"10.0.0.{number}:1",
            zone=f"z{number % 5}",
            version="",
            number=number,
        )
        for number in range(1, 101)
    ]
    placements: list[Placement] = []
    for uid in range(1, 11):
        placements += initial(_collection(uid, 1000, 3), nodes, placements)
    loads = Counter(node_of(each) for one in placements for each in one.replicas)
    assert {299, 300, 301} >= set(loads.values())
    leaders = {(each.uid, each.index): first_leader(each) for each in placements}
    assert {100} == set(Counter(leaders.values()).values())
    voters = {(each.uid, each.index): tuple(map(node_of, each.replicas)) for each in placements}
    for group, leader in leaders.items():
        if leader in (7, 8, 9):
            leaders[group] = next(each for each in voters[group] if each not in (7, 8, 9))
    moves = leader_moves(leaders, voters)
    for move in moves:
        leaders[move.uid, move.index] = move.target
    assert {100} == set(Counter(leaders.values()).values())
    assert len(moves) <= 600
