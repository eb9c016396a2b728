"""The short way of single creates: nobody can tell it from the long one, but by its speed.

Production runs on uvloop, so every test here runs on both loops (conftest).
"""

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.api.connection import Connection, Replying, Server
from node.api.credentials import Credentials
from node.api.express import _DECLINED, _HEAD_BYTES_MAX, _HEADS_KEPT_MAX, Head, HeadReader
from node.api.server import ApiServer
from tests.unit.node.api.harness import FAR_MS, JOBS, ROUTE, Api, Reply, parse, started
from timemachine import limits
from timemachine.errors import TooManyRequests

GET = f"GET {ROUTE} HTTP/1.1\r\nHost: test\r\n\r\n".encode()
ONE_READ_BYTES_MAX = 256 * 1024
"""What the event loops read at once, at most."""


def job(job_id: str | None = None, **change: Any) -> bytes:
    """The body of a create."""
    named = {} if job_id is None else {"id": job_id}
    return msgspec.json.encode(named | {"trigger_time": FAR_MS, "route": "hello"} | change)


def request(body: bytes, *lines: str, path: str = JOBS, first: str = "POST {} HTTP/1.1") -> bytes:
    """A request with these header lines and no other, but for the length."""
    head = [first.format(path), *lines, f"Content-Length: {len(body)}"]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def create(body: bytes, *lines: str, path: str = JOBS, first: str = "POST {} HTTP/1.1") -> bytes:
    """A create as clients send it, with some more header lines."""
    plain = ("Host: test", "Content-Type: application/json")
    return request(body, *plain, *lines, path=path, first=first)


def node_side(api: Api) -> Server:
    """What makes and knows the connections."""
    assert api.server._server is not None
    return api.server._server


class Client:
    """A connection that stays open, and the node's end of it."""

    def __init__(
        self, api: Api, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._api = api
        self.reader = reader
        self.writer = writer

    @property
    def connection(self) -> Connection:
        """The node's end; it is there once something was answered."""
        mine = self.writer.get_extra_info("sockname")
        for connection, transport in node_side(self._api)._connections.items():
            if transport.get_extra_info("peername") == mine:
                assert isinstance(connection, Connection)
                return connection
        raise AssertionError("the node has no such connection")

    @property
    def short(self) -> bool:
        """Whether the connection still takes the short way."""
        return self.connection._reader is not None

    def write(self, data: bytes) -> None:
        """Send."""
        self.writer.write(data)

    async def read(self) -> Reply:
        """The next answer."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(parse(head).headers["content-length"])
        return parse(head + await self.reader.readexactly(length))

    async def ask(self, data: bytes) -> Reply:
        """Send, and read one answer."""
        self.write(data)
        return await self.read()

    async def rest(self) -> bytes:
        """Everything until the node closes the connection."""
        try:
            return await self.reader.read()
        except ConnectionError:
            return b""


@asynccontextmanager
async def connected(api: Api, receive_bytes: int | None = None) -> AsyncIterator[Client]:
    """A connection; the system reads ahead so many bytes at its end, or what it thinks fit."""
    here = socket.socket()
    if receive_bytes is not None:
        here.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    here.setblocking(False)
    await asyncio.get_running_loop().sock_connect(here, (api.host, api.port))
    reader, writer = await asyncio.open_connection(sock=here)
    try:
        yield Client(api, reader, writer)
    finally:
        writer.close()


async def until(condition: Callable[[], Any]) -> None:
    """Wait for it."""
    while not condition():
        await asyncio.sleep(0.001)


def counted(api: Api) -> list[bytes]:
    """Bodies of the creates that take the short way, on connections made from now on."""
    server, taken = node_side(api), list[bytes]()
    express = server._express

    def count(head: Head, body: bytes, reply: Replying) -> None:
        taken.append(body)
        express(head, body, reply)

    server._express = count
    return taken


@pytest.fixture
def taken(api: Api) -> list[bytes]:
    """Bodies of the creates that took the short way."""
    return counted(api)


@asynccontextmanager
async def busy(api: Api, body: bytes) -> AsyncIterator[Client]:
    """A connection with a create under way, which waits for the disk."""
    async with connected(api) as client:
        api.disk.hold()
        client.write(create(body))
        await until(lambda: api.disk.held)
        assert client.connection._busy
        yield client


async def jobs(api: Api) -> list[str]:
    """Ids of all jobs."""
    return sorted(item["id"] for item in (await api.ask("GET", f"{JOBS}?limit=1000")).json["items"])


# --- the same answers ------------------------------------------------------------------------

A, KEY = job("a"), "Idempotency-Key: k"
SAME = {
    "created": [create(A)],
    "created in full": [create(job("a", meta={"n": [1, None]}, tags=["x", "ö"]))],
    "after a delay": [create(b'{"id":"a","delay_ms":3600000,"route":"hello"}')],
    "in the past": [create(job("a", trigger_time=1000))],
    "without an id": [create(job()), create(job())],
    "an id to be quoted": [create(job("ä/ö"))],
    "the path is quoted": [create(A, path=JOBS.replace("carts", "c%61rts"))],
    "equal again": [create(A), create(A)],
    "another of this id": [create(A), create(job("a", meta=1))],
    "only if new": [create(A, "If-None-Match: *"), create(A, "If-None-Match: *")],
    "another condition": [create(A, 'If-None-Match: "1"')],
    "a key again": [create(job(), KEY), create(job(), KEY)],
    "a key quoted": [create(job(), KEY), create(job(), 'Idempotency-Key: "k"')],
    "a key with an id": [create(A, KEY), create(A, KEY)],
    "a key for something else": [create(A, KEY), create(job("a", meta=1), KEY)],
    "no key in the header": [create(A, "Idempotency-Key:")],
    "a long key": [create(A, "Idempotency-Key: " + "k" * 300)],
    "request ids": [create(job(), f"X-Request-Id: {text}") for text in ("r-1", "r 1", "x" * 129)],
    "white space": [create(A, "X-Request-Id: \t r-1 \t", "Idempotency-Key:\tk\t")],
    "odd spelling": [create(A, "x-rEQUEST-iD: r-1")],
    "headers that mean nothing": [create(A, "If-Match: *", "Accept: text/html", "Cookie: a=b")],
    "no JSON": [create(b"{broken")],
    "no UTF-8": [create(b'{"id":"\xff"}')],
    "no object": [create(b"[1]"), create(b"null")],
    "nested deep": [create(b'{"meta":' + b"[" * 9_000 + b"]" * 9_000 + b"}")],
    "two bodies": [create(A + A)],
    "unknown member": [create(job(colour=1))],
    "wrong type": [create(job("a", tags=1))],
    "no time": [create(b'{"route":"hello"}')],
    "two times": [create(job(delay_ms=1))],
    "no route": [create(b'{"delay_ms":1000000}')],
    "a route that is missing": [create(job(route="nowhere"))],
    "a route that cannot be": [create(job(route="a b"))],
    "a bad id": [create(job("")), create(job("..")), create(job("x" * 2000))],
    "an ordering key": [create(job(ordering_key="x"))],
    "no such collection": [create(A, path=JOBS.replace("carts", "none"))],
    "no such database": [create(A, path=JOBS.replace("default", "none"))],
    "no such name": [create(A, path=JOBS.replace("carts", "%2F"))],
}


async def answers(requests: list[bytes], *before: bytes) -> tuple[list[Reply], list[bytes]]:
    """What a new node answers to requests on one connection, and which took the short way."""
    async with started() as api:
        numbers = itertools.count(1)
        api.engine.random_bytes = lambda count: next(numbers).to_bytes(count)  # type: ignore[method-assign]
        api.engine.now_ms = lambda: 1_800_000_000_000  # type: ignore[method-assign]
        taken = counted(api)
        async with connected(api) as client:
            for data in before:
                await client.ask(data)
            return [await client.ask(data) for data in requests], taken


async def compare(requests: list[bytes]) -> list[bytes]:
    """Ask both ways, compare byte for byte, and return the bodies that took the short way."""
    short, taken = await answers(requests)
    # The same bytes, on a connection that has left the short way.
    long, none = await answers(requests, GET)
    assert [] == none
    for one, other in zip(long, short, strict=True):
        assert (one.status, one.body) == (other.status, other.body)
        assert list(one.headers) == list(other.headers)
        # Ids that are made count the requests.
        made = set() if one.headers["x-request-id"] == "r-1" else {"x-request-id"}
        assert made == {name for name in one.headers if one.headers[name] != other.headers[name]}
    return taken


@pytest.mark.parametrize("case", SAME)
async def test_both_ways_answer_the_same(case: str) -> None:
    """Whatever a create is answered, it is the same byte for byte on either way."""
    bodies = [data.partition(b"\r\n\r\n")[2] for data in SAME[case]]
    assert bodies == await compare(SAME[case])


async def test_creates_take_the_short_way(api: Api, taken: list[bytes]) -> None:
    """A connection on which nothing but creates comes takes it for all of them, refused or not."""
    async with connected(api) as client:
        for number in range(50):
            assert 201 == (await client.ask(create(job(f"{number:02}")))).status
            assert 400 == (await client.ask(create(b"{"))).status
        assert 100 == len(taken)
        assert client.short
    assert [f"{number:02}" for number in range(50)] == await jobs(api)


# --- what is unusual -------------------------------------------------------------------------

DECLINED = {
    "connection": "close",
    "content-encoding": "identity",
    "expect": "100-continue",
    "keep-alive": "timeout=5",
    "origin": "http://one.example",
    "proxy-connection": "keep-alive",
    "sec-websocket-key1": "x",
    "te": "trailers",
    "trailer": "X-Sum",
    "transfer-encoding": "identity",
    "upgrade": "websocket",
}
UNUSUAL = {
    "chunked": (
        201,
        f"POST {JOBS} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        + b"%x\r\n%b\r\n0\r\n\r\n" % (len(A), A),
    ),
    "compressed": (415, create(A, "Content-Encoding: gzip")),
    "a protocol is offered": (201, create(A, "Connection: Upgrade", "Upgrade: websocket")),
    "a header twice": (201, create(A, "X-One: 1", "X-One: 2")),
    "a length twice": (400, create(A, f"Content-Length: {len(A)}")),
    "a key twice": (201, create(A, KEY, KEY)),
    "HTTP/1.0": (201, create(A, first="POST {} HTTP/1.0")),
    "HTTP/9.9": (400, create(A, first="POST {} HTTP/9.9")),
    "to be closed": (201, create(A, "Connection: close")),
    "no host": (400, request(A, "Content-Type: application/json")),
    "no type": (201, request(A, "Host: test")),
    "another spelling of the type": (
        201,
        request(A, "Host: test", "Content-Type: Application/JSON; charset=utf-8"),
    ),
    "MessagePack": (
        201,
        request(
            msgspec.msgpack.encode({"id": "a", "trigger_time": FAR_MS, "route": "hello"}),
            *("Host: test", "Content-Type: application/msgpack"),
        ),
    ),
    "MessagePack is asked for": (201, create(A, "Accept: Application/MsgPack")),
    "another type": (415, request(A, "Host: test", "Content-Type: text/plain")),
    "a query": (201, create(job("a", route="no"), path=f"{JOBS}?allow_missing_route=true")),
    "an unknown query": (400, create(A, path=f"{JOBS}?x=y")),
    "a query with the path in it": (405, create(A, path=JOBS.replace("/jobs", "?x=/jobs"))),
    "absolute": (201, create(A, path=f"http://test{JOBS}")),
    "not ASCII": (201, create(A, "X-Name: ä")),
    "a broken escape": (400, create(A, path=JOBS.replace("carts", "%"))),
    "a broken header": (400, create(A, "X Name: x")),
    "a folded header": (400, create(A, "X-Name: x", " y")),
    "bare line feeds": (400, create(A, "X-Name: x\nX-Other: y\n\nz")),
    "a long head": (201, create(A, "X-Name: " + "x" * _HEAD_BYTES_MAX)),
    "a long header": (400, create(A, "X-Name: " + "x" * 2 * limits.HTTP_LINE_BYTES_MAX)),
    "many headers": (400, create(A, *(f"{n}:" for n in range(limits.HTTP_HEADERS_COUNT_MAX)))),
    "a large body": (201, create(b" " * limits.HTTP_EXPRESS_BODY_BYTES_MAX + A)),
    "an empty body": (400, create(b"")),
    "no length": (400, f"POST {JOBS} HTTP/1.1\r\nHost: test\r\n\r\n".encode()),
    "another method": (200, GET),
    "one that is not taken": (405, create(A, first="DELETE {} HTTP/1.1")),
    "another path": (200, create(b"[%b]" % A, path=f"{JOBS}/batch")),
    "a path to nothing": (404, create(A, path="/v1/dbs/default/nope")),
    "no HTTP": (400, b"GARBAGE\r\n\r\n"),
}
CLOSED = {
    *("HTTP/1.0", "HTTP/9.9", "no HTTP", "to be closed", "no host", "a length twice"),
    *("a broken header", "a folded header", "bare line feeds", "a long header", "many headers"),
}


async def between(api: Api, taken: list[bytes], data: bytes, *, closed: bool) -> int:
    """The status of a request between two creates; of these only the first takes the short way."""
    first, last = job("first"), job("last")
    async with connected(api) as client:
        assert 201 == (await client.ask(create(first))).status
        assert client.short
        reply = await client.ask(data)
        if closed:
            assert b"" == await client.rest()
        else:
            assert not client.short
            assert "last" == (await client.ask(create(last))).json["id"]
    assert [first] == taken
    return reply.status


@pytest.mark.parametrize("name", DECLINED)
async def test_headers_about_the_connection(api: Api, taken: list[bytes], name: str) -> None:
    """A header that says how to read, or by whom it was sent, is for aiohttp to judge."""
    assert set(DECLINED) == _DECLINED | {"connection"}
    refused = name in ("sec-websocket-key1", "transfer-encoding")
    data = create(A, f"{name}: {DECLINED[name]}")
    closed = refused or name == "connection"
    assert (400 if refused else 201) == await between(api, taken, data, closed=closed)


async def test_connection_that_is_to_be_kept(api: Api, taken: list[bytes]) -> None:
    """Some clients ask for what is the rule in HTTP/1.1: they take the short way all the same."""
    async with connected(api) as client:
        for number in range(3):
            reply = await client.ask(create(job(str(number)), "Connection: Keep-Alive"))
            assert 201 == reply.status
            assert "connection" not in reply.headers
        assert client.short
    assert 3 == len(taken)


@pytest.mark.parametrize("case", UNUSUAL)
async def test_what_is_unusual(api: Api, taken: list[bytes], case: str) -> None:
    """It is right all the same, and so is what comes after it; all on aiohttp's way."""
    status, data = UNUSUAL[case]
    assert status == await between(api, taken, data, closed=case in CLOSED)


@pytest.mark.parametrize("case", UNUSUAL)
async def test_what_is_unusual_comes_first(api: Api, taken: list[bytes], case: str) -> None:
    """On a new connection it is no different."""
    status, data = UNUSUAL[case]
    async with connected(api) as client:
        assert status == (await client.ask(data)).status
    assert [] == taken


async def test_pieces(api: Api, taken: list[bytes]) -> None:
    """A create that does not come at once is put together, wherever it is cut."""
    data = create(job())
    head = data.index(b"\r\n\r\n") + 4
    for at in (1, 20, head - 3, head - 1, head, head + 1, len(data) - 1):
        async with connected(api) as client:
            assert 201 == (await client.ask(data)).status
            client.write(data[:at])
            await until(lambda: not client.short)
            assert 201 == (await client.ask(data[at:])).status
    assert 7 == len(taken)
    assert 14 == len(await jobs(api))


# --- several at once -------------------------------------------------------------------------


async def test_pipelined(api: Api) -> None:
    """Creates that are written at once are answered in their order, each of them once."""
    ids = [f"{number:02}" for number in range(80)]
    async with connected(api) as client:
        client.write(b"".join(create(job(job_id)) for job_id in ids))
        assert ids == [(await client.read()).json["id"] for _ in ids]
        assert "last" == (await client.ask(create(job("last")))).json["id"]
    assert [*ids, "last"] == await jobs(api)


async def test_one_more_while_busy(api: Api, taken: list[bytes]) -> None:
    """A create that comes before the last answer waits for it, and takes the short way."""
    async with busy(api, job("a")) as client:
        client.write(create(job("b")))
        await until(lambda: client.connection._held)
        assert [job("a")] == taken
        api.disk.release()
        assert ["a", "b"] == [(await client.read()).json["id"] for _ in range(2)]
        assert "c" == (await client.ask(create(job("c")))).json["id"]
        assert client.short
    assert [job("a"), job("b"), job("c")] == taken


async def test_several_more_while_busy(api: Api, taken: list[bytes]) -> None:
    """What comes while one is under way, in pieces and of any kind, is answered in its order."""
    more = create(job("b")) + GET + create(job("c"), "Connection: close")
    async with busy(api, job("a")) as client:
        for at in range(0, len(more), 50):
            client.write(more[at : at + 50])
            await until(lambda: len(client.connection._held) >= at)  # noqa: B023 - within the loop
        await until(lambda: more == client.connection._held)
        api.disk.release()
        replies = [await client.read() for _ in range(4)]
        assert [201, 201, 200, 201] == [reply.status for reply in replies]
        assert b"" == await client.rest()
    assert [job("a")] == taken
    assert ["a", "b", "c"] == await jobs(api)


async def test_read_ahead_is_bounded(api: Api) -> None:
    """Beyond a bound nothing is read until the answer is out; then everything is answered."""
    ids = [f"{number:03}" for number in range(200)]
    async with busy(api, job("a")) as client:
        client.write(b"".join(create(job(job_id, meta="x" * 10_000)) for job_id in ids))
        connection, transport = client.connection, client.connection.transport
        assert transport is not None
        await until(lambda: not transport.is_reading())
        held = len(connection._held)
        assert 0 < held - limits.HTTP_EXPRESS_HELD_BYTES_MAX <= ONE_READ_BYTES_MAX
        assert 200 == (await api.ask("GET", "/healthz")).status
        assert held == len(connection._held)
        api.disk.release()
        assert "a" == (await client.read()).json["id"]
        assert ids == [(await client.read()).json["id"] for _ in ids]
        assert transport.is_reading()
    assert [*ids, "a"] == await jobs(api)


async def test_client_that_does_not_read(api: Api) -> None:
    """Answers that nobody fetches hold up their connection, and do not fill the node's memory."""
    requests = [create(job(f"{number:03}", meta="x" * 8000)) for number in range(200)]
    created = api.server._requests
    before = created[201]
    async with connected(api, receive_bytes=4096) as client:
        size = len((await client.ask(requests[0])).body)
        connection, transport = client.connection, client.connection.transport
        assert transport is not None
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        asked = 1
        while not connection.writing_paused:
            client.write(requests[asked])
            asked += 1
            await until(lambda: before + asked == created[201])  # noqa: B023 - within the loop
        assert client.short
        assert asked < 100
        # One more waits at aiohttp's way out, and the others behind it.
        client.write(requests[asked])
        await until(lambda: before + asked + 1 == created[201])
        assert not client.short
        client.write(b"".join(requests[asked + 1 :]))
        await until(lambda: not transport.is_reading())
        assert before + asked + 1 == created[201]
        assert transport.get_write_buffer_size() < 64 * 1024 + 3 * size
        replies = [await client.read() for _ in requests[1:]]
        assert [f"{number:03}" for number in range(1, 200)] == [r.json["id"] for r in replies]
    assert 200 == len(await jobs(api))


# --- clients that leave, nodes that stop -----------------------------------------------------


async def test_client_leaves(api: Api) -> None:
    """What is under way goes on without its client; what waits behind it is not begun."""
    async with busy(api, job("a")) as client:
        client.write(create(job("b")))
        await until(lambda: client.connection._held)
        client.writer.transport.abort()
        await until(lambda: [] == node_side(api).connections)
        assert 1 == api.server._open
        api.disk.release()
    assert ["a"] == await jobs(api)
    assert 0 == api.server._open


async def test_waiting_for_the_disk_is_not_idle(api: Api) -> None:
    """A connection is closed for being idle, and not while it waits for an answer."""
    async with busy(api, job("a")) as client:
        connection = client.connection
        connection._next_keepalive_close_time = 0.0
        connection._process_keepalive()
        api.disk.release()
        assert 201 == (await client.read()).status
        connection._process_keepalive()
        assert 201 == (await client.ask(create(job("b")))).status
        connection._next_keepalive_close_time = 0.0
        connection._process_keepalive()
        assert b"" == await client.rest()


async def test_node_stops(api: Api, taken: list[bytes]) -> None:
    """What is under way is answered, on a connection that is closed then; what waits is not."""
    async with busy(api, job("a")) as client:
        client.write(create(job("b")))
        await until(lambda: client.connection._held)
        api.server.stop_accepting()
        api.disk.release()
        reply = await client.read()
        assert (201, "close") == (reply.status, reply.headers["connection"])
        assert b"" == await client.rest()
    assert 0 == api.server._open
    assert [job("a")] == taken


async def test_node_stops_between_two(api: Api, taken: list[bytes]) -> None:
    """A connection is closed then too, and what waits is not begun."""
    async with busy(api, job("a")) as client:
        client.write(create(job("b")))
        await until(lambda: client.connection._held)
        api.disk.release()
        # The first has its answer now, and the second comes with the next turn of the loop.
        assert 0 == api.server._open
        api.server.stop_accepting()
        reply = await client.read()
        assert (201, False) == (reply.status, "connection" in reply.headers)
        assert b"" == await client.rest()
    assert [job("a")] == taken


async def test_node_stops_at_once(api: Api) -> None:
    """`stop` without anything before it waits for the answer, too."""
    async with busy(api, job("a")) as client:
        connection = client.connection
        stopping = asyncio.ensure_future(api.server.stop())
        await until(lambda: connection._idle is not None)
        api.disk.release()
        reply = await client.read()
        assert (201, "close") == (reply.status, reply.headers["connection"])
        assert b"" == await client.rest()
        await stopping
    assert [] == node_side(api).connections


async def test_node_stops_waiting(api: Api) -> None:
    """When time is up the connection is closed without an answer; the write goes on."""
    async with busy(api, job("a")) as client:
        await client.connection.shutdown(0.0)
        assert b"" == await client.rest()
        api.disk.release()
    assert ["a"] == await jobs(api)
    assert 0 == api.server._open


async def test_idle_connections_are_closed(api: Api) -> None:
    """A node that stops closes what is idle, and leaves nobody asking who is not heard."""
    async with connected(api) as short, connected(api) as long, connected(api) as silent:
        assert 201 == (await short.ask(create(job()))).status
        assert 200 == (await long.ask(GET)).status
        await until(lambda: 3 == len(node_side(api).connections))
        api.server.stop_accepting()
        assert [b""] * 3 == [await client.rest() for client in (short, long, silent)]


# --- overload and bugs -----------------------------------------------------------------------


async def test_too_many_open_requests(api: Api) -> None:
    """Beyond the bound creates are 503 at once, and may be tried again on their connection."""
    server = ApiServer(api.engine, api.check, requests_max=1)
    api.server, one = server, api.server
    api.host, api.port = await server.start("127.0.0.1", 0)
    async with busy(api, job("a")) as client, connected(api) as other:
        reply = await other.ask(create(job("b")))
        assert (503, "unavailable") == (reply.status, reply.code)
        assert int(reply.headers["retry-after"]) > 0
        api.disk.release()
        assert 201 == (await client.read()).status
        assert 201 == (await other.ask(create(job("b")))).status
        assert other.short
    await server.stop()
    api.server = one


async def test_full_engine(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that is full is 429 with Retry-After."""

    def full(*arguments: Any) -> None:
        arguments[3](TooManyRequests(retry_after_s=3))

    async with connected(api) as client:
        with monkeypatch.context() as patch:
            patch.setattr(api.engine, "propose_job", full)
            reply = await client.ask(create(job("a")))
        told = (reply.status, reply.code, reply.headers["retry-after"])
        assert (429, "too_many_requests", "3") == told
        assert 201 == (await client.ask(create(job("a")))).status
        assert client.short


def fail(*_: object, **__: object) -> None:
    """A bug."""
    raise RuntimeError("a secret of the machine")


@pytest.mark.parametrize("place", ["build_put", "propose_job", "view"])
async def test_bug_is_500_without_details(
    api: Api, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """What nobody foresaw, before the log, in it or after it, is 500, and the connection lives."""
    where = api.engine if place == "propose_job" else api.server._dispatch.jobs
    async with connected(api) as client:
        with monkeypatch.context() as patch:
            patch.setattr(where, place, fail)
            reply = await client.ask(create(job("a"), "X-Request-Id: r-1"))
        assert (500, "internal", "r-1") == (
            reply.status,
            reply.code,
            reply.headers["x-request-id"],
        )
        assert b"secret" not in reply.body
        assert 0 == api.server._open
        assert 201 == (await client.ask(create(job("b")))).status
        assert client.short


async def test_bug_after_the_log_took_it(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A create that fails when the log has it already is answered once, though it goes on."""
    propose = api.engine.propose_job

    def propose_and_fail(*arguments: Any) -> None:
        propose(*arguments)
        fail()

    async with connected(api) as client:
        with monkeypatch.context() as patch:
            patch.setattr(api.engine, "propose_job", propose_and_fail)
            assert 500 == (await client.ask(create(job("a")))).status
        assert "b" == (await client.ask(create(job("b")))).json["id"]
        assert "c" == (await client.ask(create(job("c")))).json["id"]
    assert ["a", "b", "c"] == await jobs(api)
    assert 0 == api.server._open


# --- heads -----------------------------------------------------------------------------------


async def test_heads_are_remembered_within_a_bound(api: Api) -> None:
    """A head that comes again is not read again; a client that varies it fills no memory."""
    reader = HeadReader(api.server._dispatch)
    head = reader.read(create(A))
    assert head is not None
    assert head is reader.read(create(job("b")))
    assert create(A)[head.size :] == A
    for number in range(2 * _HEADS_KEPT_MAX + 10):
        assert reader.read(create(A, f"X-Request-Id: {number}")) is not None
        assert len(reader._heads) <= _HEADS_KEPT_MAX


async def test_what_is_declined_is_not_remembered(api: Api) -> None:
    """Only heads that are taken are kept."""
    reader = HeadReader(api.server._dispatch)
    for _, data in UNUSUAL.values():
        assert reader.read(data) is None
    assert {} == reader._heads


async def test_bounds_of_a_create(api: Api) -> None:
    """Heads and bodies are taken up to their bounds."""
    reader = HeadReader(api.server._dispatch)
    for over in (0, 1):
        body = b" " * (limits.HTTP_EXPRESS_BODY_BYTES_MAX + over)
        left = _HEAD_BYTES_MAX + over - len(create(b"x", "X: "))
        head = create(b"x", "X: " + "x" * (left + 1))
        assert [bool(over)] * 2 == [reader.read(data) is None for data in (create(body), head)]


# --- properties ------------------------------------------------------------------------------

VALID = [
    *(data for requests in SAME.values() for data in requests),
    *(data for case, (_, data) in UNUSUAL.items() if case not in CLOSED),
]


@given(data=st.data())
async def test_any_pieces(data: st.DataObject) -> None:
    """However requests are cut, and whether or not the disk is slow, they are answered alike."""
    requests = data.draw(st.lists(st.sampled_from(VALID), min_size=1, max_size=6))
    whole = b"".join(requests)
    ends = list(itertools.accumulate(len(one) for one in requests))
    cut = st.sampled_from(ends) | st.integers(0, len(whole))
    cuts = sorted({0, *data.draw(st.lists(cut, max_size=12)), len(whole)})
    held = data.draw(st.booleans())
    async with started() as api, connected(api) as client:
        if held:
            api.disk.hold()
        for begin, end in itertools.pairwise(cuts):
            client.write(whole[begin:end])
            # Let the node see the piece alone, if it will.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        api.disk.release()
        statuses = [(await client.read()).status for _ in requests]
    one_by_one, _ = await answers(requests)
    assert [reply.status for reply in one_by_one] == statuses


PLACES = [
    *[JOBS] * 6,
    *(JOBS.replace("carts", name) for name in ("c%61rts", "?", "carts?x=", "#", "[", "c:d", "..")),
    f"{JOBS}?",
    f"{JOBS}#x",
    f"{JOBS}/",
]
ODD = (
    """
Host: other|Host:|X: \x01|X:|X|: x|X : x|X\t: x|X: \t|X: x\t |X: x\n|X: x\r| X|X\x7f: x|X: \x7f
X-Request-Id:r-1\t|Cookie: a=b|Upgrade: h2c|Connection: Upgrade|Connection: close|Date: x|Via: x
Sec-WebSocket-Key: x|Sec-WebSocket-Key1: x|If-None-Match: *|If-None-Match: "1"|Idempotency-Key:
Idempotency-Key: \t"k"\t|User-Agent: x|Content-Type: application/json|Content-Type:|Forwarded: x
Content-Location: x|Content-MD5: x|Content-Encoding:|HTTP2-Settings: x|Range: bytes=0-1|From: x
""".strip("\n")
    .replace("\n", "|")
    .split("|")
)


@given(
    st.sampled_from(PLACES),
    st.permutations(["Host: test", "Content-Type: application/json"]),
    st.lists(st.sampled_from(ODD), max_size=3),
    st.integers(-1, 3),
)
async def test_what_is_taken_is_read_alike(
    path: str, usual: list[str], odd: list[str], left_out: int
) -> None:
    """No head is taken that aiohttp would refuse, or read in another way."""
    lines = [*usual, *odd]
    del lines[left_out : left_out + 1]
    data = request(A, *lines, path=path)
    async with started() as api:
        head = HeadReader(api.server._dispatch).read(data)
    if head is not None:
        assert [A] == await compare([data])


# --- tokens ----------------------------------------------------------------------------------


async def test_tokens(tmp_path: Path) -> None:
    """The short way lets nobody in either, also not with a head that was good before."""
    file, token = tmp_path / "tokens", "t" * 20
    file.write_text(token)
    credentials = Credentials(str(file))
    async with started(credentials=credentials, token=token) as api:
        taken = counted(api)
        strangers = [(), ("Authorization: Bearer " + "u" * 20,), (f"Authorization: Basic {token}",)]
        known = (f"Authorization: Bearer {token}",)
        async with connected(api) as client:
            for lines in strangers:
                reply = await client.ask(create(A, *lines))
                assert (401, "unauthorized") == (reply.status, reply.code)
                assert reply.headers["www-authenticate"].startswith("Bearer ")
            assert 201 == (await client.ask(create(A, *known))).status
            assert 200 == (await client.ask(create(A, *known))).status
            file.write_text("u" * 20)
            credentials.reload()
            assert 401 == (await client.ask(create(A, *known))).status
            assert 200 == (await client.ask(create(A, *strangers[1]))).status
            assert client.short
        assert 7 == len(taken)
        api.token = "u" * 20
        assert ["a"] == await jobs(api)
        assert 0 == api.server._open
