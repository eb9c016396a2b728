"""Answers as they leave: refusals as problems, and the bytes of a head and its body."""

from http import HTTPStatus

from node.api.conventions import Answer, encode_json
from node.api.media import PROBLEM
from node.api.problems import NoSuchMethod, problem
from timemachine.errors import (
    Overloaded,
    StoreError,
    TimeMachineError,
    Unauthorized,
    Unavailable,
)

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}" for status in HTTPStatus}
_WITHOUT_BODY = frozenset({204, 304})


def internal_fault(error: TimeMachineError | None = None) -> TimeMachineError:
    """What is told of a fault that nobody foresaw; its cause stands in the log.

    What one disk cannot give, or take, others can soon: that is worth another try.
    """
    if isinstance(error, StoreError):
        return Unavailable("The disk of this node failed; others take over what it had.")
    return TimeMachineError("Something went wrong inside the node.")


def refused(error: TimeMachineError) -> Answer:
    """The answer that tells an error."""
    headers = {}
    if isinstance(error, Overloaded):
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, NoSuchMethod):
        headers["Allow"] = ", ".join(error.allowed)
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = 'Bearer realm="timemachine"'
    return Answer(
        status=error.http_status,
        body=encode_json(problem(error)),
        headers=headers,
        content_type=PROBLEM,
    )


def render(answer: Answer, request_id: str, date: str, connection: str = "") -> bytes:
    """The head of an answer; `connection` is the value of that header, where it is needed.

    One string at once: a third of what a small request costs under aiohttp is its way from a
    multidict to these bytes.
    """
    more = "".join([f"{name}: {value}\r\n" for name, value in answer.headers.items()])
    if connection:
        more += f"Connection: {connection}\r\n"
    if answer.status in _WITHOUT_BODY:
        # Nothing is sent that these could describe (RFC 9110, 8.6).
        about = ""
    else:
        about = f"Content-Type: {answer.content_type}\r\nContent-Length: {len(answer.body)}\r\n"
    return (
        f"{_STATUS_LINES[answer.status]}\r\n{about}"
        f"Date: {date}\r\nServer: TimeMachine\r\nX-Request-Id: {request_id}\r\n{more}\r\n"
    ).encode("ascii")
