"""A connection to another node, from the right address of this one, with TLS if there is."""

import asyncio
import socket
import ssl
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any, Final

from timemachine import limits

_FAREWELL_S: Final = 1.0
"""How long TLS waits for the other side's farewell."""


def source_address(host: str) -> str | None:
    """The address to dial from, for a node that listens at `host`; None leaves it to the system.

    Where a node listens at one address, others know it by that: firewalls too.
    """
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return None if address.is_unspecified else host


async def dial(
    loop: asyncio.AbstractEventLoop, host: str, port: int, source: str | None
) -> socket.socket:
    """A connected socket. Raises OSError, TimeoutError among them.

    Every address of a name is tried, each for RPC_DIAL_MS.
    """
    async with asyncio.timeout(limits.RPC_HELLO_MS / 1000):
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        failure = OSError(f"{host} has no address")
        for family, _, _, _, address in found:
            try:
                return await _connect(loop, family, address, source)
            except OSError as error:
                failure = error
        raise failure


async def attach(
    loop: asyncio.AbstractEventLoop,
    protocol: asyncio.Protocol,
    stream: socket.socket,
    host: str,
    context: ssl.SSLContext | None,
) -> None:
    """Give a connected socket to a protocol, after the TLS handshake if there is a context.

    Raises OSError or ValueError.
    """
    if context is None:
        await loop.create_connection(lambda: protocol, sock=stream)
        return
    await loop.create_connection(
        lambda: protocol,
        sock=stream,
        ssl=context,
        server_hostname=host,
        ssl_handshake_timeout=limits.RPC_HELLO_MS / 1000,
        ssl_shutdown_timeout=_FAREWELL_S,
    )


def sentence(error: Exception) -> str:
    """Why there is no connection, for people."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {error.verify_message}"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or "unknown"


async def _connect(
    loop: asyncio.AbstractEventLoop, family: int, address: Any, source: str | None
) -> socket.socket:
    stream = socket.socket(family, socket.SOCK_STREAM)
    try:
        stream.setblocking(False)
        for level, option, value in _options():
            stream.setsockopt(level, option, value)
        if source is not None and _fits(source, address[0]):
            stream.bind((source, 0))
        async with asyncio.timeout(limits.RPC_DIAL_MS / 1000):
            await loop.sock_connect(stream, address)
    except BaseException:
        stream.close()
        raise
    return stream


def _options() -> Iterator[tuple[int, int, int]]:
    yield socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
    # What another node has not acknowledged for so long is lost: the system's own patience is
    # many minutes, and grows with each repeat, so that a way that works again is not noticed.
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        yield socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limits.RPC_USER_TIMEOUT_MS
    # What the system holds back cannot be overtaken, so it is given little ahead of time.
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        yield socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, limits.RPC_WRITE_BUFFER_BYTES


def _fits(source: str, target: str) -> bool:
    """Whether what is sent from `source` can reach `target` at all."""
    here, there = ip_address(source), ip_address(target.partition("%")[0])
    return here.version == there.version and here.is_loopback == there.is_loopback
