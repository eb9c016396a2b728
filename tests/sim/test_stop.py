"""A node that is stopped ends within its grace, whatever its recipients do."""

from collections.abc import Callable
from typing import Any

from tests.sim.node import SimNode
from tests.sim.world import SimHandle, SimSender
from timemachine import limits
from timemachine.outbound import Outcome, Request


class _Silent(SimSender):
    """Recipients that take a request and never answer."""

    def send(
        self,
        request: Request,
        done: Callable[[Outcome], None],
        may_leave: Callable[[], bool] | None = None,
    ) -> SimHandle:
        handle = SimHandle(self, done)
        handle.sent = True
        self.received.append((self.world.wall_ms(), request))
        return handle


def test_a_send_of_a_job_that_was_replaced_meanwhile_is_cut_too() -> None:
    """Its request hangs when the node is stopped; the job has a new version by then."""
    node = SimNode(7)
    node.sender = _Silent(node.world)
    assert node.start()
    jobs, route = node.put_collection(), node.put_route()
    assert jobs is not None
    assert route is not None
    answers: list[Any] = []
    node.put_job(jobs, "job", node.now_ms(), route, answers)
    node.world.run_until(lambda: bool(node.sender.received))
    node.put_job(jobs, "job", node.now_ms() + 3_600_000, route, answers)
    node.world.run_until(lambda: len(answers) == 2)
    stopped: list[bool] = []
    node.engine.stop(lambda: stopped.append(True))
    node.world.run_for(limits.SHUTDOWN_GRACE_MS + 1_000)
    assert stopped
    assert 0 == node.engine.delivery.in_flight


def test_nothing_reads_the_store_once_the_node_has_stopped() -> None:
    """Expiry, learning and erasing went on, and met a store that was closed."""
    node = SimNode(8)
    assert node.start()
    jobs, route = node.put_collection(), node.put_route()
    assert jobs is not None
    assert route is not None
    answers: list[Any] = []
    node.put_job(jobs, "job", node.now_ms() + 3_600_000, route, answers)
    node.world.run_until(lambda: bool(answers))
    stopped: list[bool] = []
    node.engine.stop(lambda: stopped.append(True))
    node.world.run_until(lambda: bool(stopped))
    reads: list[bytes] = []
    scan = node.engine._store.scan

    def noted(start: bytes, *arguments: Any, **named: Any) -> Any:
        reads.append(start)
        return scan(start, *arguments, **named)

    node.engine._store.scan = noted  # type: ignore[method-assign]
    node.world.run_for(10_000)
    assert not reads
