"""A route's limits over real processes, where one node has all the work."""

import http.client
from pathlib import Path

import pytest

from tests.checks.history import Webhook
from tests.cluster.cluster import PATIENCE_S, Cluster
from tests.cluster.process import JOBS, NodeProcess, wait_until
from tests.cluster.recorder import Recorder

pytestmark = pytest.mark.timeout(300)

_LIMIT = 6
_LENT = 2
"""Each of three nodes owns 2, and keeps 1 of them."""
_JOBS = 40


def test_one_node_uses_what_the_others_do_not_need(tmp_path: Path) -> None:
    """All of the limit but the 1 that each of the others keeps, and never more than the limit."""
    with Recorder() as recorder, Cluster(tmp_path) as cluster:
        cluster.form()
        cluster.set_up(recorder.url(), num_vnodes=1, max_in_flight=_LIMIT, timeout_ms=60_000)
        leader = cluster.nodes[cluster.wait_led()[0]]
        recorder.gate.clear()
        try:
            jobs = [
                {"id": f"job-{number}", "delay_ms": 0, "route": "hook", "meta": {}}
                for number in range(_JOBS)
            ]
            status, answer = cluster.ask("POST", f"{JOBS}/batch", jobs)
            assert 200 == status, answer
            held = _LIMIT - 3 + 1
            wait_until(lambda: len(recorder.requests()) == held, "nothing is lent", PATIENCE_S)
            assert f'timemachine_credits_borrowed{{limit="max_in_flight"}} {_LENT}.0' in _metrics(
                leader
            )
        finally:
            recorder.gate.set()
        wait_until(lambda: len(recorder.requests()) == _JOBS, "some are not sent", PATIENCE_S)
        wait_until(lambda: _are_given_back(cluster), "credits are not given back", PATIENCE_S)
        most = _most_at_once(recorder.webhooks())
        print(f"at most {most} at once")
        assert _LIMIT - 2 <= most <= _LIMIT


def _metrics(node: NodeProcess) -> str:
    connection = http.client.HTTPConnection(node.address, timeout=30)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def _are_given_back(cluster: Cluster) -> bool:
    pages = [_metrics(node) for node in cluster.nodes.values()]
    line = 'timemachine_credits_lent{limit="max_in_flight"} 0.0'
    return all(line in page for page in pages)


def _most_at_once(webhooks: list[Webhook]) -> int:
    """How many of them came while others were not answered."""
    ends = [(each.answered_ms, -1) for each in webhooks]
    open_now = most = 0
    for _, change in sorted([*ends, *((each.at_ms, 1) for each in webhooks)]):
        open_now += change
        most = max(most, open_now)
    return most
