"""An example as a process of its own, and a wire to it that writes down what passes."""

import http.client
import os
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from tests.cluster.process import wait_until
from tests.unit.project import ROOT

FOLDER: Final = ROOT / "examples" / "receivers"
COMMANDS: Final = {
    "aiohttp": "python aiohttp_app.py 4000",
    "django": "python django_app.py runserver --noreload 4000",
    "fastapi": "uvicorn fastapi_app:app --port 4000",
    "flask": "flask --app flask_app run --port 4000",
}
"""What each example says how it is run."""

SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
START_TRIES: Final = 5


class Example:
    """One of the examples, with a database of its own. A context manager.

    `log` is what it wrote to either of its outputs.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.port = 0
        self.database = folder / "shop.db"
        self.log = folder / "example.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start it on a free port, and wait until it answers."""
        for _ in range(START_TRIES):
            self.port = free_port()
            self._launch()
            wait_until(lambda: self._ended() or self._answers(), self.log_tail(), 60)
            # The port may have been taken by somebody else meanwhile.
            if not self._ended():
                return self
        raise AssertionError(self.log_tail())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave no process behind."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def log_tail(self) -> str:
        """The end of what it wrote."""
        return self.log.read_text(errors="replace")[-4_000:] if self.log.exists() else ""

    def post(
        self, headers: Mapping[str, str], body: bytes, *, method: str = "POST"
    ) -> tuple[int, bytes]:
        """Send one request; returns (status, body) of its answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with closing(connection):
            connection.request(method, "/webhook", body, dict(headers))
            response = connection.getresponse()
            return response.status, response.read()

    def post_raw(self, head_lines: Sequence[bytes], body: bytes) -> int | None:
        """Send a head as it stands; returns the status, or None when it hangs up."""
        lines = [
            b"POST /webhook HTTP/1.1",
            b"Host: 127.0.0.1",
            b"Connection: close",
            b"Content-Length: %d" % len(body),
            *head_lines,
        ]
        with socket.create_connection(("127.0.0.1", self.port), 60) as connection:
            try:
                connection.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + body)
                answer = b""
                while b"\r\n" not in answer and (part := connection.recv(65_536)):
                    answer += part
            except ConnectionError:
                return None
        return int(answer.split()[1]) if answer else None

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        """What it has written into a table."""
        with closing(sqlite3.connect(self.database, timeout=60)) as connection:
            return connection.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608

    def effects(self, payment: str) -> tuple[list[str], int]:
        """The states of a payment, and how many mails went out for it."""
        states = [state for each, state in self.rows("payments") if each == payment]
        return states, [each for each, _ in self.rows("mails")].count(payment)

    def _launch(self) -> None:
        program, *arguments = COMMANDS[self.name].replace("4000", str(self.port)).split()
        if program == "python":
            command = [sys.executable, *arguments]
        else:
            command = [sys.executable, "-m", program, *arguments]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=FOLDER,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={
                    **os.environ,
                    "DATABASE": str(self.database),
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "PYTHONPATH": str(ROOT),
                    "WEBHOOK_SECRET": SECRET,
                },
            )

    def _ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def _answers(self) -> bool:
        try:
            return self.post({}, b"")[0] == 401
        except (OSError, http.client.HTTPException):
            return False


class Passed(NamedTuple):
    """A request that went through a wire, and the status of its answer."""

    headers: dict[str, str]
    body: bytes
    status: int


class Wire:
    """Passes requests on to an example, and writes them down. A context manager.

    The first `answers_lost` answers do not come back to the sender: it sees a closed connection.
    """

    def __init__(self, example: Example, *, answers_lost: int = 0) -> None:
        self.passed: list[Passed] = []
        wire = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = dict(self.headers.items())
                status, _ = example.post(headers, body)
                wire.passed.append(Passed(headers, body, status))
                if len(wire.passed) > answers_lost:
                    self.send_response(status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/webhook"

    def __enter__(self) -> Self:
        """Begin to listen."""
        serve = self._server.serve_forever
        threading.Thread(target=serve, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


def free_port() -> int:
    """A port that nobody listened on a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
