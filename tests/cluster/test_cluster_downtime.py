"""A whole cluster that was away for a week: what became due meanwhile comes, in order and paced.

The test names its scenario in docs/design/testing.md.
"""

import random
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, Final

import pytest

from tests.cluster.cluster import PATIENCE_S, Cluster
from tests.cluster.process import JOBS, ROUTES, now_ms, wait_until
from tests.cluster.recorder import OK, Recorder, Reply, Request
from tests.cluster.stage import SEED
from tests.needs import faketime_library
from timemachine import limits
from timemachine.ring import vnode_of

DAY_MS: Final = 24 * 3_600_000
AWAY_DAYS: Final = 8
NUM_VNODES: Final = 6

Attempts = list[dict[str, Any]]


class _Doorkeeper:
    """Counts how many requests are being answered at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self.most = 0

    def reply(self, _: Request) -> Reply:
        """What is counted ends before it is answered, so it is never more than there really is."""
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)
        time.sleep(0.01)
        with self._lock:
            self._inside -= 1
        return OK


def _a_week_of_jobs(cluster: Cluster, count: int) -> None:
    """Due at moments of their own in the week that begins in an hour, and created in no order."""
    first_ms = now_ms() + 3_600_000
    due = random.Random(SEED).sample(range(first_ms, first_ms + 7 * DAY_MS), count)
    cluster.create({"id": f"j{due_ms}", "trigger_time": due_ms} for due_ms in due)


def _be_away(cluster: Cluster) -> None:
    """Lose all nodes at once, and start them when the week is over."""
    for number in cluster.nodes:
        cluster.pause(number)
    for number in cluster.nodes:
        cluster.kill(number)
    later = {
        "LD_PRELOAD": str(faketime_library()),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME": f"+{AWAY_DAYS}d",
    }
    for node in cluster.nodes.values():
        node.environment |= later
    cluster.restart(*cluster.nodes)


def _wait_for(recorder: Recorder, count: int, cluster: Cluster) -> None:
    """Wait until so many have come, with patience for as long as more of them come."""
    seen, end = 0, 0.0
    while seen < count:
        now = len(recorder.requests())
        if now > seen or not end:
            seen, end = now, time.monotonic() + PATIENCE_S
        assert time.monotonic() < end, f"{seen} of {count} came\n{cluster.logs()}"
        time.sleep(0.2)


def _attempts(cluster: Cluster) -> Attempts:
    """All that the cluster has on record."""
    found: Attempts = []
    cursor = ""
    while True:
        status, page = cluster.ask("GET", f"{ROUTES}/hook/attempts?limit=1000{cursor}")
        assert 200 == status, page
        found += page["items"]
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"


def _never_too_many(sent: list[float], first_ms: float, count: int, period_ms: int) -> None:
    """Each node may begin its periods when it likes, none of them before `first_ms`."""
    for number, at_ms in enumerate(sorted(sent)):
        periods = number // count
        assert at_ms >= first_ms + periods * period_ms, f"{number + 1} within {at_ms - first_ms} ms"


def _in_order(attempts: Attempts, places: int) -> None:
    """In each vnode the oldest came first, and nothing is off by more than so many places."""
    by_vnode: dict[int, Attempts] = defaultdict(list)
    for attempt in attempts:
        by_vnode[vnode_of(attempt["job_id"], NUM_VNODES)].append(attempt)
    for index, row in by_vnode.items():
        row.sort(key=lambda each: (each["started_time"], each["job_id"]))
        place = {job: number for number, job in enumerate(sorted(each["job_id"] for each in row))}
        off = max(abs(place[each["job_id"]] - number) for number, each in enumerate(row))
        assert off <= places, f"vnode {index} is out of order by {off} places"


@pytest.mark.timeout(3_600)
@pytest.mark.root("faketime")
@pytest.mark.parametrize(
    ("count", "rate"),
    [
        pytest.param(1_500, 250, id="1500"),
        pytest.param(20_000, 1_000, id="20000", marks=pytest.mark.slow),
    ],
)
def test_18_a_cluster_was_away_for_a_week(tmp_path: Path, count: int, rate: int) -> None:
    """Scenario 18 (C1, C10): all come, each once, oldest first, and no limit is exceeded."""
    print(f"to see this again: SEED={SEED}")
    flights, period_ms = 30, 1_000
    door = _Doorkeeper()
    with Recorder(door.reply) as recorder, Cluster(tmp_path) as cluster:
        cluster.form().set_up(
            recorder.url(),
            num_vnodes=NUM_VNODES,
            max_in_flight=flights,
            rate={"count": rate, "period_ms": period_ms},
        )
        _a_week_of_jobs(cluster, count)
        _be_away(cluster)
        _wait_for(recorder, count, cluster)
        cluster.wait_whole()
        pending = f"{JOBS}?limit=1&state=scheduled,retrying,firing,held"
        wait_until(
            lambda: not cluster.ask("GET", pending)[1]["items"],
            "some do not settle",
            PATIENCE_S,
        )
        attempts = _attempts(cluster)
    came = Counter(each.job for each in recorder.requests())
    assert (count, {1}) == (len(came), set(came.values()))
    assert (count, {"succeeded"}) == (
        len(attempts),
        {each["status"] for each in attempts},
    )
    first_ms = min(each["claimed_time"] for each in attempts)
    _never_too_many([each["started_time"] for each in attempts], first_ms, rate, period_ms)
    first_ms -= AWAY_DAYS * DAY_MS
    _never_too_many([each.at_ms for each in recorder.requests()], first_ms, rate, period_ms)
    # What is under way at a time may overtake, and the same again. A backlog larger than a node's
    # window is read in pieces, which may change places when firing begins anew in between: a lease
    # lapses on a machine that has too much to do, a leader changes.
    window = limits.ROUTE_WINDOW_JOBS_MAX
    _in_order(attempts, 2 * flights if count < window else window)
    took_ms = max(each["ended_time"] for each in attempts) - min(
        each["claimed_time"] for each in attempts
    )
    print(f"{count} within {took_ms / 1_000:.1f} s, at most {door.most} at a time")
    assert door.most <= flights
