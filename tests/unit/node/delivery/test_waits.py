"""Routes that wait for their recipient, on all nodes at once."""

import json

import msgspec
import pytest

from node.delivery.waits import KIND
from tests.unit.node.cluster import OK, ROUTE, Cluster
from tests.unit.node.delivery.test_credits import Lending
from timemachine import codec
from timemachine.delivery.waits import Wait
from timemachine.model import Retry
from timemachine.outbound import Outcome

BUSY = Outcome(status=429, headers={"retry-after": "3"}, bytes_sent=True)


def _waiting() -> Cluster:
    """Two jobs of a route with one slot; the recipient of the first asks for three seconds."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.set_route(
        msgspec.structs.replace(ROUTE, max_in_flight=1, retry=Retry(schedule_ms=(100,)))
    )
    cluster.put("a")
    cluster.put("b")
    cluster.run(50)
    cluster.nodes[1].sender.answer(0, BUSY)
    return cluster


def test_the_whole_route_waits_as_long_as_its_recipient_asks() -> None:
    """Not the job alone that was answered so."""
    cluster = _waiting()
    assert 1 == cluster.nodes[1].delivery.routes_waiting
    cluster.run(2_900)
    assert 1 == cluster.sent(1)
    cluster.run(200)
    assert (2, 0) == (cluster.sent(1), cluster.nodes[1].delivery.routes_waiting)
    cluster.nodes[1].sender.answer(1, OK)
    cluster.run(100)
    assert 3 == cluster.sent(1)


def test_a_longer_wait_counts_and_a_shorter_one_does_not() -> None:
    """Requests that were under way are answered so, too."""
    cluster = _waiting()
    waits = cluster.nodes[1].delivery._waits
    cluster.run(1_000)
    waits.asked(cluster.meta.routes_by_uid[ROUTE.uid], 5_000)
    waits.asked(cluster.meta.routes_by_uid[ROUTE.uid], 1_000)
    cluster.run(4_800)
    assert 1 == cluster.sent(1)
    cluster.run(400)
    assert 2 == cluster.sent(1)


def test_a_new_version_of_the_route_ends_the_wait() -> None:
    """Its owner has changed something; a wait of the version before is none of this one."""
    cluster = _waiting()
    route = cluster.meta.routes_by_uid[ROUTE.uid]
    cluster.nodes[1].delivery.route_changed(route.uid)
    cluster.run(50)
    assert 1 == cluster.sent(1)
    cluster.set_route(msgspec.structs.replace(route, version=2))
    cluster.run(50)
    assert 2 == cluster.sent(1)
    waits = cluster.nodes[1].delivery._waits
    waits.asked(route, 500)
    waits.asked(cluster.meta.routes_by_uid[ROUTE.uid], 900)
    cluster.run(600)
    assert 1 == waits.routes
    cluster.run(400)
    assert 0 == waits.routes


def test_what_is_answered_to_a_version_of_before_does_not_hold_up_this_one() -> None:
    """Requests were under way when the owner changed it; of a deleted route nothing is kept."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.set_route(msgspec.structs.replace(ROUTE, max_in_flight=2))
    for job_id in "abcd":
        cluster.put(job_id)
    cluster.run(50)
    assert 2 == cluster.sent(1)
    cluster.set_route(
        msgspec.structs.replace(ROUTE, max_in_flight=2, version=2, webhook_url="http://other.test/")
    )
    cluster.nodes[1].sender.answer(0, BUSY)
    cluster.run(50)
    assert 0 == cluster.nodes[1].delivery.routes_waiting
    assert 3 == cluster.sent(1)
    del cluster.meta.routes_by_uid[ROUTE.uid]
    cluster.nodes[1].delivery.route_changed(ROUTE.uid)
    cluster.nodes[1].sender.answer(2, BUSY)
    assert 0 == cluster.nodes[1].delivery.routes_waiting


def test_gone_that_is_answered_to_a_version_of_before_does_not_disable_this_one() -> None:
    """Its owner may have changed it for that very reason."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.put("a")
    cluster.put("b")
    cluster.run(50)
    disabled: list[object] = []
    cluster.nodes[1].delivery._settles._disable_route = disabled.append
    gone = Outcome(status=410, bytes_sent=True)
    cluster.set_route(msgspec.structs.replace(ROUTE, version=2, webhook_url="http://other.test/"))
    cluster.nodes[1].sender.answer(0, gone)
    assert [] == disabled
    cluster.set_route(ROUTE)
    cluster.nodes[1].sender.answer(1, gone)
    assert 1 == len(disabled)


def _sent_of(cluster: Cluster, number: int) -> list[str]:
    """The jobs that a node has sent, in that order; each is answered."""
    sender = cluster.nodes[number].sender
    for each in range(len(sender.requests)):
        sender.answer(each)
    return [json.loads(request.body)["id"] for request, _ in sender.requests]


@pytest.mark.parametrize("moves", [False, True])
def test_a_long_wait_holds_up_neither_the_window_nor_the_offset(moves: bool) -> None:
    """What was queued, and what falls due meanwhile, is read again at its end: each job once."""
    cluster = Cluster()
    cluster.elect(1)
    for node in cluster.nodes.values():
        node.delivery._waits.asked(ROUTE, 600_000)
    for number in range(4):
        cluster.put(f"job-{number}")
    cluster.put("job-4", in_ms=1_100)
    cluster.run(5_000)
    delivery = cluster.nodes[1].delivery
    assert 0 == delivery._window.queued()
    cluster.put("job-5", in_ms=200_000)
    cluster.run(300_000)
    assert 0 == delivery._window.queued()
    assert cluster.world.wall_ms() - 290_000 < cluster.log.machine.state.offset_due_ms
    if moves:
        cluster.elect(2)
    cluster.run(300_000)
    number = cluster.leader
    assert [f"job-{number}" for number in range(6)] == _sent_of(cluster, number)


def test_a_wait_of_seconds_leaves_the_queue_as_it_is() -> None:
    """To read it again costs more than to keep it."""
    cluster = _waiting()
    cluster.run(2_500)
    assert 1 == cluster.nodes[1].delivery._window.queued()


def test_other_nodes_wait_as_well() -> None:
    """Those that lead nothing of it yet, too. What they hear late or twice changes nothing."""
    storm = Lending(max_in_flight=12)
    engines = storm.nodes.engines
    engines[1].delivery._waits.asked(storm.route, 3_000)
    storm.world.run_for(50)
    assert [1, 1, 1] == [engine.delivery.routes_waiting for engine in engines.values()]
    storm.put(3)
    storm.world.run_for(2_500)
    assert 0 == storm.recipient.seen
    # Told once; more of the same is no news.
    storm.nodes.sent.clear()
    engines[1].delivery._waits.asked(storm.route, 510)
    engines[2].delivery._waits.asked(storm.route, 400)
    assert not any(frame.calls for number in (1, 2) for frame in storm.nodes.frames(number))
    storm.world.run_for(600)
    assert 3 == storm.recipient.seen
    assert [0, 0, 0] == [engine.delivery.routes_waiting for engine in engines.values()]


def test_what_is_told_of_another_version_is_not_believed() -> None:
    """Nor of a route that is not known."""
    storm = Lending(max_in_flight=12)
    calls = storm.nodes.engines[1].calls
    told: list[object] = []
    for uid, version in ((storm.route.uid, 9), (99, 1)):
        calls._handlers[KIND](2, codec.encode(Wait(uid, version, 3_000)), told.append)
    assert [b"", b""] == told
    assert 0 == storm.nodes.engines[1].delivery.routes_waiting
