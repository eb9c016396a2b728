"""Claims that meet what their jobs have become meanwhile."""

import msgspec

from tests.unit.node.cluster import ROUTE, Cluster
from tests.unit.node.delivery.test_leading import no_row_is_passed
from timemachine.delivery.borrowing import Credit
from timemachine.delivery.credits import Kind
from timemachine.model import JobState
from timemachine.replica import commands as c


def _run_now(cluster: Cluster, job_id: str) -> None:
    """A job is moved to now; the leader hears of it."""
    cluster.log.apply(c.RunJob(now_ms=cluster.world.wall_ms(), job_id=job_id))
    node = cluster.nodes[1]
    node.delivery.on_effects(node.vnode, cluster.log.machine.take_effects(), cluster.log.index)


def test_a_job_that_is_moved_while_it_is_being_claimed_is_not_passed_by() -> None:
    """Its claim holds for where it stands now; the next leader has to find it open there."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.put("a", in_ms=50)
    while not cluster.nodes[1].delivery.in_flight:
        cluster.run(0.25)
    assert not any(isinstance(command, c.Claim) for command in cluster.committed)
    _run_now(cluster, "a")
    cluster.run(100)
    assert (1, JobState.FIRING) == (cluster.sent(1), cluster.job("a").state)
    for number in range(5):
        cluster.put(f"b-{number}", in_ms=1_500 * (number + 1))
    cluster.run(8_000)
    no_row_is_passed(cluster)
    cluster.elect(2)
    cluster.run(5_000)
    assert cluster.job("a").attempts > 1


def test_a_claim_beyond_what_the_route_allows_by_then_is_taken_back() -> None:
    """The limit was lowered between claim and send; the job waits for a slot."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.put("a", in_ms=9)
    cluster.put("b", in_ms=9)
    cluster.run(5)
    cluster.set_route(msgspec.structs.replace(ROUTE, max_in_flight=1))
    cluster.run(50)
    assert (1, 1) == (cluster.sent(1), len(_of(cluster, c.Unclaim)))
    cluster.nodes[1].sender.answer(0)
    cluster.run(50)
    assert 2 == cluster.sent(1)


def test_a_claim_by_a_credit_that_has_run_out_is_taken_back() -> None:
    """And what is begun by one that holds ends within the time that the lender was told."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.set_route(msgspec.structs.replace(ROUTE, max_in_flight=1))
    queue = cluster.nodes[1].delivery._window.queue(ROUTE)
    mono_ms = cluster.world.mono_ms()
    queue.set_credits(
        Kind.FLIGHT, (Credit(1, mono_ms + 1_000, 2_000), Credit(1, mono_ms + 6, 2_000))
    )
    for job_id in "abc":
        cluster.put(job_id, in_ms=9)
    cluster.run(8)
    queue.set_credits(Kind.FLIGHT, queue._credits[:1])
    cluster.run(50)
    assert (2, 1) == (cluster.sent(1), len(_of(cluster, c.Unclaim)))
    sent = [request.timeout_ms for request, _ in cluster.nodes[1].sender.requests]
    assert 2_000 == sent[0]
    queue.set_credits(Kind.FLIGHT, ())
    cluster.nodes[1].sender.answer(0)
    cluster.nodes[1].sender.answer(1)
    cluster.run(50)
    assert 10_000 == cluster.nodes[1].sender.requests[2][0].timeout_ms


def _of(cluster: Cluster, kind: type) -> list[object]:
    return [each for each in cluster.committed if isinstance(each, kind)]


def test_a_job_of_the_waiting_index_is_found_when_an_older_claim_of_it_is_taken_back() -> None:
    """Firing began again while its claim was on its way, so it was asked for twice.

    The second claim does not hold, and the first is taken back: the job is free, and due.
    """
    cluster = Cluster()
    cluster.elect(1)
    cluster.set_route(msgspec.structs.replace(ROUTE, version=2, paused=True))
    cluster.put("job")
    cluster.run(50)
    assert 1 == cluster.log.machine.routes[ROUTE.uid].waiting
    cluster.commit_ms = 100.0
    cluster.set_route(msgspec.structs.replace(ROUTE, version=3))
    cluster.run(10)
    cluster.begin_again()
    cluster.run(10)
    cluster.commit_ms = 1.0
    cluster.run(1_000)
    assert 1 == cluster.sent(1)


def test_a_job_that_is_run_while_it_is_claimed_out_of_the_waiting_index_is_not_passed_by() -> None:
    """Its row is in the due index by then; the next leader has to find it open there."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.set_route(msgspec.structs.replace(ROUTE, version=2, paused=True))
    cluster.put("a")
    cluster.run(50)
    cluster.commit_ms = 100.0
    cluster.set_route(msgspec.structs.replace(ROUTE, version=3))
    while not cluster.nodes[1].delivery.in_flight:
        cluster.run(0.25)
    assert not any(isinstance(command, c.Claim) for command in cluster.committed)
    _run_now(cluster, "a")
    cluster.run(300)
    assert (1, JobState.FIRING) == (cluster.sent(1), cluster.job("a").state)
    cluster.commit_ms = 1.0
    for number in range(5):
        cluster.put(f"b-{number}", in_ms=1_500 * (number + 1))
    cluster.run(8_000)
    no_row_is_passed(cluster)
    cluster.elect(2)
    cluster.run(5_000)
    assert cluster.job("a").attempts > 1
