"""What `bench sender` compares keeps the promises of a sender, or the comparison says nothing.

Where a client cannot keep one, the test says so: that is why it was not taken.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from bench.senders import NAMES, Candidate, candidate
from tests.faults.certificates import Certificates
from tests.integration.sender.harness import LONG_MS, LOOPBACK, SHORT_MS, request
from timemachine import limits
from timemachine.addresses import AddressPolicy
from timemachine.outbound import Outcome, TlsOptions

pytest.importorskip("pycurl")

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Make = Callable[..., Candidate]


class _Recipient:
    """Answers each request with the next of `answers`; None closes the connection instead."""

    def __init__(self, *answers: bytes | None) -> None:
        self._answers = list(answers)
        self.requests = 0

    async def serve(self, **options: Any) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", 0, **options)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r", 1)[0])
                await reader.readexactly(length)
                answer = self._answers[min(self.requests, len(self._answers) - 1)]
                self.requests += 1
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
        except (OSError, EOFError):
            pass  # the client has left
        finally:
            writer.close()


@pytest.fixture(params=NAMES)
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    """Makes candidates of one kind, and closes them."""
    made: list[Candidate] = []

    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    def new(policy: AddressPolicy | None = None) -> Candidate:
        loop = asyncio.get_running_loop()
        made.append(candidate(request.param)(loop, policy or AddressPolicy(LOOPBACK), resolve))
        return made[-1]

    yield new
    for each in made:
        await each.close()


def _url(server: asyncio.Server, *, host: str = "localhost", scheme: str = "http") -> str:
    return f"{scheme}://{host}:{server.sockets[0].getsockname()[1]}/hook"


async def _send(
    client: Candidate, url: str, *, timeout_ms: int = LONG_MS, tls: TlsOptions | None = None
) -> Outcome:
    ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    prepared = client.prepare(request(url, timeout_ms=timeout_ms, tls=tls))
    client.send(prepared, ended.set_result)
    return await ended


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_only_permitted_addresses_are_connected_to(make: Make, host: str) -> None:
    """A name that means the inside, and its address itself, are refused before anything is sent."""
    recipient = _Recipient(_OK)
    async with await recipient.serve() as server:
        outcome = await _send(make(AddressPolicy()), _url(server, host=host))
    assert (None, "blocked_address") == (outcome.status, outcome.error_code)
    assert 0 == recipient.requests


async def test_redirects_are_not_followed(make: Make) -> None:
    """A redirect is an answer."""
    recipient = _Recipient(b"HTTP/1.1 307 X\r\nLocation: /else\r\nContent-Length: 0\r\n\r\n", _OK)
    async with await recipient.serve() as server:
        outcome = await _send(make(), _url(server))
    assert (307, 1) == (outcome.status, recipient.requests)


async def test_the_body_is_cut(make: Make) -> None:
    """No more of a response is kept than may be stored."""
    size = limits.ATTEMPT_BODY_BYTES_MAX + 1
    recipient = _Recipient(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"b" * size)
    async with await recipient.serve() as server:
        outcome = await _send(make(), _url(server))
    assert (200, True) == (outcome.status, outcome.truncated)
    assert b"b" * limits.ATTEMPT_BODY_BYTES_MAX == outcome.body


async def test_the_deadline_ends_it(make: Make) -> None:
    """A recipient that says nothing is not waited for."""
    async with await _Recipient(b"").serve() as server:
        outcome = await _send(make(), _url(server), timeout_ms=SHORT_MS)
    assert (None, "timeout") == (outcome.status, outcome.error_code)


@pytest.mark.parametrize("kind", ["right", "wrong_name", "self_signed", "expired"])
async def test_tls_is_verified_for_the_host(
    make: Make, certificates: Certificates, kind: str
) -> None:
    """By the authorities of the route, and for the name in its URL, which the server is told."""
    told: list[str | None] = []
    context = certificates.server(kind)
    context.sni_callback = lambda _socket, name, _context: told.append(name)
    async with await _Recipient(_OK).serve(ssl=context) as server:
        url = _url(server, scheme="https")
        outcome = await _send(make(), url, tls=certificates.trusting())
    assert (200 if kind == "right" else None) == outcome.status
    assert (None if kind == "right" else "tls_error") == outcome.error_code
    assert {"localhost"} == set(told)


async def test_who_sends_a_request_again(make: Make, request: pytest.FixtureRequest) -> None:
    """On a connection that is lost under a request nothing is sent again; libcurl does.

    It has no option against that but to use each connection once.
    """
    recipient = _Recipient(_OK, None, _OK)
    async with await recipient.serve() as server:
        client = make()
        assert 200 == (await _send(client, _url(server))).status
        outcome = await _send(client, _url(server))
    repeats = request.node.callspec.params["make"] == "pycurl"
    expected = (3, 200) if repeats else (2, None)
    assert expected == (recipient.requests, outcome.status)
