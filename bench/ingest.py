"""Ingest: durable creates, one by one over 64 connections, and in batches of 1,000."""

import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.tools import (
    COLLECTION,
    FAR_MS,
    UNHEARD_PORT,
    Process,
    median,
    node,
    percentile,
    push,
    report,
    request_bytes,
    set_up,
)
from timemachine.storage.leveldb import FORMAT, Identity, open_store

_PATH = f"{COLLECTION}/jobs"
_META = {"cart": 7, "user": "u-123456", "text": "your cart is waiting"}


def _job(identity: str | None = None) -> dict[str, object]:
    job: dict[str, object] = {"trigger_time": FAR_MS, "route": "hook", "meta": _META}
    if identity is not None:
        job["id"] = identity
    return job


def singles(count: int, prefix: str) -> Iterator[bytes]:
    """Creates of one job each; ids begin with `prefix`."""
    for number in range(count):
        yield request_bytes("POST", _PATH, json.dumps(_job(f"{prefix}-{number:08d}")).encode())


def batches(count: int, size: int, prefix: str) -> Iterator[bytes]:
    """Batches of `size` jobs each; ids begin with `prefix`."""
    for batch in range(count):
        jobs = [_job(f"{prefix}-{batch:05d}-{number:05d}") for number in range(size)]
        yield request_bytes("POST", _PATH + "/batch", json.dumps(jobs).encode())


def _raw_rows(jobs: int, size: int) -> float:
    """Jobs a second of raw synced batches with the keys and bytes that a create writes."""
    with tempfile.TemporaryDirectory(prefix="timemachine-bench-") as folder:
        identity = Identity(FORMAT, "c", "n", 1, b"k")
        store, _ = open_store(Path(folder, "data"), create=identity)
        meta = json.dumps(_META).encode()
        began_s = time.perf_counter()
        for start in range(0, jobs, size):
            rows: dict[bytes, bytes | None] = {}
            for number in range(start, start + size):
                key = b"raw-%08d" % number
                spread = os.urandom(2)
                rows[b"j" + spread + key] = b"r" * 95
                rows[b"m" + spread + key] = meta
                rows[b"d" + spread + b"t" * 8 + key] = b"v" * 32
                rows[b"i" + spread + b"t" * 9 + key] = b""
                rows[b"r" + spread + b"t" * 16 + key] = b""
            rows[b"l%08d" % start] = b"e" * (180 * size)
            store.write(store.prepare(rows))
        took_s = time.perf_counter() - began_s
        store.close()
    return jobs / took_s


def run(*, quick: bool) -> None:
    """Measure, five times side by side."""
    rounds, count = (3, 6_000) if quick else (5, 20_000)
    added, rates, p99s = [], [], []
    with node() as measured:
        set_up(measured, {"hook": UNHEARD_PORT})
        baseline = Process(["-m", "bench.baselines", "server"])
        try:
            push(baseline, singles(2_000, "warm"))
            push(measured, singles(2_000, "warm"))
            for number in range(rounds):
                before = baseline.cpu_s()
                push(baseline, singles(count, "x"))
                base_us = (baseline.cpu_s() - before) / count * 1e6
                before, began_s = measured.cpu_s(), time.perf_counter()
                times, statuses = push(measured, singles(count, f"s{number}"))
                took_s = time.perf_counter() - began_s
                ours_us = (measured.cpu_s() - before) / count * 1e6
                assert statuses == {201: count}, statuses
                added.append(ours_us - base_us)
                rates.append(count / took_s)
                p99s.append(percentile(times, 0.99) * 1000)
                print(f"  round: baseline {base_us:.1f} us/job, node {ours_us:.1f} us/job")
        finally:
            baseline.stop()
        report(
            "ingest, single: CPU added per job",
            f"{median(added):.1f} us",
            "<= 25 us",
            holds=median(added) <= 25,
        )
        report("ingest, single: rate", f"{median(rates):.0f} jobs/s", "-", holds=None)
        report("ingest, single: p99 of a request", f"{median(p99s):.1f} ms", "-", holds=None)
        ratios, batch_rates = [], []
        many = 10 if quick else 40
        for number in range(rounds):
            requests = list(batches(many, 1_000, f"b{number}"))
            raw = _raw_rows(many * 1_000, 1_000)
            began_s = time.perf_counter()
            _, statuses = push(measured, iter(requests), connections=4)
            rate = many * 1_000 / (time.perf_counter() - began_s)
            assert statuses == {200: many}, statuses
            ratios.append(rate / raw)
            batch_rates.append(rate)
        report(
            "ingest, batches of 1,000: share of raw store",
            f"{median(ratios):.2f}",
            ">= 0.3",
            holds=median(ratios) >= 0.3,
        )
        report("ingest, batches: rate", f"{median(batch_rates):.0f} jobs/s", "-", holds=None)
