"""Exit codes and sentences of what went wrong."""

import json
from io import StringIO
from pathlib import Path

import pytest

from admin import exits
from admin.errors import Failure, exit_code
from timemachine.client import BadAnswer, ClientError, NoAnswer
from timemachine.client.conversation import _error
from timemachine.client.http1 import RawAnswer

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "cli.md"


def of_status(status: int) -> ClientError:
    """The client's error for a status that a node answers."""
    return _error(RawAnswer(status, {"content-type": "application/problem+json"}, b'{"code":"x"}'))


@pytest.mark.parametrize(
    ("code", "statuses"),
    [
        (exits.USAGE, [400, 405, 413, 415, 422]),
        (exits.NOT_FOUND, [404]),
        (exits.CONFLICT, [409, 412]),
        (exits.DENIED, [401, 403]),
        (exits.UNREACHABLE, [429, 502, 503, 504, 507]),
        (exits.FAILED, [500, 418]),
    ],
)
def test_exit_codes_of_statuses(code: int, statuses: list[int]) -> None:
    """Scripts decide by the exit code; the statuses behind each are in its meaning."""
    assert [code] * len(statuses) == [exit_code(of_status(status)) for status in statuses]
    if code != exits.FAILED:
        assert all(str(status) in exits.MEANINGS[code] for status in statuses)


def test_exit_codes_without_status() -> None:
    """Nobody there is one thing, somebody strange another."""
    assert exits.UNREACHABLE == exit_code(NoAnswer("x", maybe_done=False))
    assert exits.FAILED == exit_code(BadAnswer("x"))


@pytest.mark.parametrize("status", [404, 405, 409, 412])
def test_exit_codes_of_strangers(status: int) -> None:
    """A script must not take a wrong URL for a thing that is not there, or there already."""
    assert exits.FAILED == exit_code(_error(RawAnswer(status, {}, b"<html>")))


def test_exit_codes_are_documented() -> None:
    """The table of the reference is the table of the code."""
    page = PAGE.read_text()
    for code, meaning in exits.MEANINGS.items():
        assert f"| {code} | {meaning} |" in page


def shown(failure: Failure) -> str:
    """What is printed."""
    file = StringIO()
    failure.show(file)
    return file.getvalue()


def test_faults_are_shown_by_field() -> None:
    """Each fault of bad input with its place; control characters cannot steer the terminal."""
    error = ClientError("2 faults\x1b", errors=[("/retry/jitter", "too large"), ("/x", "what?")])
    assert ("Error: 2 faults\\x1b\n  /retry/jitter  too large\n  /x  what?\nTry this.\n") == shown(
        Failure(error, hints=["Try this."])
    )


def test_one_fault_is_not_said_twice() -> None:
    """The node's sentence names the field of a single fault already."""
    error = ClientError("retry/jitter: too large", errors=[("/retry/jitter", "too large")])
    assert "Error: retry/jitter: too large\n" == shown(Failure(error))
    error = ClientError("The URL is bad.", errors=[("/webhook_url", "The URL is bad.")])
    assert "Error: The URL is bad.\n" == shown(Failure(error))


def test_sentences_speak_of_options() -> None:
    """What the API calls a parameter is an option here."""
    error = ClientError("Create it first, or send ?allow_missing_route=true.")
    assert "Error: Create it first, or add --allow-missing-route.\n" == shown(Failure(error))
    sentence = "Allow it with PUT /v1/cluster/settings."
    error = ClientError(sentence, errors=[("/webhook_url", sentence)])
    assert "Error: Allow it with `timemachine cluster settings set`.\n" == shown(Failure(error))


def test_programs_get_json() -> None:
    """One object, with the node's code."""
    error = ClientError("x", code="job_exists", status=409, errors=[("/id", "y")])
    assert {
        "code": "job_exists",
        "status": 409,
        "detail": "x",
        "errors": [{"pointer": "/id", "detail": "y"}],
    } == json.loads(shown(Failure(error, as_json=True)))
