"""A fourth node joins three that have much pending and no rest, and gets its share by a plan."""

import json
import time
from collections.abc import Iterable
from typing import Any

from bench.evidence import Evidence
from bench.feeders import DUE_MS
from bench.tools import COLLECTION, FAR_MS, Process, jobs, percentile, push, report
from bench.trio import Trio, trio
from timemachine.model import Node, Placement
from timemachine.rebalancing import lower_bound

_VNODES = 12
_FEEDERS = 24
_PLANS = "/v1/cluster/plans"
_PATIENCE_S = 3_600.0

Span = tuple[float, float]
"""From when until when, in ms of the wall clock."""


def _wall_ms() -> float:
    return time.time() * 1000


def run(*, quick: bool, pending: int | None = None) -> None:
    """Fill three nodes, feed them without a rest, let a fourth one join, and rebalance."""
    count = pending or (100_000 if quick else 1_000_000)
    window_s = 10.0 if quick else 30.0
    recipient = Process(["-m", "bench.notebook"])
    try:
        with trio() as nodes:
            _fill(nodes, recipient, count)
            feeders = Process(["-m", "bench.feeders", str(_FEEDERS), *nodes.urls(1)])
            try:
                time.sleep(5.0)
                before = _wait(window_s)
                begin_ms = _wall_ms()
                nodes.join(4)
                joined_ms = _wall_ms()
                plan, bound = _rebalance(nodes)
                during = (begin_ms, _wall_ms())
                nodes.settle()
                after = _wait(window_s)
                told = json.loads(feeders.line())
            finally:
                feeders.stop()
            nodes.wait(lambda: _pending(nodes) <= count, patience_s=_PATIENCE_S)
            left = _pending(nodes)
            evidence = Evidence(told, json.loads(recipient.line()), _VNODES)
    finally:
        recipient.stop()
    took_s = (during[1] - during[0]) / 1000
    joining_s = (joined_ms - begin_ms) / 1000
    print(f"  it joined in {joining_s:.1f} s, and all was moved after {took_s:.1f} s")
    _judge(f"join, {count} pending", evidence, (before, during, after))
    moves = plan["moves"]["copies"]
    figure, bar = f"{moves} of {moves / max(1, bound):.2f} x {bound}", "<= 1.05 x the least"
    report("join: replicas moved", figure, bar, holds=moves <= 1.05 * bound)
    counts = sorted(nodes.replicas.values())
    report("join: replicas of nodes", f"{counts}", "even", holds=counts[-1] - counts[0] <= 1)
    report("join: pending jobs lost", f"{count - left}", "0", holds=left == count)
    estimate_s = plan["estimate_ms"] / 1000
    figure = f"{took_s:.1f} s, the plan said {estimate_s:.1f}"
    report("join: until all was moved", figure, "-", holds=None)


def _fill(nodes: Trio, recipient: Process, count: int) -> None:
    nodes.ask("PUT", COLLECTION, {"num_vnodes": _VNODES, "replicas": 3})
    route = {
        "webhook_url": f"http://127.0.0.1:{recipient.port}/hook",
        "max_in_flight": 256,
        "timeout_ms": 2_000,
    }
    nodes.ask("PUT", "/v1/dbs/default/routes/hook", route)
    nodes.settle()
    began_s = time.perf_counter()
    among = list(nodes.nodes.values())
    _, statuses = push(among, jobs(count, "pending", FAR_MS, 0, "hook"), 6)
    assert list(statuses) == [200], statuses
    assert _pending(nodes) == count
    print(f"  {count} jobs were pending after {time.perf_counter() - began_s:.0f} s")
    nodes.settle()


def _wait(window_s: float) -> Span:
    begin_ms = _wall_ms()
    time.sleep(window_s)
    return begin_ms, _wall_ms()


def _pending(nodes: Trio) -> int:
    """How many jobs have not ended. Those that are fed end; the others are due in many years."""
    counts = nodes.ask("GET", COLLECTION)["counts"]
    return sum(counts[state] for state in ("scheduled", "retrying", "firing", "held"))


def _rebalance(nodes: Trio) -> tuple[dict[str, Any], int]:
    """Have the plan carried out; returns it, and how few replicas any plan would copy."""
    rows = nodes.ask("GET", "/v1/cluster/vnodes")["items"]
    placements = [
        Placement(
            1, row["index"], replicas=tuple(nodes.ids[each["node"]] for each in row["replicas"])
        )
        for row in rows
    ]
    members = [
        Node(
            number=each["number"],
            **{name: each[name] for name in ("id", "name", "http", "rpc", "zone", "version")},
        )
        for each in nodes.ask("GET", "/v1/cluster")["nodes"]
    ]
    bound = lower_bound(placements, members)
    plan = nodes.ask("POST", _PLANS, {"kind": "rebalance"})
    nodes.ask("POST", f"{_PLANS}/{plan['id']}/confirm")

    def ended() -> bool:
        return nodes.ask("GET", f"{_PLANS}/{plan['id']}")["state"] not in ("running", "paused")

    nodes.wait(ended, patience_s=_PATIENCE_S)
    plan = nodes.ask("GET", f"{_PLANS}/{plan['id']}")
    assert plan["state"] == "done", plan
    return plan, bound


def _judge(name: str, evidence: Evidence, spans: tuple[Span, Span, Span]) -> None:
    """What is promised whatever happens, and how much of the rates is left."""
    lost, stale, repeats = evidence.lost(), evidence.stale(), evidence.repeats()
    for sentence in [*lost[:5], *stale[:5], *map(repr, repeats[:5]), *evidence.failed[:5]]:
        print(f"  {sentence}")
    figure = f"{len(lost)} of {evidence.acknowledged()}"
    report(f"{name}: lost of acknowledged", figure, "0", holds=not lost)
    report(f"{name}: repeats", f"{len(repeats)}", "0", holds=not repeats)
    report(f"{name}: stale", f"{len(stale)}", "0", holds=not stale)
    report(f"{name}: calls that failed", f"{len(evidence.failed)}", "-", holds=None)
    acks = [(call[2], job) for job, (_, calls) in evidence.jobs.items() for call in calls]
    arrivals = [(each.at_ms, each.job) for each in evidence.arrivals]
    for what, seen in (("ingest", acks), ("firing", arrivals)):
        before, during, after = (_rate(seen, span) for span in spans)
        share = during / before
        figure = f"{share:.2f}: {during:.0f} of {before:.0f}/s"
        report(f"{name}: share of {what} left", figure, ">= 0.5", holds=share >= 0.5)
        report(f"{name}: {what} afterwards", f"{after:.0f}/s", "-", holds=None)
    for what, waits_ms in (("call", _calls_ms), ("webhook late", _late_ms)):
        before_ms, during_ms = (waits_ms(evidence, span) for span in spans[:2])
        worst = f"{percentile(during_ms, 1.0):.0f} ms, before {percentile(before_ms, 1.0):.0f}"
        report(f"{name}: longest {what}", worst, "-", holds=None)
        p99 = f"{percentile(during_ms, 0.99):.0f} ms, before {percentile(before_ms, 0.99):.0f}"
        report(f"{name}: {what}, p99", p99, "-", holds=None)


def _rate(seen: Iterable[tuple[float, str]], span: Span) -> float:
    count = sum(span[0] <= at_ms < span[1] for at_ms, _ in seen)
    return count / (span[1] - span[0]) * 1000


def _calls_ms(evidence: Evidence, span: Span) -> list[float]:
    """How long each call took that was begun in this time: so long its vnode took no job."""
    return [
        calls[0][2] - (due_ms - DUE_MS)
        for due_ms, calls in evidence.jobs.values()
        if calls and span[0] <= due_ms - DUE_MS < span[1]
    ]


def _late_ms(evidence: Evidence, span: Span) -> list[float]:
    """How late each job was that became due in this time: so long its vnode fired nothing."""
    return evidence.late_ms(range(_VNODES), *span)
