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
def rings(draw: st.DrawFn, nodes: Sequence[Node], *, alike: bool = False) -> list[Placement]:
    """Up to five vnodes of two collections, with one to three replicas each, on any nodes.

    `alike`: all have as many.
    """
    least, most = 1, min(3, len(nodes))
    if alike:
        least = most = draw(st.integers(least, most))
    numbers = st.sampled_from([node.number for node in nodes])
    replicas = st.lists(numbers, min_size=least, max_size=most, unique=True).map(tuple)
    ring = draw(st.lists(st.tuples(st.integers(1, 2), replicas), max_size=5))
    return [Placement(uid, index, has, has) for index, (uid, has) in enumerate(ring)]


def _applied(placements: Iterable[Placement], moves: Iterable[Move]) -> list[Placement]:
    """What meta makes of moves."""
    by_group = {(move.uid, move.index): move for move in moves}
    found = [_moved(each, by_group.pop((each.uid, each.index), None)) for each in placements]
    assert not by_group
    return found


def _moved(before: Placement, move: Move | None) -> Placement:
    if move is None:
        return before
    assert move.version == before.version
    assert set(move.remove) <= set(before.replicas)
    generation = before.generation + bool(move.remove)
    stay = tuple(each for each in before.replicas if each not in move.remove)
    after = msgspec.structs.replace(
        before,
        replicas=stay + tuple(replica_id(number, generation) for number in move.add),
        version=before.version + 1,
        generation=generation,
    )
    assert len(_has(after)) == len(after.replicas) > 0
    return after


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
    assert lower_bound(placements, nodes) <= copies(moves)
    assert [] == rebalance(after, nodes)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_what_cannot_change_stays_and_counts(data: st.DataObject) -> None:
    """Vnodes with a replica on its way, and those that have lost their majority: the rest fits in.

    No other plan for the rest is more even over all, and none that is as even moves less.
    """
    nodes = data.draw(NODES)
    placements = data.draw(rings(nodes))
    lost = data.draw(st.sets(st.integers(1, len(nodes)), max_size=1))
    for index in data.draw(st.sets(st.integers(0, 4), max_size=2)):
        if index < len(placements):
            placements[index] = msgspec.structs.replace(placements[index], removing=(99,))
    usable = [node for node in nodes if node.number not in lost]
    after = _applied(placements, rebalance(placements, nodes, lost))
    ways = []
    for placement, free in zip(placements, _ways(placements, usable), strict=True):
        has = _has(placement)
        # A change that waits for a lost node would never end: it may be changed itself.
        changes = placement.removing and not has & lost
        fixed = changes or 2 * len(has - lost) <= len(has)
        ways.append([has] if fixed else free)
    assert all(_has(each) in sets for each, sets in zip(after, ways, strict=True))
    # What is left on a lost node is nobody's load.
    every = [
        (_squares(each - lost for each in sets), _coming(placements, sets))
        for sets in product(*ways)
    ]
    sets = [_has(each) for each in after]
    assert (_squares(each - lost for each in sets), _coming(placements, sets)) == min(every)


def _level(weights: dict[int, int], most: int, total: int) -> dict[int, float]:
    """Shares by weight, none of which is more than `most`."""
    full: dict[int, float] = {}
    while True:
        rest = {number: each for number, each in weights.items() if number not in full}
        left = total - sum(full.values())
        shares = {number: left * each / sum(rest.values()) for number, each in rest.items()}
        over = [number for number, share in shares.items() if share > most + 1e-9]
        if not over:
            return full | shares
        full |= dict.fromkeys(over, most)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([0, 50, 100, 150, 300]), min_size=2, max_size=4), st.data())
def test_shares_are_by_weight_and_no_move_is_for_a_rounding(
    weights: list[int], data: st.DataObject
) -> None:
    """Each node has what is due to it, rounded down or up; no plan that reaches that moves less."""
    nodes = [_node(number, f"{number}", "", each) for number, each in enumerate(weights, 1)]
    placements = data.draw(rings(nodes, alike=True))
    usable = [node for node in nodes if node.weight]
    moves = rebalance(placements, nodes)
    if not usable:
        assert [] == moves
        return
    ways = _ways(placements, usable)
    total = sum(len(each[0]) for each in ways)
    due = _level({node.number: node.weight for node in usable}, len(placements), total)

    def fair(sets: Iterable[frozenset[int]]) -> bool:
        loads = Counter(number for each in sets for number in each)
        return all(
            floor(share + 1e-9) <= loads[number] <= ceil(share - 1e-9)
            for number, share in due.items()
        )

    after = [_has(each) for each in _applied(placements, moves)]
    assert fair(after)
    assert copies(moves) == min(_coming(placements, sets) for sets in product(*ways) if fair(sets))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from([50, 100, 150, 300]), min_size=4, max_size=4), st.data())
def test_no_node_could_give_one_and_still_have_more_by_weight(
    weights: list[int], data: st.DataObject
) -> None:
    """With zones, too: no other placement that is spread best shifts one to who has less then."""
    nodes = [
        msgspec.structs.replace(node, weight=weight)
        for node, weight in zip(data.draw(NODES), weights, strict=False)
    ]
    placements = data.draw(rings(nodes))
    after = _applied(placements, rebalance(placements, nodes))
    ways = _ways(placements, nodes)
    assert all(_has(each) in sets for each, sets in zip(after, ways, strict=True))
    loads = _loads(after)
    weight = {node.number: node.weight for node in nodes}
    for sets in product(*ways):
        other = Counter(number for each in sets for number in each)
        less, more = +(loads - other), +(other - loads)
        if less.total() == 1:
            (giver,), (taker,) = less, more
            assert other[giver] * weight[taker] < other[taker] * weight[giver]


def _completions(
    nodes: Sequence[Node], fixed: frozenset[int], free: Iterable[Node], count: int
) -> list[frozenset[int]]:
    """All ways to have `count` in all, best spread with what is fixed."""
    there = [node for node in nodes if node.number in fixed]
    chosen = [[*there, *each] for each in combinations(free, count - len(there))]
    least = min(map(_cost, chosen))
    return [frozenset(node.number for node in each) for each in chosen if _cost(each) == least]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_drain_moves_only_what_must_go(data: st.DataObject) -> None:
    """To where it is spread best with what stays, and then as evenly as any other drain could."""
    nodes = data.draw(NODES)
    placements = data.draw(rings(nodes))
    drained = data.draw(st.sets(st.integers(1, len(nodes)), min_size=1, max_size=2))
    usable = [node for node in nodes if node.number not in drained]
    moves = drain(placements, nodes, drained)
    assert moves == drain(placements[::-1], nodes[::-1], drained)
    after = _applied(placements, moves)
    if not usable:
        assert after == placements
        return
    ways = []
    for placement in placements:
        has = _has(placement)
        stay = has - drained
        free = [node for node in usable if node.number not in stay]
        count = min(len(has), len(usable))
        ways.append([has] if stay == has else _completions(usable, stay, free, count))
    assert all(_has(each) in sets for each, sets in zip(after, ways, strict=True))
    assert _squares(map(_has, after)) == min(map(_squares, product(*ways)))


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 4), st.data())
def test_another_count_of_replicas_moves_none(replicas: int, data: st.DataObject) -> None:
    """They only come, or only go; as well spread, and then as even, as such a change can be."""
    nodes = data.draw(NODES)
    placements = data.draw(rings(nodes))
    moves = replicate(_collection(1, 5, 1), replicas, placements, nodes)
    assert moves == replicate(_collection(1, 5, 1), replicas, placements[::-1], nodes[::-1])
    after = _applied(placements, moves)
    ways = []
    for placement in placements:
        has = _has(placement)
        count = min(replicas, len(nodes)) if placement.uid == 1 else len(has)
        there = [node for node in nodes if node.number in has]
        free = [node for node in nodes if node.number not in has]
        if count < len(has):
            ways.append(_completions(nodes, frozenset(), there, count))
        else:
            ways.append(_completions(nodes, has, free, count))
    assert all(_has(each) in sets for each, sets in zip(after, ways, strict=True))
    assert _squares(map(_has, after)) == min(map(_squares, product(*ways)))


@pytest.fixture(
    scope="module",
    params=[pytest.param(0, marks=pytest.mark.slow), 3, pytest.param(5, marks=pytest.mark.slow)],
    ids=lambda zones: f"{zones} zones",
)
def large(request: pytest.FixtureRequest) -> tuple[int, list[Node], list[Placement]]:
    """Zones, a hundred nodes, and ten thousand vnodes with three replicas each."""
    nodes = [_of_many(number, request.param) for number in range(1, 101)]
    placements: list[Placement] = []
    for uid in range(1, 11):
        placements += initial(_collection(uid, 1000, 3), nodes, placements)
    return request.param, nodes, placements


def _of_many(number: int, zones: int) -> Node:
    return _node(number, f"10.0.0.{number}", f"z{number % zones}" if zones else "")


def test_a_hundred_nodes_and_ten_thousand_vnodes(
    large: tuple[int, list[Node], list[Placement]],
) -> None:
    """Ten nodes join, five leave, ten are made twice as large: even, spread, and no move too many.

    Counts are even where weights and zones are alike, no vnode has two replicas in a zone, and
    what is copied is within 5 % of what any plan needs.
    """
    zones, nodes, placements = large
    joined = [*nodes, *(_of_many(number, zones) for number in range(101, 111))]
    left = [
        msgspec.structs.replace(node, state=NodeState.LEAVING) if node.number % 22 == 3 else node
        for node in joined
    ]
    assert 5 == sum(node.state is NodeState.LEAVING for node in left)
    heavier = [
        msgspec.structs.replace(node, weight=200) if node.number % 11 == 5 else node
        for node in left
    ]
    for what, then in (("join", joined), ("leave", left), ("weigh", heavier)):
        began = perf_counter()
        moves = rebalance(placements, then)
        took_s = perf_counter() - began
        bound = lower_bound(placements, then)
        print(f"{what}: {copies(moves)} copies, at least {bound}; {took_s:.1f} s")
        placements = _applied(placements, moves)
        assert 0 < bound <= copies(moves) <= 1.05 * bound
        _even_and_spread(placements, then, zones)
        assert [] == rebalance(placements, then)


def _even_and_spread(placements: Sequence[Placement], nodes: Sequence[Node], zones: int) -> None:
    loads = _loads(placements)
    like: dict[tuple[str, int], list[int]] = {}
    for node in nodes:
        if node.state is NodeState.MEMBER:
            # With three zones and three replicas each zone has a third; else zones do not matter.
            zone = node.zone if zones == 3 else ""
            like.setdefault((zone, node.weight), []).append(loads[node.number])
        else:
            assert 0 == loads[node.number]
    for (zone, weight), counts in like.items():
        assert max(counts) - min(counts) <= 1
        if weight != 100:
            usual = like[zone, 100]
            assert 2 * min(usual) - 1 <= min(counts) <= max(counts) <= 2 * max(usual) + 1
    zone_of = {node.number: node.zone for node in nodes}
    for placement in placements:
        has = _has(placement)
        assert len(has) == len(placement.replicas) == 3
        assert not zones or len({zone_of[number] for number in has}) == 3


def test_no_stretch_of_the_ring(large: tuple[int, list[Node], list[Placement]]) -> None:
    """A node that joined has, of each collection, its part, from all over the ring."""
    zones, nodes, placements = large
    joined = [*nodes, _of_many(101, zones)]
    after = _applied(placements, rebalance(placements, joined))
    for uid in range(1, 11):
        indexes = sorted(each.index for each in after if each.uid == uid and 101 in _has(each))
        assert 25 <= len(indexes) <= 35
        assert len({index // 100 for index in indexes}) >= 7
        assert sum(index + 1 in indexes for index in indexes) <= 6


def test_what_is_missing_comes_by_itself() -> None:
    """A vnode that lacks a replica counts as it is: a plan neither adds it nor minds it."""
    nodes = [_node(number, f"{number}") for number in range(1, 5)]
    collection = _collection(1, 8, 3)
    placements = initial(collection, nodes[:2], [])
    moves = rebalance(placements, nodes)
    after = _applied(placements, moves)
    assert 8 == copies(moves)
    assert {2} == {len(each.replicas) for each in after}
    assert {1: 4, 2: 4, 3: 4, 4: 4} == _loads(after)
    whole = _applied(after, additions([collection], after, nodes))
    assert {1: 6, 2: 6, 3: 6, 4: 6} == _loads(whole)
