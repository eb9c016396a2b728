"""An upgrade of a cluster, node by node: nothing changes until an admin says so, then for good."""

from typing import Any, ClassVar

import pytest
from msgspec.structs import replace

from node.finalising import Finalising
from tests.unit.node.three import MEMBERS, ThreeNodes
from timemachine.errors import Conflict, StoreForeign
from timemachine.replica import meta as m

OLD, NEW = (1,), (1, 2)


class _Newer(m.PutDatabase, frozen=True):
    """A command that came with the second format."""

    since: ClassVar[int] = 2


def _finalise(nodes: ThreeNodes) -> m.MetaResult:
    return nodes.ask_meta(lambda now_ms: m.Finalise(now_ms=now_ms, version=2))


def _upgrade(nodes: ThreeNodes, *numbers: int) -> None:
    """Restart nodes with a program that knows both formats."""
    for number in numbers:
        nodes.formats[number] = NEW
        nodes.stop(number)
        nodes.restart(number)
        nodes.world.run_until(lambda: nodes.leader((0, 0)) != 0, 1_000_000)
        nodes.world.run_for(3_000)


def _finalised(nodes: ThreeNodes) -> list[int]:
    return [nodes.engines[number].finalising.finalised for number in MEMBERS]


def test_a_format_is_finalised_when_all_nodes_know_it_and_an_admin_says_so() -> None:
    """Not by the last node that is upgraded; the node leader only tells that it could be."""
    nodes = ThreeNodes()
    _upgrade(nodes, 1, 2)
    assert _finalise(nodes).code == "nodes_behind"
    assert [] == nodes.newer
    _upgrade(nodes, 3)
    nodes.world.run_for(5_000)
    assert [1, 1, 1] == _finalised(nodes)
    assert (2, 1) in nodes.newer
    assert _finalise(nodes).kind == "replaced"
    nodes.world.run_for(5_000)
    assert [2, 2, 2] == _finalised(nodes)
    assert _finalise(nodes).kind == "unchanged"
    assert [] == nodes.failures


def test_an_upgrade_is_taken_back_until_then() -> None:
    """The old program goes on where the new one was, and holds the format back."""
    nodes = ThreeNodes()
    _upgrade(nodes, *MEMBERS)
    nodes.formats[2] = OLD
    nodes.stop(2)
    nodes.restart(2)
    nodes.world.run_for(10_000)
    assert _finalise(nodes).code == "nodes_behind"
    assert [] == nodes.failures


def test_who_was_taken_back_afterwards_does_not_start() -> None:
    """It says what is the matter; with the newer program it starts again."""
    nodes = ThreeNodes()
    _upgrade(nodes, *MEMBERS)
    _finalise(nodes)
    nodes.world.run_for(5_000)
    nodes.formats[2] = OLD
    nodes.stop(2)
    with pytest.raises(StoreForeign, match="finalised format 2; this program knows 1"):
        nodes.restart(2)
    nodes.formats[2] = NEW
    nodes.restart(2)
    nodes.world.run_for(5_000)
    assert [2, 2, 2] == _finalised(nodes)


def test_who_was_taken_back_at_the_last_moment_stops() -> None:
    """The cluster did not know it yet when the format was finalised."""
    nodes = ThreeNodes()
    _upgrade(nodes, *MEMBERS)
    number = nodes.others(nodes.leader((0, 0)))[0]
    nodes.formats[number] = OLD
    nodes.stop(number)
    nodes.restart(number)
    # Before anybody has heard of its new life.
    _finalise(nodes)
    nodes.world.run_until(lambda: bool(nodes.failures))
    assert isinstance(nodes.failures[0], StoreForeign)
    assert [2, 2] == [nodes.engines[each].finalising.finalised for each in nodes.others(number)]


def test_nothing_newer_is_proposed_before() -> None:
    """The command is refused where it would have been proposed."""
    nodes = ThreeNodes()
    engine = nodes.engines[nodes.leader((0, 0))]
    answers: list[Any] = []
    engine.propose_meta(_Newer(now_ms=1, name="d"), answers.append)
    assert isinstance(answers[0], Conflict)
    assert "format_not_finalised" == answers[0].specific_code
    assert engine.finalising.refusal(m.PutDatabase(now_ms=1, name="d")) is None
    _upgrade(nodes, *MEMBERS)
    _finalise(nodes)
    nodes.world.run_for(1_000)
    engine = nodes.engines[nodes.leader((0, 0))]
    assert engine.finalising.refusal(_Newer(now_ms=1, name="d")) is None


def test_what_may_be_finalised_is_told_once() -> None:
    """And only by the node leader."""
    told: list[tuple[int, int]] = []
    nodes = ThreeNodes()
    leader = nodes.leader((0, 0))
    for number, expected in ((leader, [(2, 1)]), (nodes.others(leader)[0], [])):
        told.clear()
        engine = nodes.engines[number]
        meta_vnode = engine.runtime.vnodes[0, 0]
        finalising = Finalising(
            engine.meta,
            meta_vnode,
            NEW,
            stop=nodes.failures.append,
            ready=lambda *versions: told.append(versions),
        )
        finalising.reconcile()
        assert [] == told
        for node in list(engine.meta.nodes.values()):
            engine.meta.nodes[node.id] = replace(node, formats=NEW)
        finalising.reconcile()
        finalising.reconcile()
        assert expected == told
