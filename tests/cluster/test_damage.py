"""A disk that loses bits: what is damaged is never served, and rebuilt from the other nodes.

Scenario 23 of docs/design/testing.md, with real processes. A byte is flipped while the node is
down, as a disk does that gives back something else than it was given.
"""

import time
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.process import JOBS, NodeProcess, now_ms, wait_until
from tests.cluster.recorder import Recorder, wall_ms
from tests.cluster.stage import staged
from timemachine.group import META_GROUP
from timemachine.storage.keys import GROUPS_START, GROUPS_STOP, ReplicaKeys, group_of_key
from timemachine.storage.leveldb import open_store

pytestmark = pytest.mark.timeout(300)
_COMPACTION_FAILED = "A write failed"
JOB_COUNT = 600
# In the middle of what each replica has: the block of LevelDB that holds it is of that one only.
NEEDLE = JOB_COUNT // 2
VICTIM = 2


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """A recipient that answers 204."""
    with Recorder() as recorder:
        yield recorder


@pytest.fixture
def cluster(tmp_path: Path, recorder: Recorder) -> Iterator[Cluster]:
    """Three nodes with jobs that are due in an hour."""
    with Cluster(tmp_path) as cluster:
        cluster.form().set_up(recorder.url(), num_vnodes=3)
        jobs = [
            {
                "id": f"job{number:03}",
                "route": "hook",
                "trigger_time": now_ms() + 3_600_000,
                "meta": _meta(number),
            }
            for number in range(JOB_COUNT)
        ]
        status, answer = cluster.ask("POST", f"{JOBS}/batch", jobs)
        assert (200, JOB_COUNT) == (status, answer["created"]), answer
        yield cluster


def _meta(number: int) -> dict[str, Any]:
    return {"needle": f"needle-{number:03}-" + "x" * 100}


def _all_metas() -> dict[str, Any]:
    return {f"job{number:03}": _meta(number) for number in range(JOB_COUNT)}


def _wait_for_all(cluster: Cluster, number: int, begin_ms: float) -> None:
    """Until the node itself shows all that there is. What it shows until then is right, too.

    A compaction may end it meanwhile: started again, it has that replica rebuilt once more.
    """
    node, right = cluster.nodes[number], _all_metas()

    def shows_all() -> bool:
        if not node.running:
            _start_again(cluster, number, begin_ms)
        with suppress(OSError, HTTPException):
            status, answer = node.ask("GET", f"{JOBS}?limit=1000&consistency=stale")
            if status == 200:
                shown = {job["id"]: job["meta"] for job in answer["items"]}
                assert shown.items() <= right.items()
                return len(shown) == len(right)
        return False

    wait_until(shows_all, "it does not show all", 60.0)


def _store(node: NodeProcess) -> Path:
    return node.directory / "store"


def _flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x10
    path.write_bytes(data)


def _flip_row(node: NodeProcess, needle: bytes) -> None:
    """Flip a byte of a row in every table that has it."""
    found = 0
    for path in _store(node).glob("*.ldb"):
        place = path.read_bytes().find(needle)
        if place >= 0:
            _flip(path, place)
            found += 1
    assert found, "no table has that row"


def _given_up(node: NodeProcess) -> int:
    """How many replicas it has said to be damaged."""
    return node.log.read_text().count("a replica is damaged")


@pytest.mark.parametrize("tables", [1, 3], ids=["read", "compacted"])
def test_23_a_table_is_damaged(cluster: Cluster, tables: int) -> None:
    """Scenario 23 (C6, C8): the one replica is given up and rebuilt, the node goes on.

    Or a compaction meets that table and ends the node: started again, it goes on without what is
    damaged. With four tables LevelDB compacts at once; with fewer it may at any time.
    """
    node = cluster.nodes[VICTIM]
    cluster.stop(VICTIM)
    for _ in range(tables):
        # At its start LevelDB makes a table of its log.
        cluster.restart(VICTIM)
        cluster.stop(VICTIM)
    _flip_row(node, b"needle-%03d" % NEEDLE)
    begin_ms = wall_ms()
    node.launch()
    if not node.becomes_ready():
        _start_again(cluster, VICTIM, begin_ms)
    wrong: list[Any] = []
    right = _meta(NEEDLE)

    def reads_right() -> bool:
        if not node.running:
            _start_again(cluster, VICTIM, begin_ms)
        with suppress(OSError, HTTPException):
            status, answer = node.ask("GET", f"{JOBS}/job{NEEDLE}?consistency=stale")
            if status == 200 and answer["meta"] != right:
                wrong.append(answer)
            return status == 200
        return False

    wait_until(lambda: reads_right() or _noticed(node), "nobody reads it")
    wait_until(lambda: _noticed(node), "the damage is not found")
    wait_until(lambda: reads_right() and cluster.is_whole(3), "it is not rebuilt", 60.0)
    assert [] == wrong
    # Not again and again, and not twice where a compaction ended the node in between.
    assert 1 >= _given_up(node), node.log_tail()
    # All of it is there, from the node itself, and after a restart as well.
    _wait_for_all(cluster, VICTIM, begin_ms)
    if "written anew" not in node.log.read_text():
        code = node.stop()
        assert not code or _ended_by_compaction(node, code), node.log_tail()
        cluster.restart(VICTIM)
        cluster.wait_whole()
        _wait_for_all(cluster, VICTIM, begin_ms)
    assert 1 >= _given_up(node), "it was given up again"
    # No compaction will meet that table.
    assert "written anew" in node.log.read_text()


@pytest.mark.parametrize("kind", ["*.log", "MANIFEST-*"])
def test_23_the_log_or_the_manifest_is_damaged(cluster: Cluster, kind: str) -> None:
    """Scenario 23: any vote may be lost, so the node refuses, and another takes its place."""
    node = cluster.nodes[VICTIM]
    cluster.kill(VICTIM)
    (path,) = [each for each in _store(node).glob(kind) if each.stat().st_size]
    _flip(path, path.stat().st_size // 2)
    assert 3 == node.refused(), node.log_tail()
    node_id = {number: each for each, number in cluster.ids.items()}[VICTIM]
    assert f"--replace {node_id}" in node.log_tail()
    cluster.join(4, "--replace", node_id)
    cluster.wait_whole()
    status, answer = cluster.nodes[4].ask("GET", f"{JOBS}/job007?consistency=stale")
    assert (200, _meta(7)) == (status, answer["meta"])


def test_23_replicas_are_rebuilt_under_load(tmp_path: Path) -> None:
    """Scenario 23 (C1 to C8, C10): damage comes up while the node works; nobody notices but it.

    A compaction may meet the damage at any time, from the start on. LevelDB takes no more writes
    then, the node ends, and whoever watches over it starts it again: what is damaged is gone then.
    """
    with staged(tmp_path) as (cluster, _, witness):
        witness.start(pace_s=0.002)
        witness.wait_for(600)
        victim = cluster.leads_most()
        node = cluster.nodes[victim]
        cluster.stop(victim)
        cluster.restart(victim)
        cluster.stop(victim)
        damaged = dict(list(_jobs_of_vnodes(node).items())[:2])
        for row in damaged.values():
            _flip_row(node, row)
        begin_ms = wall_ms()
        node.launch()
        if not node.becomes_ready():
            _start_again(cluster, victim, begin_ms)
        wanted = witness.notes.answered() + 200
        end = time.monotonic() + 120
        while not (_noticed(node) and witness.notes.answered() >= wanted and cluster.is_whole(3)):
            assert time.monotonic() < end, f"{cluster.vnodes()}\n{cluster.logs()}"
            if not node.running:
                _start_again(cluster, victim, begin_ms)
            with suppress(OSError, HTTPException):
                for job in damaged:
                    node.ask("GET", f"{JOBS}/{job}?consistency=stale")
            time.sleep(0.1)
        witness.finish()


def _noticed(node: NodeProcess) -> bool:
    """Whether it has met the damage, while it worked or in a compaction."""
    return bool(_given_up(node)) or "written anew" in node.log.read_text()


def _ended_by_compaction(node: NodeProcess, code: int) -> bool:
    """Whether the node ended with this exit code because LevelDB took no more writes."""
    return code == 1 and _COMPACTION_FAILED in node.log_tail()


def _start_again(cluster: Cluster, number: int, begin_ms: float) -> None:
    """Do what a supervisor does for a node that a compaction has ended."""
    node = cluster.nodes[number]
    assert _ended_by_compaction(node, node.wait()), node.log_tail()
    cluster.died(number, begin_ms, "damage")
    cluster.restart(number)


def _jobs_of_vnodes(node: NodeProcess) -> dict[str, bytes]:
    """A job of each replica of a vnode on a node that has ended, and what its row holds.

    From the middle of what the replica has, so that the block that holds it is of that one only.
    """
    store, _ = open_store(node.directory)
    found = {}
    for key, value in store.scan(GROUPS_START, GROUPS_STOP):
        if group_of_key(key) == META_GROUP:
            continue
        jobs = ReplicaKeys(int.from_bytes(value[:4], "big")).job
        rows = store.scan(jobs, jobs[:-1] + bytes([jobs[-1] + 1]))
        middle, row = rows[len(rows) // 2]
        found[middle.removeprefix(jobs).decode()] = row
    store.close()
    return found
