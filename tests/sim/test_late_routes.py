"""Jobs whose route comes later, closes and opens again, while there are too many for the window."""

from typing import Any

import pytest

from node.replicas import job_machine
from tests.sim.node import SimNode
from timemachine import limits
from timemachine.model import Collection, Route

MANY = limits.ROUTE_WINDOW_JOBS_MAX + 500
NO_ROUTE = Route(
    uid=0,
    db="default",
    name="hook",
    version=0,
    webhook_url="",
    created_ms=0,
    updated_ms=0,
    secrets=(),
)


def _started(count: int, due_in_ms: int, *, with_route: bool) -> tuple[SimNode, Collection]:
    """A node with so many jobs for the route `hook`, which may not be there yet."""
    node = SimNode(3)
    assert node.start()
    jobs = node.put_collection(num_vnodes=1)
    assert jobs is not None
    route = node.put_route() if with_route else NO_ROUTE
    assert route is not None
    answers: list[Any] = []
    due_ms = node.now_ms() + due_in_ms
    for number in range(count):
        node.put_job(jobs, f"job-{number}", due_ms, route, answers)
    node.world.run_until(lambda: len(answers) == count)
    return node, jobs


def _delivered(node: SimNode, jobs: Collection) -> int:
    return node.engine.counts(jobs)["delivered"]


def _all_delivered(node: SimNode, jobs: Collection, count: int) -> None:
    """Every job is delivered once, within the time that its retries could take."""
    node.world.run_until(lambda: _delivered(node, jobs) == count, 400_000)
    assert count == len(node.sender.received)
    assert [] == node.failures


def test_more_jobs_than_the_window_holds_wait_for_a_late_route() -> None:
    """A route that is created after its jobs gets all of them, also those behind the window."""
    node, jobs = _started(MANY, 5_000, with_route=False)
    assert node.put_route()
    _all_delivered(node, jobs, MANY)


@pytest.mark.parametrize("restart", [False, True])
def test_late_route_is_paused_when_its_jobs_are_due(restart: bool) -> None:
    """They are held for it by name, over a restart too, and fire when it is resumed."""
    node, jobs = _started(MANY, 5_000, with_route=False)
    assert node.put_route(paused=True)
    node.world.run_until(lambda: node.engine.counts(jobs)["held"] == MANY)
    if restart:
        node.crash()
        assert node.start()
        node.world.run_for(3_000)
        assert MANY == node.engine.counts(jobs)["held"]
    assert [] == node.sender.received
    assert node.put_route(paused=False)
    _all_delivered(node, jobs, MANY)


def test_route_resumed_while_its_jobs_are_moved_aside() -> None:
    """A pause that ends while jobs are on their way to the waiting index forgets none of them."""
    node, jobs = _started(MANY, 200, with_route=True)
    for _ in range(30):
        assert node.put_route(paused=True)
        node.world.run_for(7)
        assert node.put_route(paused=False)
        node.world.run_for(5)
    _all_delivered(node, jobs, MANY)


def test_deleted_route_does_not_hold_the_offset() -> None:
    """Its jobs end as dead letters, those behind the window too, and the offset goes on."""
    node, jobs = _started(MANY, 200, with_route=True)
    assert node.put_route(max_in_flight=1)
    node.world.run_for(400)
    assert node.engine.delivery.backlog(node.engine._vnodes[jobs.uid][0])
    assert node.delete_route()
    node.world.run_until(lambda: node.engine.counts(jobs)["dead"] > MANY // 2, 400_000)
    other = node.put_route("other")
    assert other is not None
    last_ms = node.now_ms() + 5_000
    answers: list[Any] = []
    node.put_job(jobs, "later", last_ms, other, answers)
    node.put_job(jobs, "much-later", last_ms + 3_600_000, other, answers)
    node.world.run_for(10_000)
    counts = node.engine.counts(jobs)
    assert MANY + 2 == counts["dead"] + counts["delivered"] + counts["scheduled"]
    assert job_machine(node.engine._vnodes[jobs.uid][0]).state.offset_due_ms >= last_ms


@pytest.mark.parametrize("moved", [False, True])
def test_route_may_come_until_the_job_is_due(moved: bool) -> None:
    """A job is not given up before its time, though it is looked at ahead; then it is."""
    node, jobs = _started(50, 200, with_route=False)
    node.world.run_for(150)
    assert 50 == node.engine.counts(jobs)["scheduled"]
    if moved:
        answers: list[Any] = []
        node.put_job(jobs, "job-7", node.now_ms() + 300, NO_ROUTE, answers)
        node.world.run_until(lambda: bool(answers))
    else:
        assert node.put_route()
    node.world.run_for(100)
    counts = node.engine.counts(jobs)
    assert (0, 49, 1) == (counts["delivered"], counts["dead"], counts["scheduled"]) or not moved
    assert (50, 0) == (counts["delivered"], counts["dead"]) or moved
    node.world.run_for(1_000)
    counts = node.engine.counts(jobs)
    assert {50 if moved else 0, 0 if moved else 50} == {counts["dead"], counts["delivered"]}


def test_equal_create_after_the_route_came_is_the_same_job() -> None:
    """A POST that is sent again finds its job, also when its route was created between."""
    node, jobs = _started(0, 0, with_route=False)
    answers: list[Any] = []
    due_ms = node.now_ms() + 60_000
    node.put_job(jobs, "one", due_ms, NO_ROUTE, answers, create_only=True)
    route = node.put_route()
    assert route is not None
    node.put_job(jobs, "one", due_ms, route, answers, create_only=True)
    node.world.run_until(lambda: len(answers) == 2)
    assert [("created", False), ("unchanged", True)] == [(a.kind, a.replayed) for a in answers]
