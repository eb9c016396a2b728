"""Disks that fail, stall or rot under one of three nodes: the others go on, nothing is lost.

Each test names its scenario in docs/design/testing.md, and the checks that judge it.
"""

import errno
import random
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.cluster import PATIENCE_S
from tests.cluster.recorder import wall_ms
from tests.cluster.stage import SEED, Stage, staged
from tests.faults.disks import small_disk
from tests.faults.preloading import build_shim, give, shimmed
from timemachine.storage.leveldb import open_store

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled fault shim."""
    return build_shim(tmp_path_factory.mktemp("shim"))


@contextmanager
def _on_bad_disks(tmp_path: Path, shim: Path) -> Iterator[Stage]:
    """Three nodes whose disks obey the files rule1, rule2 and rule3."""
    environments = {
        number: shimmed(shim, tmp_path / f"node{number}", tmp_path / f"rule{number}")
        for number in (1, 2, 3)
    }
    with staged(tmp_path, environments=environments) as stage:
        yield stage


@pytest.mark.root("preload")
@pytest.mark.parametrize(
    "rule",
    [f"sync .log {errno.EIO} 0", f"write .log {errno.ENOSPC} 300"],
    ids=["20 sync fails", "21 torn write"],
)
def test_20_21_a_disk_fails_once(tmp_path: Path, shim: Path, rule: str) -> None:
    """Scenarios 20 and 21 (C1, C8): the node ends itself, others lead; it comes back from disk."""
    with _on_bad_disks(tmp_path, shim) as (cluster, _, witness):
        witness.start()
        witness.wait_for(100)
        victim = cluster.leads_most()
        begin_ms = wall_ms()
        give(tmp_path / f"rule{victim}", rule)
        assert 1 == cluster.nodes[victim].wait(), cluster.nodes[victim].log_tail()
        cluster.died(victim, begin_ms, "disk")
        assert "the node cannot go on; it stops" in cluster.nodes[victim].log.read_text()
        cluster.wait_led(without=victim)
        witness.wait_for(50)
        cluster.restart(victim)
        cluster.wait_whole()
        witness.finish()


@pytest.mark.root("preload")
def test_22_a_disk_stalls(tmp_path: Path, shim: Path) -> None:
    """Scenario 22 (C10): it slows its own vnodes, and is neither deposed again and again."""
    with _on_bad_disks(tmp_path, shim) as (cluster, _, witness):
        witness.start()
        witness.wait_for(50)
        victim = cluster.leads_most()
        before = {row["index"]: row["term"] for row in cluster.vnodes()}
        give(tmp_path / f"rule{victim}", "slow . 500 0")
        witness.wait_for(60)
        (tmp_path / f"rule{victim}").unlink()
        after = {row["index"]: row["term"] for row in cluster.vnodes()}
        assert all(after[index] - before[index] < 4 for index in before), (before, after)
        witness.wait_for(50)
        cluster.wait_whole()
        witness.finish()


@pytest.mark.slow
@pytest.mark.root("tmpfs")
def test_19_a_disk_fills_up(tmp_path: Path) -> None:
    """Scenario 19 (C1, C8): creators are served by others; with room again the node takes part."""
    disk = tmp_path / "node1"
    with small_disk(disk, 96), staged(tmp_path, 3, "--disk-reserve-mb", "16") as stage:
        cluster, _, witness = stage
        witness.start()
        witness.wait_for(50)
        begin_ms = wall_ms()
        ballast = disk / "ballast"
        end = time.monotonic() + PATIENCE_S
        while 1 in cluster.leaders().values():
            assert time.monotonic() < end, cluster.logs()
            # Again and again, for LevelDB removes files now and then.
            spare = shutil.disk_usage(disk).free - 8 * 1024 * 1024
            with ballast.open("ab") as file:
                file.write(bytes(max(0, spare)))
            time.sleep(0.1)
        witness.wait_for(100)
        ballast.unlink()
        if not cluster.nodes[1].running:
            cluster.died(1, begin_ms, "disk full")
            cluster.restart(1)
        witness.wait_for(50)
        cluster.wait_whole()
        witness.finish(images=False)


def _flip_table(data: Path) -> None:
    """Many bits of the largest table, so that whoever reads meets one."""
    open_store(data)[0].close()  # turns the log into a table
    table = max((data / "store").glob("*.ldb"), key=lambda file: file.stat().st_size)
    content = bytearray(table.read_bytes())
    for place in range(1_000, len(content) - 1_000, 1_500):
        content[place] ^= 1
    table.write_bytes(content)


def _flip_log(data: Path) -> None:
    """One bit in the middle of LevelDB's log."""
    log = max((data / "store").glob("*.log"), key=lambda file: file.stat().st_size)
    content = bytearray(log.read_bytes())
    content[len(content) // 2] ^= 1
    log.write_bytes(content)


def _flip_manifest(data: Path) -> None:
    """One bit of LevelDB's list of tables."""
    manifest = max((data / "store").glob("MANIFEST-*"))
    content = bytearray(manifest.read_bytes())
    content[len(content) // 2] ^= 1
    manifest.write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize("flip", [_flip_table, _flip_log, _flip_manifest])
def test_23_a_disk_rots(tmp_path: Path, flip: object) -> None:
    """Scenario 23 (C6, C8): damage is found and never served; the replicas are made anew."""
    assert callable(flip)
    dice = random.Random(SEED)
    with staged(tmp_path) as (cluster, _, witness):
        witness.start(pace_s=0.002)
        witness.wait_for(600)
        victim = cluster.leads_most()
        victim_id = cluster.id_of(victim)
        cluster.kill(victim)
        flip(cluster.nodes[victim].directory)
        cluster.wait_led(without=victim)
        node = cluster.nodes[victim]
        node.launch()
        if node.becomes_ready():
            # Not found yet: whoever asks is to be told the truth, or nothing.
            witness.start(3, only=victim, patience_s=2)
            end = time.monotonic() + 5
            while node.running and time.monotonic() < end:
                time.sleep(0.1)
        witness.rest()
        known = sorted({call.job for call in witness.history.calls})
        with witness.clerk(victim) as clerk:
            for job in dice.sample(known, 100):
                clerk.get(job)
        if not node.running:
            assert node.wait() in (1, 3), node.log_tail()
            # A compaction that met it says what LevelDB says.
            assert "damaged" in node.log_tail() or "A write failed" in node.log_tail()
            cluster.lose_disk(victim)
            cluster.join(4, "--replace", victim_id)
        cluster.wait_whole()
        witness.finish()
