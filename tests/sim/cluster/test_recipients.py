"""Recipients: how each kind of misbehaviour looks to its sender, and what is remembered."""

import pytest

from tests.sim.cluster.clockwork import START_MS, Clockwork
from tests.sim.cluster.nodeworld import NodeWorld
from tests.sim.cluster.recipients import MOODS, Mood, NodeSender, SimRecipients
from timemachine.outbound import Outcome, Request, parse_target


def _request(identity: str = "id-1", timeout_ms: int = 1_000) -> Request:
    head = (
        "POST /hook HTTP/1.1\r\nHost: recipient.test\r\n"
        f"webhook-id: {identity}\r\nTimeMachine-Attempt: 3\r\n\r\n"
    )
    target, _ = parse_target("http://recipient.test/hook")
    return Request(target, head.encode(), b"null", timeout_ms)


def _recipients(mood: Mood | None = None) -> tuple[NodeWorld, SimRecipients, NodeSender]:
    clock = Clockwork(1)
    world = NodeWorld(clock, 1)
    recipients = SimRecipients(clock)
    recipients.connect_rate = 0.0
    if mood is not None:
        recipients.fair = mood
    world.start()
    return world, recipients, recipients.sender(world)


def _does(action: str) -> Mood:
    return Mood(((action, 1.0),))


def test_a_request_is_answered_and_remembered() -> None:
    """With its times, its webhook-id, its attempt and its body; never from inside the call."""
    world, recipients, sender = _recipients()
    world.jump_wall(-100)
    told: list[Outcome] = []
    sending = sender.send(_request(), told.append)
    assert [] == told
    world.clock.run_for(100)
    assert [200] == [outcome.status for outcome in told]
    assert [sending] == recipients.arrivals == recipients.of(b"id-1")
    assert (b"id-1", 3, b"null") == (sending.identity, sending.attempt, sending.request.body)
    assert (0.0, START_MS - 100) == (sending.left_ms, sending.left_wall_ms)
    assert sending.arrived_ms is not None
    assert sending.ended_ms is not None
    assert 0.0 < sending.arrived_ms < sending.ended_ms
    assert sending.under_way(sending.arrived_ms)
    assert not sending.under_way(sending.ended_ms)
    assert [1] == world.clock.counts[-1:]


@pytest.mark.parametrize(
    ("action", "status", "error", "sent", "arrives"),
    [
        ("error", 500, None, True, True),
        ("unavailable", 503, None, True, True),
        ("busy", 429, None, True, True),
        ("redirect", 302, None, True, True),
        ("broken_body", 200, None, True, True),
        ("reset_read", None, "connection_reset", True, True),
        ("reset_unread", None, "connection_reset", True, False),
        ("refuse", None, "connection_refused", False, False),
        ("unknown_host", None, "dns_error", False, False),
        ("silence", None, "timeout", True, True),
    ],
)
def test_each_misbehaviour(
    action: str, status: int | None, error: str | None, sent: bool, arrives: bool
) -> None:
    """What the sender hears, and whether the recipient had the request."""
    world, recipients, sender = _recipients(_does(action))
    told: list[Outcome] = []
    sender.send(_request(), told.append)
    world.clock.run_for(2_000)
    (outcome,) = told
    assert (status, error, sent) == (outcome.status, outcome.error_code, outcome.bytes_sent)
    assert arrives == bool(recipients.arrivals)


def test_every_answer_of_every_mood_is_known() -> None:
    """No mood names one that does not exist."""
    for mood in MOODS.values():
        assert pytest.approx(1.0) == sum(share for _, share in mood.answers)
        for action, _ in mood.answers:
            world, _, sender = _recipients(_does(action))
            told: list[Outcome] = []
            sender.send(_request(), told.append)
            world.clock.run_for(30_000)
            assert 1 == len(told)


def test_a_slow_answer_is_late_or_too_late() -> None:
    """The time-out is kept to the moment, on the node's clock."""
    world, _, sender = _recipients(Mood((("slow", 1.0),), slow_ms=4_000.0))
    ended: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(50):
        began_ms = world.clock.now_ms
        told: list[Outcome] = []
        sender.send(_request(), told.append)
        world.clock.run_until(began_ms + 5_000, lambda told=told: bool(told))  # type: ignore[misc]
        ended[told[0].error_code == "timeout"].append(world.clock.now_ms - began_ms)
    assert all(pytest.approx(1_000) == took_ms for took_ms in ended[True])
    assert all(took_ms < 1_000 for took_ms in ended[False])
    assert ended[True]
    assert ended[False]


def test_a_dead_node_hears_nothing_and_its_request_may_arrive() -> None:
    """Of many, some arrive; all are known as orphaned."""
    world, recipients, sender = _recipients()
    told: list[Outcome] = []
    sendings = [sender.send(_request(f"id-{number}"), told.append) for number in range(100)]
    world.crash()
    world.start()
    world.clock.run_for(1_000)
    assert [] == told
    assert {0.0} == {sending.orphaned_ms for sending in sendings}
    assert 20 < len(recipients.arrivals) < 80
    assert all(sending.under_way(500.0) for sending in sendings)


def test_a_request_that_ended_is_no_orphan() -> None:
    """A crash afterwards excuses nothing."""
    world, _, sender = _recipients()
    sending = sender.send(_request(), lambda _: None)
    world.clock.run_for(1_000)
    world.crash()
    assert sending.orphaned_ms is None


def test_what_has_not_left_can_be_taken_back() -> None:
    """While it connects; after that it goes on, or is aborted and may arrive all the same."""
    world, recipients, sender = _recipients()
    recipients.connect_rate = 1.0
    recipients.wire_ms = (5.0, 5.0)
    told: list[Outcome] = []
    first = sender.send(_request(), told.append)
    second = sender.send(_request(), told.append)
    world.clock.run_for(1)
    assert first.abort_if_unsent()
    world.clock.run_for(6)
    assert not second.abort_if_unsent()
    second.abort()
    assert [] == told
    world.clock.run_for(100)
    assert ["shutdown"] == [outcome.error_code for outcome in told]
    assert told[0].bytes_sent
    assert [second] == recipients.arrivals


def test_a_process_that_is_paused_while_it_connects_sends_later() -> None:
    """Nothing leaves a process that stands still, and nothing after its time-out."""
    world, recipients, sender = _recipients()
    recipients.connect_rate = 1.0
    told: list[Outcome] = []
    sending = sender.send(_request(), told.append)
    late = sender.send(_request(timeout_ms=100), told.append)
    world.pause(300)
    world.clock.run_until(250)
    assert sending.left_ms is None
    world.clock.run_until(1_000)
    assert 300 == sending.left_ms
    assert late.left_ms is None
    assert {("timeout", False), (None, True)} == {(o.error_code, o.bytes_sent) for o in told}


def test_each_host_has_its_mood_until_it_is_healed() -> None:
    """And every departure can be looked at when it happens."""
    world, recipients, sender = _recipients()
    recipients.moods["recipient.test"] = _does("error")
    left: list[bytes] = []
    recipients.on_leave = lambda sending: left.append(sending.identity)
    told: list[Outcome] = []
    sender.send(_request(), told.append)
    assert [b"id-1"] == left
    world.clock.run_for(100)
    recipients.heal()
    sender.send(_request(), told.append)
    world.clock.run_for(100)
    assert [500, 200] == [outcome.status for outcome in told]
