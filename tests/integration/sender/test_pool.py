"""Connections: used again while they are good, never more than asked for, never two requests."""

import asyncio
import resource

import pytest

from node.sender.pool import connections_allowed
from tests.faults.receiver import FaultReceiver
from tests.integration.sender.harness import SHORT_MS, Lab, until
from timemachine import limits


async def test_one_connection_for_one_request_at_a_time(lab: Lab, receiver: FaultReceiver) -> None:
    """Requests that follow each other share a connection."""
    for _ in range(50):
        assert 200 == (await lab.send(receiver.url("/"))).status
    assert (1, 50) == (receiver.connections, len(receiver.requests))
    assert (1, 1) == (lab.default.connections, lab.default.idle)


async def test_connections_follow_concurrency(lab: Lab, receiver: FaultReceiver) -> None:
    """As many as requests at a time, and no more in the next round."""
    for _ in range(3):
        sent = [lab.start(receiver.url("/slow/50")) for _ in range(20)]
        for each in sent:
            assert 200 == (await each.outcome()).status
    assert (20, 60) == (receiver.connections, len(receiver.requests))


async def test_a_request_from_an_outcome_uses_the_same_connection(
    lab: Lab, receiver: FaultReceiver
) -> None:
    """The connection is free before the outcome is told."""
    statuses = []
    finished = asyncio.Event()
    first = lab.start(receiver.url("/"))

    def chained(outcome: object) -> None:
        statuses.append(outcome)
        if len(statuses) < 10:
            lab.default.send(again, chained)
        else:
            finished.set()

    again = first.handle.request
    lab.default.send(again, chained)
    await finished.wait()
    assert 200 == (await first.outcome()).status
    assert 2 >= receiver.connections
    assert 11 == len(receiver.requests)


async def test_paths_share_connections_and_ports_do_not(lab: Lab, receiver: FaultReceiver) -> None:
    """A place is scheme, host, port and TLS identity."""
    with FaultReceiver() as other:
        for _ in range(2):
            for url in (receiver.url("/a"), receiver.url("/b"), other.url("/a")):
                assert 200 == (await lab.send(url)).status
        assert (1, 1) == (receiver.connections, other.connections)


@pytest.mark.parametrize("path", ["/close/header", "/close/idle"])
async def test_a_connection_that_the_recipient_closed_is_not_used(
    lab: Lab, receiver: FaultReceiver, path: str
) -> None:
    """Every request comes through, and none is sent twice, though each closes its connection."""
    for number in range(1, 11):
        assert 200 == (await lab.send(receiver.url(path))).status
        await until(lambda: receiver.open == 0)
        await asyncio.sleep(0.01)
        assert number == len(receiver.requests) == receiver.connections


async def test_a_close_that_the_loop_has_not_seen_yet(lab: Lab, receiver: FaultReceiver) -> None:
    """A connection that rested is looked at before it is used, ahead of the event loop."""
    for number in range(1, 6):
        assert 200 == (await lab.send(receiver.url("/close/idle"))).status
        # The loop stands still while the end of file arrives, and longer than is called fresh.
        receiver.wait_until(lambda: receiver.open == 0)
        receiver.stopping.wait(0.1)
        assert 1 == lab.default.connections
        outcome = await lab.send(receiver.url("/close/idle"))
        assert (200, None) == (outcome.status, outcome.error_code)
        assert 2 * number == len(receiver.requests)
        await until(lambda: lab.default.connections == 0)


async def test_idle_connections_are_closed(lab: Lab, receiver: FaultReceiver) -> None:
    """After a time of silence they go, without a request having to come."""
    sender = lab.sender(idle_s=0.2)
    sent = [lab.start(receiver.url("/slow/20"), sender) for _ in range(5)]
    for each in sent:
        await each.outcome()
    await until(lambda: sender.connections == 0 and receiver.open == 0)


async def test_the_last_used_is_used_first(lab: Lab, receiver: FaultReceiver) -> None:
    """So that connections that are too many grow old and go."""
    sent = [lab.start(receiver.url("/slow/50")) for _ in range(4)]
    for each in sent:
        await each.outcome()
    for _ in range(8):
        await lab.send(receiver.url("/"))
    assert 1 == len({seen.connection for seen in receiver.requests[4:]})


# --- limits ---------------------------------------------------------------------------------------


async def test_the_number_of_connections_is_bounded(lab: Lab, receiver: FaultReceiver) -> None:
    """Beyond it requests wait for one, in the order they came."""
    sender = lab.sender(connections_max=3)
    sent = [
        lab.start(receiver.url(f"/slow/20?n={number}"), sender, webhook_id=str(number))
        for number in range(12)
    ]
    assert (3, 9) == (sender.connections, sender.waiting)
    outcomes = [await each.outcome() for each in sent]
    assert {200} == {outcome.status for outcome in outcomes}
    assert 3 == receiver.connections
    assert outcomes[-1].queue_ms > outcomes[0].queue_ms
    seen = [int(seen.webhook_id) for seen in receiver.requests]
    assert [*range(12)] == sorted(seen)
    # Which of the three that are under way is noted first, the receiver's threads decide.
    assert all(place >= number - 2 for place, number in enumerate(seen)), seen


async def test_the_number_of_connections_to_one_recipient_is_bounded(
    lab: Lab, receiver: FaultReceiver
) -> None:
    """A recipient at its bound does not keep others waiting."""
    sender = lab.sender(connections_max=10, connections_per_target_max=2)
    stuck = [lab.start(receiver.url("/stall/after-request"), sender) for _ in range(6)]
    await until(lambda: len(receiver.requests) == 2)
    with FaultReceiver() as other:
        assert 200 == (await lab.send(other.url("/"), sender)).status
    assert (2, 4) == (len(receiver.requests), sender.waiting)
    for each in stuck:
        each.handle.abort()
    assert {"shutdown"} == {(await each.outcome()).error_code for each in stuck}


async def test_recipients_take_turns(lab: Lab, receiver: FaultReceiver) -> None:
    """Who has many requests waiting does not keep one with a single request waiting for all."""
    with FaultReceiver() as other:
        sender = lab.sender(connections_max=1)
        many = [lab.start(receiver.url("/slow/20"), sender) for _ in range(10)]
        single = lab.start(other.url("/"), sender)
        # Connections of the first are used on for what waits for it, until they are needed.
        assert 200 == (await single.outcome()).status
        assert 200 == (await many[-1].outcome()).status


async def test_an_idle_connection_makes_room_for_another_recipient(
    lab: Lab, receiver: FaultReceiver
) -> None:
    """The connection that is silent longest is given up when there is no room."""
    with FaultReceiver() as other:
        sender = lab.sender(connections_max=1)
        for _ in range(3):
            assert 200 == (await lab.send(receiver.url("/"), sender)).status
            assert 200 == (await lab.send(other.url("/"), sender)).status
        assert (3, 3) == (receiver.connections, other.connections)


async def test_the_deadline_covers_waiting(lab: Lab, receiver: FaultReceiver) -> None:
    """A request whose turn does not come in time ends, unsent."""
    sender = lab.sender(connections_max=1)
    stuck = lab.start(receiver.url("/stall/after-request"), sender)
    outcome = await lab.send(receiver.url("/"), sender, timeout_ms=SHORT_MS)
    assert ("timeout", None) == (outcome.error_code, outcome.error_phase)
    assert "This node had no connection to 127.0.0.1 free in time." == outcome.error_message
    assert (False, 0.0) == (outcome.bytes_sent, outcome.total_ms)
    assert 0 == sender.waiting
    stuck.handle.abort()
    await stuck.outcome()


async def test_a_waiting_request_can_be_called_back(lab: Lab, receiver: FaultReceiver) -> None:
    """And leaves the queue at once."""
    sender = lab.sender(connections_max=1)
    stuck = lab.start(receiver.url("/slow/50"), sender)
    waiting = lab.start(receiver.url("/"), sender)
    assert 1 == sender.waiting
    assert waiting.handle.abort_if_unsent()
    assert 0 == sender.waiting
    assert 200 == (await stuck.outcome()).status
    assert 1 == len(receiver.requests)


async def test_the_queue_is_bounded(lab: Lab, receiver: FaultReceiver) -> None:
    """Beyond it requests fail at once, unsent."""
    sender = lab.sender(connections_max=1, waiting_max=2)
    sent = [lab.start(receiver.url("/slow/50"), sender) for _ in range(5)]
    outcomes = [await each.outcome() for each in sent]
    assert [200, 200, 200, None, None] == [outcome.status for outcome in outcomes]
    assert ("network_error", None, False) == (
        outcomes[-1].error_code,
        outcomes[-1].error_phase,
        outcomes[-1].bytes_sent,
    )
    assert 3 == len(receiver.requests)


async def test_out_of_descriptors(lab: Lab, receiver: FaultReceiver) -> None:
    """When the process may open no more files, requests wait for those that it has."""
    sender = lab.sender()
    first = [lab.start(receiver.url("/slow/100"), sender) for _ in range(3)]
    await until(lambda: len(receiver.requests) == 3)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        more = [lab.start(receiver.url("/"), sender) for _ in range(6)]
        outcomes = [await each.outcome() for each in first + more]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [200] * 9 == [outcome.status for outcome in outcomes]
    assert 3 == receiver.connections


def test_connections_by_the_limit_of_the_process() -> None:
    """A quarter of the descriptors, up to what a node ever sends at a time."""
    assert 256 == connections_allowed(1024)
    assert limits.SENDER_CONNECTIONS_MAX == connections_allowed(1_048_576)
    assert 4 == connections_allowed(10)


# --- load -----------------------------------------------------------------------------------------


async def test_many_requests(lab: Lab, receiver: FaultReceiver) -> None:
    """Each of many requests at once has one outcome and is received once."""
    paths = ["/", "/status/503", "/close/after-request", "/close/header", "/slow/10", "/interim/2"]
    sender = lab.sender(connections_max=40)
    sent = [
        lab.start(receiver.url(paths[number % len(paths)]), sender, webhook_id=str(number))
        for number in range(300)
    ]
    outcomes = [await each.outcome() for each in sent]
    for number, outcome in enumerate(outcomes):
        expected = {"/status/503": 503, "/close/after-request": None}
        assert expected.get(paths[number % len(paths)], 200) == outcome.status
    ids = [seen.webhook_id for seen in receiver.requests]
    assert [str(number) for number in range(300)] == sorted(ids, key=int)
    assert sender.connections <= 40


async def test_a_request_may_be_forbidden_until_its_first_byte_leaves(
    lab: Lab, receiver: FaultReceiver
) -> None:
    """It ends as `lease_lost`, nothing was sent, and its connection serves others."""
    for _ in range(2):
        outcome = await lab.send(receiver.url("/"), may_leave=lambda: False)
        assert ("lease_lost", False) == (outcome.error_code, outcome.bytes_sent)
        await until(lambda: lab.default.idle == 1)
    assert 200 == (await lab.send(receiver.url("/"), may_leave=lambda: True)).status
    assert (1, 1) == (receiver.connections, len(receiver.requests))


async def test_those_who_wait_for_a_connection_are_asked_one_by_one(
    lab: Lab, receiver: FaultReceiver
) -> None:
    """However many of them may not be sent any more."""
    sender = lab.sender(connections_max=1)
    first = lab.start(receiver.url("/slow/50"), sender)
    forbidden = [
        lab.start(receiver.url("/"), sender, may_leave=lambda: False) for _ in range(2_000)
    ]
    last = lab.start(receiver.url("/"), sender)
    assert 200 == (await first.outcome()).status
    assert 200 == (await last.outcome()).status
    assert {"lease_lost"} == {(await each.outcome()).error_code for each in forbidden}
    assert 2 == len(receiver.requests)
