"""A recipient that writes down everything with its time, and answers as a test tells it to."""

import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

from tests.checks.history import Webhook


def wall_ms() -> float:
    """The clock of all histories here: this machine's wall clock, in milliseconds."""
    return time.time_ns() / 1_000_000


@dataclass(frozen=True)
class Request:
    """One webhook as it came in. `at_ms` is when all of it was there."""

    at_ms: float
    path: str
    job: str
    webhook_id: str
    version: int
    attempt: int
    due_ms: int
    body_hash: str

    @property
    def route(self) -> str:
        """The last part of the path names the route."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class Reply:
    """What a recipient does: wait, then answer with a status; None resets the connection."""

    status: int | None = 204
    pause_ms: float = 0.0
    headers: tuple[tuple[str, str], ...] = ()


OK = Reply()


class Recorder:
    """A recipient on loopback. `reply` says what becomes of a request, from many threads.

    While `gate` is closed nothing is answered.
    """

    def __init__(self, reply: Callable[[Request], Reply] = lambda _: OK) -> None:
        self.reply = reply
        self.gate = threading.Event()
        self.gate.set()
        self._lock = threading.Lock()
        self._requests: list[Request] = []
        self._answers: dict[int, tuple[float, int | None]] = {}
        self._server = _Server(("127.0.0.1", 0), _handler_of(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def url(self, route: str = "hook") -> str:
        """Where a route may lead."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/{route}"

    def requests(self) -> list[Request]:
        """What has come in so far, in order."""
        with self._lock:
            return list(self._requests)

    def webhooks(self) -> list[Webhook]:
        """The same as history has it; those that are not answered yet count as failed."""
        with self._lock:
            return [
                _webhook(request, *self._answers.get(place, (wall_ms(), None)))
                for place, request in enumerate(self._requests)
            ]

    def _note(self, request: Request) -> int:
        with self._lock:
            self._requests.append(request)
            return len(self._requests) - 1

    def _answered(self, place: int, status: int | None) -> None:
        with self._lock:
            self._answers[place] = (wall_ms(), status)

    def __enter__(self) -> Self:
        """It listens already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop listening, and let go what waits."""
        self.gate.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _webhook(request: Request, answered_ms: float, status: int | None) -> Webhook:
    return Webhook(
        at_ms=request.at_ms,
        webhook_id=request.webhook_id,
        job=request.job,
        version=request.version,
        attempt=request.attempt,
        body_hash=request.body_hash,
        due_ms=request.due_ms,
        route=request.route,
        answered_ms=answered_ms,
        status=status,
    )


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A sender that died is no news."""


def _handler_of(recorder: Recorder) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["content-length"]))
            at_ms = wall_ms()
            body = json.loads(content)
            request = Request(
                at_ms=at_ms,
                path=self.path,
                job=unquote(self.headers["timemachine-job-id"]),
                webhook_id=self.headers["webhook-id"],
                version=body["version"],
                attempt=int(self.headers["timemachine-attempt"]),
                due_ms=int(self.headers["timemachine-trigger-time"]),
                body_hash=blake2b(content, digest_size=8).hexdigest(),
            )
            place = recorder._note(request)
            reply = recorder.reply(request)
            if reply.pause_ms:
                time.sleep(reply.pause_ms / 1_000)
            recorder.gate.wait()
            if reply.status is None:
                self.connection.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
                self.close_connection = True
            else:
                self.send_response_only(reply.status)
                for name, value in reply.headers:
                    self.send_header(name, value)
                if reply.status != 204:
                    self.send_header("Content-Length", "0")
                self.end_headers()
            recorder._answered(place, reply.status)

    return Handler
