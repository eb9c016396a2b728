"""HTTPS: everything as over TCP, and whoever does not finish a handshake is bounded.

Production runs on uvloop, so every test here runs on both loops (conftest).
"""

import asyncio
import socket
import ssl
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from node.api import handshake
from node.api.certificate import Certificate
from node.api.handshake import Handshakes
from node.api.server import ApiServer
from tests.unit.node.api.harness import FAR_MS, JOBS, Api, parse, started
from tests.unit.node.api.test_express import counted, create, job, node_side, until
from timemachine import limits

AUTHORITY = trustme.CA()
GET = b"GET /v1/dbs HTTP/1.1\r\nHost: test\r\n\r\n"


def issue(folder: Path, authority: trustme.CA = AUTHORITY) -> tuple[str, str]:
    """A chain and a key for loopback, in files."""
    issued = authority.issue_cert("127.0.0.1")
    chain, key = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    return str(chain), str(key)


def trusting(authority: trustme.CA = AUTHORITY) -> ssl.SSLContext:
    """What a client trusts."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    """What the API serves with."""
    return Certificate(*issue(tmp_path))


@pytest.fixture
async def api(certificate: Certificate) -> AsyncIterator[Api]:
    """An API that speaks HTTPS."""
    async with started(tls=certificate.context, trust=trusting()) as made:
        yield made


def shaking(server: ApiServer) -> Handshakes:
    """The handshakes under way."""
    assert server._handshakes is not None
    return server._handshakes


@asynccontextmanager
async def silent(api: Api, number: int) -> AsyncIterator[list[socket.socket]]:
    """Connections that begin no handshake, accepted and counted."""
    held = []
    try:
        for _ in range(number):
            held.append(socket.create_connection((api.host, api.port)))
            await until(lambda: len(shaking(api.server)) >= len(held))
        yield held
    finally:
        for each in held:
            each.close()


async def test_both_ways(api: Api) -> None:
    """Creates take the short way, other requests the long one, on a connection that stays."""
    taken = counted(api)
    reader, writer = await asyncio.open_connection(api.host, api.port, ssl=api.trust)
    for number in range(5):
        writer.write(create(job(f"j{number}")))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 201 ")
        await reader.readexactly(int(parse(head).headers["content-length"]))
    # Several at once, and something else behind them.
    writer.write(create(job("x")) + create(job("y")) + GET)
    for status in (b"201", b"201", b"200"):
        head = await reader.readuntil(b"\r\n\r\n")
        assert status == head.split()[1]
        await reader.readexactly(int(parse(head).headers["content-length"]))
    assert len(taken) >= 5
    writer.close()
    await writer.wait_closed()
    ids = [item["id"] for item in (await api.ask("GET", JOBS)).json["items"]]
    assert ["j0", "j1", "j2", "j3", "j4", "x", "y"] == sorted(ids)


async def test_large_bodies_and_answers(api: Api) -> None:
    """What does not fit one record of TLS, nor one read of the loop, goes both ways."""
    meta = "x" * (limits.META_BYTES_MAX - 2)
    items = [
        {"id": f"j{n}", "trigger_time": FAR_MS, "route": "hello", "meta": meta} for n in range(20)
    ]
    assert 20 == (await api.ask("POST", f"{JOBS}/batch", items)).json["created"]
    listed = (await api.ask("GET", JOBS)).json["items"]
    assert [meta] * 20 == [item["meta"] for item in listed]


async def test_clients_that_do_not_read(api: Api) -> None:
    """Their answers hold up their connection, and do not fill the node's memory."""
    meta = "x" * (limits.META_BYTES_MAX - 2)
    for n in range(8):
        await api.ask("PUT", f"{JOBS}/j{n}", {"delay_ms": 10**9, "route": "hello", "meta": meta})
    lists = b"GET %b HTTP/1.1\r\nHost: test\r\n\r\n" % JOBS.encode()
    reader, writer = await asyncio.open_connection(api.host, api.port, ssl=api.trust)
    writer.write(GET)
    await reader.readuntil(b"}]")
    (connection,) = [c for c in node_side(api)._connections if c.transport is not None]
    transport = connection.transport
    assert transport is not None
    await until(lambda: transport.get_write_buffer_limits() == (16 * 1024, 64 * 1024))
    writer.write(lists * 30)
    await until(lambda: connection.writing_paused)
    assert transport.get_write_buffer_size() < 4 * len(meta) * 8
    writer.transport.abort()
    await until(lambda: 0 == len(node_side(api)._connections))


async def test_a_request_with_the_handshake(api: Api) -> None:
    """What a client sends together with the end of its handshake is not lost."""
    loop = asyncio.get_running_loop()

    def talk() -> bytes:
        assert api.trust is not None
        here, there = ssl.MemoryBIO(), ssl.MemoryBIO()
        session = api.trust.wrap_bio(here, there, server_hostname="127.0.0.1")
        with socket.create_connection((api.host, api.port)) as raw:
            while True:
                try:
                    session.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    raw.sendall(there.read())
                    here.write(raw.recv(65_536))
            session.write(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            # One write: the last of the handshake, and the request.
            raw.sendall(there.read())
            answer = b""
            while b"}]" not in answer:
                here.write(raw.recv(65_536))
                try:
                    answer += session.read(65_536)
                except ssl.SSLWantReadError:
                    continue
            return answer

    for _ in range(20):
        assert (await loop.run_in_executor(None, talk)).startswith(b"HTTP/1.1 200 ")


async def test_only_tls(api: Api) -> None:
    """Plain HTTP, old TLS and strangers' authorities get nowhere; others are served after them."""
    _, writer = await asyncio.open_connection(api.host, api.port)
    writer.write(GET)
    await until(lambda: 0 == len(shaking(api.server)))
    writer.close()
    for context in (_old(), trusting(trustme.CA())):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection(api.host, api.port, ssl=context)
    await until(lambda: 0 == len(shaking(api.server)))
    assert 200 == (await api.ask("GET", "/healthz")).status


def _old() -> ssl.SSLContext:
    context = trusting()
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


async def test_handshakes_are_counted(certificate: Certificate) -> None:
    """Who begins and does not end one takes a place; a connection too many is closed at once."""
    async with (
        started(tls=certificate.context, trust=trusting(), connections_max=3) as api,
        silent(api, 3) as held,
    ):
        more = socket.create_connection((api.host, api.port))
        more.setblocking(False)
        try:
            loop = asyncio.get_running_loop()
            assert b"" == await _to_the_end(loop, more)
        finally:
            more.close()
        held.pop().close()
        await until(lambda: 2 == len(shaking(api.server)))
        assert 200 == (await api.ask("GET", "/healthz")).status


async def _to_the_end(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> bytes:
    try:
        return await loop.sock_recv(sock, 100)
    except ConnectionError:
        return b""


async def test_connections_are_counted(certificate: Certificate) -> None:
    """Connections and handshakes together are bounded as connections are over TCP."""
    async with started(tls=certificate.context, trust=trusting(), connections_max=2) as api:
        reader, writer = await asyncio.open_connection(api.host, api.port, ssl=api.trust)
        async with silent(api, 1):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asyncio.open_connection(api.host, api.port, ssl=api.trust)
        writer.write(GET)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        writer.close()
        await until(lambda: 0 == len(shaking(api.server)))


async def test_slow_handshakes_end(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who takes too long is sent away."""
    monkeypatch.setattr(limits, "HTTP_HANDSHAKE_S", 0.05)
    with socket.create_connection((api.host, api.port)) as silent_one:
        silent_one.setblocking(False)
        assert b"" == await _to_the_end(asyncio.get_running_loop(), silent_one)
    await until(lambda: 0 == len(shaking(api.server)))


async def test_no_descriptor_left(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has none, nobody is accepted for a while; then everything goes on."""
    monkeypatch.setattr(handshake, "_PAUSE_S", 0.01)
    accept, failures = socket.socket.accept, [OSError(24, "Too many open files")] * 3

    def fail(listener: socket.socket) -> object:
        if failures:
            raise failures.pop()
        return accept(listener)

    monkeypatch.setattr(socket.socket, "accept", fail)
    assert 200 == (await api.ask("GET", "/healthz")).status
    assert [] == failures


async def test_stopping(api: Api) -> None:
    """A stop does not wait for handshakes that nobody goes on with."""
    async with silent(api, 3):
        await api.server.stop()
        assert 0 == len(shaking(api.server))


async def test_reload(api: Api, certificate: Certificate, tmp_path: Path) -> None:
    """New connections get the new certificate; those that are open go on."""
    reader, writer = await asyncio.open_connection(api.host, api.port, ssl=api.trust)
    other = trustme.CA()
    issue(tmp_path, other)
    certificate.reload()
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.open_connection(api.host, api.port, ssl=api.trust)
    api.trust = trusting(other)
    assert 200 == (await api.ask("GET", "/healthz")).status
    writer.write(GET)
    assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    writer.close()
