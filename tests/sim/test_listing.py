"""Lists while jobs change their state: each job stands once."""

from typing import Any

from node.listing import list_jobs
from node.selection import Selection
from tests.sim.node import SimNode
from timemachine.model import JobState


def test_a_job_that_becomes_held_while_it_is_listed_stands_once() -> None:
    """It was read in the range of what is scheduled, and comes up in that of what is held."""
    node = SimNode(31)
    assert node.start()
    jobs, route = node.put_collection(num_vnodes=1), node.put_route(paused=True)
    assert jobs is not None
    assert route is not None
    answers: list[Any] = []
    for number in range(40):
        node.put_job(jobs, f"job-{number}", node.now_ms() - 1_000 + number, route, answers)
    due_ms = node.now_ms() + 5_000
    node.put_job(jobs, "last", due_ms, route, answers)
    node.world.run_for(2_000)
    assert 40 == node.engine.counts(jobs)["held"]
    vnode = node.engine._vnodes[jobs.uid][0]
    steps = list_jobs(node.disk.store, [vnode.keys], Selection(), None, 100)
    # One for each range: its first rows are read. (Those that fire stand in other ranges.)
    for _ in range(len(JobState) - 1):
        assert next(steps) is None
    node.world.run_for(10_000)
    assert 41 == node.engine.counts(jobs)["held"]
    page = next(page for page in steps if page is not None)
    found = [job_id for job_id, *_ in page.jobs]
    assert 41 == len(found)
    assert 1 == found.count("last")
