"""What is kept for a time goes after it, a little at a time."""

from typing import Any

import pytest

from tests.sim.node import SimNode
from timemachine.replica import commands as c
from timemachine.replica import meta as m


def test_many_vnodes_expire_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """All in one cycle, 32 times 500 jobs, would hold up the loop for a tenth of a second."""
    node = SimNode(31)
    assert node.start()
    jobs, route = node.put_collection(num_vnodes=32), node.put_route()
    assert jobs is not None
    assert route is not None
    answers: list[Any] = []
    for number in range(320):
        node.put_job(jobs, f"job-{number}", node.now_ms(), route, answers)
    node.world.run_until(lambda: node.engine.counts(jobs)["delivered"] == 320)
    purged: list[tuple[int, int]] = []
    runtime = node.engine.runtime
    propose = runtime.propose

    def watched(vnode: Any, command: Any, *rest: Any) -> None:
        if isinstance(command, c.Purge):
            purged.append((node.now_ms(), len(command.job_ids)))
        propose(vnode, command, *rest)

    monkeypatch.setattr(runtime, "propose", watched)
    node.ask_meta(
        m.PutCollection(
            now_ms=node.now_ms(),
            db="default",
            name="jobs",
            num_vnodes=32,
            history_retention_ms=5_000,
        )
    )
    node.world.run_for(8_000)
    assert 0 == sum(node.engine.counts(jobs).values())
    assert 320 == sum(count for _, count in purged)
    assert len({at_ms for at_ms, _ in purged}) == len(purged) > 16
