"""Connections of the API: aiohttp's, with the short way of single creates before it."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import structlog
from aiohttp import HttpVersion11, web
from aiohttp.http_exceptions import BadHttpMessage
from aiohttp.web_protocol import RequestHandler

from node.api.answers import internal_fault, refused, render
from node.api.conventions import Answer
from node.api.express import Head, HeadReader
from node.api.media import PROBLEM
from node.api.problems import refusal
from timemachine import limits
from timemachine.errors import TimeMachineError, Unavailable

log = structlog.get_logger()


class Vanished(ConnectionError):
    """The client is gone, or so slow that it is sent away: there is nobody to answer."""


class Reply(web.StreamResponse):
    """An answer that leaves as one buffer; aiohttp only asks it to `prepare` and `write_eof`."""

    def __init__(self, answer: Answer, request_id: str, date: str, *, close: bool) -> None:
        super().__init__(status=answer.status)
        self._answer = answer
        self._request_id = request_id
        self._date = date
        self._close = close

    async def prepare(self, request: web.BaseRequest) -> None:
        """Send it."""
        transport = request.transport
        if transport is None or transport.is_closing():
            raise Vanished
        connection = ""
        if self._close or not request.keep_alive:
            self.force_close()
            connection = "close"
        else:
            self._keep_alive = True
            if request.version < HttpVersion11:
                connection = "keep-alive"
        head = render(self._answer, self._request_id, self._date, connection)
        transport.write(head if request.method == "HEAD" else head + self._answer.body)
        # A client that does not read its answers must not fill our memory with them.
        if request.protocol.writing_paused:
            await request.protocol._drain_helper()

    async def write_eof(self, data: bytes = b"") -> None:
        """Everything was sent already."""


class Replying(Protocol):
    """Takes the bytes of an answer, once; `close` asks to close the connection after them."""

    def __call__(self, data: bytes, *, close: bool) -> None: ...  # noqa: D102


Express = Callable[[Head, bytes, Replying], None]
"""Gets one create that took the short way: its head, its body, and whom to answer. Never raises."""


class Connection(RequestHandler):
    """One connection. It takes the short way as long as everything that comes is fit for it.

    On the short way one request is under way at a time; what comes meanwhile is held.
    """

    __slots__ = ("_busy", "_express", "_held", "_idle", "_reader")

    def __init__(
        self, server: web.Server, reader: HeadReader, express: Express, **options: Any
    ) -> None:
        super().__init__(server, **options)
        self._reader: HeadReader | None = reader
        self._express = express
        self._busy = False
        self._held = b""
        self._idle: asyncio.Future[None] | None = None

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        reader = self._reader
        if reader is None:
            super().data_received(data)
        elif self._busy:
            self._held += data
            if len(self._held) > limits.HTTP_EXPRESS_HELD_BYTES_MAX and self.transport is not None:
                self.transport.pause_reading()
        elif not self._close and not self._force_close:
            head = None if self.writing_paused else reader.read(data)
            if head is None:
                # For good: aiohttp's parser must see every byte from here on.
                self._reader = None
                super().data_received(data)
                return
            self._busy = True
            self._express(head, data[head.size :], self._answered)

    def _answered(self, data: bytes, *, close: bool) -> None:
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        transport.write(data)
        if close or self._close:
            self.force_close()
        elif self._held:
            # Busy until then. Not from here: the answers of other connections come after this one.
            self._loop.call_soon(self._go_on)
        else:
            self._busy = False
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout

    def _go_on(self) -> None:
        held, self._held = self._held, b""
        self._busy = False
        transport = self.transport
        if self._close:
            self.force_close()
        elif transport is not None:
            if not transport.is_reading():
                transport.resume_reading()
            self.data_received(held)

    def _process_keepalive(self) -> None:
        if self._busy:
            # aiohttp takes it for idle; it waits for the disk.
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        super()._process_keepalive()

    def close(self) -> None:
        """End the connection after what is under way."""
        if self._busy:
            self._close = True
        elif self._waiter is not None and not self._waiter.done():
            # Idle. aiohttp would leave it open, and read no more of it.
            self.force_close()
        else:
            super().close()

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109 - as aiohttp has it
        """End the connection; what is under way has `timeout` seconds."""
        if self._busy:
            self._close = True
            self._idle = self._loop.create_future()
            await asyncio.wait([self._idle], timeout=timeout)
            # Or aiohttp would wait as long again for a request of its own.
            self.force_close()
        await super().shutdown(timeout)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Called by aiohttp for requests that it cannot read."""
        error: TimeMachineError
        if status < 500 and isinstance(exc, BadHttpMessage | None):
            error = refusal("bad_http")
        else:
            log.error("connection failed", error=repr(exc), status=status)
            error = internal_fault()
        answer = refused(error)
        response = web.Response(
            status=answer.status, body=answer.body, headers={"Content-Type": PROBLEM}
        )
        response.headers["Server"] = "TimeMachine"
        response.force_close()
        return response


class Full(asyncio.Protocol):
    """A connection too many: told so, and closed."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See Protocol."""
        answer = refused(Unavailable("The node has too many connections.", retry_after_s=5))
        assert isinstance(transport, asyncio.Transport)
        transport.write(
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: %b\r\nRetry-After: 5\r\n"
            b"Connection: close\r\nContent-Length: %d\r\n\r\n%b"
            % (PROBLEM.encode(), len(answer.body), answer.body)
        )
        transport.close()


class Server(web.Server):
    """Makes connections, up to a number."""

    def __init__(
        self,
        handler: Any,
        *,
        connections_max: int,
        reader: HeadReader,
        express: Express,
        **options: Any,
    ) -> None:
        super().__init__(handler, **options)
        self._connections_max = connections_max
        self._reader = reader
        self._express = express

    def __call__(self) -> Any:
        """A protocol for a new connection."""
        return Full() if self.full() else self.connect()

    def full(self, more: int = 0) -> bool:
        """Whether there are as many connections as there may be, with so many more."""
        return len(self._connections) + more >= self._connections_max

    def connect(self) -> Connection:
        """A protocol for a connection that is among those that may be."""
        return Connection(self, self._reader, self._express, loop=self._loop, **self._kwargs)
