"""A node that was away while jobs became due."""

import random
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.process import JOBS, Arrival, NodeProcess, Recipient, now_ms

COUNT = 2_000


def _jobs(first_ms: int, span_ms: int, count: int) -> list[dict[str, object]]:
    """Jobs due at moments of their own, created in no order."""
    due = random.Random(count).sample(range(first_ms, first_ms + span_ms), count)
    return [{"id": f"j{due_ms}", "trigger_time": due_ms} for due_ms in due]


def _away(node: NodeProcess, recipient: Recipient, count: int, **route: Any) -> list[Arrival]:
    """Let `count` jobs become due while the node is away; returns what comes when it is back."""
    node.start().set_up(recipient.url, **route)
    first_ms = now_ms() + 4_000
    node.create(_jobs(first_ms, 4_000, count))
    node.kill()
    assert now_ms() < first_ms, "this machine is too slow for this test"
    while now_ms() < first_ms + 4_000:
        time.sleep(0.05)
    node.start()
    arrivals = recipient.wait(count, 50)
    assert {"delivered"} == {job["state"] for job in node.drain().values()}
    assert 0 == node.stop()
    assert count == len({arrival.job_id for arrival in arrivals}) == len(recipient.arrivals())
    return arrivals


def _started_ms(node: NodeProcess, job_id: str) -> int:
    """When the only attempt of a job began, by the node's own record."""
    status, answer = node.ask("GET", f"{JOBS}/{job_id}/attempts")
    assert 200 == status, answer
    (attempt,) = answer["items"]
    return int(attempt["started_time"])


def test_overdue_jobs_come_in_due_order_one_by_one(tmp_path: Path) -> None:
    """With one send at a time the backlog of a route comes exactly in the order it was due in."""
    with Recipient() as recipient, NodeProcess(tmp_path / "data") as node:
        arrivals = _away(node, recipient, 500, max_in_flight=1)
    assert sorted(arrival.trigger_ms for arrival in arrivals) == [
        arrival.trigger_ms for arrival in arrivals
    ]


def test_overdue_jobs_come_at_the_rate_of_their_route(tmp_path: Path) -> None:
    """2,000 jobs at 250 in half a second: in due order as far as flights overlap, and no faster."""
    flights, rate, period_ms = 32, 250, 500
    with Recipient() as recipient, NodeProcess(tmp_path / "data") as node:
        arrivals = _away(
            node,
            recipient,
            COUNT,
            max_in_flight=flights,
            rate={"count": rate, "period_ms": period_ms},
        )
        node.start()
        started_ms = {job.trigger_ms: _started_ms(node, job.job_id) for job in arrivals}
        assert 0 == node.stop()
    # By when the node began to send: a recipient's threads note arrivals in what order they like.
    sent = sorted(started_ms, key=lambda due_ms: (started_ms[due_ms], due_ms))
    place = {due_ms: number for number, due_ms in enumerate(sorted(started_ms))}
    off = [abs(place[due_ms] - number) for number, due_ms in enumerate(sent)]
    # A send is overtaken by no more than those that were claimed at the same time, and the same
    # again.
    assert max(off) <= 2 * flights, f"out of order by {max(off)} places"
    # Arrivals may bunch at the recipient, so periods are judged together: n+1 of them hold at
    # most what n+2 periods of the sender allow.
    spread_ms = arrivals[-1].at_ms - arrivals[0].at_ms
    assert spread_ms >= (COUNT // rate - 2) * period_ms, f"all came within {spread_ms} ms"


@pytest.mark.parametrize("kill", [True, False])
def test_a_restart_across_due_moments_fires_each_job_once(tmp_path: Path, kill: bool) -> None:
    """Jobs due before, during and after a restart: all come, and none early.

    None comes twice after a stop that was asked for; after a kill, only what was open then.
    """
    with Recipient() as recipient, NodeProcess(tmp_path / "data") as node:
        node.start().set_up(recipient.url)
        first_ms = now_ms() + 300
        node.create(_jobs(first_ms, 3_000, 1_000))
        while now_ms() < first_ms + 1_000:
            time.sleep(0.01)
        if kill:
            node.kill()
        else:
            assert 0 == node.stop()
        node.start()
        jobs = node.drain()
        assert 0 == node.stop()
        arrivals = recipient.arrivals()
    assert {"delivered"} == {job["state"] for job in jobs.values()}
    assert 1_000 == len({arrival.job_id for arrival in arrivals})
    assert not [arrival for arrival in arrivals if arrival.at_ms < arrival.trigger_ms]
    assert kill or 1_000 == len(arrivals)
    assert len(arrivals) <= 1_000 + 64, "more came twice than were open at once"
