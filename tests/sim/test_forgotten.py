"""No job is forgotten until the next restart, whatever becomes of its route and its claims."""

from typing import Any

import pytest

from tests.sim.node import SimNode, headers_of
from tests.sim.test_late_routes import MANY, NO_ROUTE
from timemachine.model import Collection, Route
from timemachine.replica import commands as c


def _started() -> tuple[SimNode, Collection]:
    node = SimNode(4)
    assert node.start()
    jobs = node.put_collection(num_vnodes=1)
    assert jobs is not None
    return node, jobs


def _put(node: SimNode, jobs: Collection, count: int, due_ms: int, route: Route) -> None:
    answers: list[Any] = []
    for number in range(count):
        node.put_job(jobs, f"job-{number}", due_ms, route, answers)
    node.world.run_until(lambda: len(answers) == count)


def _revoke(node: SimNode, jobs: Collection) -> c.Revoked:
    """Take the first job's send back as soon as it is claimed, or asked to be."""
    revoked: list[c.Revoked] = []

    def taken_back() -> bool:
        mark = node.engine.revoke(jobs, "job-0")
        revoked.extend([mark] if mark is not None else [])
        return bool(revoked)

    node.world.run_until(taken_back)
    return revoked[0]


def test_refused_change_gives_a_waiting_job_back() -> None:
    """A job of the waiting index, whose claim was taken back for nothing, fires all the same."""
    node, jobs = _started()
    route = node.put_route(paused=True)
    assert route is not None
    _put(node, jobs, 1, node.now_ms(), route)
    node.world.run_until(lambda: node.engine.counts(jobs)["held"] == 1)
    assert node.put_route(paused=False)
    revoked = _revoke(node, jobs)
    answers: list[Any] = []
    command = c.DeleteJob(now_ms=node.now_ms(), job_id="job-0", if_match=9, revoked=revoked)
    node.engine.propose_job(jobs, "job-0", command, answers.append)
    node.world.run_until(lambda: bool(answers))
    assert "precondition_failed" == answers[0].code
    node.world.run_for(5_000)
    assert 1 == node.engine.counts(jobs)["delivered"]
    assert 1 == len(node.sender.received)


@pytest.mark.parametrize("count", [20, MANY])
def test_jobs_of_a_late_route_end_when_it_is_deleted(count: int) -> None:
    """Also those that were accepted before the route existed become dead letters at once."""
    node, jobs = _started()
    _put(node, jobs, count, node.now_ms() + 1_000, NO_ROUTE)
    assert node.put_route(max_in_flight=1)
    node.world.run_for(1_200)
    assert node.delete_route()
    node.world.run_for(30_000)
    counts = node.engine.counts(jobs)
    assert counts["delivered"]
    assert count == counts["delivered"] + counts["dead"]
    assert 0 == node.engine.delivery.in_flight
    assert [] == node.failures


class _Silent:
    """A request that nobody answers."""

    def abort_if_unsent(self) -> bool:
        return False

    def abort(self) -> None:
        pass


def _orphan(node: SimNode, jobs: Collection, route: Route) -> None:
    """A job whose send is open when the power goes."""
    node.sender.send = lambda *_: _Silent()  # type: ignore[assignment, method-assign]
    _put(node, jobs, 1, node.now_ms(), route)
    node.world.run_until(lambda: node.engine.delivery.sends == 1)


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("deleted", [False, True])
def test_orphan_of_a_closed_route(deleted: bool, held: bool) -> None:
    """A send that was open at a crash is closed after it, though its route is paused or deleted.

    (Named: such a job was `firing` until the next restart, or for ever, if the offset passed it.)
    """
    node, jobs = _started()
    route = node.put_route(paused=held)
    assert route is not None
    if held:  # it comes out of the waiting index
        _put(node, jobs, 1, node.now_ms(), route)
        node.world.run_until(lambda: node.engine.counts(jobs)["held"] == 1)
        node.sender.send = lambda *_: _Silent()  # type: ignore[assignment, method-assign]
        assert node.put_route(paused=False)
        node.world.run_until(lambda: node.engine.delivery.sends == 1)
    else:
        _orphan(node, jobs, route)
    assert node.delete_route() if deleted else node.put_route(paused=True)
    node.crash()
    del node.sender.send
    assert node.start()
    node.world.run_for(5_000)
    counts = node.engine.counts(jobs)
    if deleted:
        assert 1 == counts["dead"]
        return
    assert 1 == counts["firing" if held else "held"]
    assert node.put_route(paused=False)
    node.world.run_for(5_000)
    assert 1 == node.engine.counts(jobs)["delivered"]
    assert 1 == len(node.sender.received)


@pytest.mark.parametrize("if_match", [None, 9])
def test_orphan_that_is_deleted_while_its_claim_is_asked_for(if_match: int | None) -> None:
    """It was sent before the crash: the answer says so, and it is not sent as the same attempt.

    (Named: the delete answered `cancelled`, and took the claim back of the life before.)
    """
    node, jobs = _started()
    route = node.put_route()
    assert route is not None
    _orphan(node, jobs, route)
    node.crash()
    del node.sender.send
    assert node.start()
    revoked = _revoke(node, jobs)
    answers: list[Any] = []
    command = c.DeleteJob(now_ms=node.now_ms(), job_id="job-0", if_match=if_match, revoked=revoked)
    node.engine.propose_job(jobs, "job-0", command, answers.append)
    node.world.run_until(lambda: bool(answers))
    node.world.run_for(5_000)
    if if_match is None:
        assert "in_flight" == answers[0].outcome
        assert 1 == node.engine.counts(jobs)["cancelled"]
        assert [] == node.sender.received
    else:
        assert "precondition_failed" == answers[0].code
        assert 1 == node.engine.counts(jobs)["delivered"]
        ((_, request),) = node.sender.received
        assert "2" == headers_of(request)["timemachine-attempt"]
