"""Random changes of leader: in whatever order, nothing is lost, and nothing sent for nothing."""

import random
from collections import Counter
from functools import partial

import msgspec
import pytest

from tests.unit.node.cluster import ERROR, OK, ROUTE, Cluster
from tests.unit.node.delivery.test_leading import no_row_is_passed
from timemachine import limits
from timemachine.model import Breaker, JobState, Retry
from timemachine.replica import commands as c


class _Changes:
    """One history, drawn from a seed. `planned`: leaders change only by handing over."""

    def __init__(self, seed: int, *, planned: bool) -> None:
        self.rng = random.Random(seed)
        self.planned = planned
        self.cluster = Cluster()
        self.versions = 1
        self.paused = False
        self.breaker: Breaker | None = None
        if not planned and self.rng.random() < 0.5:
            self.breaker = Breaker(min_requests=2, window_ms=1_000, open_ms=100)
        self.set_route()
        self.cluster.elect(1)
        self.open: list[tuple[float, int, int]] = []
        self.taken = {1: 0, 2: 0}
        self.times: Counter[bytes] = Counter()
        self.jobs = 0
        self.pauses = self.rng.random() < 0.5
        self.slow = self.rng.random() < 0.5
        self.failures = 0.0 if planned else self.rng.choice([0.0, 0.3])

    def set_route(self) -> None:
        """The route as it is now: open or paused."""
        self.versions += 1
        retry = Retry(schedule_ms=(50, 100, 200), max_attempts=50)
        self.cluster.set_route(
            msgspec.structs.replace(
                ROUTE,
                version=self.versions,
                retry=retry,
                paused=self.paused,
                max_in_flight=5,
                breaker=self.breaker,
            )
        )

    def answer(self) -> None:
        """Recipients answer what they have got, some of it."""
        for number, node in self.cluster.nodes.items():
            for request, done in node.sender.requests[self.taken[number] :]:
                self.times[request.body] += 1
                outcome = ERROR if self.rng.random() < self.failures else OK
                delay = self.rng.choice([1, 20, 300, ROUTE.timeout_ms - 1])
                self.cluster.world.call_later(delay, partial(done, outcome))
            self.taken[number] = len(node.sender.requests)

    def step(self) -> None:
        """Something happens."""
        cluster, rng = self.cluster, self.rng
        if self.slow:
            cluster.commit_ms = rng.choice([1.0, 1.0, 20.0, 200.0])
        match rng.randrange(9):
            case 0 | 1:
                cluster.put(f"job-{self.jobs}", in_ms=rng.choice([-500, 0, 9, 30, 1_500]))
                self.jobs += 1
            case 2 if cluster.leader and not self.planned:
                cluster.lease = not cluster.lease
            case 3 if not self.planned:
                cluster.lease = True
                cluster.elect(rng.choice([0, 1, 2]))
            case 4 if cluster.leader:
                self.hand_over()
            case 5 if self.pauses:
                self.paused = not self.paused
                self.set_route()
            case 6 if cluster.leader and not self.planned:
                cluster.begin_again()
            case 7 if cluster.leader and self.jobs and not self.planned:
                job_id = f"job-{rng.randrange(self.jobs)}"
                cluster.propose(c.RunJob(now_ms=cluster.world.wall_ms(), job_id=job_id))
            case _:
                pass
        cluster.run(rng.choice([0, 1, 2, 5, 40, 700]))
        self.answer()
        no_row_is_passed(cluster)

    def hand_over(self) -> None:
        """The leader hands over; then the other one leads, or nobody took over."""
        cluster, rng = self.cluster, self.rng
        number = cluster.leader
        node = cluster.nodes[number]
        done: list[bool] = []
        node.delivery.hand_over(node.vnode, lambda: done.append(True))
        cluster.world.run_until(lambda: bool(done))
        cluster.run(rng.choice([0, 1, 30]))
        if cluster.leader != number:
            return
        if rng.random() < 0.3:
            node.delivery.resume(node.vnode)
        else:
            cluster.elect(3 - number)

    def settle_down(self) -> None:
        """One leader, with a lease, until everything has come to its end."""
        cluster = self.cluster
        self.failures = 0.0
        cluster.lease = True
        cluster.commit_ms = 1.0
        if self.paused:
            # Not in any case: a new version of the route has all that waits for it read again.
            self.paused = False
            self.set_route()
        if not cluster.leader:
            cluster.elect(1)
        for _ in range(300):
            cluster.run((ROUTE.timeout_ms + limits.HANDOVER_MARGIN_MS) / 20)
            self.answer()
            no_row_is_passed(cluster)
            if not any(cluster.log.machine.state.counts[:4]):
                break
        states = {cluster.job(f"job-{n}").state for n in range(self.jobs)}
        assert states <= {JobState.DELIVERED}
        cluster.run(ROUTE.timeout_ms)
        for node in cluster.nodes.values():
            assert 0 == node.delivery.in_flight
            assert 0 == node.delivery.backlog(node.vnode)
            assert (0, []) == (node.late.waiting, node.dropped)
            assert {} == node.delivery._window.left


@pytest.mark.parametrize("planned", [False, True])
@pytest.mark.parametrize("seed", range(80))
def test_nothing_is_lost_over_changes_of_leader(seed: int, planned: bool) -> None:
    """Every job is delivered; after planned changes only, every one exactly once on the wire."""
    changes = _Changes(seed, planned=planned)
    for _ in range(40):
        changes.step()
    changes.settle_down()
    assert changes.jobs == len(changes.times)
    if planned:
        assert {1} == set(changes.times.values())
