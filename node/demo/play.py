"""The demo from its beginning to its verdict."""

import tempfile
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from node.demo.faults import COLLECTION, DB, Faults, now_ms, wait_for_leaders
from node.demo.judge import judge
from node.demo.receiver import Receiver
from node.demo.table import draw
from node.local.cluster import LocalCluster
from node.local.folder import Folder
from node.local.process import NodeProcess
from timemachine.client import Attempt, SyncClient
from timemachine.errors import TimeMachineError
from timemachine.receiver import Webhook

JOBS = 2_000
NODES = 3
_LEAD_MS = 3_000
_SPAN_MS = 20_000
_PATIENCE_MS = 30_000
_BATCH = 100
_VNODES = 12
_ROUTE = "receiver"
_LOG_LINES = 40


def run_demo() -> int:
    """Run the demo; 0 when every promise held."""
    console = Console()
    console.print(
        f"[bold]TimeMachine demo[/]: {NODES} nodes, {JOBS} jobs due over {_SPAN_MS // 1000} s."
        " One node is killed with -9\nand started again, another one stands still for a while.\n"
    )
    log = _Log()
    with tempfile.TemporaryDirectory(prefix="timemachine-demo-") as path:
        folder = Folder(Path(path))
        cluster = LocalCluster(folder, NODES, http="127.0.0.1:0", log=log.write)
        receiver = Receiver()
        try:
            return _play(console, cluster, receiver)
        except TimeMachineError as error:
            console.print(f"[bold red]The demo could not go on:[/] {error.detail}")
            console.print("\n".join(log.lines), markup=False, highlight=False)
            return 1
        finally:
            cluster.kill()
            receiver.close()


def _play(console: Console, cluster: LocalCluster, receiver: Receiver) -> int:
    began_s = time.monotonic()
    cluster.start()
    console.print(f"a cluster of {NODES} nodes after {time.monotonic() - began_s:.1f} s")
    status: list[str] = []
    faults = Faults(cluster, status.append)
    urls = [node.url for node in cluster.nodes]
    with SyncClient(*urls) as client:
        client.put_collection(DB, COLLECTION, num_vnodes=_VNODES)
        client.put_route(
            DB,
            _ROUTE,
            webhook_url=receiver.url,
            retry={"schedule_ms": [500], "max_attempts": 100},
        )
        receiver.webhook = Webhook(client.get_route_secret(DB, _ROUTE).secret)
        wait_for_leaders(faults, _VNODES)
        began_s = time.monotonic()
        first_ms = now_ms() + _LEAD_MS
        accepted = _create(urls, first_ms)
        console.print(
            f"accepted {len(accepted)} jobs through all of them"
            f" in {time.monotonic() - began_s:.1f} s"
        )
        _watch(console, faults, receiver, status, first_ms)
        verdict = judge(
            accepted,
            receiver.arrivals(),
            faults.made(),
            lambda job_id: _attempts(client, job_id),
            num_vnodes=_VNODES,
        )
    stopped = cluster.stop()
    console.print()
    console.print(draw(verdict, len(accepted), receiver.bad_signatures))
    broken = verdict.lost or verdict.unexcused or verdict.early or receiver.bad_signatures
    if len(accepted) < JOBS:
        console.print(f"[bold red]Only {len(accepted)} of {JOBS} jobs were accepted.[/]")
    if not faults.done():
        console.print("[bold red]Not all nodes came back in time.[/]")
    if not stopped:
        console.print("[bold red]A node did not stop as it was asked to.[/]")
    held = len(accepted) == JOBS and faults.done() and stopped and not broken
    console.print("[bold green]The promises held.[/]" if held else "[bold red]A promise broke.[/]")
    return 0 if held else 1


def _create(urls: list[str], first_ms: int) -> set[str]:
    """Create all jobs, evenly over the span, each batch through the next node.

    Returns the ids that were accepted.
    """
    accepted: set[str] = set()
    clients = [SyncClient(url) for url in urls]
    for number, start in enumerate(range(0, JOBS, _BATCH)):
        jobs = [
            {
                "id": f"demo-{each}",
                "trigger_time": first_ms + each * _SPAN_MS // JOBS,
                "route": _ROUTE,
                "meta": {"number": each},
            }
            for each in range(start, start + _BATCH)
        ]
        client = clients[number % len(clients)]
        path = f"/v1/dbs/{DB}/collections/{COLLECTION}/jobs/batch"
        answer: Any = client.request("POST", path, json=jobs)
        items = msgspec.json.decode(answer) if isinstance(answer, bytes | str) else answer
        accepted |= {item["job"]["id"] for item in items["items"] if item["status"] == 201}
    for client in clients:
        client.close()
    return accepted


def _watch(
    console: Console, faults: Faults, receiver: Receiver, status: list[str], first_ms: int
) -> None:
    """Do the faults at their times, and show what comes, until all has come."""
    progress = Progress(
        TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn(), console=console
    )
    delivered = progress.add_task("delivered", total=JOBS)
    steps = deque(faults.steps(_SPAN_MS))
    end_ms = first_ms + _SPAN_MS
    with Live(console=console, refresh_per_second=10) as live:
        while now_ms() < end_ms + _PATIENCE_MS:
            if steps and now_ms() >= first_ms + steps[0].after_ms:
                steps.popleft().act()
            faults.look()
            progress.update(delivered, completed=receiver.count())
            table = Table.grid()
            table.add_row(progress)
            for line in status:
                table.add_row(f"[yellow]{line}[/]")
            live.update(table)
            all_came = receiver.count() >= JOBS and now_ms() > end_ms + 1_000
            if all_came and not steps and faults.done():
                break
            time.sleep(0.05)


def _attempts(client: SyncClient, job_id: str) -> list[Attempt]:
    return list(client.attempts(DB, COLLECTION, job_id))


class _Log:
    """The last lines of the nodes' logs, to be shown if the demo cannot go on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.lines: deque[str] = deque(maxlen=_LOG_LINES)

    def write(self, node: NodeProcess, line: dict[str, Any]) -> None:
        """One line."""
        with self._lock:
            self.lines.append(f"{node.name}: {msgspec.json.encode(line).decode()}")
