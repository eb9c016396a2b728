"""A recipient that fails and recovers, over real processes: its breakers open, and close."""

import http.client
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import PATIENCE_S, Cluster
from tests.cluster.process import JOBS, ROUTES, NodeProcess, wait_until
from tests.cluster.recorder import OK, Recorder, Reply

pytestmark = pytest.mark.timeout(300)

_JOBS = 120
_BREAKER = {"min_requests": 3, "open_ms": 2_000, "half_open_requests": 1}


def test_a_recipient_that_fails_is_spared_until_it_is_well(tmp_path: Path) -> None:
    """Any node says why nothing is sent; nothing is held, nothing is lost, nothing comes twice."""
    well = threading.Event()
    with (
        Recorder(lambda _: OK if well.is_set() else Reply(503)) as recorder,
        Cluster(tmp_path) as cluster,
    ):
        cluster.form()
        cluster.set_up(
            recorder.url(),
            num_vnodes=6,
            max_in_flight=6,
            retry={"schedule_ms": [200], "max_attempts": 1_000},
            breaker=_BREAKER,
        )
        cluster.create(
            {"id": f"job-{number}", "delay_ms": 0, "route": "hook", "meta": {}}
            for number in range(_JOBS)
        )
        for node in cluster.nodes.values():
            wait_until(
                lambda node=node: _route(node)["state"] == "breaker_open",  # type: ignore[misc]
                "nobody says that it is open",
                PATIENCE_S,
            )
        route = _route(cluster.nodes[1])
        assert ("attempts_failed", True) == (route["state_reason"], route["enabled"])
        assert sum(_trips(node) for node in cluster.nodes.values()) >= 1
        # So little was sent that most have never been tried; and none is held for it.
        spared = {each.job for each in recorder.requests()}
        print(f"{len(recorder.requests())} requests for {len(spared)} jobs before it was well")
        assert [] == cluster.ask("GET", f"{JOBS}?state=held")[1]["items"]
        well.set()
        wait_until(lambda: len(_delivered(recorder)) == _JOBS, "some are not sent", PATIENCE_S)
        for node in cluster.nodes.values():
            wait_until(
                lambda node=node: _route(node)["state"] == "active",  # type: ignore[misc]
                "it does not close",
                PATIENCE_S,
            )
        assert len(set(_delivered(recorder))) == len(_delivered(recorder))


def _delivered(recorder: Recorder) -> list[str]:
    return [each.webhook_id for each in recorder.webhooks() if each.status == 204]


def _route(node: NodeProcess) -> Any:
    return node.ask("GET", f"{ROUTES}/hook")[1]


def _trips(node: NodeProcess) -> int:
    connection = http.client.HTTPConnection(node.address, timeout=30)
    try:
        connection.request("GET", "/metrics")
        page = connection.getresponse().read().decode()
    finally:
        connection.close()
    (line,) = [each for each in page.splitlines() if each.startswith("timemachine_breaker_trips_t")]
    return int(float(line.split()[-1]))
