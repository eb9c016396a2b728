"""Calls between nodes: answered once, or not at all and then told so; bounded; large ones cut."""

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from node.calls import Answer, Calls
from node.peers import Peers
from tests.sim.world import SimWorld
from timemachine import limits
from timemachine.errors import (
    CodecError,
    Conflict,
    NotLeader,
    TimeMachineError,
    TooManyRequests,
    Unavailable,
)
from timemachine.frames import CallPart, Frame, ReplyPart, read_frame

if TYPE_CHECKING:
    from collections.abc import Callable


class _Wire:
    """Nodes 1 and 2, and what is between them. `lose` decides which frames do not arrive."""

    def __init__(self) -> None:
        self.world = SimWorld(1)
        self.frames: list[tuple[int, Frame, bool]] = []
        self.lose: Callable[[int, Frame], bool] = lambda *_: False
        self.doubles = False
        self.calls = {
            number: Calls(self.world, Peers(_Port(self, number), number, [3 - number], 1))
            for number in (1, 2)
        }

    def arrive(self, node: int, frame: Frame) -> None:
        for call in frame.calls:
            self.calls[node].take(frame.sender, call)
        for reply in frame.replies:
            self.calls[node].take_reply(frame.sender, reply)

    def ask(self, body: bytes, kind: str = "echo", **more: Any) -> list[Any]:
        """Node 1 asks node 2; the answer appears in the list."""
        answers: list[Any] = []
        self.calls[1].call(2, kind, body, answers.append, **more)
        return answers

    def wait(self, answers: list[Any]) -> Any:
        """The answer, when it is there."""
        self.world.run_until(lambda: bool(answers), 60_000)
        return answers[0]


class _Port:
    def __init__(self, wire: _Wire, number: int) -> None:
        self._wire = wire
        self._number = number

    def send(self, node: int, data: bytes, *, bulk: bool = False) -> None:
        wire = self._wire
        frame = read_frame(data)
        wire.frames.append((node, frame, bulk))
        if node not in wire.calls or wire.lose(node, frame):
            return
        for _ in range(1 + wire.doubles):
            wire.world.call_later(0.1, partial(wire.arrive, node, frame))


def _wired() -> _Wire:
    wire = _Wire()
    wire.calls[2].serve("echo", lambda sender, body, answer: answer(b"%d:" % sender + body))
    return wire


def test_a_call_is_answered() -> None:
    """With who asks, what is asked, and what is answered."""
    wire = _wired()
    assert b"1:hello" == wire.wait(wire.ask(b"hello"))


def test_all_calls_of_a_turn_go_in_one_frame() -> None:
    """And so do their answers."""
    wire = _wired()
    answers = [wire.ask(b"%d" % number) for number in range(10)]
    wire.wait(answers[9])
    assert [[b"1:%d" % number] for number in range(10)] == answers
    assert 2 == len(wire.frames)


def test_a_node_may_ask_itself() -> None:
    """Also where it is alone; and then no other one is there."""
    alone = Calls(SimWorld(1))
    alone.serve("echo", lambda _, body, answer: answer(body))
    answers: list[Any] = []
    alone.call(1, "echo", b"me", answers.append)
    alone.call(2, "echo", b"you", answers.append)
    assert b"me" == answers[0]
    assert isinstance(answers[1], Unavailable)


def test_errors_come_back_as_what_they_are() -> None:
    """Those that are answered and those that are raised."""
    wire = _wired()
    told = [Conflict("There.", code="job_exists"), NotLeader(3), TooManyRequests(retry_after_s=5)]

    def refuse(_: int, body: bytes, answer: Answer) -> None:
        if body == b"raise":
            raise told[0]
        answer(told[int(body)])

    wire.calls[2].serve("refuse", refuse)
    for number, error in enumerate(told):
        found = wire.wait(wire.ask(b"%d" % number, "refuse"))
        assert (type(error), vars(error)) == (type(found), vars(found))
    assert isinstance(wire.wait(wire.ask(b"raise", "refuse")), Conflict)
    assert isinstance(wire.wait(wire.ask(b"", "unheard of")), Unavailable)


def test_who_is_not_answered_in_time_is_told_so() -> None:
    """And a late answer meets nobody."""
    wire = _wired()
    held: list[Answer] = []
    wire.calls[2].serve("hold", lambda _, __, answer: held.append(answer))
    began_ms = wire.world.mono_ms()
    answers = wire.ask(b"", "hold", timeout_ms=700)
    assert isinstance(wire.wait(answers), Unavailable)
    assert 700 <= wire.world.mono_ms() - began_ms < 750
    held[0](b"late")
    wire.world.run_for(1_000)
    assert 1 == len(answers)
    assert {"calls_open": 0, "calls_served": 0} == wire.calls[2].statistics()
    assert {"calls_open": 0, "calls_served": 0} == wire.calls[1].statistics()


def test_only_the_first_answer_counts() -> None:
    """A handler that answers twice, and a frame that comes twice."""
    wire = _wired()
    wire.doubles = True

    def twice(_: int, __: bytes, answer: Answer) -> None:
        answer(b"first")
        answer(b"second")

    wire.calls[2].serve("twice", twice)
    answers = wire.ask(b"", "twice")
    wire.world.run_for(100)
    assert [b"first"] == answers


def test_a_call_that_is_being_answered_is_not_begun_again() -> None:
    """Its frame came twice."""
    wire = _wired()
    wire.doubles = True
    held: list[Answer] = []
    wire.calls[2].serve("hold", lambda _, __, answer: held.append(answer))
    answers = wire.ask(b"", "hold")
    wire.world.run_for(100)
    assert 1 == len(held)
    held[0](b"done")
    assert b"done" == wire.wait(answers)


def test_large_bodies_are_cut_and_go_behind_others() -> None:
    """Both ways, whatever the order of the parts."""
    wire = _wired()
    body = bytes(range(256)) * 16 * 1024 * 4
    assert len(body) == limits.REQUEST_BODY_BYTES_MAX
    answers = wire.ask(body)
    assert b"1:" + body == wire.wait(answers)
    large = [len(frame.calls) + len(frame.replies) for _, frame, bulk in wire.frames if bulk]
    assert [1] * len(wire.frames) == large
    assert 64 + 65 == len(large)
    assert {"calls_open": 0, "calls_served": 0} == wire.calls[2].statistics()


def test_a_large_body_of_which_a_part_is_lost_is_not_answered() -> None:
    """Its parts are let go when nobody waits for them any more."""
    wire = _wired()
    body = b"x" * (3 * limits.CALL_PART_BYTES)
    wire.lose = lambda _, frame: any(call.part == 1 for call in frame.calls)
    assert isinstance(wire.wait(wire.ask(body, timeout_ms=1_000)), Unavailable)
    assert 2 * limits.CALL_PART_BYTES == wire.calls[2]._taken_bytes
    wire.lose = lambda *_: False
    wire.world.run_for(10)
    assert b"1:" + body == wire.wait(wire.ask(body))
    assert 0 == wire.calls[2]._taken_bytes
    assert {} == wire.calls[2]._coming


def test_parts_that_make_no_sense_are_dropped() -> None:
    """Whoever sent them."""
    wire = _wired()
    calls = wire.calls[2]
    for part, parts in ((0, 0), (2, 2), (-1, 2), (0, 1 << 40)):
        calls.take(1, CallPart(7, "echo", 100, part, parts, b"x"))
        wire.ask(b"")
        number = next(iter(wire.calls[1]._open))
        wire.calls[1].take_reply(2, ReplyPart(number, False, part, parts, b"x"))
    assert (4, 4) == (calls.dropped, wire.calls[1].dropped)


def test_an_answer_of_somebody_else_is_not_taken() -> None:
    """Numbers are each node's own; and bytes that are no error are told as that."""
    wire = _wired()
    wire.lose = lambda *_: True
    answers = wire.ask(b"")
    number = next(iter(wire.calls[1]._open))
    wire.calls[1].take_reply(3, ReplyPart(number, False, 0, 1, b"x"))
    wire.calls[1].take_reply(2, ReplyPart(number + 1, False, 0, 1, b"x"))
    assert [] == answers
    wire.calls[1].take_reply(2, ReplyPart(number, True, 0, 1, b"x"))
    assert isinstance(answers[0], CodecError)


def test_what_is_open_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """In number and bytes, on both sides; and what is refused is to be tried again later."""
    wire = _wired()
    held: list[Answer] = []
    wire.calls[2].serve("hold", lambda _, __, answer: held.append(answer))
    monkeypatch.setattr(limits, "CALLS_OPEN_MAX", 2)
    waiting = [wire.ask(b"", "hold") for _ in range(2)]
    (refused,) = wire.ask(b"", "hold")
    assert isinstance(refused, TooManyRequests)
    wire.world.run_for(10)
    wire.calls[2].take(3, CallPart(7, "hold", 100, 0, 1, b""))
    assert 2 == len(held)
    for answer in held:
        answer(b"done")
    assert [b"done", b"done"] == [wire.wait(each) for each in waiting]
    monkeypatch.setattr(limits, "CALL_BYTES_OPEN_MAX", 100)
    (refused,) = wire.ask(bytes(101))
    assert isinstance(refused, TooManyRequests)
    monkeypatch.setattr(limits, "CALL_BODY_BYTES_MAX", 50)
    (refused,) = wire.ask(bytes(51))
    assert isinstance(refused, Unavailable)


def test_a_node_that_has_too_much_to_answer_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and not by silence: also to what comes in parts, and for what is too large."""
    wire = _wired()
    frames = wire.frames
    body = bytes(3 * limits.CALL_PART_BYTES)
    taken = partial(setattr, wire.calls[2], "_taken_bytes")
    taken(limits.CALL_BYTES_OPEN_MAX)
    refused: TimeMachineError = wire.wait(wire.ask(body))
    assert isinstance(refused, Unavailable)
    refused = wire.wait(wire.ask(b"small"))
    assert isinstance(refused, Unavailable)
    taken(0)
    wire.calls[2].serve("much", lambda _, __, answer: answer(bytes(101)))
    monkeypatch.setattr(limits, "CALL_BODY_BYTES_MAX", 100)
    assert isinstance(wire.wait(wire.ask(b"", "much")), Unavailable)
    assert frames
