"""Whoever cancels or changes a job may take its send back as long as nothing of it has left."""

from typing import Any

import msgspec

from tests.sim.node import SimNode
from timemachine.replica import commands as c


def _delete(run_ms: float, steps: int) -> tuple[str, int]:
    """Run a job that is about to be claimed, delete it so many steps later.

    Returns what the deletion answered, and how many requests were received in the end.
    """
    node = SimNode(7)
    node.start()
    jobs = node.put_collection(num_vnodes=1)
    route = node.put_route()
    assert jobs is not None
    assert route is not None
    answers: list[Any] = []
    node.put_job(jobs, "job", node.now_ms() + 60, route, [])
    node.world.run_for(run_ms)
    ignored: list[Any] = []
    command = c.RunJob(now_ms=node.now_ms(), job_id="job")
    node.engine.propose_job(jobs, "job", command, ignored.append)
    for _ in range(steps):
        node.world.step()
    node.delete_job(jobs, "job", answers)
    node.world.run_for(1_000.0)
    return answers[0].outcome, len(node.sender.received)


def test_a_job_that_is_run_while_its_claim_is_on_the_way_is_cancelled_or_is_not() -> None:
    """It stands in the window twice for a moment, and only one of the two has a claim.

    Found by the cluster simulator, seed 264819162838005 (S8).
    """
    told = {
        (run_ms, steps): _delete(run_ms, steps)
        for run_ms in (47, 48, 49, 50, 51, 52, 53)
        for steps in range(14)
    }
    assert {outcome for outcome, _ in told.values()} >= {"cancelled", "in_flight"}
    for when, (outcome, received) in told.items():
        assert (received == 0) == (outcome == "cancelled"), when


def test_a_version_is_sent_with_its_own_content_or_not_at_all() -> None:
    """A claim may still be open when another version has taken the place of its own.

    Found by the cluster simulator, seed 46791982254924 (C2).
    """
    for run_ms in (47, 48, 49, 50, 51, 52, 53):
        for steps in range(14):
            for received in _replace(run_ms, steps):
                assert received["version"] == received["meta"], (run_ms, steps)


def _replace(run_ms: float, steps: int) -> list[dict[str, Any]]:
    """What is received of a job that is run when it is about to be claimed, and then replaced."""
    node = SimNode(7)
    node.start()
    jobs = node.put_collection(num_vnodes=1)
    route = node.put_route()
    assert jobs is not None
    assert route is not None
    node.put_job(jobs, "job", node.now_ms() + 60, route, [], meta=b"1")
    node.world.run_for(run_ms)
    ignored: list[Any] = []
    command = c.RunJob(now_ms=node.now_ms(), job_id="job")
    node.engine.propose_job(jobs, "job", command, ignored.append)
    for _ in range(steps):
        node.world.step()
    node.put_job(jobs, "job", node.now_ms(), route, [], meta=b"2")
    node.world.run_for(1_000.0)
    return [msgspec.json.decode(request.body) for _, request in node.sender.received]
