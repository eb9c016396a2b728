"""The HTTP server: aiohttp's low-level server, with our own dispatch, bounds and answers.

One coroutine a request and nothing between: no application, no middleware. What a request costs
here is paid by every job that is created.
"""

import asyncio
import os
import re
import resource
import socket
import ssl
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Any

import structlog
from aiohttp import web

from node.api import msgpack, original
from node.api.answers import internal_fault, refused, render
from node.api.connection import Reply, Replying, Server, Vanished
from node.api.conventions import Answer, Call
from node.api.credentials import OPEN_PATHS, Credentials
from node.api.dispatch import BATCH, JOBS, Dispatch
from node.api.express import Head, HeadReader
from node.api.handshake import Handshakes
from node.api.media import MSGPACK, body_type
from node.api.operations import Operation
from node.api.queries import query_of
from node.api.relay import Relay
from node.api.route_store import CheckTarget
from node.api.turns import Turns
from node.engine import Engine
from timemachine import limits
from timemachine.errors import (
    NotLeader,
    Overloaded,
    TimeMachineError,
    TooLarge,
    TooManyRequests,
    Unavailable,
)

_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_EMPTY: dict[str, str] = {}
_LISTENERS = 8
_BACKLOG = 4_096
log = structlog.get_logger()


def connections_allowed(open_files_max: int) -> int:
    """How many connections the API may have, where a process may have so many files open."""
    left = open_files_max - limits.DESCRIPTORS_RESERVED
    return min(limits.CONNECTIONS_MAX, max(left, open_files_max // 4, 16))


class ApiServer:
    """Serves the developer API. `start` binds; `stop_accepting`, then `stop`, end it.

    With `credentials` every request needs a token; with `tls` it speaks HTTPS and nothing else.
    """

    def __init__(
        self,
        engine: Engine,
        check_target: CheckTarget,
        *,
        credentials: Credentials | None = None,
        tls: ssl.SSLContext | None = None,
        connections_max: int | None = None,
        requests_max: int = limits.HTTP_REQUESTS_OPEN_MAX,
        body_timeout_s: float = limits.HTTP_BODY_TIMEOUT_S,
    ) -> None:
        if connections_max is None:
            connections_max = connections_allowed(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        self._engine = engine
        self._dispatch = Dispatch(engine, check_target)
        self._relay = Relay(engine, self._dispatch, admit=self._admit, guarded=self._guarded)
        self._credentials = credentials
        self._tls = tls
        self._handshakes: Handshakes | None = None
        self._connections_max = connections_max
        self._requests_max = requests_max
        self._body_timeout_s = body_timeout_s
        self._server: Server | None = None
        self._listeners: list[asyncio.Server] = []
        self._open = 0
        self._body_bytes_open = 0
        self._stopping = False
        self._id_prefix = engine.random_bytes(6).hex()
        self._id_number = 0
        self._date_s = -1
        self._date = ""
        self._requests: dict[int, int] = {}
        statistics = engine.statistics
        engine.statistics = lambda: {  # type: ignore[method-assign]
            **statistics(),
            "http_requests": dict(self._requests),
            "http_requests_open": self._open,
            "http_connections": 0 if self._server is None else len(self._server.connections),
        }

    # --- life ------------------------------------------------------------------------------

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen; returns the address that was bound. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._turns = Turns(loop)
        self._server = Server(
            self._handle,
            connections_max=self._connections_max,
            reader=HeadReader(self._dispatch),
            express=self._express,
            request_factory=web.BaseRequest,
            keepalive_timeout=limits.HTTP_IDLE_S,
            lingering_time=limits.HTTP_LINGER_S,
            access_log=None,
            # A body is taken as it comes: a small one may hold gigabytes when it is unpacked.
            auto_decompress=False,
            max_line_size=limits.HTTP_LINE_BYTES_MAX,
            max_field_size=limits.HTTP_LINE_BYTES_MAX,
            max_headers=limits.HTTP_HEADERS_COUNT_MAX,
        )
        self._server.request_factory = _request_factory(loop)
        first = await loop.create_server(
            self._server,
            host,
            port,
            backlog=_BACKLOG,
            reuse_address=True,
            start_serving=self._tls is None,
        )
        self._listeners.append(first)
        bound = first.sockets[0].getsockname()
        if self._tls is not None:
            self._handshakes = Handshakes(self._tls, self._server.connect, self._server.full)
            for listening in first.sockets:
                self._handshakes.listen(listening.fileno(), _BACKLOG)
            return bound[0], bound[1]
        # The loop takes one connection a turn from each listener. While it is busy, thousands that
        # come at once would wait for seconds, a health check among them.
        for listening in first.sockets:
            for _ in range(_LISTENERS - 1):
                again = socket.socket(fileno=os.dup(listening.fileno()))
                self._listeners.append(
                    await loop.create_server(self._server, sock=again, backlog=_BACKLOG)
                )
        return bound[0], bound[1]

    def stop_accepting(self) -> None:
        """Refuse new requests from now on; open ones are finished."""
        self._stopping = True
        for listener in self._listeners:
            listener.close()
        if self._handshakes is not None:
            self._handshakes.stop_accepting()
        if self._server is not None:
            # Idle connections would otherwise only learn of it with their next request.
            self._server.pre_shutdown()

    async def stop(self) -> None:
        """Close everything; open requests have a second."""
        self.stop_accepting()
        if self._handshakes is not None:
            await self._handshakes.stop()
        if self._server is not None:
            await self._server.shutdown(1.0)

    # --- one request -----------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = request.headers
        request_id = self._request_id(headers)
        self._open += 1
        try:
            answer = await self._answer(request, headers, request_id)
        except TimeMachineError as error:
            answer = self._refused(error, request_id, request.path)
        except (ConnectionError, web.RequestPayloadError):
            raise Vanished from None
        except Exception:
            log.exception("request failed", request_id=request_id, path=request.path)
            answer = refused(internal_fault())
        finally:
            self._open -= 1
        if msgpack.wanted(headers):
            answer = await msgpack.packed(answer)
        close = self._count(answer)
        return Reply(answer, request_id, self._now_as_date(), close=close)

    def _express(self, head: Head, body: bytes, reply: Replying) -> None:
        """A create that took the short way."""
        self._open += 1
        self._turns.begin(_Create(self, head, body, reply).begin)

    def prepare_create(
        self, head: Head, body: bytes
    ) -> tuple[Callable[[Callable[[Any], None]], None], Callable[[Any], Answer]]:
        """See JobHandlers.prepare_post; wants credentials, and sheds load."""
        if self._credentials is not None:
            self._credentials.check(head.headers)
        if self._open > self._requests_max or self._stopping:
            self._shed()
        return self._dispatch.jobs.prepare_post(head.call(body))

    def look_again(self, error: TimeMachineError, again: Callable[[Any], None]) -> bool:
        """Call `again` when this node knows meta better, if that may be why it has refused."""
        behind = self._relay.behind(error)
        if behind:
            self._engine.router.read_meta(again)
        return behind

    def end_soon(self, end: Callable[[], None]) -> None:
        """Call `end`, which answers a create, when it is its turn."""
        self._turns.end(end)

    def answer_create(self, head: Head, answer: Answer | TimeMachineError, reply: Replying) -> None:
        """Send the answer of a create."""
        self._open -= 1
        request_id = self._request_id(head.headers)
        if isinstance(answer, TimeMachineError):
            answer = self._refused(answer, request_id, JOBS)
        close = self._count(answer)
        data = render(answer, request_id, self._now_as_date(), "close" if close else "")
        reply(data + answer.body, close=close)

    def _request_id(self, headers: Any) -> str:
        given: str | None = headers.get("X-Request-Id")
        if given is not None and _REQUEST_ID.fullmatch(given) is not None:
            return given
        self._id_number = number = self._id_number + 1
        return f"{self._id_prefix}{number:08x}"

    def _count(self, answer: Answer) -> bool:
        """Count an answer; returns whether its connection is to be closed."""
        status = answer.status
        self._requests[status] = self._requests.get(status, 0) + 1
        return self._stopping or status == 413

    def _now_as_date(self) -> str:
        second = self._engine.now_ms() // 1000
        if second != self._date_s:
            self._date_s = second
            self._date = formatdate(second, usegmt=True)
        return self._date

    async def _answer(self, request: web.BaseRequest, headers: Any, request_id: str) -> Answer:
        raw_path, _, raw_query = request._message.path.partition("?")
        if raw_path[:1] != "/":
            raw_path = request.url.raw_path  # `GET http://host/path`, as proxies are asked
        # First of all, and before the body is received: a stranger costs us next to nothing.
        if self._credentials is not None and raw_path not in OPEN_PATHS:
            self._credentials.check(headers)
        method = request.method
        handler, operation, names = self._dispatch.find(method, raw_path)
        if self._open > self._requests_max or self._stopping:
            self._shed(operation)
        query = _EMPTY
        if raw_query and operation.query is not None:
            query = query_of(operation, raw_query)
        payload = request.content
        kind = ""
        # A small body has come with its head, and needs no waiting.
        if payload.is_eof():
            body = payload.read_nowait()
            if body:
                kind = body_type(headers)
        else:
            kind = body_type(headers)
            body = await self._receive(request, headers)
        if kind == MSGPACK and body and operation.place != BATCH:
            body = await msgpack.unpacked(body)
        call = Call(
            method=method,
            operation=operation.place,
            names=names,
            query=query,
            headers=headers,
            body=body,
        )
        if self._engine.router.alone:
            self._relay.find(operation, call)
            return await handler(call)
        return await self._relay.answer(handler, operation, call, request_id)

    def _admit(self, operation: Operation) -> None:
        """Refuse what another node wants answered, where this one would refuse its own clients."""
        if self._stopping:
            raise NotLeader  # or not for long: nothing is done, and the other node looks around
        if operation.sheds and self._open > self._requests_max:
            raise TooManyRequests("Too many requests are open on the node that leads.")

    async def _guarded(self, answering: Awaitable[Answer], path: str, request_id: str) -> Answer:
        """Answer for another node: counted, and without a word of what broke inside."""
        self._open += 1
        try:
            return await answering
        except TimeMachineError as error:
            if error.http_status >= 500 and not isinstance(error, Overloaded):
                self._log_fault(error, request_id, path)
                raise internal_fault(error) from None
            raise
        except Exception:
            log.exception("request failed", request_id=request_id, path=path)
            raise internal_fault() from None
        finally:
            self._open -= 1

    def _shed(self, operation: Operation | None = None) -> None:
        if operation is not None and not operation.sheds:
            return
        if self._stopping:
            raise Unavailable("The node is stopping.")
        raise Unavailable("Too many requests are open on this node.")

    async def _receive(self, request: web.BaseRequest, headers: Any) -> bytes:
        """The rest of the body, as long as it is within the limits of size and time."""
        length = request.content_length
        if length is not None and length > limits.REQUEST_BODY_BYTES_MAX:
            raise _body_too_large()
        if headers.get("Expect", "").lower() == "100-continue" and request.version >= (1, 1):
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        received = bytearray()
        try:
            async with asyncio.timeout(self._body_timeout_s):
                while chunk := await request.content.readany():
                    received += chunk
                    self._body_bytes_open += len(chunk)
                    if len(received) > limits.REQUEST_BODY_BYTES_MAX:
                        raise _body_too_large()
                    if self._body_bytes_open > limits.HTTP_BODY_BYTES_OPEN_MAX:
                        raise Unavailable("Too many large requests are being received.")
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
            raise Vanished from None
        finally:
            self._body_bytes_open -= len(received)
        return bytes(received)

    def _log_fault(self, error: TimeMachineError, request_id: str, path: str) -> None:
        log.error(
            "request failed",
            request_id=request_id,
            path=path,
            code=error.specific_code,
            reason=error.detail,
        )

    def _refused(self, error: TimeMachineError, request_id: str, path: str) -> Answer:
        if error.http_status >= 500 and not isinstance(error, Overloaded):
            self._log_fault(error, request_id, path)
            error = internal_fault(error)
        if original.is_its_own(path):
            return original.told(error)
        return refused(error)


class _Create:
    """One create on the short way: begun, committed, ended, each when it is its turn."""

    __slots__ = ("_answer", "_body", "_head", "_looked_again", "_reply", "_result", "_server")

    def __init__(self, server: ApiServer, head: Head, body: bytes, reply: Replying) -> None:
        self._server = server
        self._head = head
        self._body = body
        self._reply = reply
        self._answer: Callable[[Any], Answer] | None = None
        self._result: Any = None
        self._looked_again = False

    def begin(self) -> None:
        """Check it, and put it through the log."""
        try:
            propose, self._answer = self._server.prepare_create(self._head, self._body)
            propose(self._committed)
        except TimeMachineError as error:
            if self._looked_again or not self._server.look_again(error, self._begin_again):
                self._committed(error)
        except Exception:
            log.exception("request failed", path=JOBS)
            self._committed(internal_fault())

    def _begin_again(self, error: TimeMachineError | None) -> None:
        """Meta is known as it is now, or cannot be."""
        self._looked_again = True
        if error is None:
            self.begin()
        else:
            self._committed(error)

    def _committed(self, result: Any) -> None:
        if self._result is None:  # else a bug was told already; its command goes on
            self._result = result
            self._server.end_soon(self._end)

    def _end(self) -> None:
        answer: Answer | TimeMachineError = self._result
        if not isinstance(answer, TimeMachineError):
            assert self._answer is not None
            try:
                answer = self._answer(self._result)
            except TimeMachineError as error:
                answer = error
            except Exception:
                log.exception("request failed", path=JOBS)
                answer = internal_fault()
        self._server.answer_create(self._head, answer, self._reply)


def _body_too_large() -> TooLarge:
    return TooLarge(f"body: A request body has at most {limits.REQUEST_BODY_BYTES_MAX} bytes.")


def _request_factory(loop: asyncio.AbstractEventLoop) -> Any:
    def make(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        return web.BaseRequest(message, payload, protocol, writer, task, loop)

    return make
