"""The demo: 2,000 jobs, a kill -9 in the middle, and the promises computed from what arrived."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from timemachine.client import SyncClient
from timemachine.errors import WebhookError
from timemachine.receiver import Webhook

JOBS = 2_000
_LEAD_MS = 3_000
_SPAN_MS = 6_000
_KILL_AFTER_MS = _LEAD_MS + _SPAN_MS // 2
_GIVE_UP_S = 40.0
_BATCH = 500


class Receiver:
    """A recipient that verifies each signature and writes down what arrived, and when."""

    def __init__(self) -> None:
        self.arrivals: list[tuple[int, str, str, int]] = []
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
            self.arrivals.append((now_ms, job["id"], identity, job["trigger_time"]))

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()


class NodeProcess:
    """A node as its users run it: a process of its own."""

    def __init__(self, directory: Path, log_path: Path) -> None:
        self._directory = directory
        self._log_path = log_path
        self._process: subprocess.Popen[str] | None = None
        self.address = "127.0.0.1:0"

    def start(self) -> str:
        """Start and wait until it is ready; returns its URL."""
        with self._log_path.open("a") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "node", "serve", "--data", str(self._directory)),
                    *("--http", self.address, "--allow-private", "127.0.0.0/8"),
                ],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith("ready "):
            raise RuntimeError(f"the node did not start: {self._log_path.read_text()[-2000:]}")
        self.address = line.split()[1].removeprefix("http=")
        return f"http://{self.address}"

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._close()

    def stop(self) -> int:
        """Ask it to stop; returns its exit code."""
        assert self._process is not None
        self._process.terminate()
        code = self._process.wait(timeout=30)
        self._close()
        return code

    def _close(self) -> None:
        assert self._process is not None
        if self._process.stdout is not None:
            self._process.stdout.close()


def run_demo() -> int:
    """Run the demo; 0 when every promise held."""
    console = Console()
    console.print(
        f"[bold]TimeMachine demo[/]: {JOBS} jobs due over {_SPAN_MS // 1000} s;"
        " the node is killed with -9 in the middle and started again.\n"
    )
    with tempfile.TemporaryDirectory(prefix="timemachine-demo-") as folder:
        node = NodeProcess(Path(folder, "data"), Path(folder, "node.log"))
        receiver = Receiver()
        try:
            return _play(console, node, receiver)
        finally:
            receiver.close()


def _play(console: Console, node: NodeProcess, receiver: Receiver) -> int:
    began_s = time.monotonic()
    url = node.start()
    with SyncClient(url) as client:
        client.put_collection("default", "demo")
        client.put_route(
            "default",
            "receiver",
            webhook_url=receiver.url,
            retry={"schedule_ms": [500], "max_attempts": 100},
        )
        receiver.webhook = Webhook(client.get_route_secret("default", "receiver").secret)
        first_ms = time.time_ns() // 1_000_000 + _LEAD_MS
        accepted = _create(client, first_ms)
    console.print(f"accepted {len(accepted)} jobs in {time.monotonic() - began_s:.1f} s")
    killed_ms = restarted_ms = 0
    progress = Progress(
        TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn(), console=console
    )
    delivered = progress.add_task("delivered", total=JOBS)
    status = ""
    with Live(console=console, refresh_per_second=10) as live:
        while time.monotonic() - began_s < _GIVE_UP_S:
            now_ms = time.time_ns() // 1_000_000
            seen = len({job_id for _, job_id, _, _ in list(receiver.arrivals)})
            progress.update(delivered, completed=seen)
            if not killed_ms and now_ms >= first_ms - _LEAD_MS + _KILL_AFTER_MS:
                node.kill()
                killed_ms = time.time_ns() // 1_000_000
                node.start()
                restarted_ms = time.time_ns() // 1_000_000
                status = f"killed with -9, back after {restarted_ms - killed_ms} ms"
            table = Table.grid()
            table.add_row(progress)
            table.add_row(f"[yellow]{status}[/]")
            live.update(table)
            if seen >= JOBS and killed_ms and now_ms > first_ms + _SPAN_MS + 1_000:
                break
            time.sleep(0.05)
    code = node.stop()
    return _report(console, receiver, accepted, (killed_ms, restarted_ms), code)


def _create(client: SyncClient, first_ms: int) -> set[str]:
    """Create all jobs, evenly over the span; returns the ids that were accepted."""
    accepted: set[str] = set()
    for start in range(0, JOBS, _BATCH):
        jobs = [
            {
                "id": f"demo-{number}",
                "trigger_time": first_ms + number * _SPAN_MS // JOBS,
                "route": "receiver",
                "meta": {"number": number},
            }
            for number in range(start, start + _BATCH)
        ]
        answer = client.request("POST", "/v1/dbs/default/collections/demo/jobs/batch", json=jobs)
        items = answer["items"] if isinstance(answer, dict) else json.loads(answer)["items"]
        accepted |= {item["job"]["id"] for item in items if item["status"] == 201}
    return accepted


def _report(
    console: Console,
    receiver: Receiver,
    accepted: set[str],
    outage: tuple[int, int],
    exit_code: int,
) -> int:
    arrivals = sorted(receiver.arrivals)
    identities: dict[str, set[str]] = defaultdict(set)
    times: dict[str, list[int]] = defaultdict(list)
    lateness: list[int] = []
    early = 0
    killed_ms, restarted_ms = outage
    for now_ms, job_id, identity, trigger_ms in arrivals:
        early += now_ms < trigger_ms
        if not times[job_id] and not killed_ms - 1_000 <= trigger_ms <= restarted_ms + 1_000:
            lateness.append(now_ms - trigger_ms)
        identities[job_id].add(identity)
        times[job_id].append(now_ms)
    lost = len(accepted - times.keys())
    repeats = sum(len(seen) - 1 for seen in times.values())
    # Only a send that was open at the kill may repeat: its first copy came just before it.
    unexcused = sum(
        1
        for job_id, seen in times.items()
        if len(seen) > 1 and (len(identities[job_id]) > 1 or seen[0] < killed_ms - 5_000)
    )
    lateness.sort()
    table = Table(title="What the receiver saw", show_header=False)
    table.add_column(justify="left")
    table.add_column(justify="right")
    table.add_row("jobs accepted", str(len(accepted)))
    table.add_row("jobs delivered", str(len(times)))
    table.add_row("lost", _judged(lost, good=lost == 0))
    table.add_row("repeats (same webhook-id, in flight at the kill)", str(repeats))
    table.add_row("repeats without that excuse", _judged(unexcused, good=unexcused == 0))
    table.add_row("early", _judged(early, good=early == 0))
    table.add_row(
        "bad signatures", _judged(receiver.bad_signatures, good=not receiver.bad_signatures)
    )
    if lateness:
        for name, place in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
            value = lateness[min(len(lateness) - 1, int(len(lateness) * place))]
            table.add_row(f"lateness {name}, outside the outage", f"{value} ms")
    table.add_row("the outage: killed until ready again", f"{restarted_ms - killed_ms} ms")
    console.print(table)
    held = (
        len(accepted) == JOBS
        and not (lost or unexcused or early or receiver.bad_signatures)
        and killed_ms > 0
        and exit_code == os.EX_OK
    )
    console.print("[bold green]The promises held.[/]" if held else "[bold red]A promise broke.[/]")
    return 0 if held else 1


def _judged(value: int, *, good: bool) -> str:
    return f"[green]{value}[/]" if good else f"[bold red]{value}[/]"
