"""A backup of much that is pending, beside bare reading of the same rows; and it is restored."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.tools import (
    COLLECTION,
    FAR_MS,
    ROOT,
    UNHEARD_PORT,
    Process,
    ask,
    jobs,
    node,
    push,
    report,
    set_up,
)
from timemachine.storage.keys import (
    GROUPS_START,
    GROUPS_STOP,
    ReplicaKeys,
    after_prefix,
    incarnation_in,
)
from timemachine.storage.leveldb import open_store

_ROWS = 4_096
_RUNS = 3


def run(*, quick: bool) -> None:
    """Take backups and read the store, in turns; then restore into a cluster of another size."""
    count = 100_000 if quick else 1_000_000
    with tempfile.TemporaryDirectory(prefix="timemachine-bench-") as folder:
        root = Path(folder)
        taken: list[float] = []
        with node(root / "old") as measured:
            set_up(measured, {"hook": UNHEARD_PORT})
            _, statuses = push(measured, jobs(count, "job", FAR_MS, 0, "hook"), 4)
            assert list(statuses) == [200], statuses
            for number in range(_RUNS):
                began_s = time.perf_counter()
                _admin(measured, "backup", "create", f"{root}/backups{number}")
                taken.append(count / (time.perf_counter() - began_s))
        raw = [_read(root / "old", count) for _ in range(_RUNS)]
        for backup, bare in zip(sorted(taken), sorted(raw), strict=True):
            figure = f"{backup / bare:.2f}: {backup:.0f} of {bare:.0f}/s"
            report("backup: share of reading alone", figure, ">= 0.3", holds=backup >= 0.3 * bare)
        with node(root / "new", **{"secret-key-file": f"{root}/old/secret.key"}) as measured:
            began_s = time.perf_counter()
            words = ("restore", f"{root}/backups0", "--num-vnodes", "17", "--json")
            plan = json.loads(_admin(measured, *words, "--dry-run"))["plan"]
            told = json.loads(_admin(measured, *words, "--plan", plan))
            rate = count / (time.perf_counter() - began_s)
            counts = ask(measured, "GET", COLLECTION)["counts"]
    complete = not told["differ"] and count == told["jobs"] == counts["scheduled"]
    figure = f"{told['jobs']} jobs, {len(told['differ'])} vnodes differ"
    report("backup: restored into 17 vnodes", figure, "all, 0", holds=complete)
    report("backup: restored and compared", f"{rate:.0f}/s", "-", holds=None)


def _admin(measured: Process, *words: str) -> str:
    """A command of `timemachine admin`, as a process of its own; what it prints."""
    server = ["--server", f"http://{measured.host}:{measured.port}"]
    command = [sys.executable, "-m", "node", "admin", *words, *server]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout


def _read(directory: Path, count: int) -> float:
    """Jobs a second, of all rows that a backup reads, one after the other and nothing else done."""
    store, _ = open_store(directory)
    try:
        numbers = [incarnation_in(row) for _, row in store.scan(GROUPS_START, GROUPS_STOP, 999)]
        seen = 0
        began_s = time.perf_counter()
        for number in numbers:
            keys = ReplicaKeys(number)
            seen += _rows(store, keys.job)
            _rows(store, keys.meta)
            _rows(store, keys.attempts)
        took_s = time.perf_counter() - began_s
    finally:
        store.close()
    assert seen == count, seen
    return count / took_s


def _rows(store: Any, table: bytes) -> int:
    cursor, seen = table, 0
    while rows := store.scan(cursor, after_prefix(table), _ROWS):
        seen += len(rows)
        cursor = rows[-1][0] + b"\0"
    return seen
