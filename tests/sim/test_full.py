"""A node that holds or sends as much as it may: nobody waits in vain, and no time is lost."""

from typing import Any

import pytest

from tests.sim.node import SimNode, headers_of
from timemachine import limits
from timemachine.model import Collection
from timemachine.outbound import Outcome, Request


def _started(*routes: str, in_flight: int = 64) -> tuple[SimNode, Collection, dict[str, Any]]:
    node = SimNode(4)
    assert node.start()
    jobs = node.put_collection(num_vnodes=1)
    assert jobs is not None
    made = {name: node.put_route(name, max_in_flight=in_flight) for name in routes}
    assert all(made.values())
    node.world.run_for(1_000)
    return node, jobs, made


class _Handle:
    def abort_if_unsent(self) -> bool:
        return False

    def abort(self) -> None:
        pass


def _slow(node: SimNode, prefix: str, after_ms: float) -> None:
    """Jobs whose id begins so are answered late, all at the same time."""
    send = node.sender.send

    def delayed(request: Request, done: Any, may_leave: Any = None) -> Any:
        if not headers_of(request)["timemachine-job-id"].startswith(prefix):
            return send(request, done)
        node.world.call_later(after_ms, lambda: done(Outcome(status=200, bytes_sent=True)))
        return _Handle()

    node.sender.send = delayed  # type: ignore[method-assign]


def test_slots_of_the_node_are_taken_up_when_they_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that waits because another route has all slots goes as soon as one is given back."""
    monkeypatch.setattr(limits, "SENDS_PER_NODE_MAX", 20)
    node, jobs, routes = _started("slow", "quick")
    _slow(node, "slow", 200.0)
    due_ms = node.now_ms() + 1_000
    answers: list[Any] = []
    for number in range(20):
        node.put_job(jobs, f"slow-{number}", due_ms, routes["slow"], answers)
    node.put_job(jobs, "quick", due_ms + 50, routes["quick"], answers)
    node.world.run_for(5_000)
    [(at_ms, _)] = node.sender.received
    assert 140 <= at_ms - due_ms - 50 <= 180


def test_full_window_does_not_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the window is full and nothing can be sent, the node rests between two looks."""
    monkeypatch.setattr(limits, "WINDOW_JOBS_MAX", 10)
    node, jobs, routes = _started("slow", in_flight=1)
    _slow(node, "slow", 1_000.0)
    due_ms = node.now_ms() + 1_000
    answers: list[Any] = []
    for number in range(15):
        node.put_job(jobs, f"slow-{number}", due_ms, routes["slow"], answers)
    for number in range(15):
        node.put_job(jobs, f"slow-later-{number}", due_ms + 300, routes["slow"], answers)
    node.world.run_until(lambda: len(answers) == 30)
    begun = node.world.events
    node.world.run_until(lambda: node.now_ms() > due_ms + 500, 20_000)
    assert node.world.events - begun < 5_000
    node.world.run_until(lambda: node.engine.counts(jobs)["delivered"] == 30)
