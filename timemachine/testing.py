"""Fakes for tests of code that uses TimeMachine: a clock, a store, a recipient.

They are shipped so that nobody has to write them again, and used by our own tests.
"""

import threading
import time
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from timemachine.receiver import Webhook, WebhookVerificationError
from timemachine.storage.memory import MemoryStore

__all__ = ["ManualClock", "MemoryStore", "ReceivedWebhook", "RecordingReceiver"]


class ManualClock:
    """A clock that stands still until it is told to move. Call it for seconds, like time.time."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self.now_ms = now_ms

    def __call__(self) -> float:
        """Seconds since the Unix epoch."""
        return self.now_ms / 1000

    def advance(self, duration_ms: int) -> None:
        """Let time pass."""
        self.now_ms += duration_ms


@dataclass(frozen=True)
class ReceivedWebhook:
    """One request that a RecordingReceiver got; header names are in lower case.

    `arrived_ms` is the receiver's wall clock when the whole request was there.
    """

    path: str
    headers: dict[str, str]
    body: bytes
    arrived_ms: int


class RecordingReceiver:
    """A recipient on loopback that remembers every webhook and answers with `status`.

    Use it as a context manager; `url` is where to send. With a `secret` it verifies what arrives,
    and answers 401 to what does not verify.
    """

    def __init__(self, *, status: int = 204, secret: str | None = None) -> None:
        self.status = status
        self.secret = secret
        self.received: list[ReceivedWebhook] = []
        self._arrived = threading.Condition()
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        """Where webhooks should be sent."""
        assert self._server is not None, "use it as a context manager"
        return f"http://127.0.0.1:{self._server.server_address[1]}/webhook"

    def wait(self, count: int, timeout_s: float = 10.0) -> list[ReceivedWebhook]:
        """Wait until `count` webhooks have arrived. Raises TimeoutError."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self.received) >= count, timeout_s):
                raise TimeoutError(f"{len(self.received)} of {count} webhooks arrived")
            return list(self.received)

    def _take(self, webhook: ReceivedWebhook) -> int:
        if self.secret is not None:
            try:
                Webhook(self.secret).verify(webhook.body, webhook.headers, json_parse=False)
            except WebhookVerificationError:
                return 401
        with self._arrived:
            self.received.append(webhook)
            self._arrived.notify_all()
        return self.status

    def __enter__(self) -> Self:
        take = self._take

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                """Remember the request and answer it."""
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                arrived_ms = time.time_ns() // 1_000_000
                webhook = ReceivedWebhook(self.path, headers, body, arrived_ms)
                self.send_response(take(webhook))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, *_: Any) -> None:
                """A sender that died in the middle is nothing to tell of."""

        self._server = Server(("127.0.0.1", 0), Handler)
        serve = partial(self._server.serve_forever, poll_interval=0.02)
        threading.Thread(target=serve, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()
