"""Attempts by route: each stands with the route that it was made for, and with its own job."""

from typing import Any

from node.gathering import ListAttempts
from tests.sim.node import SimNode
from timemachine.model import Collection, Route
from timemachine.replica import commands as c


def _listed(node: SimNode, route: Route) -> list[tuple[str, str]]:
    pages: list[Any] = []
    groups = [group for group in node.engine.runtime.vnodes if group[0]]
    node.engine.gathering.ask(ListAttempts(route.uid, None, 100), groups, pages.append)
    node.world.run_until(lambda: bool(pages))
    return [(each.job_id, each.attempt.url) for each in pages[0].attempts]


def _started() -> tuple[SimNode, Collection, Route, Route]:
    node = SimNode(21)
    assert node.start()
    jobs, first, second = node.put_collection(), node.put_route("first"), node.put_route("second")
    assert jobs is not None
    assert first is not None
    assert second is not None
    return node, jobs, first, second


def test_a_job_that_is_given_another_route_leaves_its_attempt_with_the_first() -> None:
    """The attempt was under way when the job got its new route."""
    node, jobs, first, second = _started()
    node.put_job(jobs, "j", node.now_ms(), first, [])
    node.world.run_until(lambda: bool(node.sender.received))
    node.put_job(jobs, "j", node.now_ms() + 60_000, second, [])
    node.world.run_for(1_000)
    assert [("j", "http://recipient.test/hook")] == _listed(node, first)
    assert [] == _listed(node, second)


def test_attempts_of_a_job_that_was_purged_are_not_taken_from_its_successor() -> None:
    """The new job has the same id, and its attempts the same numbers."""
    node, jobs, first, second = _started()
    node.put_job(jobs, "j", node.now_ms(), first, [])
    node.world.run_for(1_000)
    assert 1 == len(_listed(node, first))
    answers: list[object] = []
    purge = c.DeleteJob(now_ms=node.now_ms(), job_id="j", purge=True)
    node.engine.propose_job(jobs, "j", purge, answers.append)
    node.put_job(jobs, "j", node.now_ms(), second, answers)
    node.world.run_for(1_000)
    assert 2 == len(answers)
    assert [] == _listed(node, first)
    assert 1 == len(_listed(node, second))
