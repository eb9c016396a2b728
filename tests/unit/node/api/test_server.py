"""The HTTP server: bounds, hostile clients, overload, request ids, the form of errors."""

import asyncio
import socket
import struct
from pathlib import Path

import pytest

from node.api.server import ApiServer, connections_allowed
from tests.unit.node.api.harness import FAR_MS, JOBS, Api, parse
from timemachine import limits
from timemachine.errors import StoreDamaged, TooManyRequests

SYSTEM_BACKLOG = int(Path("/proc/sys/net/core/somaxconn").read_text())
BODY = b'{"trigger_time":%d,"route":"hello"}' % FAR_MS


def post(body: bytes, *lines: str, length: int | None = None) -> bytes:
    """A POST of a job, byte for byte."""
    head = [
        f"POST {JOBS} HTTP/1.1",
        "Host: test",
        "Connection: close",
        f"Content-Length: {len(body) if length is None else length}",
        *lines,
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


async def test_request_id_is_given_or_made(api: Api) -> None:
    """X-Request-Id comes back, on errors too; one that could break logs is replaced."""
    for path in ("/healthz", "/nowhere"):
        reply = await api.ask("GET", path, headers={"X-Request-Id": "abc-1.2:3_"})
        assert "abc-1.2:3_" == reply.headers["x-request-id"]
        made = (await api.ask("GET", path)).headers["x-request-id"]
        assert made != (await api.ask("GET", path)).headers["x-request-id"]
    for bad in ("a b", "x" * 129, "ä"):
        reply = await api.ask("GET", "/healthz", headers={"X-Request-Id": bad})
        assert bad != reply.headers["x-request-id"]
    assert "TimeMachine" == reply.headers["server"]


async def test_methods(api: Api) -> None:
    """405 names what is allowed; HEAD is GET without a body."""
    reply = await api.ask("DELETE", "/v1/cluster")
    assert (405, "GET", "method_not_allowed") == (
        reply.status,
        reply.headers["allow"],
        reply.code,
    )
    assert 405 == (await api.ask("POST", f"{JOBS}/a", {})).status
    head = await api.ask("HEAD", "/v1/cluster")
    full = await api.ask("GET", "/v1/cluster")
    assert (200, b"", full.headers["content-length"]) == (
        head.status,
        head.body,
        head.headers["content-length"],
    )


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v2/dbs", "/v1/dbs/", "/v1//dbs", "/v1/dbs/default/nope", "//", "/*"]
)
async def test_unknown_addresses(api: Api, path: str) -> None:
    """What is not there is 404, in the one form of errors."""
    reply = await api.ask("GET", path)
    assert 404 == reply.status
    assert reply.code in ("not_found", "database_not_found")


async def test_absolute_form(api: Api) -> None:
    """A request as it is sent to proxies names the same resource."""
    reply = await api.ask("GET", "http://anywhere/v1/dbs/default?consistency=stale")
    assert (200, "default") == (reply.status, reply.json["name"])


async def test_content_types(api: Api) -> None:
    """Bodies are JSON; other types are 415, and so is what a page of another site can send."""
    good = ["application/json", "Application/JSON; charset=utf-8", "application/octet-stream"]
    for kind in good:
        reply = parse(await api.raw(post(BODY, f"Content-Type: {kind}")))
        assert 201 == reply.status
    assert 201 == parse(await api.raw(post(BODY))).status
    for kind in ("text/plain", "application/cbor", "application/xml", "multipart/form-data"):
        reply = parse(await api.raw(post(BODY, f"Content-Type: {kind}")))
        assert (415, "unsupported_media_type") == (reply.status, reply.code)
    origin = "Origin: http://evil.example"
    form = "Content-Type: application/x-www-form-urlencoded"
    assert 201 == parse(await api.raw(post(BODY, form))).status
    assert 415 == parse(await api.raw(post(BODY, form, origin))).status
    assert 415 == parse(await api.raw(post(BODY, origin))).status
    packed = parse(await api.raw(post(BODY, "Content-Encoding: gzip")))
    assert 415 == packed.status


async def test_large_bodies(api: Api) -> None:
    """A body beyond the limit is 413, told by its length or found while it comes."""
    over = limits.REQUEST_BODY_BYTES_MAX + 1
    reply = parse(await api.raw(post(b"", length=over)))
    assert (413, "too_large") == (reply.status, reply.code)
    assert str(limits.REQUEST_BODY_BYTES_MAX) in reply.json["detail"]
    fits = b" " * (limits.REQUEST_BODY_BYTES_MAX - len(BODY)) + BODY
    assert 201 == parse(await api.raw(post(fits))).status
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    head = f"POST {JOBS} HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    reader, writer = await asyncio.open_connection(api.host, api.port)
    writer.write(head + chunk * 17)
    answer = await reader.readuntil(b"\r\n\r\n")
    assert b"413" in answer.split(b"\r\n")[0]
    writer.close()
    assert 0 == api.server._body_bytes_open


async def test_body_in_pieces(api: Api) -> None:
    """A body may come after its head, in pieces, chunked, and after being asked for."""
    reader, writer = await asyncio.open_connection(api.host, api.port)
    request = post(BODY, "Expect: 100-continue")
    head, _, body = request.partition(b"\r\n\r\n")
    writer.write(head + b"\r\n\r\n")
    assert b"HTTP/1.1 100 Continue\r\n\r\n" == await reader.readuntil(b"\r\n\r\n")
    for byte in body:
        writer.write(bytes([byte]))
        await writer.drain()
    assert 201 == parse(await reader.read()).status
    writer.close()


async def test_slow_body_is_cut_off(api: Api) -> None:
    """Who does not send the body in time loses the connection."""
    server = ApiServer(api.engine, api.check, body_timeout_s=0.05)
    host, port = await server.start("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(post(BODY, length=len(BODY) + 1))
    try:
        received = await reader.read()
    except ConnectionError:
        received = b""
    assert b"" == received
    writer.close()
    await server.stop()


@pytest.mark.parametrize(
    "data",
    [
        b"GARBAGE\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nx: " + b"y" * 20_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 200 + b"\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
    ids=range(8),
)
async def test_what_is_no_http(api: Api, data: bytes) -> None:
    """It is 400 in the form of every other error, and nothing of the machine is told."""
    answer = await api.raw(data)
    assert b"400 Bad Request" in answer.split(b"\r\n")[0]
    assert "bad_http" == parse(answer).code
    assert b"Traceback" not in answer
    assert b"aiohttp" not in answer
    assert 200 == (await api.ask("GET", "/healthz")).status


async def test_client_that_leaves(api: Api) -> None:
    """A request that breaks off midway changes nothing and is no fault of ours."""
    _, writer = await asyncio.open_connection(api.host, api.port)
    writer.write(post(BODY, length=1000))
    await writer.drain()
    writer.transport.abort()
    assert 200 == (await api.ask("GET", "/healthz")).status
    assert [] == (await api.ask("GET", JOBS)).json["items"]


async def test_client_that_leaves_before_the_answer(api: Api) -> None:
    """The write goes on without its client."""
    api.disk.hold()
    _, writer = await asyncio.open_connection(api.host, api.port)
    writer.write(post(b'{"id":"a",' + BODY[1:]))
    await writer.drain()
    while not api.disk.held:
        await asyncio.sleep(0.001)
    writer.transport.abort()
    api.disk.release()
    assert 200 == (await api.ask("GET", f"{JOBS}/a")).status


async def test_bug_is_500_without_details(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody foresaw is 500 with a request id, and its trace stays in the log."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a secret of the machine")

    monkeypatch.setattr(api.engine.gathering, "ask", fail)
    reply = await api.ask("GET", JOBS.removesuffix("/jobs"))
    assert (500, "internal") == (reply.status, reply.code)
    assert b"secret" not in reply.body
    assert "x-request-id" in reply.headers


async def test_what_the_disk_cannot_give_may_be_asked_again(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged replica is rebuilt, and a node whose store failed ends: 503, not 500."""

    def fail(*_: object, **__: object) -> None:
        raise StoreDamaged("Rows cannot be read: a secret of the machine")

    monkeypatch.setattr(api.engine.gathering, "ask", fail)
    reply = await api.ask("GET", JOBS.removesuffix("/jobs"))
    assert (503, "unavailable") == (reply.status, reply.code)
    assert int(reply.headers["retry-after"]) > 0
    assert b"secret" not in reply.body


async def test_shed_load(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that is full is 429 with Retry-After."""

    def full(*arguments: object) -> None:
        done = arguments[3]
        assert callable(done)
        done(TooManyRequests(retry_after_s=3))

    monkeypatch.setattr(api.engine, "propose_job", full)
    reply = parse(await api.raw(post(BODY)))
    assert (429, "too_many_requests", "3") == (
        reply.status,
        reply.code,
        reply.headers["retry-after"],
    )


async def test_too_many_open_requests(api: Api) -> None:
    """Beyond the bound requests are 503 at once; health pages still answer."""
    server = ApiServer(api.engine, api.check, requests_max=1)
    api.host, api.port = await server.start("127.0.0.1", 0)
    api.disk.hold()
    waiting = asyncio.gather(api.raw(post(BODY)))
    while not api.disk.held:
        await asyncio.sleep(0.001)
    reply = parse(await api.raw(post(BODY)))
    assert (503, "unavailable") == (reply.status, reply.code)
    assert int(reply.headers["retry-after"]) > 0
    assert 200 == (await api.ask("GET", "/healthz")).status
    assert b"timemachine_http_requests_open" in (await api.ask("GET", "/metrics")).body
    api.disk.release()
    assert 201 == parse((await waiting)[0]).status
    await server.stop()


async def test_too_many_connections(api: Api) -> None:
    """A connection too many is told so and closed; the others go on."""
    server = ApiServer(api.engine, api.check, connections_max=1)
    api.host, api.port = await server.start("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(api.host, api.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.readuntil(b"}")
    refused = parse(await api.raw(b""))
    assert (503, "unavailable") == (refused.status, refused.code)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"ok" in await reader.readuntil(b"}")
    writer.close()
    await server.stop()


async def test_stopping(api: Api) -> None:
    """A node that stops finishes what is open, on connections that it then closes."""
    api.disk.hold()
    waiting = asyncio.gather(api.raw(post(BODY)))
    while not api.disk.held:
        await asyncio.sleep(0.001)
    api.server.stop_accepting()
    api.disk.release()
    reply = parse((await waiting)[0])
    assert (201, "close") == (reply.status, reply.headers["connection"])
    with pytest.raises(ConnectionError):
        await api.ask("GET", "/healthz")


def test_connections_leave_room_for_the_rest() -> None:
    """The API never takes all descriptors of the process."""
    assert limits.CONNECTIONS_MAX == connections_allowed(1_000_000)
    assert 10_000 - limits.DESCRIPTORS_RESERVED == connections_allowed(10_000)
    assert 256 == connections_allowed(1024)


async def test_many_clients_may_come_at_once(api: Api) -> None:
    """The system keeps thousands of them until it is their turn, whichever listener was last."""
    listening = [each for listener in api.server._listeners for each in listener.sockets]
    assert 8 == len(listening)
    # Of a listener, TCP_INFO tells its backlog where others have `tcpi_sacked` (linux/tcp.h).
    facts = [each.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32) for each in listening]
    assert {min(4_096, SYSTEM_BACKLOG)} == {struct.unpack("I", fact[28:32])[0] for fact in facts}
