"""Hosts: a thousand routes, each with a host of its own, whose jobs are due at the same time."""

import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from bench.sender import receiver
from bench.tools import COLLECTION, Process, ask, batches, node, push, report
from node.sender.pool import connections_allowed

_HOSTS = 1_000
_MANY_FILES, _FEW_FILES = 65_536, 1_024
_LOOK_S = 0.02


@contextmanager
def _open_files(count: int) -> Iterator[None]:
    """Programs that are started meanwhile may have so many files open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _connected(process: Process, port: int) -> tuple[int, int]:
    """How many files a process has open, and how many of them are connections to that port."""
    ours = set()
    with suppress(OSError):
        for entry in Path(f"/proc/{process.popen.pid}/fd").iterdir():
            with suppress(OSError):
                ours.add(str(entry.readlink()))
    wanted = f":{port:04X}"
    inodes = {
        f"socket:[{fields[9]}]"
        for fields in map(str.split, Path("/proc/net/tcp").read_text().splitlines()[1:])
        if fields[2].endswith(wanted)
    }
    return len(ours), len(ours & inodes)


def _round(files: int, each: int) -> None:
    """All hosts get `each` webhooks, from a node that may have so many files open."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="timemachine-bench-")))
        recipient = stack.enter_context(receiver(folder))
        with _open_files(files):
            measured = stack.enter_context(node())
        ask(measured, "PUT", COLLECTION)
        for number in range(_HOSTS):
            host = f"127.{1 + number // 250}.{number % 250}.1"
            body = {"webhook_url": f"http://{host}:{recipient.port}/hook", "max_in_flight": 10}
            ask(measured, "PUT", f"/v1/dbs/default/routes/r{number}", body)
        count = _HOSTS * each
        due_ms = int((time.time() + 3 + count / 15_000) * 1000)
        made = (
            {"id": f"h-{number}", "trigger_time": due_ms, "route": f"r{number % _HOSTS}"}
            for number in range(count)
        )
        _, statuses = push(measured, batches(made), 4)
        assert list(statuses) == [200], statuses
        before = measured.anonymous_bytes()
        time.sleep(max(0.0, due_ms / 1000 - time.time() - 0.1))
        open_max = connected_max = grown_max = delivered = 0
        end_s = time.time() + 60 + count / 1_000
        asked_s = 0.0
        while delivered < count and time.time() < end_s:
            open_now, connected = _connected(measured, recipient.port)
            open_max, connected_max = max(open_max, open_now), max(connected_max, connected)
            grown_max = max(grown_max, measured.anonymous_bytes() - before)
            if time.time() - asked_s > 0.5:
                asked_s = time.time()
                delivered = ask(measured, "GET", COLLECTION)["counts"]["delivered"]
            time.sleep(_LOOK_S)
    allowed = connections_allowed(files)
    name = f"hosts, {_HOSTS} and {files} files"
    report(f"{name}: delivered", f"{delivered}", f"{count}", holds=delivered == count)
    report(
        f"{name}: connections at most",
        f"{connected_max}",
        f"<= {allowed}",
        holds=0 < connected_max <= allowed,
    )
    report(f"{name}: files at most", f"{open_max}", f"<= {files}", holds=open_max <= files)
    grown_mb = grown_max / 1e6
    report(f"{name}: memory added", f"{grown_mb:.0f} MB", "<= 100 MB", holds=grown_mb <= 100)


def run(*, quick: bool) -> None:
    """Measure with room for a connection to each, and without."""
    each = 2 if quick else 50
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    _round(_MANY_FILES if hard == resource.RLIM_INFINITY else min(hard, _MANY_FILES), each)
    _round(_FEW_FILES, each)
