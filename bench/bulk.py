"""Bulk: lists, counts, forecasts and tasks over a million jobs, and what they do to firing.

The loop's delay is the node's own figure: the longest wait for the event loop since it was asked
last. What the machine itself withholds from the process is part of it, so the same figure is
printed for a node that does nothing but fire.
"""

import json
import re
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

from bench.lateness import jobs as due_jobs
from bench.tools import Process, ask, node, percentile, push, report, request_bytes

_PATH = "/v1/dbs/default/collections/jobs"
_FAR_MS = 4_000_000_000_000
_MINUTE_MS = 60_000
_LIVE_PER_S = 1_000
_DELAY = re.compile(r"^timemachine_loop_delay_max_seconds (\S+)$", re.MULTILINE)


def _far_jobs(count: int) -> Iterator[bytes]:
    """Jobs spread over thirty days, a tenth of them with a tag, a tenth of another route."""
    step_ms = 30 * 1440 * _MINUTE_MS // count
    for start in range(0, count, 1_000):
        batch = [
            {
                "id": f"far-{number:08d}",
                "trigger_time": _FAR_MS + number * step_ms,
                "route": "other" if number % 10 == 1 else "far",
                "tags": ["cart"] if number % 10 == 0 else [],
                "meta": {"n": number},
            }
            for number in range(start, start + 1_000)
        ]
        yield request_bytes("POST", _PATH + "/jobs/batch", json.dumps(batch).encode())


def _delay_ms(measured: Process) -> float:
    """The longest wait for the loop since the last call."""
    url = f"http://{measured.host}:{measured.port}/metrics"
    with urllib.request.urlopen(url) as page:
        found = _DELAY.search(page.read().decode())
    assert found is not None
    return float(found[1]) * 1000


class _Live:
    """A route that is fired at all the while, as seen from its recipient."""

    def __init__(self, measured: Process, arrivals: Process) -> None:
        self._measured = measured
        self._arrivals = arrivals
        self._number = 0

    def during(self, work: Callable[[], None], seconds: float) -> tuple[list[float], float]:
        """Do the work while jobs are fired: (lateness of each in ms, longest loop delay in ms)."""
        count = int(_LIVE_PER_S * (seconds + 1))
        self._number += 1
        first_ms = int((time.time() + 2) * 1000)
        prefix = f"live{self._number}"
        push(self._measured, due_jobs(count, prefix, first_ms, _LIVE_PER_S, "hook"), 2)
        json.loads(self._arrivals.line())
        time.sleep(max(0.0, first_ms / 1000 + 0.5 - time.time()))
        _delay_ms(self._measured)
        end_s = time.time() + seconds
        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        worker.join()
        delay_ms = _delay_ms(self._measured)
        late_ms: list[float] = json.loads(self._arrivals.line())
        # The rest of them, so that the next round begins with none.
        time.sleep(max(0.0, end_s + 1.5 - time.time()))
        json.loads(self._arrivals.line())
        return late_ms, delay_ms


def _for(seconds: float, operation: Callable[[], Any]) -> Callable[[], None]:
    def work() -> None:
        end_s = time.time() + seconds
        while time.time() < end_s:
            operation()

    return work


def run(*, quick: bool) -> None:
    """Measure each operation beside the live route, and the live route alone."""
    count, seconds = (100_000, 3.0) if quick else (1_000_000, 8.0)
    arrivals = Process(["-m", "bench.arrivals"])
    with node() as measured:
        ask(measured, "PUT", _PATH)
        for name, port in (("hook", arrivals.port), ("far", 9), ("other", 9)):
            body = {"webhook_url": f"http://127.0.0.1:{port}/x", "max_in_flight": 256}
            ask(measured, "PUT", f"/v1/dbs/default/routes/{name}", body)
        push(measured, _far_jobs(count), 4)
        live = _Live(measured, arrivals)
        alone, alone_delay_ms = live.during(lambda: time.sleep(seconds), seconds)
        p99 = percentile(alone, 0.99)
        print(f"  firing alone: p99 {p99:.1f} ms, loop delay {alone_delay_ms:.1f} ms")

        def listed(query: str) -> Callable[[], Any]:
            return lambda: ask(measured, "GET", f"{_PATH}/jobs?limit=1000&{query}")

        def dry(filters: dict[str, Any]) -> Callable[[], Any]:
            body = {"filter": filters, "dry_run": True}
            return lambda: ask(measured, "POST", f"{_PATH}/jobs/cancel", body)

        def task(operation: str, body: dict[str, Any]) -> Callable[[], None]:
            def work() -> None:
                started = ask(measured, "POST", f"{_PATH}/jobs/{operation}", body)["task"]
                while True:
                    shown = ask(measured, "GET", f"/v1/tasks/{started}")
                    if shown["state"] != "running" or time.time() > end_s:
                        break
                    time.sleep(0.05)
                taken_s = time.time() - began_s
                print(f"    {shown['progress']['done']} jobs, {taken_s:.1f} s")
                if shown["state"] == "running":
                    ask(measured, "POST", f"/v1/tasks/{started}/cancel")

            began_s = time.time()
            end_s = began_s + 2 + seconds * 2
            return work

        forecast_ms: list[float] = []

        def forecast(first_ms: int, span_ms: int, bucket_ms: int) -> Callable[[], None]:
            query = f"from={first_ms}&to={first_ms + span_ms}&bucket_ms={bucket_ms}"

            def work() -> None:
                began_s = time.perf_counter()
                ask(measured, "GET", f"{_PATH}/forecast?{query}")
                forecast_ms.append((time.perf_counter() - began_s) * 1000)

            return work

        day_ms = 1440 * _MINUTE_MS
        shift = {"filter": {"tag": "cart"}, "shift_ms": 3_600_000}
        works: list[tuple[str, Callable[[], Callable[[], None]]]] = [
            ("list, all", lambda: _for(seconds, listed(""))),
            ("list, by tag", lambda: _for(seconds, listed("tag=cart&state=scheduled"))),
            (
                "list, filter without an index",
                lambda: _for(seconds, listed("state=scheduled&route=no")),
            ),
            ("dry run of all", lambda: _for(seconds, dry({}))),
            (
                "forecast, 30 days by the hour",
                lambda: _for(seconds, forecast(_FAR_MS, 30 * day_ms, 60 * _MINUTE_MS)),
            ),
            (
                "forecast, cut minutes",
                lambda: _for(seconds, forecast(_FAR_MS + 777, 30 * day_ms, 3_600_777)),
            ),
            ("reschedule, a tenth", lambda: task("reschedule", shift)),
            ("cancel, all", lambda: task("cancel", {"filter": {"from": _FAR_MS}})),
        ]
        worst_delay_ms = worst_p99 = 0.0
        for name, make in works:
            forecast_ms.clear()
            late_ms, delay_ms = live.during(
                make(), seconds * (2 if "," in name and "list" not in name else 1)
            )
            beside = percentile(late_ms, 0.99)
            print(f"  {name}: live p99 {beside:.1f} ms, loop delay {delay_ms:.1f} ms", flush=True)
            worst_delay_ms, worst_p99 = max(worst_delay_ms, delay_ms), max(worst_p99, beside)
            if forecast_ms:
                middle = percentile(forecast_ms, 0.5)
                report(f"bulk: {name}", f"{middle:.1f} ms", "< 50 ms", holds=middle < 50)
    arrivals.stop()
    report(
        "bulk: longest loop delay",
        f"{worst_delay_ms:.1f} ms",
        "<= 20 ms",
        holds=worst_delay_ms <= 20,
    )
    report(
        "bulk: p99 of a live route beside it",
        f"{worst_p99:.1f} ms",
        f"<= {p99 + 20:.1f} ms",
        holds=worst_p99 <= p99 + 20,
    )
