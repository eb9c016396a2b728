"""Growth: do rates hold as pending jobs pile up, and does the node answer under 5,000 pushers?"""

import http.client
import json
import time

from bench.tools import (
    COLLECTION,
    FAR_MS,
    Process,
    ask,
    jobs,
    node,
    percentile,
    push,
    report,
    set_up,
)


def _ingest_rate(measured: Process, prefix: str, count: int) -> tuple[float, float]:
    """(jobs a second, longest request in ms) of batches.

    They are made before: the client must not take the processor from what is measured.
    """
    requests = list(jobs(count, prefix, FAR_MS, 0, "hook"))
    began_s = time.perf_counter()
    times, statuses = push(measured, iter(requests), 2)
    assert list(statuses) == [200], statuses
    return count / (time.perf_counter() - began_s), max(times) * 1000


def _fire_rate(measured: Process, prefix: str, count: int) -> float:
    before = ask(measured, "GET", COLLECTION)["counts"]["delivered"]
    due_ms = int((time.time() + 2 + count / 15_000) * 1000)
    push(measured, jobs(count, prefix, due_ms, 0, "hook"), 2)
    time.sleep(max(0.0, due_ms / 1000 - time.time()))
    began_s = time.perf_counter()
    while ask(measured, "GET", COLLECTION)["counts"]["delivered"] < before + count:
        time.sleep(0.05)
    return count / (time.perf_counter() - began_s)


def _health_under_load(
    measured: Process, connections: int, seconds: float
) -> tuple[list[float], dict[str, int]]:
    """Times of /healthz in ms while so many clients push single creates, and their statuses."""
    arguments = ["-m", "bench.pushers", str(measured.port), str(connections), str(seconds)]
    pushers = Process(arguments)
    connection = http.client.HTTPConnection(measured.host, measured.port, timeout=60)

    def probe() -> float:
        began_s = time.perf_counter()
        connection.request("GET", "/healthz")
        assert connection.getresponse().read()
        return (time.perf_counter() - began_s) * 1000

    # Its connection is taken after all that came before, which takes what it takes.
    print(f"  /healthz while {connections} connections are being taken: {probe():.0f} ms")
    assert pushers.popen.stdout is not None
    assert "pushing\n" == pushers.popen.stdout.readline()
    times: list[float] = []
    end_s = time.perf_counter() + seconds
    while time.perf_counter() < end_s:
        times.append(probe())
        time.sleep(0.02)
    connection.close()
    told = json.loads(pushers.popen.stdout.readline())
    print(
        f"  {connections} pushers: {sum(told['statuses'].values()) / told['seconds']:.0f} creates/s"
    )
    pushers.stop()
    return times, told["statuses"]


def run(*, quick: bool) -> None:
    """Measure at several sizes in one run."""
    sizes = [0, 100_000] if quick else [0, 1_000_000, 5_000_000]
    count = 20_000 if quick else 50_000
    receiver = Process(["-m", "bench.baselines", "receiver"])
    ingest: list[float] = []
    fire: list[float] = []
    longest_ms = 0.0
    pending = 0
    try:
        with node() as measured:
            set_up(measured, {"hook": receiver.port}, max_in_flight=500)
            for size in sizes:
                while pending < size:
                    _, longest = _ingest_rate(measured, f"grow{pending}", 100_000)
                    longest_ms = max(longest_ms, longest)
                    pending += 100_000
                # Long enough for compactions to be part of it, at the smallest size too.
                rate, longest = _ingest_rate(measured, f"in{size}", 4 * count)
                longest_ms = max(longest_ms, longest)
                ingest.append(rate)
                fire.append(_fire_rate(measured, f"fire{size}", count))
                print(f"  {size} pending: ingest {ingest[-1]:.0f}/s, fire {fire[-1]:.0f}/s")
            connections = 500 if quick else 5_000
            health, statuses = _health_under_load(measured, connections, 8.0)
            assert set(statuses) <= {"201", "429", "503"}, statuses
    finally:
        receiver.stop()
    slowest = min(min(rate / rates[0] for rate in rates) for rates in (ingest, fire))
    report("growth: slowest rate against empty", f"{slowest:.2f}", ">= 0.75", holds=slowest >= 0.75)
    report(
        "growth: longest batch request",
        f"{longest_ms:.0f} ms",
        "<= 500 ms",
        holds=longest_ms <= 500,
    )
    worst = max(health, default=float("inf"))
    figure = f"max {worst:.0f}, p99 {percentile(health, 0.99):.0f} ms"
    report(f"/healthz under {connections} pushers", figure, "< 100 ms", holds=worst < 100)
