"""Fire: due jobs, claimed, delivered and settled, against clients alone that post the same.

One is bare and knows nothing but to post. The other two are the sender of production, and aiohttp's
client in its place (`bench.sender`).
"""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator

from bench.sender import candidate
from bench.tools import COLLECTION, Process, ask, median, node, push, report, request_bytes, set_up

_BODY_BYTES = 190
# What the node may have under way at a time has its price for a client that does nothing else, too.
_UNDER_WAY = 1_000


def _batches(count: int, due_ms: int, prefix: str) -> Iterator[bytes]:
    for start in range(0, count, 1_000):
        jobs = [
            {
                "id": f"{prefix}-{number:08d}",
                "trigger_time": due_ms,
                "route": "hook",
                "meta": {"cart": number, "user": "u-123456", "text": "your cart is waiting"},
            }
            for number in range(start, start + 1_000)
        ]
        yield request_bytes("POST", f"{COLLECTION}/jobs/batch", json.dumps(jobs).encode())


def _wait_delivered(measured: Process, count: int, limit_s: float) -> float:
    """Wait until so many are delivered; returns when."""
    end_s = time.perf_counter() + limit_s
    while time.perf_counter() < end_s:
        if ask(measured, "GET", COLLECTION)["counts"]["delivered"] >= count:
            return time.perf_counter()
        time.sleep(0.1)
    raise TimeoutError(f"not delivered within {limit_s} s: {ask(measured, 'GET', COLLECTION)}")


def run(*, quick: bool) -> None:
    """Measure, side by side."""
    rounds, count = (2, 20_000) if quick else (5, 200_000)
    added, over_sender, each_us, rates = [], [], [], []
    receiver = Process(["-m", "bench.baselines", "receiver"])
    url = f"http://recipient.example:{receiver.port}/hook"
    try:
        with (
            node() as measured,
            candidate("own", url, count, under_way=_UNDER_WAY) as own,
            candidate("aiohttp", url, count // 4, under_way=_UNDER_WAY) as aiohttp,
        ):
            set_up(measured, {"hook": receiver.port}, max_in_flight=_UNDER_WAY)
            for number in range(rounds):
                base_us = _bare_us(receiver.port, count)
                sender_us, aiohttp_us = own.run(), aiohttp.run()
                ours_us, rate = fire(measured, count, number)
                print(
                    f"  round: bare client {base_us:.1f} us/job, sender alone {sender_us:.1f},"
                    f" aiohttp's client alone {aiohttp_us:.1f}, node {ours_us:.1f}"
                )
                added.append(ours_us - base_us)
                over_sender.append(ours_us - sender_us)
                each_us.append(ours_us)
                rates.append(rate)
            beside_aiohttp = own.rate / aiohttp.rate
        parts = _parts(receiver.port, count)
    finally:
        receiver.stop()
    report(
        "fire: CPU added per job", f"{median(added):.1f} us", "<= 40 us", holds=median(added) <= 40
    )
    per_core, over = 1e6 / median(each_us), median(over_sender)
    holds = per_core >= 25_000 or over <= 25
    report("fire: jobs per second of CPU", f"{per_core:.0f}", ">= 25000, or", holds=holds)
    report("fire: CPU added over the sender alone", f"{over:.1f} us", "<= 25 us", holds=holds)
    report(
        "fire: rate of the sender alone",
        f"{own.rate:.0f}/s, {beside_aiohttp:.1f} x aiohttp",
        ">= 2 x",
        holds=beside_aiohttp >= 2,
    )
    report("fire: rate", f"{median(rates):.0f} jobs/s", "-", holds=None)
    for part, us in parts:
        print(f"  of the CPU of a fired job, by samples: {us:5.1f} us {part}")


def _parts(port: int, count: int) -> list[tuple[str, float]]:
    """Where the CPU time of a fired job goes, in us, the most first: of a node that is sampled."""
    with node(module="bench.sampled") as measured:
        set_up(measured, {"hook": port}, max_in_flight=_UNDER_WAY)
        fire(measured, count, 0)
        each_us, _ = fire(
            measured, count, 1, switch=lambda: measured.popen.send_signal(signal.SIGUSR2)
        )
        assert measured.popen.stdout is not None
        samples = json.loads(measured.popen.stdout.readline())
    total = sum(samples.values())
    found = [(part, each_us * number / total) for part, number in samples.items()]
    return sorted(found, key=lambda each: each[1], reverse=True)


def fire(
    measured: Process, count: int, number: int, switch: Callable[[], None] = lambda: None
) -> tuple[float, float]:
    """Let so many jobs become due at once; returns CPU time of each in us, and jobs per second.

    `switch` is called as the measured time begins, and as it ends.
    """
    # On a machine that does much else, loading takes that much longer.
    busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    load_s = max(4.0, count / 15_000) * busy
    due_ms = int((time.time() + load_s) * 1000)
    _, statuses = push(measured, _batches(count, due_ms, f"f{number}"), 4)
    assert list(statuses) == [200], statuses
    # What fires before the first look at the processor's time would not be counted.
    assert due_ms / 1000 - time.time() > 0.5, "loading took until the jobs were due"
    time.sleep(max(0.0, due_ms / 1000 - time.time() - 0.5))
    before = measured.cpu_s()
    switch()
    time.sleep(max(0.0, due_ms / 1000 - time.time()))
    began_s = time.perf_counter()
    ended_s = _wait_delivered(measured, count * (number + 1), 120 + count / 2_000)
    used_s = measured.cpu_s() - before
    switch()
    return used_s / count * 1e6, count / (ended_s - began_s)


def _bare_us(port: int, count: int) -> float:
    arguments = ["-m", "bench.baselines", "client", str(port), str(count), str(_BODY_BYTES)]
    client = Process(arguments)
    before = client.cpu_s()
    assert client.popen.stdout is not None
    client.popen.stdout.readline()
    used = client.cpu_s() - before
    client.stop()
    return used / count * 1e6
