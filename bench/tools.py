"""What the workloads share: processes, their CPU time, a cheap HTTP load, a table."""

import asyncio
import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import uvloop

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
ROOT = Path(__file__).resolve().parent.parent

COLLECTION = "/v1/dbs/default/collections/jobs"
"""Where all workloads have their jobs."""

FAR_MS = 4_000_000_000_000
"""A trigger time that no run lives to see."""

UNHEARD_PORT = 2009
"""Where no recipient is, for jobs that never fire: a port that webhooks may be sent to."""


class Process:
    """A measured process; its errors are added to `log`.

    `rpc` is empty for all but nodes, `https_port` is 0 for all that do not serve https.
    """

    def __init__(self, arguments: Sequence[str], log: Path = Path(os.devnull)) -> None:
        with log.open("ab") as errors:
            self.popen = subprocess.Popen(
                [sys.executable, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,
            )
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        words = dict(word.split("=", 1) for word in line.split() if "=" in word)
        self.rpc = words.get("rpc", "")
        self.host, _, port = words["http"].rpartition(":")
        self.port = int(port)
        self.https_port = int(words.get("https", "").rpartition(":")[2] or 0)

    def line(self) -> str:
        """Ask by an empty line on its input; returns the line that it answers."""
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        self.popen.stdin.write("\n")
        self.popen.stdin.flush()
        return self.popen.stdout.readline()

    def cpu_s(self) -> float:
        """User and system time of all its threads so far."""
        fields = Path(f"/proc/{self.popen.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * _TICK_S

    def anonymous_bytes(self) -> int:
        """Its anonymous memory: what it allocated, without mapped files."""
        for line in Path(f"/proc/{self.popen.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
        return 0

    def resident_bytes(self) -> int:
        """All its memory that is in RAM, mapped files as well."""
        pages = Path(f"/proc/{self.popen.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def stop(self) -> None:
        """Stop it."""
        self.popen.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.popen.wait(timeout=30)
        self.kill()

    def kill(self) -> None:
        """SIGKILL, unless it is gone, and wait until it is."""
        self.popen.kill()
        self.popen.wait()
        for pipe in (self.popen.stdin, self.popen.stdout):
            assert pipe is not None
            pipe.close()


@contextmanager
def node(data: Path | None = None, *, module: str = "node", **flags: str) -> Iterator[Process]:
    """A node on a data directory, a new one that goes with it unless one is given.

    `module` runs it: `node`, or what does the same and more.
    """
    with tempfile.TemporaryDirectory(prefix="timemachine-bench-") as folder:
        more = [word for name, value in flags.items() for word in (f"--{name}", value)]
        data = data or Path(folder) / "data"
        process = Process(
            [
                *("-m", module, "serve", "--data", str(data), "--http", "127.0.0.1:0"),
                *("--rpc", "127.0.0.1:0", "--allow-private", "127.0.0.0/8", *more),
            ]
        )
        try:
            yield process
        finally:
            process.stop()


class _Client(asyncio.Protocol):
    """One keep-alive connection that sends prepared requests one after the other."""

    def __init__(
        self, take: Callable[[], bytes | None], done: Callable[[float, int], None]
    ) -> None:
        self.take = take
        self.done = done
        self.buffer = b""
        self.sent_s = 0.0

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self.transport = transport
        self.next()

    def next(self) -> None:
        """Send the next request, or stop."""
        request = self.take()
        if request is None:
            self.transport.close()
            return
        self.sent_s = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Find the end of the answer by its Content-Length."""
        self.buffer += data
        head, found, rest = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        at = head.lower().find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(rest) < length:
            return
        self.buffer = b""
        self.done(time.perf_counter() - self.sent_s, int(head[9:12]))
        self.next()


async def _push(
    processes: Sequence[Process], requests: Iterator[bytes], connections: int
) -> tuple[list[float], dict[int, int]]:
    loop = asyncio.get_running_loop()
    times: list[float] = []
    statuses: dict[int, int] = {}
    finished = loop.create_future()
    open_count = connections

    def take() -> bytes | None:
        nonlocal open_count
        request = next(requests, None)
        if request is None:
            open_count -= 1
            if open_count == 0 and not finished.done():
                finished.set_result(None)
        return request

    def done(took_s: float, status: int) -> None:
        times.append(took_s)
        statuses[status] = statuses.get(status, 0) + 1

    for number in range(connections):
        process = processes[number % len(processes)]
        await loop.create_connection(lambda: _Client(take, done), process.host, process.port)
    await finished
    return times, statuses


def push(
    processes: Process | Sequence[Process], requests: Iterator[bytes], connections: int = 64
) -> tuple[list[float], dict[int, int]]:
    """Send requests over keep-alive connections, spread over all processes.

    Returns times in seconds, and statuses.
    """
    among = [processes] if isinstance(processes, Process) else processes
    return uvloop.run(_push(among, requests, connections))


def request_bytes(method: str, path: str, body: bytes = b"", *, headers: str = "") -> bytes:
    """The bytes of one request."""
    return (
        f"{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        f"{headers}Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def ask(process: Process, method: str, path: str, body: Any = None) -> Any:
    """One request, by the simplest means."""
    connection = http.client.HTTPConnection(process.host, process.port, timeout=60)
    data = b"" if body is None else json.dumps(body).encode()
    connection.request(method, path, data, {"Content-Type": "application/json"})
    response = connection.getresponse()
    answer = response.read()
    connection.close()
    assert response.status < 300, (response.status, answer[:300])
    return json.loads(answer)


def jobs(count: int, prefix: str, first_ms: int, per_s: int, route: str) -> Iterator[bytes]:
    """Batches of jobs: `per_s` of them due in each second from `first_ms` on; 0: all at once."""
    return batches(
        {
            "id": f"{prefix}-{number:08d}",
            "trigger_time": first_ms + (number * 1000 // per_s if per_s else 0),
            "route": route,
            "meta": {"n": number},
        }
        for number in range(count)
    )


def batches(made: Iterable[Mapping[str, Any]], collection: str = COLLECTION) -> Iterator[bytes]:
    """Requests that create jobs, a thousand each."""
    rest = iter(made)
    while batch := list(islice(rest, 1_000)):
        yield request_bytes("POST", f"{collection}/jobs/batch", json.dumps(batch).encode())


def set_up(process: Process, ports: Mapping[str, int], **route: Any) -> None:
    """Make the collection, and routes to the recipients at these ports of loopback, by name."""
    ask(process, "PUT", COLLECTION)
    for name, port in ports.items():
        body = {"webhook_url": f"http://127.0.0.1:{port}/hook", **route}
        ask(process, "PUT", f"/v1/dbs/default/routes/{name}", body)


def median(values: list[float]) -> float:
    """The middle one."""
    return statistics.median(values)


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of all lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def report(name: str, figure: str, bar: str, *, holds: bool | None) -> None:
    """One line of the table."""
    mark = "     " if holds is None else "holds" if holds else "MISSED"
    load = os.getloadavg()[0]
    print(f"{name:<44} {figure:>26}   bar: {bar:<22} {mark:<6} load {load:.1f}", flush=True)
