"""What nodes say to each other about what they lend."""

import pytest

from timemachine import codec, limits
from timemachine.delivery.credits import (
    Answer,
    Ask,
    Grant,
    Kind,
    Limit,
    Wish,
    blocked_ms,
    read_answer,
    read_ask,
)
from timemachine.errors import CodecError


def test_questions_and_answers_arrive_as_they_were() -> None:
    """As bytes, and back."""
    ask = Ask(3, 2, 0, True, [Wish(Limit(7, Kind.RATE), 1, 2, 15_000)])
    answer = Answer(2, True, [Grant(Limit(7, Kind.RATE), 2)])
    assert ask == read_ask(codec.encode(ask))
    assert answer == read_answer(codec.encode(answer))
    with pytest.raises(CodecError):
        read_ask(b"\1\x90")


def test_a_lender_waits_longer_than_any_attempt_can_take() -> None:
    """One that is begun at the last moment of a credit, by a slow clock."""
    assert blocked_ms(15_000) > (limits.CREDIT_MS + 15_000) * 1.01
