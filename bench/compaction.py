"""A node gives the space of forgotten jobs back to its disk, and fires meanwhile."""

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from bench.live import Live
from bench.tools import (
    FAR_MS,
    UNHEARD_PORT,
    Process,
    ask,
    batches,
    median,
    node,
    percentile,
    push,
    report,
    set_up,
)

_OLD = "/v1/dbs/default/collections/old"
_PLANS = "/v1/cluster/plans"
_META = "x" * 200
_RUNS = 5


def _old_jobs(count: int) -> Iterator[bytes]:
    old = (
        {"id": f"old-{number:08d}", "trigger_time": FAR_MS, "route": "old", "meta": _META}
        for number in range(count)
    )
    return batches(old, _OLD)


def run(*, quick: bool) -> None:
    """Fill and empty a collection beside a route that is fired at, and compact: several times."""
    count, seconds = (50_000, 4.0) if quick else (300_000, 6.0)
    arrivals = Process(["-m", "bench.arrivals"])
    with node() as measured:
        set_up(measured, {"hook": arrivals.port, "old": UNHEARD_PORT}, max_in_flight=256)
        ask(measured, "PUT", _OLD, {"num_vnodes": 12, "history_retention_ms": 0})
        live = Live(measured, arrivals)
        alone_ms: list[float] = []
        beside_ms: list[float] = []
        for number in range(1, _RUNS + 1):
            _forget(measured, count)
            alone = [live.during(lambda: time.sleep(seconds), seconds)]
            plan = ask(measured, "POST", _PLANS, {"kind": "compact"})
            beside_s = plan["estimate_ms"] / 1000 + seconds
            late, delay_ms = live.during(partial(_compact, measured, plan), beside_s)
            alone.append(live.during(lambda: time.sleep(seconds), seconds))
            (done,) = ask(measured, "GET", f"{_PLANS}/{plan['id']}")["compaction"]["nodes"]
            name = f"compaction {number} of {_RUNS}"
            shown = f"{done['before_bytes'] >> 20} -> {done['disk_bytes'] >> 20} MiB"
            report(f"{name}: the store", shown, "-", holds=None)
            # Before it, what was forgotten last may still be being written.
            calm, beside = min(percentile(each, 0.99) for each, _ in alone), percentile(late, 0.99)
            alone_ms.append(calm)
            beside_ms.append(beside)
            figure = f"{beside:.1f} ms, alone {calm:.1f}"
            report(f"{name}: p99 late", figure, "-", holds=None)
            figure = f"{max(late):.1f} ms, alone {max(max(each) for each, _ in alone):.1f}"
            report(f"{name}: latest", figure, "-", holds=None)
            figure = f"{delay_ms:.1f} ms, alone {min(each for _, each in alone):.1f}"
            report(f"{name}: longest loop delay", figure, "-", holds=None)
    arrivals.stop()
    # The disk of a shared machine stalls now and then, also when nothing is compacted.
    calm, beside = median(alone_ms), median(beside_ms)
    bar_ms = max(2 * calm, calm + 20)
    figure = f"{beside:.1f} ms, alone {calm:.1f}"
    name = f"compaction: p99 late, the middle of {_RUNS}"
    report(name, figure, f"<= {bar_ms:.1f} ms", holds=beside <= bar_ms)


def _forget(measured: Process, count: int) -> None:
    """Create as many jobs, and have all of them cancelled and purged."""
    _, statuses = push(measured, _old_jobs(count), 4)
    assert list(statuses) == [200], statuses
    begun = ask(measured, "POST", f"{_OLD}/jobs/cancel", {"filter": {}})
    while "running" == ask(measured, "GET", f"/v1/tasks/{begun['task']}")["state"]:
        time.sleep(0.2)
    while any(ask(measured, "GET", _OLD)["counts"].values()):
        time.sleep(0.2)


def _compact(measured: Process, plan: dict[str, Any]) -> None:
    ask(measured, "POST", f"{_PLANS}/{plan['id']}/confirm")
    began_s = time.perf_counter()
    while "running" == ask(measured, "GET", f"{_PLANS}/{plan['id']}")["state"]:
        time.sleep(0.05)
    print(f"    compacted in {time.perf_counter() - began_s:.1f} s")
