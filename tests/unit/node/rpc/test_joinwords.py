"""The proof of a token, and an answer that only its owner can read."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.rpc.joinwords import (
    Elsewhere,
    JoinAnswer,
    Joined,
    JoinRequest,
    KeyExchange,
    Member,
    Refused,
    check_ask,
    common_version,
    open_answer,
    prove,
    read_ask,
    read_challenge,
    read_proven,
    read_refused,
    read_request,
    seal_answer,
    transcript,
)
from node.rpc.packing import pack
from timemachine.errors import CodecError
from timemachine.model import Node

NODE = Node(id="n4", name="four", http="h:1", rpc="r:1", zone="z", version="0")
ANSWERS: list[JoinAnswer] = [
    Joined("c1", 4, (Member(1, "n1", "r:1"), Member(4, "n4", "r:4")), "# keys"),
    Elsewhere("r:2"),
    Refused("no"),
    Refused("busy", again=True),
]


def test_requests_are_read_as_they_were_written() -> None:
    """With everything that a node tells of itself."""
    request = JoinRequest("id", NODE, "n3")
    assert request == read_request(pack(request))


@pytest.mark.parametrize("answer", ANSWERS)
def test_both_ends_have_one_key(answer: Any) -> None:
    """From the token, what was said, and an exchange of keys."""
    one, two = KeyExchange(bytes([1]) * 32), KeyExchange(bytes([2]) * 32)
    words = transcript(b"a", b"b")
    key = one.answer_key(two.public, b"k" * 32, words)
    assert key == two.answer_key(one.public, b"k" * 32, words)
    assert answer == open_answer(key, seal_answer(key, answer))


def test_everything_counts() -> None:
    """Another token, other words, another pair of keys: another key."""
    one, two = KeyExchange(bytes([1]) * 32), KeyExchange(bytes([2]) * 32)
    keys = {
        one.answer_key(two.public, b"k" * 32, b"w" * 32),
        one.answer_key(two.public, b"l" * 32, b"w" * 32),
        one.answer_key(two.public, b"k" * 32, b"v" * 32),
        one.answer_key(one.public, b"k" * 32, b"w" * 32),
    }
    assert 4 == len(keys)
    assert 4 == len({prove(key, words) for key in (b"k", b"l") for words in (b"v", b"w")})


def test_words_do_not_run_into_each_other() -> None:
    """What was said first must not pass for what was said next."""
    assert transcript(b"ab", b"c") != transcript(b"a", b"bc")


def test_the_bytes_of_a_proof() -> None:
    """As another version computes them."""
    words = transcript(b"ask", b"challenge", b"request")
    assert "55c1" == prove(b"k" * 32, words).hex()[:4]


@pytest.mark.parametrize("public", [b"", bytes(32), b"x" * 31])
def test_public_keys_that_are_none(public: bytes) -> None:
    """Among them those that make every secret the same."""
    with pytest.raises(CodecError):
        KeyExchange(bytes([1]) * 32).answer_key(public, b"k" * 32, b"w" * 32)


def test_an_answer_of_somebody_else() -> None:
    """Who does not know the token can say nothing that counts."""
    sealed = seal_answer(b"k" * 32, ANSWERS[0])
    for key, data in ((b"l" * 32, sealed), (b"k" * 32, sealed[:-1]), (b"k" * 32, b"")):
        with pytest.raises(CodecError):
            open_answer(key, data)


def test_keys_are_not_shown() -> None:
    """Answers may be logged."""
    assert "# keys" not in repr(ANSWERS[0])


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """They are what is expected, or a CodecError."""
    for read in (read_ask, read_challenge, read_proven, read_request, read_refused):
        try:
            said = read(data)
            if read is read_ask:
                check_ask(said)
        except CodecError:
            continue
        assert read is read_refused
    with pytest.raises(CodecError):
        open_answer(b"k" * 32, data)


@pytest.mark.parametrize(("first", "last", "common"), [(1, 1, 1), (1, 5, 1), (2, 5, 0), (0, 0, 0)])
def test_versions(first: int, last: int, common: int) -> None:
    """The newest that both speak."""
    assert common == common_version(first, last)
