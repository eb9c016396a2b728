"""What nodes do when they are ordered to, and when they are not any more."""

import pytest

from node.gathering.questions import TaskOrder
from node.tasks.conducting import Conductor
from node.tasks.running import Run
from tests.unit.node.tasks.made import JOBS, Stage
from timemachine import limits


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BULK_JOBS_PER_COMMAND_MAX", 2)
    again = Run._again
    monkeypatch.setattr(Run, "_again", lambda run, delay_ms: again(run, delay_ms + 50.0))
    # The test is the node leader.
    monkeypatch.setattr(Conductor, "_order", lambda _: None)


def test_orders_are_followed_to_the_end() -> None:
    """Each node in its vnodes; the parts add up."""
    stage = Stage()
    part = stage.order()
    assert (0, 6) == (part.finished, part.vnodes)
    stage.world.run_for(3_000)
    part = stage.order()
    assert (6, False, {"rescheduled": len(JOBS)}) == (part.finished, part.busy, part.counts)
    assert len(JOBS) == stage.moved()


def test_without_further_orders_a_node_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """The node leader may be gone, or the task over."""
    monkeypatch.setattr(limits, "TASK_ORDER_MS", 300)
    stage = Stage()
    stage.order()
    stage.world.run_for(2_000)
    moved = stage.moved()
    assert 0 < moved < len(JOBS)
    stage.world.run_for(20_000)
    assert moved == stage.moved()
    while stage.order().finished < 6:
        stage.world.run_for(200)
    assert len(JOBS) == stage.moved()


def test_a_stop_holds_until_a_newer_node_leader_orders() -> None:
    """An order that comes late, or twice, does not undo it."""
    stage = Stage()
    stage.order(term=5)
    stage.world.run_for(200)
    while stage.order(term=5, stop=True).busy:
        stage.world.run_for(10)
    moved = stage.moved()
    assert 0 < moved < len(JOBS)
    for term in (4, 5):
        stage.order(term)
        stage.world.run_for(5_000)
        assert moved == stage.moved()
    stage.order(term=6)
    stage.world.run_for(5_000)
    assert len(JOBS) == stage.moved()


def test_a_vnode_that_moves_is_gone_on_with_by_its_next_leader() -> None:
    """From where the log says that the task was; nothing is moved twice."""
    stage = Stage()
    stage.order()
    stage.world.run_for(150)
    assert 0 < stage.moved() < len(JOBS)
    for group in stage.spread.groups:
        stage.spread.move(group, 1)
    while (part := stage.order()).finished < 6:
        stage.world.run_for(500)
    assert {"rescheduled": len(JOBS)} == part.counts
    assert len(JOBS) == stage.moved()


def test_an_order_for_a_task_that_is_over_begins_nothing() -> None:
    """It came late."""
    stage = Stage()
    stage.end()
    answered = list(stage.spread.nodes.engines[1].tasks.order(TaskOrder(stage.task, 1), []))
    assert [0] == [part.finished for part in answered if part is not None]
    stage.order()
    stage.world.run_for(5_000)
    assert 0 == stage.moved()


def test_what_is_kept_of_a_task_goes_when_the_node_leader_does_not_know_it() -> None:
    """Its end may have been forgotten long ago."""
    for known in (True, False):
        stage = Stage(known=known)
        nodes = stage.spread.nodes
        stage.order()
        stage.world.run_for(500)
        for group in stage.spread.groups:
            nodes.engines[nodes.leader(group)].tasks.tidy(nodes.vnode(nodes.leader(group), group))
        stage.world.run_for(20)
        kept = 0
        for group in stage.spread.groups:
            engine = nodes.engines[nodes.leader(group)]
            vnode = nodes.vnode(engine.number, group)
            kept += engine._store.get(vnode.keys.task + b"task-1") is not None
        assert (kept > 0) == known
