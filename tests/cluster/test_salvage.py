"""Two of three disks are lost for good: what the third has is taken out and created anew."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.process import COLLECTION, JOBS, ROUTES, NodeProcess, now_ms, wait_until
from tests.cluster.terminal import Terminal

pytestmark = pytest.mark.timeout(300)
COUNT = 200
FAR_MS = 3_600_000


def _job(number: int) -> dict[str, Any]:
    return {
        "id": f"job/{number:03}",
        "route": "hook",
        "trigger_time": now_ms() + FAR_MS,
        "meta": {"number": number, "text": "x" * 100},
        "tags": ["salvaged"],
    }


def _files(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def _seen(node: NodeProcess) -> tuple[int, str, bool]:
    """What a node has in its own replicas: jobs, the state of one, and whether another changed."""
    items = node.ask("GET", f"{JOBS}?limit=1000&consistency=stale")[1]["items"]
    jobs = {each["id"]: each for each in items}
    if len(jobs) < COUNT:
        return len(jobs), "", False
    return len(jobs), jobs["job/003"]["state"], "changed" in jobs["job/005"]["meta"]


def test_what_the_last_replica_has_is_created_anew(tmp_path: Path) -> None:
    """Each pending job that was acknowledged, and none that had ended; the data stays as it is."""
    jobs = [_job(number) for number in range(COUNT)]
    with Cluster(tmp_path) as cluster:
        # Nobody listens there: what is due is tried, and stays.
        cluster.form().set_up("http://127.0.0.1:1024/", num_vnodes=3)
        status, answer = cluster.ask("POST", f"{JOBS}/batch", jobs)
        assert (200, COUNT) == (status, answer["created"]), answer
        deleted, changed = jobs[3], {**jobs[5], "meta": {"changed": True}}
        path = "job%2F003"
        assert 200 == cluster.ask("DELETE", f"{JOBS}/{path}")[0]
        assert 200 == cluster.ask("PUT", f"{JOBS}/job%2F005", changed)[0]
        # Two nodes are enough for an answer: the third may get the last changes after it.
        third = cluster.nodes[3]
        wait_until(lambda: _seen(third) == (COUNT, "cancelled", True), "it has not got it all")
        # All at once, without a word.
        for node in cluster.nodes.values():
            node.kill()
        for number in (1, 2):
            shutil.rmtree(cluster.nodes[number].directory)
        data = cluster.nodes[3].directory
    before = _files(data)
    out = tmp_path / "salvaged"
    shell = Terminal("127.0.0.1:1")
    done = shell("admin", "salvage", str(data), str(out))
    assert before == _files(data)
    assert "default/jobs.ndjson" in done.out
    assert "Missing: what only the lost replicas had." in done.out
    report = json.loads((out / "report.json").read_text())
    assert [0, 1, 2] == [each["vnode"] for each in report["vnodes"]]
    assert not any(each["damaged"] or each["unreadable"] for each in report["vnodes"])
    expected = {
        each["id"]: each for each in [*jobs[:3], jobs[4], changed, *jobs[6:]] if each != deleted
    }
    text = (out / "default/jobs.ndjson").read_text()
    found = {each["id"]: each for each in map(json.loads, text.splitlines())}
    assert expected == found
    with NodeProcess(tmp_path / "new") as node:
        node.start()
        assert 201 == node.ask("PUT", COLLECTION, {"num_vnodes": 2})[0]
        assert (
            201 == node.ask("PUT", f"{ROUTES}/hook", {"webhook_url": "http://127.0.0.1:1024/"})[0]
        )
        created = Terminal(node.address)(
            "job", "batch", "jobs", str(out / "default/jobs.ndjson"), "--json"
        )
        assert COUNT - 1 == created.json["created"]
        kept = node.jobs()
        assert expected.keys() == kept.keys()
        for job_id, job in expected.items():
            assert {**kept[job_id], **job} == kept[job_id]
