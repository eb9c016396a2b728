"""HTTP/1.1 on one connection, one request at a time."""

import asyncio
from collections.abc import Callable

import httptools

from timemachine import limits

_KEPT_HEADERS = frozenset(
    {"content-type", "retry-after", "webhook-delivery", "server", "date", "location"}
)
_HEADER_BYTES_MAX = 64 * 1024
_HEADER_VALUE_CHARACTERS_MAX = 1024


class Connection(asyncio.Protocol):
    """A connection to one recipient.

    `ended(error_code, phase)` is called once for each request: with None when the response is
    complete, or complete enough (its head arrived with a 2xx, or the cap of its body is reached).
    `lost()` is called when an idle connection cannot be used any more.
    """

    __slots__ = (
        "_ended",
        "_header_bytes",
        "_lost",
        "_parser",
        "body",
        "busy",
        "bytes_sent",
        "first_byte_at_s",
        "head_complete",
        "headers",
        "idle_since_s",
        "loop",
        "remote_ip",
        "reusable",
        "status",
        "transport",
        "truncated",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, remote_ip: str) -> None:
        self.loop = loop
        self.remote_ip = remote_ip
        self.transport: asyncio.Transport | None = None
        self.busy = False
        self.reusable = True
        self.idle_since_s = 0.0
        self._lost: Callable[[Connection], None] | None = None
        self._ended: Callable[[str | None, str | None], None] | None = None
        self._reset()

    def _reset(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.truncated = False
        self.head_complete = False
        self.bytes_sent = False
        self.first_byte_at_s = 0.0
        self._header_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self.transport = transport  # type: ignore[assignment]

    def start(
        self,
        data: bytes,
        ended: Callable[[str | None, str | None], None],
        lost: Callable[["Connection"], None],
    ) -> None:
        """Send one request, head and body in one write."""
        assert self.transport is not None
        assert not self.busy
        self._reset()
        self.busy = True
        self._ended = ended
        self._lost = lost
        self.bytes_sent = True
        self.transport.write(data)

    def _end(self, error_code: str | None, phase: str | None) -> None:
        ended, self._ended = self._ended, None
        if ended is None:
            return
        self.busy = False
        ended(error_code, phase)

    def close(self) -> None:
        """Give the connection up at once."""
        self.reusable = False
        if self.transport is not None:
            self.transport.abort()

    # --- from the transport ----------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._ended is None:
            # Bytes that nobody asked for: whatever they are, they must not answer a later request.
            self.close()
            return
        if not self.first_byte_at_s:
            self.first_byte_at_s = self.loop.time()
        if not self.head_complete:
            self._header_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._broken("protocol_error")
            return
        if not self.head_complete and self._header_bytes > _HEADER_BYTES_MAX:
            self._broken("protocol_error")

    def _broken(self, error_code: str) -> None:
        """The response cannot be read on. A 2xx whose head has arrived stays a success."""
        self.close()
        if self._ended is None:
            return
        if self.head_complete and self.status is not None:
            self.truncated = True
            self._end(None, None)
        else:
            self.status = None
            self._end(error_code, "headers" if self.first_byte_at_s else "send")

    def eof_received(self) -> bool:
        """See asyncio.Protocol."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self.reusable = False
        if self._ended is not None:
            if self.head_complete:
                # A body without a length ends with its connection.
                self._end(None, None)
            else:
                self.status = None
                self._end("connection_reset", "headers")
        if self._lost is not None:
            self._lost(self)

    def timed_out(self) -> None:
        """The deadline of the request has come."""
        self.close()
        if self.head_complete and self.status is not None and 200 <= self.status <= 299:
            self.truncated = True
            self._end(None, None)
            return
        self.status = None
        self._end("timeout", "body" if self.head_complete else "headers")

    # --- from the parser -------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools."""
        lower = name.decode("latin-1").lower()
        if lower in _KEPT_HEADERS and lower not in self.headers:
            self.headers[lower] = value.decode("latin-1")[:_HEADER_VALUE_CHARACTERS_MAX]

    def on_headers_complete(self) -> None:
        """See httptools."""
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            self.headers = {}
            return
        self.status = status
        self.head_complete = True

    def on_body(self, data: bytes) -> None:
        """See httptools."""
        room = limits.ATTEMPT_BODY_BYTES_MAX - len(self.body)
        if len(data) > room:
            self.body += data[:room]
            self.truncated = True
            self.close()
            self._end(None, None)
        else:
            self.body += data

    def on_message_complete(self) -> None:
        """See httptools."""
        if not self.head_complete:
            # An interim response (1xx): the final one is still to come.
            return
        if not self._parser.should_keep_alive():
            self.close()
        self._end(None, None)
