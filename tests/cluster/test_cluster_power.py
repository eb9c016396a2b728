"""Nodes whose power goes: what they had not synced is gone, and nobody was told that it is there.

Each test names its scenario in docs/design/testing.md, and the checks that judge it.
"""

import http.client
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.cluster.cluster import PATIENCE_S, Cluster
from tests.cluster.copying import copies_to, disturb, weigh_down
from tests.cluster.network import between
from tests.cluster.process import JOBS, now_ms, wait_until
from tests.cluster.recorder import wall_ms
from tests.cluster.stage import Stage, staged
from tests.cluster.witness import writes_between
from tests.faults.disks import PoweredDisk, powered_disk

pytestmark = [pytest.mark.timeout(300), pytest.mark.root("loop")]

_BATCH: Final = 50
_DISK_MIB: Final = 256
_SMALL: Final = ("--disk-reserve-mb", "16")
"""Or such a disk counts as full."""


@contextmanager
def _on_own_disks(
    directory: Path, *, cuttable: bool = False
) -> Iterator[tuple[Stage, dict[int, PoweredDisk]]]:
    """Three nodes, each with a file system of its own."""
    with ExitStack() as stack:
        disks = {
            number: stack.enter_context(powered_disk(directory / f"node{number}", _DISK_MIB))
            for number in (1, 2, 3)
        }
        yield stack.enter_context(staged(directory, 3, *_SMALL, cuttable=cuttable)), disks


class _Flood:
    """Creates jobs in batches at all nodes, as fast as they are taken. `acked`: which were."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.acked: list[str] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(cluster, number, f"{name}{number}-"))
            for number in cluster.nodes
        ]
        for thread in self._threads:
            thread.start()

    def _work(self, cluster: Cluster, number: int, prefix: str) -> None:
        node = cluster.nodes[number]
        first = 0
        while not self._stop.is_set():
            names = [f"{prefix}{first + each}" for each in range(_BATCH)]
            first += _BATCH
            jobs = [{"id": name, "trigger_time": now_ms(), "route": "hook"} for name in names]
            try:
                status, answer = node.ask("POST", f"{JOBS}/batch", jobs)
            except (OSError, http.client.HTTPException):
                return  # its power is gone
            if status == 200:
                taken = [item["status"] == 201 for item in answer["items"]]
                self.acked += [name for name, was in zip(names, taken, strict=True) if was]

    def wait_for(self, count: int) -> None:
        """Wait until so many have been taken."""
        wait_until(lambda: len(self.acked) >= count, "they are not taken", PATIENCE_S)

    def stop(self) -> None:
        """Wait until all have their answers, or none."""
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.parametrize(
    "times", [pytest.param(2, id="2"), pytest.param(8, id="8", marks=pytest.mark.slow)]
)
def test_04_all_nodes_lose_their_power_at_once(tmp_path: Path, times: int) -> None:
    """Scenario 4 (C1, C7, C8): under a flood of creates, again and again; all acked ones are sent.

    The file systems throw away what was not synced, which `kill -9` does not.
    """
    acked: list[str] = []
    with _on_own_disks(tmp_path) as ((cluster, recorder, witness), disks):
        witness.start()
        for number in range(times):
            witness.wait_for(30)
            flood = _Flood(cluster, f"flood{number}-")
            flood.wait_for(500)
            cluster.lose_power(disks)
            flood.stop()
            acked += flood.acked
            cluster.restart(*disks)
            cluster.wait_whole()
        witness.wait_for(50)
        witness.finish()
        came = {each.job for each in recorder.requests()}
        print(f"{len(acked)} created in the flood")
        assert not set(acked) - came, "acknowledged and lost"


@pytest.mark.slow
@pytest.mark.root("loop", "namespace")
def test_05_one_node_loses_its_power_and_another_is_cut_off(tmp_path: Path) -> None:
    """Scenario 5 (C1, C8): what two of three had synced is there when one of them is alone."""
    with _on_own_disks(tmp_path, cuttable=True) as ((cluster, _, witness), disks):
        witness.start(patience_s=10)
        witness.wait_for(100)
        cluster.cut(between([1], [2, 3]))
        cluster.wait_led(without=1, asked=[2, 3])
        witness.wait_for(50)
        cluster.lose_power({2: disks[2]})
        alone_ms = wall_ms()
        witness.wait_for_failures(4)
        mended_ms = wall_ms()
        cluster.heal()
        # It has what node 2 acknowledged, if that was synced there.
        cluster.restart(2)
        cluster.wait_whole()
        witness.wait_for(50)
        history = witness.finish()
    fooled = writes_between(history, alone_ms, mended_ms)
    assert not fooled, fooled


@pytest.mark.slow
def test_29_a_newcomer_loses_its_power_while_it_gets_its_replicas(tmp_path: Path) -> None:
    """Scenario 29 (C1, C2, C7, C8): an image is there as a whole or not at all."""
    with powered_disk(tmp_path / "node4", _DISK_MIB) as disk, staged(tmp_path, 3, *_SMALL) as stage:
        cluster, _, witness = stage
        weigh_down(cluster)
        witness.start()
        witness.wait_for(50)
        lost = cluster.leads_most()
        cluster.kill(lost)
        cluster.lose_disk(lost)
        cluster.wait_led(without=lost)
        cluster.join(4, "--replace", cluster.id_of(lost))
        del cluster.nodes[lost]

        def strike() -> bool:
            if not copies_to(cluster, 4):
                return False
            cluster.lose_power({4: disk})
            cluster.restart(4)
            return True

        disturb(cluster, [4], 4, strike)
        witness.wait_for(100)
        history = witness.finish()
    assert 4 in {image.node for image in history.images}
