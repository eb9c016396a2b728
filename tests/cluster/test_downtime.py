"""A node that was away while jobs became due."""

import http.client
import random
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.process import JOBS, Arrival, NodeProcess, Recipient, ask, now_ms

COUNT = 2_000


def _jobs(first_ms: int, span_ms: int, count: int) -> list[dict[str, object]]:
    """Jobs due at moments of their own, created in no order."""
    due = random.Random(count).sample(range(first_ms, first_ms + span_ms), count)
    return [{"id": f"j{due_ms}", "trigger_time": due_ms} for due_ms in due]


@contextmanager
def _away(folder: Path, count: int, **route: Any) -> Iterator[tuple[NodeProcess, Recipient]]:
    """A node that is down, and was when `count` jobs became due.

    A machine that is too slow to create them before the first is due begins anew, with more time.
    """
    lead_ms = 4_000
    while True:
        with Recipient() as recipient, NodeProcess(folder / f"lead{lead_ms}") as node:
            node.start().set_up(recipient.url, **route)
            first_ms = now_ms() + lead_ms
            node.create(_jobs(first_ms, 4_000, count))
            node.kill()
            if now_ms() < first_ms:
                while now_ms() < first_ms + 4_000:
                    time.sleep(0.05)
                yield node, recipient
                return
        lead_ms *= 2


def _back(node: NodeProcess, recipient: Recipient, count: int) -> list[Arrival]:
    """Start it again; returns what comes, which is each job once."""
    node.start()
    arrivals = recipient.wait(count, 50)
    assert {"delivered"} == {job["state"] for job in node.drain().values()}
    assert count == len({arrival.job_id for arrival in arrivals}) == len(recipient.arrivals())
    return arrivals


def _only_attempts(node: NodeProcess, arrivals: list[Arrival]) -> dict[int, dict[str, Any]]:
    """The node's own record of each job's only attempt, by when the job was due."""
    attempts = {}
    with closing(http.client.HTTPConnection(node.address, timeout=30)) as connection:
        for arrival in arrivals:
            status, answer = ask(connection, "GET", f"{JOBS}/{arrival.job_id}/attempts")
            assert 200 == status, answer
            (attempts[arrival.trigger_ms],) = answer["items"]
    return attempts


def test_overdue_jobs_come_in_due_order_one_by_one(tmp_path: Path) -> None:
    """With one send at a time the backlog of a route comes exactly in the order it was due in."""
    with _away(tmp_path, 500, max_in_flight=1) as (node, recipient):
        arrivals = _back(node, recipient, 500)
        assert 0 == node.stop()
    assert sorted(arrival.trigger_ms for arrival in arrivals) == [
        arrival.trigger_ms for arrival in arrivals
    ]


def test_overdue_jobs_come_at_the_rate_of_their_route(tmp_path: Path) -> None:
    """2,000 jobs at 250 in half a second: in due order as far as flights overlap, and no faster."""
    flights, rate, period_ms = 32, 250, 500
    settings = {"max_in_flight": flights, "rate": {"count": rate, "period_ms": period_ms}}
    with _away(tmp_path, COUNT, **settings) as (node, recipient):
        arrivals = _back(node, recipient, COUNT)
        attempts = _only_attempts(node, arrivals)
        assert 0 == node.stop()
    # By when the node began to send: a recipient's threads note arrivals in what order they like.
    sent = sorted(attempts, key=lambda due_ms: (attempts[due_ms]["started_time"], due_ms))
    place = {due_ms: number for number, due_ms in enumerate(sorted(attempts))}
    off = [abs(place[due_ms] - number) for number, due_ms in enumerate(sent)]
    # A send is overtaken by no more than those that were claimed at the same time, and the same
    # again.
    assert max(off) <= 2 * flights, f"out of order by {max(off)} places"
    # Periods follow one another from the first claim on. Arrivals may bunch, so each is judged by
    # how many periods must have begun before it.
    first_ms = min(attempt["claimed_time"] for attempt in attempts.values())
    at_ms = sorted(arrival.at_ms for arrival in arrivals)
    for periods in range(1, COUNT // rate):
        after_ms = at_ms[periods * rate] - first_ms
        assert after_ms >= periods * period_ms, f"{periods * rate + 1} came within {after_ms} ms"


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
