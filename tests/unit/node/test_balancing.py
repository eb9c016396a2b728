"""Leaders are spread, wherever elections have put them."""

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from node.balancing import Balancing
from node.overview import ReplicaReport, VnodeReport
from tests.unit.node.three import MEMBERS, ThreeNodes
from timemachine import codec
from timemachine.replica import meta as m

VNODES = 6


def _leaders(nodes: ThreeNodes, uid: int) -> list[int]:
    return [nodes.leader((uid, index)) for index in range(VNODES)]


def test_leaders_are_spread() -> None:
    """One node leads everything; after a while each leads as much as the others."""
    nodes = ThreeNodes()
    nodes.put_collection()
    result = nodes.ask_meta(
        lambda now_ms: m.PutCollection(now_ms=now_ms, db="default", name="more", num_vnodes=VNODES)
    )
    assert result.collection is not None
    uid = result.collection.uid
    nodes.world.run_for(3_000)
    for index, leader in enumerate(_leaders(nodes, uid)):
        if leader != MEMBERS[0]:
            vnode = nodes.vnode(leader, (uid, index))
            nodes.engines[leader].hand_over(vnode, MEMBERS[0], lambda _: None)
    nodes.world.run_for(1_500)
    assert [MEMBERS[0]] * VNODES == _leaders(nodes, uid)
    nodes.world.run_for(10_000)
    counts = Counter(_leaders(nodes, uid))
    assert set(MEMBERS) == set(counts)
    assert max(counts.values()) <= 3


class _AheadWorld:
    """The world as a node sees it whose wall clock is 5 s ahead."""

    def __init__(self, world: Any) -> None:
        self._world = world

    def wall_ms(self) -> int:
        """That clock."""
        return int(self._world.wall_ms()) + 5_000

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world, name)


def test_a_node_whose_clock_is_wrong_is_given_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It refuses to lead, so to try it again and again would only stop what others lead."""
    nodes = ThreeNodes()
    result = nodes.ask_meta(
        lambda now_ms: m.PutCollection(now_ms=now_ms, db="default", name="more", num_vnodes=VNODES)
    )
    assert result.collection is not None
    uid = result.collection.uid
    nodes.world.run_for(3_000)
    wrong = nodes.others(nodes.leader((0, 0)))[0]
    clocks = nodes.engines[wrong]._clocks
    assert clocks is not None
    monkeypatch.setattr(clocks, "_world", _AheadWorld(nodes.world))
    nodes.world.run_until(lambda: clocks.wrong and wrong not in _leaders(nodes, uid), 1_000_000)
    nodes.world.run_for(5_000)  # what others were answered before is forgotten
    tried: list[int] = []

    def start(real: Callable[..., None], vnode: Any, to: int, done: Any) -> None:
        tried.append(to)
        real(vnode, to, done)

    for number in MEMBERS:
        handovers = nodes.consensus(number).handovers
        monkeypatch.setattr(handovers, "start", partial(start, handovers.start))
    nodes.world.run_for(20_000)
    assert wrong not in tried
    assert wrong not in _leaders(nodes, uid)


def _report(index: int, leader: int, *voters: int, learners: tuple[int, ...] = ()) -> VnodeReport:
    replicas = tuple(ReplicaReport(each, each in voters, 0) for each in (*voters, *learners))
    return VnodeReport(1, index, leader, 1, replicas, 0, "", 0)


def _moved(reports: list[VnodeReport], wanted: Mapping[int, tuple[int, ...]]) -> set[int]:
    """The vnodes that a node leader has moved who is told that; nodes 1 to 4 answer."""
    called: list[int] = []

    def call(_: int, __: str, body: bytes, ___: Any) -> None:
        called.append(codec.decoder(tuple[int, int, int])(body)[1])

    looks: list[Callable[[], None]] = []
    nodes = {1, 2, 3, 4}
    told = {each.group: each for each in reports}, nodes
    pieces: list[Any] = [
        SimpleNamespace(call_later=lambda _, look: looks.append(look)),
        SimpleNamespace(working=True, vnodes={}),
        SimpleNamespace(serving=True),
        SimpleNamespace(serve=lambda *_: None, call=call),
        SimpleNamespace(poll=lambda _, __, done: done(told)),
    ]
    Balancing(
        *pieces,
        others=lambda: nodes - {1},
        hand_over=lambda *_: None,
        wanted=lambda group: wanted[group[1]],
    ).start()
    looks.pop()()
    return set(called)


def test_what_is_being_moved_keeps_its_leader() -> None:
    """Node 1 leads all six. Who gets an image goes on with it; who leaves is not asked back."""
    still = [_report(index, 1, 1, 2, 3) for index in range(4)]
    places = dict.fromkeys(range(6), (1, 2, 3))
    copied, leaving = _report(4, 1, 1, 2, 3, learners=(4,)), _report(5, 1, 1, 2, 3)
    moved = _moved([*still, copied, leaving], {**places, 4: (1, 2, 4), 5: (1, 2, 4)})
    assert moved
    assert moved <= {0, 1, 2, 3}
    # Only that holds them: otherwise it is their turn as well.
    assert 4 <= len(_moved([_report(index, 1, 1, 2, 3) for index in range(6)], places))
