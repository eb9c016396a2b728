"""Errors between nodes: each comes back as what it was."""

import pytest

from timemachine import errors
from timemachine.carried import CarriedError, arrived, carry, read_error, write_error
from timemachine.errors import (
    ClientError,
    CodecError,
    Conflict,
    DiskFull,
    InvalidRequest,
    InvalidSecret,
    NotFound,
    NotLeader,
    RequestRefused,
    TimeMachineError,
    TooManyRequests,
    Unavailable,
)

SAMPLES = [
    TimeMachineError("It broke."),
    Conflict("It is there.", code="job_exists"),
    InvalidRequest("Bad.", errors=[("/id", "Too long."), ("", "No.")], code="invalid_x"),
    InvalidSecret("Too short.", rule="too_short"),
    NotLeader(3),
    TooManyRequests("Later.", retry_after_s=7),
    DiskFull(retry_after_s=10),
    Unavailable(code="stopping"),
]


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_comes_back_as_what_it_was(error: TimeMachineError) -> None:
    """Class, sentence, code, and what else its class knows."""
    found = read_error(write_error(error))
    assert type(error) is type(found)
    assert vars(error) == vars(found)


def test_every_class_of_the_tree_comes_back() -> None:
    """But for those of the SDK, which no node has."""
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, TimeMachineError):
            found = arrived(CarriedError(kind.__name__, "Why.", kind.code, rule="empty"))
            assert type(found) is (TimeMachineError if issubclass(kind, ClientError) else kind)
            assert found.detail == "Why." or kind is NotLeader


def test_what_others_do_not_know_is_told_as_the_nearest_that_they_do() -> None:
    """A class of the API, on its way out; one of a newer version, on its way in."""

    class NoSuchThing(NotFound):
        """Not there."""

    assert NotFound is type(arrived(carry(NoSuchThing("Gone.", code="gone"))))
    assert "gone" == arrived(carry(NoSuchThing("Gone.", code="gone"))).specific_code

    class Conflict(RequestRefused):
        """It has the name of a class of the tree, and is another."""

    assert "RequestRefused" == carry(Conflict()).kind
    unknown = arrived(CarriedError("Newer", "What is new.", "newer"))
    assert TimeMachineError is type(unknown)
    assert ("What is new.", "newer") == (unknown.detail, unknown.specific_code)


def test_foreign_bytes_are_refused() -> None:
    """With the error that all of the codec has."""
    with pytest.raises(CodecError):
        read_error(b"\x01\xc0")


def test_the_bytes_stay_as_they_are() -> None:
    """As other versions speak it."""
    golden = {
        "0197a94e6f744c6561646572d92254686973206e6f646520646f6573206e6f74206c6561642074686520766e6f"
        "64652eaa6e6f745f6c6561646572010290a0": NotLeader(2),
        "0197af546f6f4d616e795265717565737473a64c617465722eb1746f6f5f6d616e795f72657175657374730700"
        "90a0": TooManyRequests("Later.", retry_after_s=7),
    }
    assert list(golden) == [write_error(error).hex() for error in golden.values()]
