"""A node as a process of its own, and a recipient that writes down what it gets."""

import http.client
import json
import os
import random
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

COLLECTION = "/v1/dbs/default/collections/jobs"
JOBS = f"{COLLECTION}/jobs"
ROUTES = "/v1/dbs/default/routes"
START_S = 60.0
STOP_S = 40.0


def now_ms() -> int:
    """The wall clock of this machine, in milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


def wait_until(holds: Callable[[], bool], otherwise: str, patience_s: float = 30.0) -> None:
    """Wait until something can be seen; fails with the sentence `otherwise` if it never can."""
    end = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < end, otherwise
        time.sleep(0.02)


class NodeProcess:
    """`python -m node serve` on one directory; may be started again after it ended.

    Use it as a context manager, so that no process outlives a failing test. `log` collects what
    all of its runs wrote to standard error. `program` is the module that is run.
    """

    def __init__(
        self,
        directory: Path,
        *flags: str,
        environment: Mapping[str, str] | None = None,
        private: bool = True,
    ) -> None:
        self.directory = directory
        self.log = directory.with_name(directory.name + ".log")
        self.flags: Sequence[str] = (
            *flags,
            *(("--allow-private", "127.0.0.0/8") if private else ()),
        )
        self.environment = dict(environment or {})
        self.program = "node"
        self.address = ""
        self.rpc = ""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running or ended process."""
        assert self._process is not None, "it was never started"
        return self._process

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def launch(self) -> None:
        """Start the process; do not wait for anything."""
        command = [sys.executable, "-m", self.program, "serve", "--data", str(self.directory)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--http", "127.0.0.1:0", "--rpc", "127.0.0.1:0", *self.flags],
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **self.environment},
            )

    def start(self) -> Self:
        """Start and wait for the ready line; fails with the log when there is none."""
        self.launch()
        assert self.becomes_ready(), f"it did not start:\n{self.log_tail()}"
        return self

    def refused(self) -> int:
        """Start where it is expected to be refused; returns the exit code."""
        self.launch()
        assert not self.becomes_ready(), "it started"
        return self.wait()

    def becomes_ready(self) -> bool:
        """Wait for the ready line of a launched process; False when it closed its output."""
        stdout = self.process.stdout
        assert stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            assert selector.select(START_S), f"no ready line in time:\n{self.log_tail()}"
        line = stdout.readline().decode()
        if not line:
            return False
        assert line.startswith("ready "), f"no ready line but {line!r}"
        told = dict(word.split("=", 1) for word in line.split()[1:])
        self.address, self.rpc = told["http"], told["rpc"]
        return True

    def log_tail(self) -> str:
        """The end of what the node wrote to standard error."""
        return self.log.read_text(errors="replace")[-4_000:] if self.log.exists() else ""

    def memory_bytes(self, name: str) -> int:
        """A line of the process's status: VmRSS, or VmHWM, the highest it has been."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition(f"{name}:")[2].split()[0]) * 1024

    def forget_highest_memory(self) -> None:
        """Let VmHWM begin anew."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.wait()

    def hang_up(self) -> None:
        """SIGHUP: it reads its files again."""
        self.process.send_signal(signal.SIGHUP)

    def stop(self) -> int:
        """SIGTERM, and wait; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self, timeout_s: float = STOP_S) -> int:
        """Wait for the end of the process; returns the exit code."""
        code = self.process.wait(timeout_s)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """One request on a connection of its own: (status, decoded body).

        Raises OSError or HTTPException when the node is not there or goes meanwhile.
        """
        connection = http.client.HTTPConnection(self.address, timeout=30)
        try:
            return ask(connection, method, path, body)
        finally:
            connection.close()

    def set_up(self, url: str, *, num_vnodes: int = 4, **route: Any) -> None:
        """Make the collection `jobs` and the route `hook`."""
        status, answer = self.ask("PUT", COLLECTION, {"num_vnodes": num_vnodes})
        assert 201 == status, answer
        status, answer = self.ask("PUT", f"{ROUTES}/hook", {"webhook_url": url, **route})
        assert 201 == status, answer

    def create(self, jobs: Sequence[Mapping[str, Any]]) -> None:
        """Create jobs of the route `hook` in batches; all must be taken."""
        for start in range(0, len(jobs), 1_000):
            batch = [{"route": "hook", **job} for job in jobs[start : start + 1_000]]
            status, answer = self.ask("POST", f"{JOBS}/batch", batch)
            assert (200, len(batch)) == (status, answer["created"]), answer

    def jobs(self) -> dict[str, dict[str, Any]]:
        """All jobs of the collection by id, as the list shows them."""
        found: dict[str, dict[str, Any]] = {}
        cursor = ""
        while True:
            status, page = self.ask("GET", f"{JOBS}?limit=1000{cursor}")
            assert 200 == status, page
            found |= {job["id"]: job for job in page["items"]}
            if page["next_cursor"] is None:
                return found
            cursor = f"&cursor={page['next_cursor']}"

    def drain(self, patience_s: float = 60.0) -> dict[str, dict[str, Any]]:
        """Wait until no job is pending any more; returns all jobs by id."""
        end = time.monotonic() + patience_s
        pending = f"{JOBS}?limit=1&state=scheduled,retrying,firing,held"
        while self.ask("GET", pending)[1]["items"]:
            assert time.monotonic() < end, f"it does not drain:\n{self.log_tail()}"
            time.sleep(0.1)
        return self.jobs()

    def __enter__(self) -> Self:
        """Nothing is started yet."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave no process behind."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.kill()
        self.wait()


def ask(
    connection: http.client.HTTPConnection, method: str, path: str, body: Any = None
) -> tuple[int, Any]:
    """One request on an open connection: (status, decoded body)."""
    data = None if body is None else json.dumps(body)
    connection.request(method, path, data, {"Content-Type": "application/json"})
    response = connection.getresponse()
    return response.status, json.loads(response.read())


class Arrival(NamedTuple):
    """One webhook as it came in.

    `at_ms` is when its first bytes were there, `attempt` is 1-based, `meta` is JSON in text.
    """

    at_ms: int
    job_id: str
    version: int
    webhook_id: str
    trigger_ms: int
    attempt: int
    meta: str


class Recipient:
    """A threaded HTTP recipient on loopback; answers 204 after a seeded pause.

    `slow_ms` bounds the pause of about every tenth answer, so that some sends are open at any
    moment. While `gate` is closed, nothing is answered.
    """

    def __init__(self, seed: int = 0, *, slow_ms: int = 0) -> None:
        self._random = random.Random(seed)
        self._slow_ms = slow_ms
        self._arrivals: list[Arrival] = []
        self._lock = threading.Lock()
        self._accepted: set[int] = set()
        self._open = 0
        self.gate = threading.Event()
        self.gate.set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/hook"
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def arrivals(self) -> list[Arrival]:
        """What has come in so far, in order."""
        with self._lock:
            return list(self._arrivals)

    def wait(self, count: int, patience_s: float = 30.0) -> list[Arrival]:
        """Wait until that many webhooks have come in."""
        end = time.monotonic() + patience_s
        while len(self._arrivals) < count:
            assert time.monotonic() < end, f"{len(self._arrivals)} of {count} webhooks came"
            time.sleep(0.01)
        return self.arrivals()

    def _accept(self) -> None:
        while True:
            try:
                connection, address = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._accepted.add(address[1])
                self._open += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def settle(self, patience_s: float = 30.0) -> None:
        """After a node died: wait until all that it sent is written down.

        What a dead process sent may still lie in the sockets. Connections are accepted in order,
        so behind one of our own there is none of the dead node left.
        """
        end = time.monotonic() + patience_s
        with socket.create_connection(self._listener.getsockname()) as own:
            port = own.getsockname()[1]
            while port not in self._accepted:
                assert time.monotonic() < end, "nothing is accepted any more"
                time.sleep(0.002)
        while self._open:
            assert time.monotonic() < end, "a connection of a dead node stays open"
            time.sleep(0.002)
        self._accepted.clear()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                data = b""
                while True:
                    data = self._one(connection, data)
                    connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        except (OSError, EOFError):
            pass
        finally:
            with self._lock:
                self._open -= 1

    def _one(self, connection: socket.socket, data: bytes) -> bytes:
        """Read and note one request; returns what lies behind it."""
        at_ms = now_ms()
        while b"\r\n\r\n" not in data:
            more = connection.recv(65_536)
            if not data:
                at_ms = now_ms()
            if not more:
                raise EOFError
            data += more
        head, _, data = data.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")[1:]
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        length = int(headers["content-length"])
        while len(data) < length:
            more = connection.recv(65_536)
            if not more:
                raise EOFError
            data += more
        body = json.loads(data[:length])
        with self._lock:
            self._arrivals.append(
                Arrival(
                    at_ms,
                    body["id"],
                    body["version"],
                    headers["webhook-id"],
                    body["trigger_time"],
                    int(headers["timemachine-attempt"]),
                    json.dumps(body["meta"]),
                )
            )
            slow = self._slow_ms if self._random.random() < 0.1 else 0
            pause_ms = self._random.uniform(0, slow)
        if pause_ms:
            time.sleep(pause_ms / 1_000)
        self.gate.wait()
        return data[length:]

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
        # Closing alone would not wake the thread that waits for a connection. When the process is
        # stopped and goes on, it would wait for those of whoever has the descriptor by then.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
