"""Jobs with an ordering key on their way through the window: one after the other, and found."""

from typing import Any

import msgspec
import pytest

from tests.unit.node.cluster import ERROR, ROUTE, Cluster
from tests.unit.node.delivery.test_batches import apply, frozen, ids, led, requests, run
from tests.unit.replica.machines import UID
from timemachine.model import JobState, Queue, Retry
from timemachine.replica import commands as c


def put(cluster: Cluster, job_id: str, *, in_ms: int = 0, key: str | None = "k") -> None:
    """Create a job with an ordering key; the leader hears of it."""
    now_ms = cluster.world.wall_ms()
    apply(
        cluster,
        c.PutJob(
            now_ms=now_ms,
            job_id=job_id,
            uid=UID,
            trigger_ms=now_ms + in_ms,
            delay_ms=None,
            route="r",
            route_uid=1,
            meta=b"null",
            ordering_key=key,
            placed_ms=now_ms,
        ),
    )


def alone() -> Cluster:
    """A cluster whose node 1 leads, with a route that sends each job alone."""
    cluster = Cluster()
    retry = Retry(schedule_ms=(1_000,), jitter=0.0)
    cluster.set_route(msgspec.structs.replace(ROUTE, version=2, retry=retry))
    cluster.elect(1)
    return cluster


def sent(cluster: Cluster, node: int = 1) -> list[str]:
    """The jobs that a node has sent, each of them alone."""
    found = []
    for request in requests(cluster, node):
        body = msgspec.json.decode(request.body)
        (job,) = body if isinstance(body, list) else (body,)
        found.append(job["id"])
    return found


@pytest.mark.parametrize("made", [alone, led])
def test_the_next_is_sent_when_the_one_before_has_ended(made: Any) -> None:
    """Those behind it are out of the way of the window and of the offset."""
    cluster = made()
    for job_id in "abc":
        put(cluster, job_id, in_ms=10)
    run(cluster)
    assert ["a"] == sent(cluster)
    assert {"a": Queue.DUE, "b": Queue.BEHIND, "c": Queue.BEHIND} == {
        each: Queue(cluster.job(each).queue) for each in "abc"
    }
    assert 1 == cluster.nodes[1].delivery.in_flight
    cluster.nodes[1].sender.answer(0, ERROR)
    run(cluster, 500)
    assert ["a"] == sent(cluster)
    run(cluster, 1_000)
    assert ["a", "a"] == sent(cluster)
    cluster.nodes[1].sender.answer(1)
    run(cluster)
    assert ["a", "a", "b"] == sent(cluster)
    cluster.nodes[1].sender.answer(2)
    run(cluster)
    cluster.nodes[1].sender.answer(3)
    run(cluster)
    assert {JobState.DELIVERED} == {cluster.job(each).state for each in "abc"}
    assert ["a", "a", "b", "c"] == sent(cluster)


def test_others_go_together_and_those_with_a_key_alone() -> None:
    """In a route that sends batches: as batches of one, which nothing is waited for."""
    cluster = led(max_wait_ms=200)
    for job_id in "abc":
        cluster.put(job_id)
    put(cluster, "x")
    put(cluster, "y", key="other")
    run(cluster, 100)
    assert [["x"], ["y"]] == sorted(ids(each) for each in requests(cluster))
    run(cluster, 200)
    assert list("abc") == ids(requests(cluster)[2])
    cluster.nodes[1].sender.answer(0, ERROR)
    run(cluster, 1_500)
    assert 2 == sent_ids(cluster).count(["x"])
    assert [["a", "b", "c"], ["x"], ["y"]] == sorted(frozen(cluster))


def sent_ids(cluster: Cluster) -> list[list[str]]:
    """The jobs of each request."""
    return [ids(each) for each in requests(cluster)]


@pytest.mark.parametrize("made", [alone, led])
def test_a_new_leader_goes_on_with_whose_turn_it_is(made: Any) -> None:
    """It sends again what was under way, and nothing else before that has ended."""
    cluster = made()
    for job_id in "abc":
        put(cluster, job_id)
    run(cluster)
    cluster.elect(2)
    run(cluster, 500)
    assert ["a"] == sent(cluster, 2)
    cluster.nodes[2].sender.answer(0)
    run(cluster)
    cluster.elect(1)
    run(cluster, 500)
    assert ["a", "b"] == sent(cluster, 2)
    assert ["a", "b"] == sent(cluster)
    cluster.nodes[1].sender.answer(1)
    run(cluster)
    assert ["a", "b", "c"] == sent(cluster)


@pytest.mark.parametrize("made", [alone, led])
def test_what_is_put_before_a_job_that_is_queued_goes_first(made: Any) -> None:
    """Its claim is refused, and it stands aside until its turn comes."""
    cluster = made()
    put(cluster, "late", in_ms=30)
    run(cluster, 5)
    put(cluster, "early", in_ms=20)
    run(cluster)
    assert ["early"] == sent(cluster)
    cluster.nodes[1].sender.answer(0)
    run(cluster)
    assert ["early", "late"] == sent(cluster)


@pytest.mark.parametrize("made", [alone, led])
def test_a_paused_route_holds_the_one_whose_turn_it_is(made: Any) -> None:
    """When it is open again all go in their order."""
    cluster = made()
    route = cluster.meta.routes_by_uid[1]
    cluster.set_route(msgspec.structs.replace(route, version=3, paused=True))
    for job_id in "ab":
        put(cluster, job_id)
    run(cluster)
    states = [(JobState(j.state), Queue(j.queue)) for j in map(cluster.job, "ab")]
    assert [(JobState.HELD, Queue.WAITING), (JobState.SCHEDULED, Queue.BEHIND)] == states
    cluster.set_route(msgspec.structs.replace(route, version=4))
    run(cluster)
    assert ["a"] == sent(cluster)
    cluster.nodes[1].sender.answer(0)
    run(cluster)
    assert ["a", "b"] == sent(cluster)


def test_a_deleted_route_ends_all_of_a_key() -> None:
    """Also those that stood aside."""
    cluster = alone()
    for job_id in "abc":
        put(cluster, job_id, in_ms=50)
    run(cluster, 10)
    cluster.meta.routes_by_uid.pop(1)
    cluster.meta.routes.clear()
    for node in cluster.nodes.values():
        node.delivery.route_changed(1)
    run(cluster, 500)
    assert {JobState.DEAD} == {cluster.job(each).state for each in "abc"}
    assert [] == sent(cluster)
