"""Bulk: lists, counts, forecasts and tasks over a million jobs, and what they do to firing.

The loop's delay is the node's own figure: the longest wait for the event loop since it was asked
last. What the machine itself withholds from the process is part of it, so the same figure is
printed for a node that does nothing but fire.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

from bench.live import Live
from bench.tools import (
    COLLECTION,
    FAR_MS,
    UNHEARD_PORT,
    Process,
    ask,
    batches,
    node,
    percentile,
    push,
    report,
    set_up,
)

_MINUTE_MS = 60_000
_FORECASTS = 10


def _far_jobs(count: int) -> Iterator[bytes]:
    """Jobs spread over thirty days, a tenth of them with a tag, a tenth of another route."""
    step_ms = 30 * 1440 * _MINUTE_MS // count
    return batches(
        {
            "id": f"far-{number:08d}",
            "trigger_time": FAR_MS + number * step_ms,
            "route": "other" if number % 10 == 1 else "far",
            "tags": ["cart"] if number % 10 == 0 else [],
            "meta": {"n": number},
        }
        for number in range(count)
    )


class _Works:
    """What is done beside the live route; each of them takes about `seconds`, or twice that."""

    def __init__(self, measured: Process, seconds: float) -> None:
        self._measured = measured
        self._seconds = seconds
        self.forecast_ms: list[float] = []

    def all(self) -> list[tuple[str, float, Callable[[], None]]]:
        """(name, seconds, work) of each, in an order that leaves jobs for the next."""
        once, twice = self._seconds, 2 * self._seconds
        month_ms, hour_ms = 30 * 1440 * _MINUTE_MS, 60 * _MINUTE_MS
        shift = {"filter": {"tag": "cart"}, "shift_ms": hour_ms}
        return [
            ("list, all", once, self._list("")),
            ("list, by tag", once, self._list("tag=cart&state=scheduled")),
            ("list, filter without an index", once, self._list("state=scheduled&route=no")),
            ("dry run of all", once, self._dry_run({})),
            (
                "forecast, 30 days by the hour",
                twice,
                self._forecast(FAR_MS, month_ms, hour_ms),
            ),
            (
                "forecast, cut minutes",
                twice,
                self._forecast(FAR_MS + 777, month_ms, hour_ms + 777),
            ),
            ("reschedule, a tenth", twice, self._task("reschedule", shift)),
            ("cancel, all", twice, self._task("cancel", {"filter": {"from": FAR_MS}})),
        ]

    def _again(self, operation: Callable[[], Any]) -> Callable[[], None]:
        def work() -> None:
            end_s = time.time() + self._seconds
            while time.time() < end_s:
                operation()

        return work

    def _list(self, query: str) -> Callable[[], None]:
        path = f"{COLLECTION}/jobs?limit=1000&{query}"
        return self._again(lambda: ask(self._measured, "GET", path))

    def _dry_run(self, filters: dict[str, Any]) -> Callable[[], None]:
        body = {"filter": filters, "dry_run": True}
        return self._again(lambda: ask(self._measured, "POST", f"{COLLECTION}/jobs/cancel", body))

    def _forecast(self, first_ms: int, span_ms: int, bucket_ms: int) -> Callable[[], None]:
        query = f"from={first_ms}&to={first_ms + span_ms}&bucket_ms={bucket_ms}"

        def work() -> None:
            for _ in range(_FORECASTS):
                began_s = time.perf_counter()
                ask(self._measured, "GET", f"{COLLECTION}/forecast?{query}")
                self.forecast_ms.append((time.perf_counter() - began_s) * 1000)
                time.sleep(self._seconds / _FORECASTS)

        return work

    def _task(self, operation: str, body: dict[str, Any]) -> Callable[[], None]:
        def work() -> None:
            measured = self._measured
            began_s = time.time()
            end_s = began_s + 2 * self._seconds
            started = ask(measured, "POST", f"{COLLECTION}/jobs/{operation}", body)["task"]
            while True:
                shown = ask(measured, "GET", f"/v1/tasks/{started}")
                if shown["state"] != "running" or time.time() > end_s:
                    break
                time.sleep(0.05)
            print(f"    {shown['progress']['done']} jobs, {time.time() - began_s:.1f} s")
            if shown["state"] == "running":
                ask(measured, "POST", f"/v1/tasks/{started}/cancel")

        return work


def run(*, quick: bool) -> None:
    """Measure each operation beside the live route, and the live route alone."""
    count, seconds = (100_000, 3.0) if quick else (1_000_000, 8.0)
    arrivals = Process(["-m", "bench.arrivals"])
    with node() as measured:
        set_up(
            measured,
            {"hook": arrivals.port, "far": UNHEARD_PORT, "other": UNHEARD_PORT},
            max_in_flight=256,
        )
        push(measured, _far_jobs(count), 4)
        live = Live(measured, arrivals)
        alone, alone_delay_ms = live.during(lambda: time.sleep(seconds), seconds)
        p99 = percentile(alone, 0.99)
        print(f"  firing alone: p99 {p99:.1f} ms, loop delay {alone_delay_ms:.1f} ms")
        works = _Works(measured, seconds)
        worst_delay_ms = worst_p99 = 0.0
        for name, work_s, work in works.all():
            works.forecast_ms.clear()
            late_ms, delay_ms = live.during(work, work_s)
            beside = percentile(late_ms, 0.99)
            print(f"  {name}: live p99 {beside:.1f} ms, loop delay {delay_ms:.1f} ms", flush=True)
            worst_delay_ms, worst_p99 = max(worst_delay_ms, delay_ms), max(worst_p99, beside)
            if works.forecast_ms:
                middle = percentile(works.forecast_ms, 0.5)
                report(f"bulk: {name}, beside it", f"{middle:.1f} ms", "-", holds=None)
                # Nothing is fired now: what a forecast itself takes.
                works.forecast_ms.clear()
                work()
                middle = percentile(works.forecast_ms, 0.5)
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
