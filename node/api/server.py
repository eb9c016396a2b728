"""The HTTP server: aiohttp's low-level server, with our own dispatch and bounds."""

import asyncio
import re
from typing import Any
from urllib.parse import parse_qsl

import structlog
from aiohttp import web
from multidict import CIMultiDict

from node.api.conventions import Answer, Call, encode_json
from node.api.dispatch import Dispatch, NoSuchMethod
from node.api.problems import invalid, problem
from node.api.routes import CheckTarget
from node.engine import Engine
from timemachine import limits
from timemachine.errors import (
    Overloaded,
    TimeMachineError,
    TooLarge,
    Unavailable,
    UnsupportedMediaType,
)

_BODY_TIMEOUT_S = 30.0
_KEEPALIVE_S = 75.0
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_BODY_TYPES = frozenset(
    {
        "",
        "application/json",
        "application/octet-stream",
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/x-www-form-urlencoded",
        "text/plain",
    }
)
log = structlog.get_logger()


class ApiServer:
    """Serves the developer API. `start` binds, `stop` refuses new work and lets the rest finish."""

    def __init__(
        self, engine: Engine, check_target: CheckTarget, *, connections_max: int = 10_000
    ) -> None:
        self._engine = engine
        self._dispatch = Dispatch(engine, check_target)
        self._connections_max = connections_max
        self._runner: web.ServerRunner | None = None
        self._open = 0
        self._stopping = False
        self._requests: dict[int, int] = {}
        statistics = engine.statistics
        engine.statistics = lambda: {  # type: ignore[method-assign]
            **statistics(),
            "http_requests": dict(self._requests),
        }

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen; returns the address that was bound. Raises OSError."""
        server = web.Server(
            self._handle,
            request_factory=self._make_request,
            keepalive_timeout=_KEEPALIVE_S,
            access_log=None,
            max_line_size=16_384,
            max_field_size=16_384,
        )
        self._runner = web.ServerRunner(server, handle_signals=False)
        await self._runner.setup()
        site = web.TCPSite(
            self._runner, host, port, backlog=4096, reuse_address=True, shutdown_timeout=1.0
        )
        await site.start()
        bound = self._runner.addresses[0]
        return bound[0], bound[1]

    def stop_accepting(self) -> None:
        """Refuse new requests from now on; open ones are finished."""
        self._stopping = True
        if self._runner is not None:
            for site in list(self._runner.sites):
                listening = getattr(site, "_server", None)
                if listening is not None:
                    listening.close()

    async def stop(self) -> None:
        """Close everything."""
        if self._runner is not None:
            await self._runner.cleanup()

    def _new_id(self) -> str:
        return self._engine.random_bytes(8).hex()

    @staticmethod
    def _make_request(
        message: Any, payload: Any, protocol: Any, writer: Any, task: Any
    ) -> web.BaseRequest:
        return web.BaseRequest(
            message,
            payload,
            protocol,
            writer,
            task,
            asyncio.get_running_loop(),
            client_max_size=limits.REQUEST_BODY_BYTES_MAX,
        )

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        sent_id = request.headers.get("X-Request-Id")
        request_id = sent_id if sent_id and _REQUEST_ID.fullmatch(sent_id) else self._new_id()
        self._open += 1
        close = False
        try:
            answer = await self._answer(request)
        except TimeMachineError as error:
            close = isinstance(error, TooLarge)
            answer = self._refused(error)
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("request failed", request_id=request_id, path=request.path)
            answer = self._refused(TimeMachineError("Something went wrong inside the node."))
        finally:
            self._open -= 1
        status = answer.status
        self._requests[status] = self._requests.get(status, 0) + 1
        headers = CIMultiDict(answer.headers)
        headers["Content-Type"] = answer.content_type
        headers["X-Request-Id"] = request_id
        response = web.Response(status=status, body=answer.body, headers=headers)
        if close or self._stopping:
            response.force_close()
        return response

    async def _answer(self, request: web.BaseRequest) -> Answer:
        if self._stopping:
            raise Unavailable("The node is stopping.")
        if self._open > self._connections_max:
            raise Unavailable("Too many requests are open.")
        raw_path, _, raw_query = request.raw_path.partition("?")
        handler, operation, names = self._dispatch.find(request.method, raw_path)
        body = b""
        if request.body_exists:
            body = await self._body(request)
        call = Call(
            method=request.method,
            operation=operation,
            names=names,
            query=_query(raw_query) if raw_query else {},
            headers=request.headers,
            body=body,
        )
        return await handler(call)

    async def _body(self, request: web.BaseRequest) -> bytes:
        kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind not in _BODY_TYPES and not kind.endswith("+json"):
            raise UnsupportedMediaType("Send application/json or application/x-ndjson.")
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise UnsupportedMediaType("Send the body without a content encoding.")
        length = request.content_length
        if length is not None and length > limits.REQUEST_BODY_BYTES_MAX:
            raise TooLarge(f"A body has at most {limits.REQUEST_BODY_BYTES_MAX} bytes.")
        try:
            if request.content.is_eof():
                return await request.read()
            async with asyncio.timeout(_BODY_TIMEOUT_S):
                return await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise TooLarge(f"A body has at most {limits.REQUEST_BODY_BYTES_MAX} bytes.") from None
        except TimeoutError:
            request.protocol.force_close()
            raise invalid("/", "The body did not arrive in time.") from None

    @staticmethod
    def _refused(error: TimeMachineError) -> Answer:
        headers = {}
        if isinstance(error, Overloaded):
            headers["Retry-After"] = str(error.retry_after_s)
        if isinstance(error, NoSuchMethod):
            headers["Allow"] = ", ".join(error.allowed)
        return Answer(
            status=error.http_status,
            body=encode_json(problem(error)),
            headers=headers,
            content_type="application/problem+json",
        )


def _query(raw: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(raw, keep_blank_values=True, max_num_fields=32, errors="strict")
    except ValueError:
        raise invalid("?", "The query cannot be read.") from None
    query = dict(pairs)
    if len(query) != len(pairs):
        raise invalid("?", "A parameter is given twice.")
    return query
