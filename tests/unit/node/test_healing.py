"""What the node leader proposes for vnodes that lack replicas, and when it does not."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from node.healing import Healing
from tests.sim.world import SimWorld
from tests.unit.node.gathering.made import Spread
from timemachine.errors import NotLeader
from timemachine.group import META_GROUP
from timemachine.model import Collection, Node, Placement
from timemachine.replica.meta import MetaResult, Place, PutCollection, PutNode


def _node(number: int) -> Node:
    return Node(id=f"n{number}", name="", http="", rpc="", zone="", version="", number=number)


class _Cluster:
    """A meta group that this node leads; `answer` is what becomes of a proposal."""

    def __init__(self, nodes: int, replicas: int = 3) -> None:
        self.world = SimWorld(1)
        self.nodes = [_node(number) for number in range(1, nodes + 1)]
        collection = Collection(
            uid=1,
            db="d",
            name="c",
            num_vnodes=2,
            replicas=replicas,
            history_retention_ms=0,
            created_ms=0,
        )
        self.placements = [Placement(1, 0), Placement(1, 1)]
        meta: Any = SimpleNamespace(
            collections_by_uid={1: collection},
            all_placements=lambda: self.placements,
            nodes=SimpleNamespace(values=lambda: self.nodes),
        )
        self.proposed: list[Place] = []
        self.answer: Any = MetaResult(kind="replaced")
        runtime: Any = SimpleNamespace(working=True, propose=self._propose)
        vnode: Any = SimpleNamespace(serving=True)
        self.runtime, self.vnode = runtime, vnode
        self.healing = Healing(self.world, runtime, vnode, meta)

    def _propose(self, _: Any, command: Place, done: Callable[[Any], None]) -> None:
        self.proposed.append(command)
        if isinstance(self.answer, MetaResult):
            for move in command.moves:
                before = self.placements[move.index]
                replicas = before.replicas + move.add
                self.placements[move.index] = Placement(
                    1, move.index, before.born, replicas, version=before.version + 1
                )
        done(self.answer)


def test_what_is_missing_is_placed_once() -> None:
    """Nodes that join together are placed together, and then there is nothing left to propose."""
    cluster = _Cluster(3)
    for _ in range(5):
        cluster.healing.look_soon()
    cluster.world.run_for(10_000.0)
    assert [[0, 1]] == [[move.index for move in each.moves] for each in cluster.proposed]
    assert [{1, 2, 3}] * 2 == [set(each.replicas) for each in cluster.placements]


def test_without_nodes_to_have_them_nothing_is_proposed() -> None:
    """It is looked at again when something has changed, and not before."""
    cluster = _Cluster(1)
    cluster.healing.look_soon()
    cluster.world.run_for(10_000.0)
    assert [] == cluster.proposed
    events = cluster.world.events
    cluster.world.run_for(10_000.0)
    assert events == cluster.world.events
    cluster.nodes.append(_node(2))
    cluster.healing.look_soon()
    cluster.world.run_for(1_000.0)
    assert [{1, 2}] * 2 == [set(each.replicas) for each in cluster.placements]


def test_only_who_leads_the_meta_group_proposes() -> None:
    """And while the node works."""
    cluster = _Cluster(3)
    cluster.vnode.serving = False
    cluster.healing.look_soon()
    cluster.world.run_for(1_000.0)
    cluster.vnode.serving = True
    cluster.runtime.working = False
    cluster.healing.look_soon()
    cluster.world.run_for(1_000.0)
    assert [] == cluster.proposed


def test_a_proposal_that_fails_is_repeated_while_this_node_leads() -> None:
    """It may be that the leadership was handed over, and that this came to nothing."""
    cluster = _Cluster(3)
    cluster.answer = NotLeader(1)
    cluster.healing.look_soon()
    cluster.world.run_for(1_100.0)
    assert 5 == len(cluster.proposed)
    cluster.answer = MetaResult(kind="replaced")
    cluster.world.run_for(1_000.0)
    assert 6 == len(cluster.proposed)
    assert [{1, 2, 3}] * 2 == [set(each.replicas) for each in cluster.placements]
    cluster = _Cluster(3)
    cluster.answer = NotLeader(2)
    cluster.healing.look_soon()
    cluster.world.run_for(300.0)
    cluster.vnode.serving = False
    cluster.world.run_for(10_000.0)
    assert 1 == len(cluster.proposed)


def test_placements_are_looked_at_when_something_about_them_has_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a route that is put they are not: there may be thousands of vnodes."""
    spread = Spread()
    nodes, world = spread.nodes, spread.world
    world.run_for(1_000)
    engine = nodes.engines[nodes.leader(META_GROUP)]
    looked: list[None] = []

    def look(*_: Any) -> list[Any]:
        looked.append(None)
        return []

    monkeypatch.setattr("node.healing.additions", look)
    spread.put_route()
    world.run_for(1_000)
    assert [] == looked
    nodes.ask_meta(
        lambda now_ms: PutCollection(now_ms=now_ms, db="default", name="more", num_vnodes=1)
    )
    world.run_for(1_000)
    assert 1 == len(looked)
    node = engine.meta.nodes["n1"]
    nodes.ask_meta(lambda now_ms: PutNode(now_ms=now_ms, node=replace(node, zone="z")))
    world.run_for(1_000)
    assert 2 == len(looked)
