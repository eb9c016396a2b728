"""Answers that are kept: a repeat is answered and not done, and nothing is kept for ever."""

from typing import Any

import msgspec
import pytest

from timemachine import codec, limits
from timemachine.replica.answers import Answers, StoredAnswer
from timemachine.replica.commands import MADE_BY_NODE, Command, Request
from timemachine.storage.keys import ReplicaKeys
from timemachine.storage.memory import MemoryStore
from timemachine.storage.overlay import Overlay

ASKED = Request(b"k" * 16, b"f" * 16)
KEPT_MS = limits.REQUESTS_KEPT_MS


class Result(msgspec.Struct, frozen=True, array_like=True):
    """What a command of this test answers."""

    text: str
    replayed: bool = False


class State(msgspec.Struct):
    """What the machine of this test remembers."""

    requests: int = 0


class Counter:
    """A machine whose only command counts how often it was done."""

    def __init__(self) -> None:
        self.keys = ReplicaKeys(3)
        self.overlay = Overlay(MemoryStore())
        self.state = State()
        self.done = 0

    def run(self, command: Command) -> Result:
        """Count once more."""
        self.done += 1
        return Result(f"done {self.done}")

    def rows(self) -> dict[bytes, Any]:
        """What is stored now."""
        return {
            key: row for key, row in self.overlay.pending(b"", b"\xff").items() if row is not None
        }


def kept(result: Result) -> Result | None:
    """The second time is to be tried anew."""
    return None if result.text == "done 2" else result


ANSWERS = Answers[Result](codec.decoder(StoredAnswer[Result]), Result, kept)


def ask(counter: Counter, now_ms: int, request: Request = ASKED) -> Result:
    """Give the command, as part of a request."""
    return ANSWERS.once(counter, request, Command(now_ms=now_ms), Counter.run)


def test_a_repeat_is_answered_and_not_done() -> None:
    """It gets the answer of the first, marked as such, until its time is over."""
    counter = Counter()
    assert Result("done 1") == ask(counter, 5)
    assert Result("done 1", replayed=True) == ask(counter, 4 + KEPT_MS)
    assert 1 == counter.done == counter.state.requests


def test_a_key_with_other_content_is_refused() -> None:
    """The same key may not ask for something else; another key may."""
    counter = Counter()
    ask(counter, 5)
    reused = Request(ASKED.key, b"other".ljust(16))
    assert Result("idempotency_key_reused") == ask(counter, 6, reused)
    assert 1 == counter.done
    assert Result("done 2") == ask(counter, 6, Request(b"o" * 16, ASKED.fingerprint))


def test_an_expired_answer_is_replaced() -> None:
    """From its time on a repeat is a new request; each request counts once, and has two rows."""
    counter = Counter()
    ask(counter, 5)
    counter.done = 5
    assert Result("done 6") == ask(counter, 5 + KEPT_MS)
    assert 1 == counter.state.requests
    assert 2 == len(counter.rows())


def test_what_is_not_kept_is_done_again() -> None:
    """Where a repeat is to be tried anew, nothing is stored."""
    counter = Counter()
    counter.done = 1
    assert Result("done 2") == ask(counter, 5)
    assert {} == counter.rows()
    assert Result("done 3") == ask(counter, 6)


@pytest.mark.parametrize(("late_ms", "left"), [(0, 0), (1, 1)])
def test_only_what_was_named_is_forgotten(late_ms: int, left: int) -> None:
    """An answer that was given anew meanwhile has another time, and stays."""
    counter = Counter()
    ask(counter, 5 + late_ms)
    ANSWERS.forget(counter, [(5 + KEPT_MS, ASKED.key), (5 + KEPT_MS, b"x" * 16)])
    assert left == counter.state.requests
    assert 2 * left == len(counter.rows())


def test_answers_to_keys_that_nodes_made_are_kept_for_a_short_time() -> None:
    """Nobody but that node asks again, and it does so at once."""
    counter = Counter()
    made = Request(b"m" * 16, MADE_BY_NODE)
    kept_ms = limits.REQUESTS_MADE_KEPT_MS
    for now_ms in (1_000, 1_000 + kept_ms - 1):
        command = Command(now_ms=now_ms)
        assert "done 1" == ANSWERS.once(counter, made, command, Counter.run).text
    ANSWERS.once(counter, made, Command(now_ms=1_000 + kept_ms), Counter.run)
    assert 2 == counter.done
