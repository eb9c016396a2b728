"""A recipient that verifies each signature and writes down what arrived, and when."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple

from timemachine.errors import WebhookError

if TYPE_CHECKING:
    from timemachine.receiver import Webhook


class Arrival(NamedTuple):
    """One webhook; times in milliseconds since the Unix epoch."""

    at_ms: int
    job_id: str
    webhook_id: str
    trigger_ms: int


class Receiver:
    """Listens on a port of its own; answers 204 to all, at once."""

    def __init__(self) -> None:
        self._arrivals: list[Arrival] = []
        self._seen: set[str] = set()
        self.bad_signatures = 0
        self.webhook: Webhook | None = None
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                now_ms = time.time_ns() // 1_000_000
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.took(now_ms, body, dict(self.headers))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Nothing: the table says it all."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, *_: Any) -> None:
                """A connection of a killed node: expected here."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/webhook"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def took(self, now_ms: int, body: bytes, headers: dict[str, str]) -> None:
        """Note one request."""
        try:
            assert self.webhook is not None
            job = self.webhook.verify(body, headers)
        except WebhookError:
            self.bad_signatures += 1
            return
        identity = {name.lower(): value for name, value in headers.items()}["webhook-id"]
        with self._lock:
            self._arrivals.append(Arrival(now_ms, job["id"], identity, job["trigger_time"]))
            self._seen.add(job["id"])

    def arrivals(self) -> list[Arrival]:
        """What has come so far, in order of time."""
        with self._lock:
            return sorted(self._arrivals)

    def count(self) -> int:
        """How many jobs have come."""
        return len(self._seen)

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
