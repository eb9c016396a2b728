"""Lateness: 2,000 jobs/s with a million others pending, and with a dead route beside them."""

import json
import socket
import threading
import time

from bench.tools import (
    FAR_MS,
    Process,
    jobs,
    node,
    percentile,
    push,
    report,
    set_up,
)


class DeadEnd:
    """A recipient that accepts connections and says nothing."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.port = self._listener.getsockname()[1]
        self._kept: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            self._kept.append(self._listener.accept()[0])


def _round(measured: Process, arrivals: Process, prefix: str, seconds: int) -> list[float]:
    json.loads(arrivals.line())
    count = 2_000 * seconds
    first_ms = int((time.time() + 3) * 1000)
    push(measured, jobs(count, prefix, first_ms, 2_000, "hook"), 2)
    late_ms: list[float] = []
    end_s = time.time() + seconds + 30
    while len(late_ms) < count and time.time() < end_s:
        time.sleep(0.5)
        late_ms += json.loads(arrivals.line())
    return late_ms


def run(*, quick: bool) -> None:
    """Measure both in one run."""
    pending, seconds = (100_000, 5) if quick else (1_000_000, 20)
    arrivals, dead_end = Process(["-m", "bench.arrivals"]), DeadEnd()
    with node() as measured:
        set_up(measured, {"hook": arrivals.port, "dead": dead_end.port}, max_in_flight=64)
        push(measured, jobs(pending, "far", FAR_MS, 0, "hook"), 4)
        alone = _round(measured, arrivals, "alone", seconds)
        push(measured, jobs(10_000, "dead", int(time.time() * 1000), 0, "dead"), 2)
        beside = _round(measured, arrivals, "beside", seconds)
    arrivals.stop()
    p50, p99 = percentile(alone, 0.5), percentile(alone, 0.99)
    beside_p99 = percentile(beside, 0.99)
    bound = max(2 * p99, p99 + 20)
    report(f"lateness with {pending} pending: p50", f"{p50:.1f} ms", "<= 3 ms", holds=p50 <= 3)
    report("lateness: p99", f"{p99:.1f} ms", "<= 15 ms", holds=p99 <= 15)
    report(
        "lateness beside a dead route: p99",
        f"{beside_p99:.1f} ms",
        f"<= {bound:.1f} ms",
        holds=beside_p99 <= bound,
    )
