"""Several jobs in one request: frozen when it is claimed first, and all or nothing ever after."""

import re
from typing import Any

import msgspec
import pytest

from tests.unit.node.cluster import ERROR, ROUTE, Cluster
from tests.unit.replica.machines import UID
from timemachine import limits
from timemachine.identifiers import webhook_id
from timemachine.model import AttemptStatus, Batching, Breaker, HeldUp, JobState, Queue, Rate, Retry
from timemachine.outbound import Outcome, Request
from timemachine.replica import commands as c
from timemachine.replica.records import read_attempt, read_batch
from timemachine.storage.keys import after_prefix

TOO_LARGE = Outcome(status=413, bytes_sent=True)


def batched(**fields: Any) -> Any:
    """The route of these tests, sending up to four jobs in a request."""
    settings = {"max_jobs": 4, **fields}
    return msgspec.structs.replace(
        ROUTE,
        version=2,
        batch=Batching(**settings),
        retry=Retry(schedule_ms=(1_000,), jitter=0.0),
    )


def led(**fields: Any) -> Cluster:
    """A cluster whose node 1 leads."""
    cluster = Cluster()
    cluster.set_route(batched(**fields))
    cluster.elect(1)
    return cluster


def requests(cluster: Cluster, node: int = 1) -> list[Request]:
    """What a node has sent."""
    return [request for request, _ in cluster.nodes[node].sender.requests]


def ids(request: Request) -> list[str]:
    """The jobs of a request, in its order."""
    return [item["id"] for item in msgspec.json.decode(request.body)]


def identity(request: Request) -> bytes:
    """The webhook-id of a request."""
    found = re.search(rb"\r\nwebhook-id: ([A-Z2-7]{26})\r\n", request.head)
    assert found is not None
    return found[1]


def frozen(cluster: Cluster) -> list[list[str]]:
    """The members of each batch that is kept."""
    keys = cluster.log.keys
    rows = cluster.log.store.scan(keys.batch, after_prefix(keys.batch), 100)
    return [[each.job_id for each in read_batch(row).members] for _, row in rows]


def run(cluster: Cluster, ms: float = 100.0) -> None:
    """Time passes."""
    cluster.world.run_for(ms)


def test_what_is_due_goes_in_one_request() -> None:
    """Up to `max_jobs` of them; each item has the id that it would have alone."""
    cluster = led()
    for name in "abcde":
        cluster.put(name)
    run(cluster)
    first, second = requests(cluster)
    assert (list("abcd"), ["e"]) == (ids(first), ids(second))
    assert identity(first) != identity(second)
    items = msgspec.json.decode(first.body) + msgspec.json.decode(second.body)
    assert {webhook_id(UID, 1, 0)} == {item["webhook_id"] for item in items}
    assert 2 == cluster.nodes[1].delivery.in_flight
    cluster.nodes[1].sender.answer(0)
    cluster.nodes[1].sender.answer(1)
    run(cluster)
    assert {JobState.DELIVERED} == {cluster.job(name).state for name in "abcde"}
    assert [] == frozen(cluster)
    assert 0 == cluster.nodes[1].delivery.in_flight


def test_a_retry_is_the_same_array_under_the_same_id() -> None:
    """Whatever came meanwhile, and whatever the settings are then; only the time is another."""
    cluster = led()
    for name in "abc":
        cluster.put(name)
    run(cluster)
    cluster.nodes[1].sender.answer(0, ERROR)
    cluster.put("later")
    run(cluster)
    cluster.set_route(msgspec.structs.replace(batched(max_jobs=2, format="cloudevents"), version=3))
    run(cluster, 1_500)
    first, later, again = requests(cluster)
    assert (list("abc"), ["later"]) == (ids(first), ids(later))
    assert (first.body, identity(first)) == (again.body, identity(again))
    assert b"\r\nTimeMachine-Attempt: 2\r\n" in again.head


def test_a_batch_of_a_leader_that_is_gone_is_sent_again_as_it_was() -> None:
    """Nobody knows what became of it: the next leader sends the same bytes under the same id."""
    cluster = led()
    for name in "abc":
        cluster.put(name)
    run(cluster)
    cluster.elect(2)
    run(cluster, 500)
    (first,), (again,) = requests(cluster), requests(cluster, 2)
    assert (first.body, identity(first)) == (again.body, identity(again))
    cluster.nodes[2].sender.answer(0)
    run(cluster)
    assert {JobState.DELIVERED} == {cluster.job(name).state for name in "abc"}


@pytest.mark.parametrize("change", ["delete", "put", "run"])
def test_without_one_of_its_jobs_a_batch_is_not_sent_again(change: str) -> None:
    """The others go on under a new id."""
    cluster = led()
    for name in "abc":
        cluster.put(name)
    run(cluster)
    cluster.nodes[1].sender.answer(0, ERROR)
    run(cluster)
    command: Any = {
        "delete": c.DeleteJob(now_ms=0, job_id="b"),
        "run": c.RunJob(now_ms=cluster.world.wall_ms(), job_id="b"),
    }.get(change)
    if command is None:
        cluster.put("b", in_ms=60_000)
    else:
        apply(cluster, command)
    assert [] == frozen(cluster)
    run(cluster, 1_500)
    last = requests(cluster)[-1]
    assert ["a", "c"] == ids(last)
    assert identity(last) != identity(requests(cluster)[0])


def test_a_batch_of_a_leader_that_is_gone_loses_a_job_while_it_waits_for_a_slot() -> None:
    """The others wait for it no more (named: seed 734513147058886, they waited for ever)."""
    cluster = led()
    cluster.set_route(msgspec.structs.replace(batched(), version=3, max_in_flight=1))
    cluster.elect(2)
    cluster.put("z")
    run(cluster)
    cluster.elect(1)
    for name in "abc":
        cluster.put(name)
    run(cluster)
    cluster.nodes[1].sender.answer(0, ERROR)
    run(cluster, 1_500)
    cluster.nodes[1].sender.answer(1)
    run(cluster)
    assert [list("abc"), ["z"], list("abc")] == [ids(request) for request in requests(cluster)]
    # Its one slot is still taken by a request that began when it led before.
    cluster.elect(2)
    run(cluster)
    cluster.put("b", in_ms=60_000)
    run(cluster)
    node = cluster.nodes[2]
    node.sender.answer(0)
    run(cluster, 1_500)
    assert [["z"], ["a", "c"]] == [ids(request) for request in requests(cluster, 2)]
    assert identity(requests(cluster, 2)[1]) != identity(requests(cluster)[0])
    node.sender.answer(1)
    run(cluster)
    assert {JobState.DELIVERED} == {cluster.job(name).state for name in "acz"}


def apply(cluster: Cluster, command: Any) -> None:
    """Commit a command of a user; the leader hears of what follows."""
    cluster.log.apply(command)
    effects = cluster.log.machine.take_effects()
    node = cluster.nodes[cluster.leader]
    node.delivery.on_effects(node.vnode, effects, cluster.log.index)


def test_a_job_deleted_while_its_batch_is_under_way_is_not_in_the_retry() -> None:
    """It was sent, and cannot be taken back; it is not sent a second time."""
    cluster = led()
    for name in "abc":
        cluster.put(name)
    run(cluster)
    apply(cluster, c.DeleteJob(now_ms=0, job_id="b"))
    cluster.nodes[1].sender.answer(0, ERROR)
    run(cluster, 1_500)
    first, second = requests(cluster)
    assert (list("abc"), ["a", "c"]) == (ids(first), ids(second))
    assert identity(first) != identity(second)
    assert JobState.CANCELLED == cluster.job("b").state


def test_a_batch_that_waits_for_its_connection_is_taken_back_whole() -> None:
    """A job that is deleted then was never sent: the others go without it, under a new id."""
    cluster = led()
    node = cluster.nodes[1]
    node.sender.connecting = True
    for name in "abc":
        cluster.put(name)
    run(cluster)
    revoked = node.delivery.revoke(node.vnode, "b")
    assert revoked is not None
    apply(cluster, c.DeleteJob(now_ms=0, job_id="b", revoked=revoked))
    run(cluster)
    assert JobState.CANCELLED == cluster.job("b").state
    _, second = requests(cluster)
    assert ["a", "c"] == ids(second)
    assert [["a", "c"]] == frozen(cluster)
    assert 1 == node.delivery.in_flight


def test_a_job_revoked_while_its_batch_is_being_claimed() -> None:
    """The claim holds for all; nothing is sent under its id, for that would be another array."""
    cluster = led()
    node = cluster.nodes[1]
    for name in "abc":
        cluster.put(name)
    cluster.world.run_for(0.5)
    assert not requests(cluster)
    revoked = node.delivery.revoke(node.vnode, "b")
    assert revoked is not None
    cluster.world.run_for(0.6)
    apply(cluster, c.DeleteJob(now_ms=0, job_id="b", revoked=revoked))
    run(cluster)
    (only,) = requests(cluster)
    assert ["a", "c"] == ids(only)
    assert [["a", "c"]] == frozen(cluster)


def test_too_large_a_batch_goes_on_in_halves() -> None:
    """At once, each under an id of its own; one job that is too large alone is an ordinary failure.

    The halves are frozen as well.
    """
    cluster = led()
    node = cluster.nodes[1]
    for name in "abc":
        cluster.put(name)
    run(cluster)
    node.sender.answer(0, TOO_LARGE)
    run(cluster)
    _, left, right = requests(cluster)
    assert (["a", "b"], ["c"]) == (ids(left), ids(right))
    assert 3 == len({identity(each) for each in requests(cluster)})
    assert 0 == cluster.job("a").tries
    node.sender.answer(1, ERROR)
    node.sender.answer(2, TOO_LARGE)
    run(cluster)
    assert [["a", "b"], ["c"]] == sorted(frozen(cluster))
    assert 1 == cluster.job("c").tries
    run(cluster, 1_500)
    again = requests(cluster)[3:]
    assert {(identity(each), each.body) for each in (left, right)} == {
        (identity(each), each.body) for each in again
    }


def test_a_batch_waits_for_more_as_long_as_it_may() -> None:
    """Or until it is full."""
    cluster = led(max_wait_ms=300)
    for name in "ab":
        cluster.put(name)
    run(cluster, 280)
    assert [] == requests(cluster)
    run(cluster, 40)
    assert [["a", "b"]] == [ids(each) for each in requests(cluster)]
    for name in "cdef":
        cluster.put(name)
    run(cluster, 50)
    assert list("cdef") == ids(requests(cluster)[-1])


def test_the_body_is_not_larger_than_it_may_be() -> None:
    """What does not fit goes in the next one; one job goes however large it is."""
    cluster = led(max_bytes=1_200)
    node = cluster.nodes[1]
    for name in "abcd":
        cluster.put(name)
    run(cluster)
    sizes = [len(each.body) for each in requests(cluster)]
    assert max(sizes) <= 1_200
    assert list("abcd") == [name for each in requests(cluster) for name in ids(each)]
    assert 1 < len(sizes) < 4
    for number in range(len(sizes)):
        node.sender.answer(number)
    cluster.set_route(msgspec.structs.replace(batched(max_bytes=1), version=3))
    for name in "xy":
        cluster.put(name)
    run(cluster)
    assert [["x"], ["y"]] == [ids(each) for each in requests(cluster)[len(sizes) :]]


def test_a_route_that_sends_no_batches_any_more_sends_their_jobs_alone() -> None:
    """Each under its own id, which stood in the batch too."""
    cluster = led()
    for name in "ab":
        cluster.put(name)
    run(cluster)
    cluster.nodes[1].sender.answer(0, ERROR)
    run(cluster)
    items = msgspec.json.decode(requests(cluster)[0].body)
    cluster.set_route(
        msgspec.structs.replace(batched(max_jobs=1), version=3, retry=Retry(schedule_ms=(1_000,)))
    )
    run(cluster, 2_500)
    assert [item["webhook_id"].encode() for item in items] == [
        identity(each) for each in requests(cluster)[1:]
    ]
    assert [] == frozen(cluster)


def test_a_job_that_is_used_up_ends_alone() -> None:
    """The others of its batch have attempts left, and go on together."""
    cluster = led()
    node = cluster.nodes[1]
    policy = Retry(schedule_ms=(1_000,), max_attempts=2, jitter=0.0)
    cluster.set_route(msgspec.structs.replace(batched(), version=3, retry=policy))
    for name in "ab":
        cluster.put(name)
    run(cluster)
    node.sender.answer(0, ERROR)
    run(cluster, 1_500)
    node.sender.answer(1, ERROR)
    run(cluster)
    assert {JobState.DEAD} == {cluster.job(name).state for name in "ab"}
    assert [] == frozen(cluster)


def test_each_job_has_a_record_of_the_attempt() -> None:
    """With the batch and its size; what was answered is kept with the first one alone."""
    cluster = led()
    for name in "ab":
        cluster.put(name)
    run(cluster)
    answer = Outcome(status=200, body=b"fine", headers={"server": "s"}, bytes_sent=True)
    cluster.nodes[1].sender.answer(0, answer)
    run(cluster)
    first, second = [read_attempt(cluster.job(name).delivering) for name in "ab"]
    assert (2, 2) == (first.batch_size, second.batch_size)
    assert first.batch == second.batch != b""
    assert (b"fine", None) == (first.response_body, first.answer_in)
    assert (b"", (), "a") == (second.response_body, second.response_headers, second.answer_in)
    assert first.fence == second.fence


def test_a_paused_route_keeps_its_batches() -> None:
    """They wait with it, and are the same when it goes on."""
    cluster = led()
    for name in "ab":
        cluster.put(name)
    run(cluster)
    cluster.nodes[1].sender.answer(0, ERROR)
    run(cluster)
    cluster.set_route(msgspec.structs.replace(batched(), version=3, paused=True))
    run(cluster, 2_000)
    assert {JobState.HELD} == {cluster.job(name).state for name in "ab"}
    cluster.set_route(msgspec.structs.replace(batched(), version=4))
    run(cluster, 500)
    first, again = requests(cluster)
    assert (first.body, identity(first)) == (again.body, identity(again))


def test_jobs_of_a_waiting_batch_are_sent_though_one_of_them_is_deleted() -> None:
    """They are read from the waiting index anew (named: nobody looked for them any more)."""
    cluster = led()
    route = msgspec.structs.replace(batched(), version=3, max_in_flight=1)
    cluster.set_route(route)
    for name in "abc":
        cluster.put(name)
    run(cluster)
    cluster.nodes[1].sender.answer(0, ERROR)
    cluster.put("slow")
    run(cluster, 1_500)
    assert [list("abc"), ["slow"]] == [ids(each) for each in requests(cluster)]
    cluster.set_route(msgspec.structs.replace(route, version=4, paused=True))
    run(cluster)
    cluster.set_route(msgspec.structs.replace(route, version=5))
    run(cluster)
    assert {Queue.WAITING} == {cluster.job(name).queue for name in "abc"}
    apply(cluster, c.DeleteJob(now_ms=0, job_id="b"))
    cluster.nodes[1].sender.answer(1)
    run(cluster)
    assert ["a", "c"] == ids(requests(cluster)[-1])


def test_a_batch_that_was_settled_in_part_goes_on_as_it_was() -> None:
    """Its leader was lost between two commands (named: the part that was settled left it)."""
    cluster = led()
    node = cluster.nodes[1]
    for name in "ab":
        cluster.put(name)
    run(cluster)
    node.sender.answer(0, ERROR)
    run(cluster, 1_500)
    mark = cluster.job("a").claim
    assert mark is not None
    assert 2 == mark.attempt
    cluster.log.settle("a", mark, AttemptStatus.FAILED)
    cluster.log.hand_over("b", mark, cluster.world.wall_ms())
    cluster.log.machine.take_effects()  # the next leader reads rows
    cluster.elect(2)
    run(cluster, limits.HANDOVER_MARGIN_MS - 100)
    assert [] == requests(cluster, 2), "it waits for what may still be told of the other one"
    run(cluster, 500)
    (first, again), (last,) = requests(cluster), requests(cluster, 2)
    assert (first.body, identity(first)) == (again.body, identity(again))
    assert (first.body, identity(first)) == (last.body, identity(last))


def test_batches_settled_in_part_fill_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """What each lacks comes back when there is no room (named: it was looked for once only)."""
    cluster = led()
    for names in ("ab", "cd"):
        for name in names:
            cluster.put(name)
        run(cluster)
    for number in range(2):
        cluster.nodes[1].sender.answer(number, ERROR)
    run(cluster, 1_500)
    assert 4 == len(requests(cluster))
    for settled, left in ("ab", "cd"):
        mark, other = cluster.job(settled).claim, cluster.job(left).claim
        assert mark is not None
        assert other is not None
        cluster.log.settle(settled, mark, AttemptStatus.FAILED)
        cluster.log.hand_over(left, other, cluster.world.wall_ms())
    cluster.log.machine.take_effects()  # the next leader reads rows
    monkeypatch.setattr(limits, "ROUTE_WINDOW_JOBS_MAX", 2)
    cluster.elect(2)
    run(cluster, limits.HANDOVER_MARGIN_MS + 1_000)
    assert {(identity(each), each.body) for each in requests(cluster)} == {
        (identity(each), each.body) for each in requests(cluster, 2)
    }


def test_what_is_left_out_of_a_batch_is_held_where_its_route_has_closed() -> None:
    """It is treated as its row is, and not queued where nobody looks."""
    cluster = led(max_bytes=1)
    for name in "ab":
        cluster.put(name)
    cluster.world.run_for(0.5)
    cluster.set_route(msgspec.structs.replace(batched(max_bytes=1), version=3, paused=True))
    run(cluster)
    assert {JobState.HELD} == {cluster.job(name).state for name in "ab"}
    assert 0 == cluster.nodes[1].delivery.backlog(cluster.nodes[1].vnode)


def test_a_job_that_goes_alone_again_can_be_taken_back() -> None:
    """It is in the window once (named: it seemed to be under way twice)."""
    cluster = led()
    node = cluster.nodes[1]
    for name in "ab":
        cluster.put(name)
    run(cluster)
    node.sender.answer(0, ERROR)
    run(cluster)
    cluster.set_route(msgspec.structs.replace(batched(max_jobs=1), version=3))
    node.sender.connecting = True
    run(cluster, 1_500)
    assert 3 == len(requests(cluster))
    claims = len([each for each in cluster.committed if isinstance(each, c.Claim)])
    assert node.delivery.revoke(node.vnode, "a") is not None
    assert 1 == claims


def test_a_batch_is_one_sample_of_the_breaker_and_one_trial() -> None:
    """However many jobs it has: what fails is a request."""
    cluster = led()
    node = cluster.nodes[1]
    settings = Breaker(min_requests=2, open_ms=1_000, half_open_requests=1)
    route = msgspec.structs.replace(
        batched(), version=3, breaker=settings, retry=Retry(schedule_ms=(100,), jitter=0.0)
    )
    cluster.set_route(route)
    for name in "abcd":
        cluster.put(name)
    run(cluster)
    node.sender.answer(0, ERROR)
    run(cluster, 200)
    assert (2, 0) == (len(requests(cluster)), node.delivery.breaker_trips)
    node.sender.answer(1, ERROR)
    assert 1 == node.delivery.breaker_trips
    run(cluster, 500)
    assert {Queue.WAITING} == {cluster.job(name).queue for name in "abcd"}
    run(cluster, 1_000)
    first, _, trial = requests(cluster)
    assert (first.body, identity(first)) == (trial.body, identity(trial))
    assert 1 == node.delivery.in_flight
    node.sender.answer(2)
    run(cluster)
    assert {JobState.DELIVERED} == {cluster.job(name).state for name in "abcd"}
    assert 0 == node.delivery.in_flight


def test_attempts_tell_what_their_batch_waited_for_and_what_they_did() -> None:
    """Each its own: for the others that its request took along, or for a slot."""
    cluster = led(max_wait_ms=200)
    node = cluster.nodes[1]
    cluster.set_route(msgspec.structs.replace(batched(max_wait_ms=200), version=3, max_in_flight=1))
    for name, in_ms in (("a", 0), ("b", 199), ("c", 500)):
        cluster.put(name, in_ms=in_ms)
    run(cluster, 1_000)
    node.sender.answer(0)
    run(cluster)
    node.sender.answer(1)
    run(cluster)
    told = {name: read_attempt(cluster.job(name).delivering) for name in "abc"}
    assert [HeldUp.BATCH, HeldUp.BATCH, HeldUp.IN_FLIGHT] == [
        HeldUp(told[name].held_up) for name in "abc"
    ]
    assert told["a"].key_ids == told["b"].key_ids != ()


def test_cloudevents() -> None:
    """The batch format of the specification; the data is the meta alone where the route says so."""
    cluster = led(format="cloudevents")
    cluster.set_route(
        msgspec.structs.replace(batched(format="cloudevents"), version=3, body="meta")
    )
    cluster.put("a")
    run(cluster)
    (request,) = requests(cluster)
    assert b"\r\nContent-Type: application/cloudevents-batch+json\r\n" in request.head
    assert b"application/json" not in request.head
    (event,) = msgspec.json.decode(request.body)
    assert ["specversion", "id", "source", "type", "time", "data"] == list(event)
    assert ("1.0", "/v1/dbs/d/collections/c", "timemachine.job", None) == (
        event["specversion"],
        event["source"],
        event["type"],
        event["data"],
    )


def test_batches_that_lie_among_each_other_in_a_full_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each lacks a job that has no room, so all would wait for each other (named: a deadlock)."""
    cluster = led()
    for names in ("aceg", "bdfh"):
        for name in names:
            cluster.put(name)
        run(cluster)
    cluster.elect(0)
    monkeypatch.setattr(limits, "ROUTE_WINDOW_JOBS_MAX", 4)
    cluster.elect(2)
    run(cluster, 1_000)
    assert {(identity(each), each.body) for each in requests(cluster)} == {
        (identity(each), each.body) for each in requests(cluster, 2)
    }
    first, second = requests(cluster, 2)
    assert first.body != second.body


def test_the_slot_of_a_batch_is_one() -> None:
    """Of its route and of the node, and one of the rate; it is given back once."""
    cluster = led()
    cluster.set_route(
        msgspec.structs.replace(
            batched(), version=3, max_in_flight=1, rate=Rate(count=2, period_ms=60_000)
        )
    )
    node = cluster.nodes[1]
    for name in "abcdefghijkl":
        cluster.put(name)
    run(cluster)
    assert (1, 1) == (len(requests(cluster)), node.delivery.in_flight)
    node.sender.answer(0)
    run(cluster)
    assert (2, 1) == (len(requests(cluster)), node.delivery.in_flight)
    node.sender.answer(1)
    run(cluster)
    assert (2, 0) == (len(requests(cluster)), node.delivery.in_flight)
    queue = node.delivery.queue_of(ROUTE.uid)
    assert queue is not None
    assert (0, 4) == (queue.in_flight, queue.size)


def test_a_handover_takes_batches_along() -> None:
    """What is open is settled by who sent it, whoever leads; what was not sent is claimed anew."""
    cluster = led()
    node = cluster.nodes[1]
    for name in "ab":
        cluster.put(name)
    run(cluster)
    done: list[int] = []
    node.delivery.hand_over(node.vnode, lambda: done.append(1))
    run(cluster)
    assert [1] == done
    cluster.elect(2)
    run(cluster)
    node.sender.answer(0)
    run(cluster, 200)
    assert {JobState.DELIVERED} == {cluster.job(name).state for name in "ab"}
    assert [] == requests(cluster, 2)


def test_a_batch_whose_vnode_gets_a_new_leader_before_its_first_byte() -> None:
    """It is taken back, or closed as an orphan, and sent by the next one."""
    cluster = led()
    node = cluster.nodes[1]
    node.sender.connecting = True
    for name in "ab":
        cluster.put(name)
    run(cluster)
    cluster.elect(2)
    run(cluster, 500)
    assert 0 == node.delivery.in_flight
    (again,) = requests(cluster, 2)
    assert ["a", "b"] == ids(again)
