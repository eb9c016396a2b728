"""Plans against a dumb twin that tries every placement of small rings, and on a large one."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations, product
from math import ceil, floor
from time import perf_counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timemachine.group import node_of, replica_id
from timemachine.model import Collection, Node, NodeState, Placement
from timemachine.placement import Move, additions, initial
from timemachine.rebalancing import copies, drain, lower_bound, rebalance, replicate

HOSTS = {"a": "east", "b": "east", "c": "west", "d": "", "e": ""}
"""A host is in one zone."""
NODES = st.lists(st.sampled_from(sorted(HOSTS)), min_size=1, max_size=4).map(
    lambda hosts: [_node(number, host, HOSTS[host]) for number, host in enumerate(hosts, 1)]
)


def _node(number: int, host: str, zone: str = "", weight: int = 100) -> Node:
    return Node(
        id=str(number),
        name="",
        http="",
        rpc=f"{host}:1",
        zone=zone,
        version="",
        number=number,
        weight=weight,
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


@st.composite
def rings(draw: st.DrawFn, nodes: Sequence[Node], alike: bool = False) -> list[Placement]:
    """Up to five vnodes of two collections, each with replicas on any nodes."""
    count = draw(st.integers(1, min(3, len(nodes)))) if alike else 0
    sizes = st.integers(count or 1, count or 3)
    numbers = st.lists(
        st.sampled_from([node.number for node in nodes]),
        min_size=count or 1,
        max_size=count or 3,
        unique=True,
    )
    assert sizes is not None
    ring = draw(st.lists(st.tuples(st.integers(1, 2), numbers), max_size=5))
    return [
        Placement(uid, index, tuple(has), tuple(has)) for index, (uid, has) in enumerate(ring)
    ]


def _applied(placements: Iterable[Placement], moves: Iterable[Move]) -> list[Placement]:
    """What meta makes of moves."""
    by_group = {(move.uid, move.index): move for move in moves}
    found = []
    for placement in placements:
        move = by_group.pop((placement.uid, placement.index), None)
        if move is not None:
            assert move.version == placement.version
            assert set(move.remove) <= set(placement.replicas)
            generation = placement.generation + bool(move.remove)
            stay = tuple(each for each in placement.replicas if each not in move.remove)
            placement = msgspec.structs.replace(
                placement,
                replicas=stay + tuple(replica_id(number, generation) for number in move.add),
                version=placement.version + 1,
                generation=generation,
            )
            assert len(_has(placement)) == len(placement.replicas) > 0
        found.append(placement)
    assert not by_group
    return found


def _has(placement: Placement) -> frozenset[int]:
    return frozenset(map(node_of, placement.replicas))


def _loads(placements: Iterable[Placement]) -> Counter[int]:
    return Counter(number for each in placements for number in _has(each))


def _cost(nodes: Iterable[Node]) -> tuple[int, int]:
    """Pairs in one zone, pairs on one host."""
    nodes = list(nodes)
    zones = Counter(node.zone or f" {node.host}" for node in nodes)
    hosts = Counter(node.host for node in nodes)
    return tuple(  # type: ignore[return-value]
        sum(count * (count - 1) for count in counted.values()) for counted in (zones, hosts)
    )


def _best(nodes: Sequence[Node], count: int) -> list[frozenset[int]]:
    """All sets of so many nodes that are spread best."""
    chosen = list(combinations(nodes, count))
    least = min(map(_cost, chosen))
    return [frozenset(node.number for node in each) for each in chosen if _cost(each) == least]


def _ways(placements: Sequence[Placement], usable: Sequence[Node]) -> list[list[frozenset[int]]]:
    """By vnode, each set of nodes that it may end on: a plan keeps its count as far as it can."""
    return [
        _best(usable, min(len(placement.replicas), len(usable))) if usable else [_has(placement)]
        for placement in placements
    ]


def _squares(sets: Iterable[Iterable[int]]) -> int:
    return sum(
        count * count for count in Counter(number for each in sets for number in each).values()
    )


def _coming(placements: Sequence[Placement], sets: Sequence[frozenset[int]]) -> int:
    return sum(len(each - _has(old)) for old, each in zip(placements, sets, strict=True))


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_no_plan_is_more_even_and_none_that_is_as_even_moves_less(data: st.DataObject) -> None:
    """Over every placement in which all vnodes are spread best: squares of counts, then moves."""
    nodes = data.draw(NODES)
    placements = data.draw(rings(nodes, alike=data.draw(st.booleans())))
    for number in data.draw(st.sets(st.integers(1, len(nodes)), max_size=1)):
        nodes[number - 1] = msgspec.structs.replace(nodes[number - 1], state=NodeState.LEAVING)
    usable = [node for node in nodes if node.state is NodeState.MEMBER]
    moves = rebalance(placements, nodes)
    assert moves == rebalance(placements[::-1], nodes[::-1])
    after = _applied(placements, moves)
    ways = _ways(placements, usable)
    assert all(_has(each) in sets for each, sets in zip(after, ways, strict=True))
    every = [(_squares(sets), _coming(placements, sets)) for sets in product(*ways)]
    assert (_squares(map(_has, after)), copies(moves)) == min(every)
    if usable:
        assert lower_bound(placements, nodes) <= copies(moves)
    assert [] == rebalance(after, nodes)
