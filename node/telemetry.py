"""Logs (structlog, to standard error) and metrics (Prometheus text)."""

import logging
import sys
from collections.abc import Iterator
from typing import Any

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from timemachine.delivery.breaker import Phase
from timemachine.delivery.credits import Kind
from timemachine.delivery.lateness import BOUNDS_MS

METRICS_CONTENT_TYPE = CONTENT_TYPE_LATEST

METRICS = {
    "timemachine_commit_cycles": "Synced batches written.",
    "timemachine_commands": "Commands answered after their batch was durable.",
    "timemachine_rows": "Rows written, deletions included.",
    "timemachine_sends": "Webhook requests started.",
    "timemachine_outcomes": "Attempts by what followed: delivered, or the reason of failure.",
    "timemachine_events": "Operational events whose jobs were created, by `type`.",
    "timemachine_events_suppressed": "Events that were only counted, once that was told.",
    "timemachine_events_waiting": "Events of vnodes led here that have no job yet.",
    "timemachine_in_flight": "Attempts claimed or under way.",
    "timemachine_routes_waiting": "Routes that wait because their recipients asked for it.",
    "timemachine_breakers": "Circuit breakers of routes that are not closed, by `state`.",
    "timemachine_breaker_trips": "How often one opened that was closed.",
    "timemachine_credits_lent": "Lent of this node's shares, by `limit` (max_in_flight, rate).",
    "timemachine_credits_borrowed": "Borrowed of others' shares, by `limit` (max_in_flight, rate).",
    "timemachine_vnodes": "Replicas on this node, the meta group included.",
    "timemachine_level0_files": "LevelDB's level-0 files; writers slow down from 6 on.",
    "timemachine_disk_bytes": "What the node's store takes on its disk.",
    "timemachine_compacted_bytes": "Bytes that LevelDB has read and written to compact.",
    "timemachine_compaction_steps": "Steps of confirmed compactions that this node has done.",
    "timemachine_http_requests": "API requests by status.",
    "timemachine_http_requests_open": "API requests that are being answered.",
    "timemachine_http_connections": "Open connections of the API.",
    "timemachine_loop_delay_max_seconds": "Longest wait for the event loop since the last scrape.",
    "timemachine_clock_offset_max_seconds": "The largest offset to another node's wall clock.",
    "timemachine_quarantined": "Replicas that were given up for damage and are not replaced yet.",
    "timemachine_snapshots_sent_bytes": (
        "Bytes of images of replicas sent to other nodes, repeats included."
    ),
    "timemachine_rpc_connected": "Whether frames leave for another node: 1 or 0, by its number.",
    "timemachine_rpc_connects": "Connections to another node that it accepted.",
    "timemachine_rpc_sent_frames": "Frames sent to another node.",
    "timemachine_rpc_sent_bytes": "Bytes of those.",
    "timemachine_rpc_dropped_frames": "Frames for another node that were too many, or too old.",
    "timemachine_rpc_waiting_bytes": "Bytes of frames that wait for another node.",
    "timemachine_rpc_received_frames": "Frames received from another node.",
    "timemachine_rpc_received_bytes": "Bytes received from another node.",
    "timemachine_rpc_refused": "Connections of nodes that were refused.",
    "timemachine_lateness_seconds": (
        "How late first attempts started: after the trigger time and the job's `smear_ms`."
    ),
}
"""Every metric and what it means; the reference page is checked against this table."""


def set_up_logs(*, as_json: bool | None = None) -> None:
    """Log to standard error: for people on a terminal, else one JSON object a line."""
    if as_json is None:
        as_json = not sys.stderr.isatty()
    renderer: Any = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


_PHASES = {Phase.OPEN: "open", Phase.HALF_OPEN: "half_open"}
_LIMITS = {Kind.FLIGHT: "max_in_flight", Kind.RATE: "rate"}


class _Numbers(Collector):
    """Turns the engine's plain numbers into metric families, only when asked for."""

    def __init__(self, numbers: dict[str, Any]) -> None:
        self._numbers = numbers

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client."""
        numbers = self._numbers
        for name, key in (
            ("timemachine_commit_cycles", "cycles"),
            ("timemachine_commands", "commands"),
            ("timemachine_rows", "rows"),
            ("timemachine_sends", "sends"),
            ("timemachine_breaker_trips", "breaker_trips"),
            ("timemachine_events_suppressed", "events_suppressed"),
            ("timemachine_snapshots_sent_bytes", "snapshots_sent_bytes"),
            ("timemachine_compacted_bytes", "compacted_bytes"),
            ("timemachine_compaction_steps", "compaction_steps"),
        ):
            yield CounterMetricFamily(name, METRICS[name], value=numbers.get(key, 0))
        for name, key in (
            ("timemachine_in_flight", "in_flight"),
            ("timemachine_events_waiting", "events_waiting"),
            ("timemachine_routes_waiting", "routes_waiting"),
            ("timemachine_vnodes", "vnodes"),
            ("timemachine_level0_files", "level0_files"),
            ("timemachine_disk_bytes", "disk_bytes"),
            ("timemachine_http_requests_open", "http_requests_open"),
            ("timemachine_http_connections", "http_connections"),
            ("timemachine_loop_delay_max_seconds", "loop_delay_max_s"),
            ("timemachine_clock_offset_max_seconds", "clock_offset_max_s"),
            ("timemachine_quarantined", "quarantined"),
        ):
            yield GaugeMetricFamily(name, METRICS[name], value=numbers.get(key, 0))
        for name, key in (
            ("timemachine_credits_lent", "credits_lent"),
            ("timemachine_credits_borrowed", "credits_borrowed"),
        ):
            parts = GaugeMetricFamily(name, METRICS[name], labels=["limit"])
            for kind, count in numbers.get(key, {}).items():
                parts.add_metric([_LIMITS[kind]], count)
            yield parts
        name = "timemachine_breakers"
        breakers = GaugeMetricFamily(name, METRICS[name], labels=["state"])
        for phase, count in numbers.get("breakers", {}).items():
            breakers.add_metric([_PHASES[phase]], count)
        yield breakers
        name = "timemachine_outcomes"
        outcomes = CounterMetricFamily(name, METRICS[name], labels=["outcome"])
        for outcome, count in sorted(numbers["outcomes"].items()):
            outcomes.add_metric([outcome], count)
        yield outcomes
        name = "timemachine_events"
        events = CounterMetricFamily(name, METRICS[name], labels=["type"])
        for kind, count in sorted(numbers.get("events", {}).items()):
            events.add_metric([kind], count)
        yield events
        name = "timemachine_http_requests"
        requests = CounterMetricFamily(name, METRICS[name], labels=["status"])
        for status, count in sorted(numbers.get("http_requests", {}).items()):
            requests.add_metric([str(status)], count)
        yield requests
        if "rpc" in numbers:
            yield from _of_rpc(numbers["rpc"])
        name = "timemachine_lateness_seconds"
        buckets = []
        total = 0
        for bound_ms, count in zip(BOUNDS_MS, numbers["lateness_buckets"], strict=False):
            total += count
            buckets.append((str(bound_ms / 1000), total))
        buckets.append(("+Inf", total + numbers["lateness_buckets"][-1]))
        lateness = HistogramMetricFamily(name, METRICS[name])
        lateness.add_metric([], buckets, numbers["lateness_sum_ms"] / 1000)
        yield lateness


def _of_rpc(numbers: dict[str, Any]) -> Iterator[Metric]:
    """What went to other nodes and came from them: `Rpc.statistics()`."""
    for key, name, field in (
        ("links", "timemachine_rpc_connected", "connected"),
        ("links", "timemachine_rpc_waiting_bytes", "waiting_bytes"),
    ):
        gauge = GaugeMetricFamily(name, METRICS[name], labels=["node"])
        for number, each in numbers[key].items():
            gauge.add_metric([str(number)], getattr(each, field))
        yield gauge
    for key, name, field in (
        ("links", "timemachine_rpc_connects", "connects"),
        ("links", "timemachine_rpc_sent_frames", "frames"),
        ("links", "timemachine_rpc_sent_bytes", "bytes"),
        ("links", "timemachine_rpc_dropped_frames", "dropped"),
        ("received", "timemachine_rpc_received_frames", "frames"),
        ("received", "timemachine_rpc_received_bytes", "bytes"),
    ):
        counter = CounterMetricFamily(name, METRICS[name], labels=["node"])
        for number, each in numbers[key].items():
            counter.add_metric([str(number)], getattr(each, field))
        yield counter
    name = "timemachine_rpc_refused"
    yield CounterMetricFamily(name, METRICS[name], value=numbers["refused"])


def render_metrics(numbers: dict[str, Any]) -> bytes:
    """The metrics page for `Engine.statistics()`."""
    registry = CollectorRegistry()
    registry.register(_Numbers(numbers))
    page: bytes = generate_latest(registry)
    return page
