"""The page of metrics, as Prometheus reads it."""

import re
from typing import Any

from node.rpc.link import LinkStatistics
from node.rpc.rpc import Received
from node.telemetry import METRICS, render_metrics
from timemachine.delivery.breaker import Phase
from timemachine.delivery.lateness import BOUNDS_MS

ENGINE: dict[str, Any] = {
    **dict.fromkeys(["cycles", "commands", "rows", "sends", "in_flight", "vnodes"], 1),
    "level0_files": 0,
    "snapshots_sent_bytes": 5,
    "outcomes": {"delivered": 3},
    "lateness_buckets": [0] * (len(BOUNDS_MS) + 1),
    "lateness_sum_ms": 0,
}


def shown(numbers: dict[str, Any]) -> dict[str, float]:
    """Every line of the page: what is counted, and how much."""
    lines = render_metrics(numbers).decode().splitlines()
    pairs = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
    return {name: float(value) for name, value in pairs}


def test_other_nodes() -> None:
    """By their numbers."""
    rpc = {
        "links": {
            2: LinkStatistics(True, 10, 1000, 3, 1, 50, 5, 4, ""),
            3: LinkStatistics(False, 0, 0, 0, 0, 0, 9, 0, "no answer in time"),
        },
        "received": {2: Received(True, 20, 2000)},
        "refused": 7,
        "strangers": 0,
        "to_nobody": 0,
    }
    page = shown({**ENGINE, "rpc": rpc})
    expected = {
        'timemachine_rpc_connected{node="2"}': 1,
        'timemachine_rpc_connected{node="3"}': 0,
        'timemachine_rpc_waiting_bytes{node="2"}': 50,
        'timemachine_rpc_connects_total{node="2"}': 4,
        'timemachine_rpc_sent_frames_total{node="2"}': 10,
        'timemachine_rpc_sent_bytes_total{node="2"}': 1000,
        'timemachine_rpc_dropped_frames_total{node="2"}': 3,
        'timemachine_rpc_received_frames_total{node="2"}': 20,
        'timemachine_rpc_received_bytes_total{node="2"}': 2000,
        "timemachine_rpc_refused_total": 7,
    }
    assert expected.items() <= page.items()


def test_images() -> None:
    """How much of them has left; nothing where there are no other nodes."""
    assert 5 == shown(ENGINE)["timemachine_snapshots_sent_bytes_total"]


def test_breakers() -> None:
    """Those that are not closed, by what they let through; how often one opened."""
    page = shown({**ENGINE, "breakers": {Phase.OPEN: 2, Phase.HALF_OPEN: 1}, "breaker_trips": 4})
    expected = {
        'timemachine_breakers{state="open"}': 2,
        'timemachine_breakers{state="half_open"}': 1,
        "timemachine_breaker_trips_total": 4,
    }
    assert expected.items() <= page.items()


def test_every_metric_is_in_the_table() -> None:
    """And every one of the table is shown, by a node that has other nodes."""
    rpc = {"links": {}, "received": {}, "refused": 0}
    text = render_metrics({**ENGINE, "rpc": rpc}).decode()
    names = {
        name.removesuffix("_total") for name in re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)
    }
    assert set(METRICS) == names


def test_a_node_without_others() -> None:
    """Has nothing to show of them."""
    assert not any("rpc" in name for name in shown(ENGINE))
