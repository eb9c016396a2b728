"""The group-commit loop when vnodes go, when writers are slowed down, and when it never rests."""

from typing import Any

import pytest

from node import runtime
from tests.sim.node import SimNode
from timemachine import limits
from timemachine.errors import StoreDamaged, StoreFailed, Unavailable
from timemachine.model import Collection, Route
from timemachine.replica import commands as c
from timemachine.replica import meta as m


def _started() -> tuple[SimNode, Collection, Route]:
    node = SimNode(4)
    assert node.start()
    jobs, route = node.put_collection(num_vnodes=1), node.put_route()
    assert jobs is not None
    assert route is not None
    node.world.run_for(1_000)
    return node, jobs, route


@pytest.mark.parametrize("batch", [False, True])
def test_writes_that_wait_for_a_vnode_that_goes(
    batch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A create that was slowed down is refused when its collection is deleted; no row is left."""
    node, jobs, route = _started()
    keys = node.engine._vnodes[jobs.uid][0].keys
    deleted: list[Any] = []
    command = m.DeleteCollection(now_ms=node.now_ms(), db="default", name="jobs")
    node.engine.propose_meta(command, deleted.append)
    node.world.run_until(lambda: not node.engine.runtime._active)
    monkeypatch.setattr(runtime, "pause_ms", lambda *_, **__: 200.0)
    answers: list[Any] = []
    if batch:
        create = c.PutJob("a", b"u" * 16, node.now_ms(), None, "hook", 1, b"1", now_ms=0)
        node.engine.propose_creates(jobs, [(0, create)], answers.extend)
    else:
        node.put_job(jobs, "a", node.now_ms() + 5_000, route, answers)
    monkeypatch.undo()
    node.world.run_for(10_000)
    assert "deleted" == deleted[0].kind
    assert [Unavailable] == [type(answer) for answer in answers]
    assert [] == node.disk.store.scan(keys.prefix, keys.stop, 100)
    assert (0, 0) == (node.engine.runtime._waiting, node.engine.runtime._waiting_bytes)


def test_idle_is_not_before_writers_that_were_slowed_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that stops answers them first."""
    node, jobs, route = _started()
    monkeypatch.setattr(runtime, "pause_ms", lambda *_, **__: 200.0)
    order: list[str] = []

    class Answers(list[Any]):
        def append(self, answer: Any) -> None:
            order.append(answer.kind)

    node.put_job(jobs, "a", node.now_ms() + 5_000, route, Answers())
    node.engine.runtime.write_soon()
    node.engine.runtime.when_idle(lambda: order.append("idle"))
    node.world.run_until(lambda: "idle" in order)
    assert ["created", "idle"] == order


def test_meta_is_answered_while_writers_never_rest() -> None:
    """A route is created although a write waits whenever a sync ends."""
    node, jobs, route = _started()
    answers: list[Any] = []

    def write() -> None:
        node.put_job(jobs, f"job-{node.world.events}", node.now_ms() + 10**7, route, answers)
        node.world.call_later(0.05, write)

    write()
    assert node.put_route("other") is not None


def test_writes_after_the_store_failed_may_be_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those under way and those that come later hear the same: 503, not 500."""
    node, jobs, route = _started()
    disk = node.engine.runtime._disk
    monkeypatch.setattr(
        disk,
        "write",
        lambda _, done: node.world.call_soon(lambda: done(StoreFailed("A write failed."))),
    )
    answers: list[Any] = []
    node.put_job(jobs, "a", node.now_ms() + 5_000, route, answers)
    node.world.run_for(1_000)
    node.put_job(jobs, "b", node.now_ms() + 5_000, route, answers)
    command = m.DeleteCollection(now_ms=node.now_ms(), db="default", name="jobs")
    node.engine.propose_meta(command, answers.append)
    node.world.run_for(1_000)
    assert [Unavailable] * 3 == [type(answer) for answer in answers]
    assert [StoreFailed] == [type(error) for error in node.failures]


def test_more_bytes_at_once_than_the_log_takes_are_taken_one_cycle_after_the_other() -> None:
    """One batch of large metas for one vnode; the node used to stop, with every client's repeat."""
    node, jobs, route = _started()
    answers: list[Any] = []
    meta = b'"' + b"x" * (limits.META_BYTES_MAX - 2) + b'"'
    count = 2 * limits.RAFT_UNCOMMITTED_BYTES_MAX // len(meta) + 1
    for number in range(count):
        node.put_job(jobs, f"j{number}", node.now_ms() + 3_600_000, route, answers, meta=meta)
    deleted: list[Any] = []
    node.delete_job(jobs, f"j{count - 1}", deleted)
    node.world.run_until(lambda: bool(deleted) or bool(node.failures))
    assert [] == node.failures
    assert ["created"] * count == [answer.kind for answer in answers]
    assert "cancelled" == deleted[0].outcome, "the order of commands is kept"
    assert count - 1 == node.engine.counts(jobs)["scheduled"]
    node.crash()
    assert node.start()
    assert count - 1 == node.engine.counts(jobs)["scheduled"]


def test_damage_that_is_found_while_a_batch_is_at_the_disk_ends_the_node_once() -> None:
    """Whoever waits for the batch is not told that it was written, for nobody reads it any more."""
    node, jobs, route = _started()
    answers: list[Any] = []
    node.put_job(jobs, "a", node.now_ms() + 5_000, route, answers)
    node.world.run_until(lambda: node.engine.runtime._syncing)
    node.engine.runtime.fail(StoreDamaged())
    node.engine.runtime.fail(StoreDamaged())
    node.world.run_for(10_000)
    assert [Unavailable] == [type(answer) for answer in answers]
    assert [StoreDamaged] == [type(error) for error in node.failures]
