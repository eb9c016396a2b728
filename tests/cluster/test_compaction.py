"""Plans that compact, on real nodes: space comes back, and a kill in the middle costs a new try."""

import time
from pathlib import Path
from typing import Any

from tests.cluster.cluster import Cluster
from tests.cluster.process import COLLECTION, JOBS, NodeProcess, Recipient, now_ms, wait_until

PLANS = "/v1/cluster/plans"
JOBS_MADE = 20_000
JOBS_LEFT = 300
FAR_MS = 86_400_000
SLOW = {"bytes_per_s": 1024 * 1024}


def _store_bytes(node: NodeProcess) -> int:
    """What a node's store takes on the disk, whatever it says of that itself."""
    return sum(
        each.stat().st_size for each in (node.directory / "store").iterdir() if each.is_file()
    )


def _started(asked: Any, **fields: Any) -> dict[str, Any]:
    status, plan = asked.ask("POST", PLANS, {"kind": "compact", **fields})
    assert 201 == status, plan
    status, plan = asked.ask("POST", f"{PLANS}/{plan['id']}/confirm")
    assert (200, "running") == (status, plan["state"]), plan
    return dict(plan)


def _seen(asked: Any, plan: dict[str, Any]) -> dict[str, Any]:
    status, answer = asked.ask("GET", f"{PLANS}/{plan['id']}")
    assert 200 == status, answer
    return dict(answer)


def _nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return list(plan["compaction"]["nodes"])


def test_the_space_of_purged_jobs_comes_back(tmp_path: Path) -> None:
    """20,000 jobs that fired and were forgotten take nothing any more; all others are there.

    Though the node is killed in the middle: it begins its part again.
    """
    with Recipient() as recipient, NodeProcess(tmp_path / "data") as node:
        node.start().set_up(recipient.url, num_vnodes=12, max_in_flight=512)
        status, answer = node.ask("PUT", COLLECTION, {"num_vnodes": 12, "history_retention_ms": 0})
        assert 200 == status, answer
        left = {f"left{number}" for number in range(JOBS_LEFT)}
        node.create(
            [{"id": each, "delay_ms": FAR_MS, "meta": {"n": each}} for each in sorted(left)]
        )
        due_ms = now_ms() + 3_000
        node.create(
            [
                {"id": f"job{number}", "trigger_time": due_ms, "meta": {"text": "x" * 200}}
                for number in range(JOBS_MADE)
            ]
        )
        recipient.wait(JOBS_MADE, 120.0)
        wait_until(
            lambda: len(node.ask("GET", f"{JOBS}?limit=1000")[1]["items"]) == JOBS_LEFT,
            "ended jobs are not purged",
            60.0,
        )
        before = _store_bytes(node)
        plan = _started(node, **SLOW)
        (shown,) = _nodes(plan)
        assert shown["before_bytes"] > 10_000_000
        wait_until(lambda: _nodes(_seen(node, plan))[0]["steps_done"] > 0, "no step is done", 30.0)
        node.kill()
        node.start()
        wait_until(lambda: _seen(node, plan)["finished_time"] is not None, "it never ends", 60.0)
        done = _seen(node, plan)
        assert ("done", None) == (done["state"], done["error"])
        (shown,) = _nodes(done)
        print(f"{before} bytes before, {_store_bytes(node)} after: {shown}")
        assert shown["disk_bytes"] < shown["before_bytes"] / 10
        wait_until(lambda: _store_bytes(node) < before / 10, f"of {before} bytes there are more")
        found = node.jobs()
        assert left == set(found)
        assert all(found[each]["meta"] == {"n": each} for each in left)
        assert 0 == node.stop(), node.log_tail()
        node.start()
        assert left == set(node.jobs())
        assert 0 == node.stop()


def test_a_plan_outlives_the_node_leader(tmp_path: Path) -> None:
    """Killed in the middle, and back later: then each of the nodes has compacted."""
    with Recipient() as recipient, Cluster(tmp_path) as cluster:
        cluster.form().set_up(recipient.url)
        cluster.create([{"id": f"job{number}", "delay_ms": FAR_MS} for number in range(5_000)])
        cluster.wait_whole()
        plan = _started(cluster, transfers=3, **SLOW)
        leader = cluster.node_leader()

        def all_begun() -> bool:
            return all(each["steps_done"] for each in _nodes(_seen(cluster, plan)))

        wait_until(all_begun, "not all nodes are at work", 30.0)
        cluster.kill(leader)
        cluster.wait_led(without=leader)
        time.sleep(1.0)
        seen = _seen(cluster, plan)
        assert "running" == seen["state"]
        assert [cluster.id_of(leader)] == seen["waits_for"]
        cluster.restart(leader)
        wait_until(lambda: _seen(cluster, plan)["finished_time"] is not None, "it never ends", 60.0)
        done = _seen(cluster, plan)
        assert ("done", None) == (done["state"], done["error"])
        assert {"done"} == {each["state"] for each in _nodes(done)}
        assert 5_000 == len(cluster.nodes[leader].jobs())
