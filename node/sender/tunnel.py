"""A tunnel through a proxy: CONNECT, and what the proxy's answer means.

What keeps the proxy from opening any tunnel is a fault of ours (`proxy_error`): jobs wait for its
end and lose no attempt by it. What it says about one recipient counts as if that had been found
out here: that it must not be reached (403), or could not be (502, 503), or not in time (504, or no
answer at all). A proxy cannot tell its own overload from a recipient's silence in any other way;
counted as ours, a dead recipient would be tried for ever.
"""

import asyncio
from typing import Any, Final

import httptools

from node.sender.connection import Connection
from node.sender.failures import (
    PROXY_REFUSED,
    PROXY_UNREACHED,
    PROXY_UNUSABLE,
    Failure,
)

_HEAD_BYTES_MAX: Final = 64 * 1024
_REFUSES: Final = frozenset({403, 451})
_UNREACHED: Final = frozenset({502, 503})
_TOO_LATE: Final = 504
# Smokescreen answers 407 to what it refuses, and says so in this header.
_REFUSES_HEADER: Final = b"x-smokescreen-error"


class Tunnel(asyncio.Protocol):
    """The connection to a proxy until the tunnel is open. `answered` is done, or fails."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.answered: asyncio.Future[None] = loop.create_future()
        self._transport: Any = None
        self._parser: Any = httptools.HttpResponseParser(self)
        self._received_bytes = 0
        self._refuses = False
        self._spoke = False

    @property
    def transport(self) -> Any:
        """What connects to the proxy."""
        return self._transport

    def check(self) -> None:
        """Raise Failure where the tunnel that was opened is of no use."""
        if self._spoke:
            raise Failure("protocol_error", "connect")
        if self._transport.is_closing():
            raise Failure("connection_reset", "connect")

    def hand_over(self, connection: Connection) -> None:
        """Let a connection have what comes from now on. Raises Failure where nothing will."""
        self.check()
        self._transport.set_protocol(connection)
        connection.connection_made(self._transport)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._received_bytes += len(data)
        if self.answered.done():
            self.on_body(data)
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # what a tunnel is, to the parser
        except httptools.HttpParserError:
            self._end(Failure("proxy_error", "connect", PROXY_UNUSABLE))
            return
        if self._received_bytes > _HEAD_BYTES_MAX:
            self._end(Failure("proxy_error", "connect", PROXY_UNUSABLE))

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._parser = None
        self._end(Failure("proxy_error", "connect", PROXY_UNUSABLE))

    def _end(self, failure: Failure | None) -> None:
        if self.answered.done():
            return
        if failure is None:
            self.answered.set_result(None)
        else:
            self.answered.set_exception(failure)
            # Whoever waits for it may have gone: nobody need hear of that.
            self.answered.exception()

    # --- from the parser -------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools."""
        self._refuses = self._refuses or name.lower() == _REFUSES_HEADER

    def on_headers_complete(self) -> None:
        """See httptools."""
        status = self._parser.get_status_code()
        if 100 <= status < 200 and status != 101:
            return
        self._end(_meaning(status, refuses=self._refuses))

    def on_body(self, data: bytes) -> None:
        """See httptools. The recipient speaks before it was asked: that is no HTTP."""
        self._spoke = True


def _meaning(status: int, *, refuses: bool) -> Failure | None:
    """What a proxy's answer to CONNECT means; None for a tunnel that is open."""
    if 200 <= status <= 299:
        return None
    if refuses or status in _REFUSES:
        return Failure("blocked_address", "connect", PROXY_REFUSED)
    if status in _UNREACHED:
        return Failure("network_error", "connect", PROXY_UNREACHED)
    if status == _TOO_LATE:
        return Failure("timeout", "connect")
    return Failure("proxy_error", "connect", PROXY_UNUSABLE)
