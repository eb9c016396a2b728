"""What a vnode remembers of its ids is never more than its rows, whenever the node starts anew."""

from typing import Any

import pytest

from node import engine
from tests.sim.node import SimNode
from timemachine.replica.machine import JobMachine

JOBS = 40
FAR_MS = 3_600_000


@pytest.mark.parametrize("wait_ms", [0, 5, 10, 15, 1_000])
def test_ids_of_before_a_restart_exist(wait_ms: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A create of an id that is kept is refused, while the ids are read and afterwards."""
    monkeypatch.setattr(engine, "_FILL_ROWS", 7)
    node = SimNode(5)
    assert node.start()
    jobs, route = node.put_collection(), node.put_route()
    assert jobs is not None
    assert route is not None
    due_ms = node.now_ms() + FAR_MS

    def create(number: int, due_ms: int) -> str:
        answers: list[Any] = []
        node.put_job(jobs, f"job-{number}", due_ms, route, answers, create_only=True)
        node.world.run_until(lambda: bool(answers))
        return str(answers[0].code or answers[0].kind)

    assert {"created"} == {create(number, due_ms) for number in range(JOBS)}
    node.crash()
    assert node.start()
    node.world.run_for(wait_ms)
    assert {"job_exists"} == {create(number, due_ms + 1) for number in range(JOBS)}
    assert {"created"} == {create(number, due_ms) for number in range(JOBS, 2 * JOBS)}
    assert {"job_exists"} == {create(number, due_ms + 1) for number in range(2 * JOBS)}
    node.world.run_for(1_000)
    machines = [vnode.machine for vnode in node.engine._vnodes[jobs.uid]]
    assert all(isinstance(machine, JobMachine) and machine.ids.complete for machine in machines)
