"""Three real nodes: reads over many vnodes and bulk tasks, whoever is asked, and after a kill."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.process import COLLECTION, JOBS, ROUTES, NodeProcess, wait_until

FAR_MS = 4_000_000_000_000
COUNT = 300


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[NodeProcess]]:
    """Three nodes, and jobs on vnodes that all of them lead."""
    with ExitStack() as stack:
        first = stack.enter_context(NodeProcess(tmp_path / "one")).start()
        started = [first]
        for name in ("two", "three"):
            status, issued = first.ask("POST", "/v1/cluster/join-tokens", {})
            assert 201 == status, issued
            flags = ("--join", first.rpc, "--join-token", issued["token"])
            started.append(stack.enter_context(NodeProcess(tmp_path / name, *flags)).start())
        wait_until(lambda: _up(first) == 3, "not all nodes are up")
        first.set_up("http://127.0.0.1:1024/", num_vnodes=9)
        wait_until(lambda: len(_leaders(first)) == 3, "one node leads nothing")
        started[1].create(
            [
                {"id": f"job-{number:03}", "trigger_time": FAR_MS + number, "tags": ["t"]}
                for number in range(COUNT)
            ]
        )
        yield started


def _up(node: NodeProcess) -> int:
    _, cluster = node.ask("GET", "/v1/cluster")
    return sum(each["state"] == "up" for each in cluster["nodes"])


def _leaders(node: NodeProcess) -> set[str | None]:
    _, vnodes = node.ask("GET", "/v1/cluster/vnodes")
    return {each["leader"] for each in vnodes["items"]} - {None}


def _task(node: NodeProcess, name: str) -> Any:
    def ended() -> bool:
        status, task = node.ask("GET", f"/v1/tasks/{name}")
        return status == 200 and task["state"] != "running"

    wait_until(ended, "the task does not end")
    return node.ask("GET", f"/v1/tasks/{name}")[1]


def test_every_node_shows_the_same(nodes: list[NodeProcess]) -> None:
    """Lists, counts, forecasts and stats, of vnodes that others lead as well."""
    expected = [f"job-{number:03}" for number in range(COUNT)]
    forecast = f"{COLLECTION}/forecast?from={FAR_MS}&to={FAR_MS + COUNT}&bucket_ms=100"
    for node in nodes:
        found: list[str] = []
        cursor = ""
        while True:
            status, page = node.ask("GET", f"{JOBS}?limit=70&tag=t{cursor}")
            assert 200 == status, page
            found += [job["id"] for job in page["items"]]
            if page["next_cursor"] is None:
                break
            cursor = f"&cursor={page['next_cursor']}"
        assert expected == found
        assert COUNT == node.ask("GET", COLLECTION)[1]["counts"]["scheduled"]
        assert [100] * 3 == [each["count"] for each in node.ask("GET", forecast)[1]["items"]]
        assert COUNT == node.ask("GET", f"{ROUTES}/hook/stats")[1]["pending"]
        status, problem = node.ask("DELETE", f"{ROUTES}/hook")
        assert (409, "route_in_use") == (status, problem["code"])
        status, problem = node.ask("DELETE", COLLECTION)
        assert (409, "collection_not_empty") == (status, problem["code"])


def test_a_task_goes_on_when_a_node_is_killed(nodes: list[NodeProcess]) -> None:
    """Be it the node leader: each job is moved once, and who is left shows it."""
    body = {"filter": {}, "shift_ms": 1_000}
    status, begun = nodes[1].ask("POST", f"{JOBS}/reschedule", body)
    assert 202 == status, begun
    nodes[0].kill()
    for node in nodes[1:]:
        task = _task(node, begun["task"])
        assert ("done", {"rescheduled": COUNT}) == (task["state"], task["result"])
        jobs = node.jobs()
        assert {f"job-{number:03}": FAR_MS + number + 1_000 for number in range(COUNT)} == {
            name: job["trigger_time"] for name, job in jobs.items()
        }
    wait_until(lambda: _up(nodes[1]) == 2, "a node that was killed is up")
    wait_until(lambda: len(_leaders(nodes[1])) == 2, "its vnodes are led by nobody")
