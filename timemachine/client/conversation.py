"""How a call is carried through: which server, when again, and what comes out. No I/O.

`converse` is a generator. It yields what to do next (`Send` or `Wait`); whoever does the I/O sends
back what came of it (a RawAnswer or a `Broken`). It returns the call's value or raises. So the
async and the sync client share every decision and differ only in how they send and sleep.

All tries of a call are the same bytes with the same Idempotency-Key, so a repeat is harmless. A
try that fails goes on to the next server at once; when all have failed, a wait with jitter grows
with each round. A server that names a Retry-After is left alone until then. What would be beyond
the call's time is not waited for: the call fails at once.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from timemachine.client.call import Call
from timemachine.client.config import Config, Sources
from timemachine.client.http1 import RawAnswer, format_request
from timemachine.client.problems import (
    RETRIED_STATUS,
    SAID_BY_NODES_ONLY,
    Problem,
    api_error,
    phrase,
)
from timemachine.errors import BadAnswer, ClientError, NoAnswer
from timemachine.retry import parse_retry_after

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Send:
    """Send `request` to the server with this index and wait for its answer, so long at most."""

    server: int
    request: bytes
    timeout_ms: float


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing for so long."""

    wait_ms: float


@dataclass(frozen=True, slots=True)
class Broken:
    """No answer came.

    `sent` tells whether the server may have seen the request, `hopeless` that trying again cannot
    help, `cause` what the system said.
    """

    detail: str
    sent: bool
    hopeless: bool = False
    cause: BaseException | None = None


Step = Send | Wait
Result = RawAnswer | Broken | None


def converse(call: Call[T], config: Config, first_server: int) -> Generator[Step, Result, T]:
    """Carry `call` through, beginning with the server of this index.

    Raises ApiError for what a node refuses, NoAnswer when none answered in time, BadAnswer when
    what answers is no node.
    """
    now_ms, sources = config.sources.monotonic_ms, config.sources
    headers, body = _request_parts(call, config)
    effort = Effort(config, first_server, now_ms(), try_ms_min=call.try_ms_min)
    maybe_done = False
    told: dict[str, str] = {}
    """What each server that gave no answer was lacking."""
    while True:
        server = config.servers[effort.server]
        request = format_request(
            call.method, server.prefix + call.target, server.host_header, headers, body
        )
        result = yield Send(effort.server, request, effort.try_ms(now_ms()))
        retry_after_ms = 0
        failure: ClientError
        cause: BaseException | None = None
        if isinstance(result, RawAnswer):
            if result.status not in RETRIED_STATUS:
                return _value(call, result)
            failure = _error(result)
            retry_after = result.headers.get("retry-after", "")
            retry_after_ms = parse_retry_after(retry_after, sources.wall_ms()) or 0
        else:
            assert result is not None
            maybe_done |= result.sent
            told[server.url] = result.detail
            detail = "; ".join(f"{url}: {lack}" for url, lack in told.items())
            failure = NoAnswer(detail, maybe_done=maybe_done)
            cause = result.cause
            if result.hopeless:
                raise failure from cause
        wait_ms = effort.failed(now_ms(), retry_after_ms, sources.random())
        if wait_ms is None:
            raise failure from cause
        if wait_ms > 0:
            yield Wait(wait_ms)


class Effort:
    """Which server is next, after what wait, until when."""

    def __init__(
        self, config: Config, first_server: int, now_ms: float, *, try_ms_min: int = 0
    ) -> None:
        self._config = config
        self._try_ms = max(config.attempt_timeout_ms, try_ms_min)
        self._deadline_ms = now_ms + config.timeout_ms
        self._not_before_ms = [0.0] * len(config.servers)
        self._tries = 0
        self.server = first_server % len(config.servers)

    def try_ms(self, now_ms: float) -> float:
        """How long the next try may take."""
        return max(1.0, min(self._deadline_ms - now_ms, self._try_ms))

    def failed(self, now_ms: float, retry_after_ms: int, random: float) -> float | None:
        """A try failed: choose the next server, and return the wait before it, None to give up."""
        count = len(self._not_before_ms)
        self._not_before_ms[self.server] = now_ms + retry_after_ms
        self._tries += 1
        others = [(self.server + step) % count for step in range(1, count + 1)]
        # min() takes the first of equals: the servers' turn, unless one asked to be left alone.
        self.server = min(others, key=lambda each: max(now_ms, self._not_before_ms[each]))
        wait_ms = max(0.0, self._not_before_ms[self.server] - now_ms)
        if self._tries % count == 0:
            wait_ms = max(wait_ms, backoff_ms(self._config, self._tries // count, random))
        return None if now_ms + wait_ms >= self._deadline_ms else wait_ms


def backoff_ms(config: Config, rounds: int, random: float) -> float:
    """The wait after so many rounds of failed tries; `random` is 0 to 1."""
    # An exponent that is bounded: a float power of thousands would overflow.
    doublings = min(rounds - 1, 32)
    return min(config.backoff_ms << doublings, config.backoff_ms_max) * (1 + random) / 2


def _request_parts(call: Call[Any], config: Config) -> tuple[list[tuple[str, str]], bytes | None]:
    """The headers and the body, the same for all tries of a call."""
    headers = [*config.headers(), *call.headers]
    if call.writes:
        key = call.idempotency_key or config.sources.new_id()
        headers.append(("Idempotency-Key", key))
    if call.body is None:
        # A POST without a body still says so, or some proxies answer 411.
        return headers, b"" if call.writes and call.method != "DELETE" else None
    headers.append(("Content-Type", "application/json"))
    content = _with_ids(call.body, config.sources) if call.new_ids else call.body
    return headers, msgspec.json.encode(content)


def _with_ids(body: Any, sources: Sources) -> Any:
    """Jobs as they are sent, those without an id given a new one."""
    if isinstance(body, list):
        return [_with_ids(each, sources) for each in body]
    return body if "id" in body else {"id": sources.new_id(), **body}


def _value(call: Call[T], raw: RawAnswer) -> T:
    """What a final answer means: the call's value, or its error."""
    if not 200 <= raw.status <= 299:
        raise _error(raw)
    if call.answer is type(None):
        return None
    if call.answer is bytes:
        return raw.body  # type: ignore[return-value]
    try:
        return msgspec.json.decode(raw.body, type=call.answer)
    except msgspec.DecodeError as error:
        raise BadAnswer(f"The answer cannot be read: {error}.", status=raw.status) from error


def _error(raw: RawAnswer) -> ClientError:
    """The error of an answer that is no success, as good as its body tells.

    Every node names a code. Without one a 404 comes from some other server: it must not be taken
    for a job that is not there.
    """
    problem = Problem()
    if "json" in raw.headers.get("content-type", ""):
        try:
            problem = msgspec.json.decode(raw.body, type=Problem)
        except msgspec.DecodeError:
            pass  # A proxy's body says less than the status.
    if problem.code is None and raw.status in SAID_BY_NODES_ONLY:
        return BadAnswer(
            f"{raw.status} {phrase(raw.status)}, but not from a node of TimeMachine:"
            " is the server's URL right?",
            status=raw.status,
        )
    return api_error(problem, raw.status)
