"""HTTP/1.1 on one connection, one request at a time."""

import asyncio
from typing import Any, Final, NamedTuple, Protocol

import httptools

from node.sender.failures import Failure, of_losing
from timemachine import limits

KEPT_HEADERS: Final = {
    name.encode(): name
    for name in ("content-type", "date", "location", "retry-after", "server", "webhook-delivery")
}
"""The headers of a response that are kept with its attempt, by their lower-case names."""
_FRAMING_HEADERS: Final = frozenset({b"content-length", b"transfer-encoding"})
_VERSION: Final = b"HTTP/1."

# Six of them, at up to two bytes a character, still leave room in an attempt record.
_HEADER_CHARACTERS_MAX: Final = 1024
# Of all interim responses and the final one's head together.
_HEAD_BYTES_MAX: Final = limits.SENDER_HEAD_BYTES_MAX
# Chunk extensions and trailers are read and forgotten, but not without end.
_RESPONSE_BYTES_MAX: Final = limits.SENDER_RESPONSE_BYTES_MAX
_BODY_BYTES_MAX: Final = limits.ATTEMPT_BODY_BYTES_MAX

# A recipient mostly says the same, within a second of its clock byte for byte. What it means is
# remembered, for parsing it costs three times as much as looking it up.
_KNOWN_BYTES_MAX: Final = 1024
_KNOWN_MAX: Final = 256

_BROKEN: Final = (httptools.HttpParserError, httptools.HttpParserUpgrade)


class _Known(NamedTuple):
    """A complete response that leaves its connection good for more, and the parser as it was."""

    status: int
    headers: dict[str, str]
    body: bytes


_known: dict[bytes, _Known] = {}


class Exchange(Protocol):
    """What waits for the response."""

    def answered(self, connection: "Connection") -> None:
        """The response is in the connection's fields: complete, cut, or broken off."""

    def failed(self, failure: Failure) -> None:
        """There is no response."""

    def displaced(self) -> None:
        """The connection turned out to be useless before any byte of the request left."""


class Owner(Protocol):
    """What a connection belongs to."""

    def lost(self, connection: "Connection") -> None:
        """An adopted connection is gone, and its descriptor with it. Called once."""


class Connection(asyncio.Protocol):
    """A connection to one recipient; it calls its Exchange once for each request.

    Between two requests it must be silent: whatever arrives without having been asked for, an end
    of file included, makes it useless. `reusable` tells whether it may carry another request.
    It is nobody's until `adopt`. There is no `remote_ip` where a proxy made the connection.
    """

    __slots__ = (
        "_complete",
        "_descriptor",
        "_exchange",
        "_framed",
        "_loop",
        "_owner",
        "_parser",
        "_received_bytes",
        "_served",
        "_transport",
        "_unsent",
        "body",
        "first_byte_s",
        "head_complete",
        "headers",
        "idle_since_s",
        "loss",
        "made_s",
        "place",
        "policy_number",
        "remote_ip",
        "reusable",
        "status",
        "truncated",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, remote_ip: str | None) -> None:
        self._loop = loop
        self._owner: Owner | None = None
        self._transport: Any = None
        self._parser: Any = httptools.HttpResponseParser(self)
        self._exchange: Exchange | None = None
        self._unsent: bytes | None = None
        self._served = False
        self._descriptor = -1
        self.place: Any = None
        self.remote_ip = remote_ip
        self.made_s = self.idle_since_s = loop.time()
        self.policy_number = 0
        self.reusable = False
        self.loss: Failure | None = None
        self._reset()

    def _reset(self) -> None:
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.body: bytes | bytearray = b""
        self.truncated = False
        self.head_complete = False
        self.first_byte_s = 0.0
        self._complete = False
        self._framed = False
        self._received_bytes = 0

    # --- what the pool asks ----------------------------------------------------------------

    def adopt(self, owner: Owner, place: Any) -> None:
        """Belong to `owner`, who keeps it under `place`."""
        self._owner = owner
        self.place = place

    @property
    def usable(self) -> bool:
        """Whether a request may be started on it."""
        return self.reusable and not self._transport.is_closing()

    def rest(self, now_s: float) -> None:
        """Be idle from now on, and forget the last response."""
        self.idle_since_s = now_s
        self._served = True
        self._reset()

    def start(self, exchange: Exchange, data: bytes) -> None:
        """Carry one request, head and body in one write: the one that `send` makes."""
        assert self._exchange is None
        assert not self._received_bytes
        self._exchange = exchange
        self.reusable = False
        self._unsent = data

    def send(self) -> None:
        """Write the request that was started, unless it has ended meanwhile."""
        data, transport = self._unsent, self._transport
        if data is not None and transport is not None and not transport.is_closing():
            self._unsent = None
            transport.write(data)

    @property
    def unsent(self) -> bool:
        """Whether no byte of the request has been given to the transport."""
        return self._unsent is not None

    @property
    def descriptor(self) -> int | None:
        """The number of its file, as long as it is open and has been idle before."""
        if self._transport is None or self._transport.is_closing() or not self._served:
            return None
        return self._descriptor

    def displace(self) -> None:
        """Close at once; the request that was started and not sent finds another connection."""
        exchange, self._exchange, self._unsent = self._exchange, None, None
        assert exchange is not None
        self.cut()
        exchange.displaced()

    def stop(self, code: str) -> None:
        """End the request now, with `timeout` or `shutdown`, unless the response has begun."""
        if self._exchange is None:
            return
        if self.head_complete:
            self.truncated = True
            self.cut()
            self._answered()
            return
        phase = "headers"
        if self.unsent or (self._transport is not None and self._transport.get_write_buffer_size()):
            phase = "send"
        self._fail(Failure(code, phase, remote_ip=self.remote_ip))

    def cut(self) -> None:
        """Close at once, whatever is in the buffers."""
        self.reusable = False
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Close an idle connection in order: over TLS, with its farewell."""
        self.reusable = False
        if self._transport is not None:
            self._transport.close()

    # --- from the transport ----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = transport
        self._descriptor = transport.get_extra_info("socket").fileno()
        self.reusable = True

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._exchange is None:
            # Nobody asked. It must not become the answer to a later request.
            self.cut()
            return
        if self._unsent is not None:
            # Nor to one that nobody has been asked yet.
            if self._served:
                self.displace()
            else:
                self._fail_protocol()
            return
        received_bytes = self._received_bytes
        if not received_bytes:
            self.first_byte_s = self._loop.time()
            known = _known.get(data)
            if known is not None:
                self._take_known(known)
                return
            if not data.startswith(_VERSION) and not _VERSION.startswith(data):
                self._fail_protocol()
                return
        self._received_bytes = received_bytes + len(data)
        try:
            if not self.head_complete and self._received_bytes > _HEAD_BYTES_MAX:
                room = _HEAD_BYTES_MAX - received_bytes
                self._parser.feed_data(data[:room])
                if not self.head_complete:
                    self._fail_protocol()
                    return
                data = data[room:]
            self._parser.feed_data(data)
        except _BROKEN:
            self.cut()
            if not self.head_complete:
                self._fail_protocol()
                return
            # What came after a complete response is none of it.
            self.truncated = self.truncated or not self._complete
            self._answered()
            return
        if self._complete:
            if not received_bytes and self.reusable and len(data) <= _KNOWN_BYTES_MAX:
                self._make_known(data)
            self._answered_in_full()
        elif self.truncated or self._received_bytes > _RESPONSE_BYTES_MAX:
            self.truncated = True
            self.cut()
            self._answered()

    def _take_known(self, known: _Known) -> None:
        self.status = known.status
        self.headers = known.headers.copy()
        self.body = known.body
        self.head_complete = self._complete = self.reusable = True
        self._answered_in_full()

    def _make_known(self, data: bytes) -> None:
        """All of `data` is the response to one request, and the parser is at its beginning."""
        if self.truncated:
            return
        assert self.status is not None
        if len(_known) >= _KNOWN_MAX:
            _known.clear()
        _known[data] = _Known(self.status, self.headers.copy(), bytes(self.body))

    def _answered_in_full(self) -> None:
        if self._transport.get_write_buffer_size():
            # Answered before the request was taken: the rest of it would come as the next.
            self.cut()
        self._answered()

    def eof_received(self) -> None:
        """See asyncio.Protocol: the transport closes itself."""

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self.reusable = False
        self._transport = None
        self.loss = of_losing(exc, self.remote_ip)
        if self._exchange is not None:
            if self.unsent and self._served:
                self.displace()
            elif self.head_complete:
                # A body without a length ends with its connection.
                self.truncated = self._framed
                self._answered()
            else:
                self._fail(self.loss)
        # It holds this object's methods: without it, both are freed at once.
        self._parser = None
        if self._owner is not None:
            self._owner.lost(self)

    def _answered(self) -> None:
        exchange, self._exchange = self._exchange, None
        assert exchange is not None
        exchange.answered(self)

    def _fail_protocol(self) -> None:
        self._fail(Failure("protocol_error", "headers", remote_ip=self.remote_ip))

    def _fail(self, failure: Failure) -> None:
        exchange, self._exchange = self._exchange, None
        assert exchange is not None
        self.cut()
        exchange.failed(failure)
        self._unsent = None

    # --- from the parser -------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """See httptools."""
        if self._complete:
            # A second response, or the beginning of one.
            self.reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools. The first of each name counts; trailers do not."""
        if self.head_complete:
            return
        name = name.lower()
        kept = KEPT_HEADERS.get(name)
        if kept is not None:
            if kept not in self.headers:
                self.headers[kept] = value.decode("latin-1")[:_HEADER_CHARACTERS_MAX]
        elif name in _FRAMING_HEADERS:
            self._framed = True

    def on_headers_complete(self) -> None:
        """See httptools."""
        if self.head_complete:
            return
        status = self._parser.get_status_code()
        if status < 200:
            # Interim, the final one is still to come. But nobody asked for another protocol.
            if status < 100 or status == 101:
                raise ValueError(status)
            self.headers = {}
            self._framed = False
            return
        self.status = status
        self.head_complete = True

    def on_body(self, data: bytes) -> None:
        """See httptools."""
        if self._complete or self.truncated:
            return
        room = _BODY_BYTES_MAX - len(self.body)
        if len(data) > room:
            self.truncated = True
            data = data[:room]
        if not self.body:
            self.body = data
        else:
            # Many small chunks would make adding bytes to bytes slow.
            if isinstance(self.body, bytes):
                self.body = bytearray(self.body)
            self.body += data

    def on_message_complete(self) -> None:
        """See httptools."""
        if not self.head_complete or self._complete:
            return
        self._complete = True
        self.reusable = self._parser.should_keep_alive()
