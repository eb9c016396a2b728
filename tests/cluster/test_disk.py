"""A disk that fails, fills up or was damaged: nothing acknowledged is lost without a word."""

import contextlib
import errno
import random
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.cluster.process import JOBS, NodeProcess, now_ms, wait_until
from tests.faults.disks import small_disk
from tests.faults.preloading import build_shim, give, shimmed
from timemachine.storage.leveldb import open_store
from timemachine.storage.walcheck import check_wal

FAR_MS = 4_000_000_000_000
NOWHERE = "http://127.0.0.1:1024/"


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled fault shim."""
    return build_shim(tmp_path_factory.mktemp("shim"))


class Writers:
    """Threads that create far jobs until the node refuses or is gone; `acked` is what it took."""

    def __init__(self, node: NodeProcess, name: str, *, meta_bytes: int = 300) -> None:
        self.acked: list[str] = []
        self.refusals: set[int] = set()
        self._node = node
        self._meta = "m" * meta_bytes
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(f"{name}{number}",), daemon=True)
            for number in range(3)
        ]
        for thread in self._threads:
            thread.start()

    def _work(self, prefix: str) -> None:
        number = 0
        with contextlib.suppress(Exception):  # the node is gone: that is the point
            while not self._stop.is_set():
                ids = [f"{prefix}-{number + each}" for each in range(5)]
                number += 5
                jobs = [
                    {"id": job_id, "trigger_time": FAR_MS, "route": "hook", "meta": self._meta}
                    for job_id in ids
                ]
                status, answer = self._node.ask("POST", f"{JOBS}/batch", jobs)
                items = answer.get("items", [{"status": status}])
                self.acked += [
                    job_id
                    for job_id, item in zip(ids, items, strict=False)
                    if item["status"] == 201
                ]
                refused = {item["status"] for item in items} - {201}
                self.refusals |= refused
                if refused:
                    time.sleep(0.05)

    def join(self, *, stop: bool = False) -> None:
        """Wait until all have ended."""
        if stop:
            self._stop.set()
        for thread in self._threads:
            thread.join(60)


def _missing(node: NodeProcess, acked: list[str]) -> set[str]:
    node.start()
    missing = set(acked) - node.jobs().keys()
    assert 0 == node.stop()
    return missing


@pytest.mark.root("preload")
@pytest.mark.parametrize(
    "rule",
    [
        f"sync .log {errno.EIO} 0",
        f"write .log {errno.ENOSPC} 0",
        f"write .log {errno.ENOSPC} 300",
        f"write .log {errno.EIO} 40000",
    ],
    ids=["sync fails", "write fails", "torn write", "write torn behind a block"],
)
def test_a_failing_disk_stops_the_node_and_loses_nothing(
    tmp_path: Path, shim: Path, rule: str
) -> None:
    """One failed call under load: exit code 1, a clear line; the restart has all acknowledged."""
    rules, data = tmp_path / "rule", tmp_path / "data"
    with NodeProcess(data, environment=shimmed(shim, data, rules)) as node:
        node.start().set_up(NOWHERE)
        writers = Writers(node, "w", meta_bytes=8_000)
        wait_until(lambda: bool(writers.acked), "nothing is taken")
        time.sleep(random.Random(rule).uniform(0.2, 0.8))
        give(rules, rule)
        assert 1 == node.wait(), node.log_tail()
        writers.join()
        assert not rules.exists(), "the fault never happened"
        assert writers.acked
        assert writers.refusals <= {503}
        assert "the node cannot go on; it stops" in node.log_tail()
        assert "unhandled" not in node.log_tail()
        assert not _missing(node, writers.acked), "acknowledged and lost"


@pytest.mark.root("tmpfs")
@pytest.mark.parametrize("reserve_mib", [0, 4])
def test_a_full_disk_loses_nothing(tmp_path: Path, reserve_mib: int) -> None:
    """Creators hear 507 or the node stops; after space returns, all that was taken is there."""
    disk = tmp_path / "disk"
    with (
        small_disk(disk, 16),
        NodeProcess(disk / "data", "--disk-reserve-mb", str(reserve_mib)) as node,
    ):
        node.log = tmp_path / "log"
        node.start().set_up(NOWHERE)
        writers = Writers(node, "w", meta_bytes=10_000)
        end = time.monotonic() + 30
        while node.process.poll() is None and 507 not in writers.refusals:
            assert time.monotonic() < end, "the disk does not fill up"
            time.sleep(0.02)
        assert writers.refusals <= {503, 507}
        if node.process.poll() is None:
            writers.join(stop=True)
            # A reserve is for this: deleting still works when creating does not.
            assert 200 == node.ask("DELETE", f"{JOBS}/{writers.acked.pop()}")[0]
            node.kill()
        else:
            assert 1 == node.wait(), node.log_tail()
            assert "the node cannot go on; it stops" in node.log_tail()
            writers.join()
        assert writers.acked
        subprocess.run(["mount", "-o", "remount,size=96m", str(disk)], check=True)
        assert not _missing(node, writers.acked), "acknowledged and lost"


@pytest.mark.root("tmpfs")
def test_creators_are_served_again_when_there_is_space_again(tmp_path: Path) -> None:
    """507 with Retry-After below the reserve, 201 above it, without a restart."""
    disk = tmp_path / "disk"
    job = {"trigger_time": FAR_MS, "route": "hook"}
    with small_disk(disk, 32), NodeProcess(disk / "data", "--disk-reserve-mb", "8") as node:
        node.log = tmp_path / "log"
        node.start().set_up(NOWHERE)
        (disk / "other").write_bytes(bytes(shutil.disk_usage(disk).free - 6 * 1024 * 1024))
        for wanted in (507, 201):
            end = time.monotonic() + 20
            while wanted != (status := node.ask("POST", JOBS, job)[0]):
                assert status in (201, 507)
                assert time.monotonic() < end, node.log_tail()
                time.sleep(0.05)
            (disk / "other").unlink(missing_ok=True)
        assert 0 == node.stop()


# --- what is not served ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of a node that was killed: its writes are in LevelDB's log."""
    data = tmp_path_factory.mktemp("killed") / "data"
    with NodeProcess(data) as node:
        node.start().set_up(NOWHERE)
        jobs = [{"id": f"j{n}", "trigger_time": FAR_MS, "meta": "m" * 200} for n in range(500)]
        for start in range(0, 500, 10):
            node.create(jobs[start : start + 10])
        node.kill()
    return data


@pytest.fixture
def data(killed: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(killed, tmp_path / "data"))


def _log_of(data: Path) -> Path:
    return max((data / "store").glob("*.log"), key=lambda file: file.stat().st_size)


def _refused(data: Path, reason: str) -> None:
    with NodeProcess(data) as node:
        assert 3 == node.refused(), node.log_tail()
        assert reason in node.log_tail()
        assert "Traceback" not in node.log_tail()
        assert str(data.parent) not in node.log_tail()


def test_damage_in_the_middle_of_the_log_is_refused(data: Path) -> None:
    """One flipped bit with whole records behind it: acknowledged writes are gone, exit code 3."""
    content = bytearray(_log_of(data).read_bytes())
    content[len(content) // 2] ^= 1
    _log_of(data).write_bytes(content)
    _refused(data, "damaged in its middle")


def test_a_zeroed_page_in_the_middle_of_the_log_is_refused(data: Path) -> None:
    """LevelDB takes zeroes for the end of a block and skips what lies behind it."""
    content = bytearray(_log_of(data).read_bytes())
    middle = len(content) // 2 // 4_096 * 4_096
    content[middle : middle + 4_096] = bytes(4_096)
    _log_of(data).write_bytes(content)
    _refused(data, "damaged in its middle")


def test_a_lost_current_file_is_refused(data: Path) -> None:
    """The store is there, its entry point is not: never an empty database."""
    (data / "store" / "CURRENT").unlink()
    _refused(data, "CURRENT")


def test_an_emptied_current_file_is_refused(data: Path) -> None:
    """The same when the file is there and holds nothing."""
    (data / "store" / "CURRENT").write_bytes(b"")
    _refused(data, "damaged")


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    """A directory that holds something else is left alone."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "letters.txt").write_text("mine")
    _refused(tmp_path / "data", "letters.txt")
    assert ["letters.txt"] == [file.name for file in (tmp_path / "data").iterdir()]


def test_another_secret_key_is_refused(data: Path, tmp_path: Path) -> None:
    """A whole key of another node opens nothing here: exit code 3."""
    with NodeProcess(tmp_path / "other") as other:
        other.start()
        assert 0 == other.stop()
    shutil.copy(tmp_path / "other" / "secret.key", data / "secret.key")
    _refused(data, "not the one that this data directory was made with")


def test_a_lost_secret_key_is_refused_and_not_made_anew(data: Path) -> None:
    """A new key would open nothing, and hide that the old one is missed."""
    (data / "secret.key").unlink()
    _refused(data, "secret.key is gone")
    assert not (data / "secret.key").exists()


def test_a_directory_in_use_is_refused(data: Path) -> None:
    """Two nodes never share a directory; the first is not disturbed."""
    with NodeProcess(data) as node:
        node.start()
        second = NodeProcess(data)
        second.log = data.with_name("second.log")
        with second:
            assert 3 == second.refused(), second.log_tail()
            assert "Another process" in second.log_tail()
        assert 500 == len(node.jobs())
        assert 0 == node.stop()


def test_a_torn_tail_is_accepted(data: Path) -> None:
    """What a power loss leaves behind the last sync costs nothing that was acknowledged."""
    with _log_of(data).open("ab") as file:
        file.write(random.Random(1).randbytes(5_000))
    with NodeProcess(data) as node:
        node.start()
        assert 500 == len(node.jobs())
        assert 0 == node.stop()


def test_a_log_cut_anywhere_in_its_last_record_is_accepted(data: Path, tmp_path: Path) -> None:
    """The last write is then not there as a whole; every earlier one is."""
    content = _log_of(data).read_bytes()
    name = _log_of(data).relative_to(data)
    last = check_wal(content[:-1]).good_end_bytes
    assert last < len(content)
    for cut in (last + 1, (last + len(content)) // 2, len(content) - 1):
        copy = Path(shutil.copytree(data, tmp_path / f"cut{cut}"))
        (copy / name).write_bytes(content[:cut])
        with NodeProcess(copy) as node:
            node.start()
            assert 490 <= len(node.jobs())
            assert 0 == node.stop()


def test_an_unreadable_table_is_an_error_and_not_a_missing_job(tmp_path: Path) -> None:
    """A zeroed block: no job of it is 404, and no list is silently shorter."""
    data = tmp_path / "data"
    with NodeProcess(data) as node:
        node.start().set_up(NOWHERE, num_vnodes=1)
        jobs = [{"id": f"j{n}", "trigger_time": FAR_MS, "meta": "m" * 500} for n in range(2_000)]
        node.create(jobs)
        assert 0 == node.stop()
        node.start()  # turns the log into a table
        assert 0 == node.stop()
        table = max((data / "store").glob("*.ldb"), key=lambda file: file.stat().st_size)
        content = bytearray(table.read_bytes())
        place = content.find(b"m" * 500, len(content) // 2)
        assert place > 0
        content[place : place + 4_096] = bytes(4_096)
        table.write_bytes(content)
        node.launch()
        if not node.becomes_ready():
            _check_ended(node)
            return
        statuses = set()
        with contextlib.suppress(OSError):
            for number in range(2_000):
                statuses.add(node.ask("GET", f"{JOBS}/j{number}")[0])
        assert 404 not in statuses, "damage is served as `never existed`"
        # Whoever met it may hear of it, or see the connection end with the node.
        _check_ended(node)


def test_an_unreadable_due_index_stops_the_node(tmp_path: Path) -> None:
    """Rather none than one that takes jobs and fires none: the process ends, and says why."""
    data = tmp_path / "data"
    with NodeProcess(data) as node:
        node.start().set_up(NOWHERE, num_vnodes=1)
        due_ms = now_ms() + 5_000
        node.create([{"id": f"j{n:04}", "trigger_time": due_ms} for n in range(2_000)])
        node.kill()  # before any of them is due, so that all are where they were put
        open_store(data)[0].close()  # turns the log into a table
        table = max((data / "store").glob("*.ldb"), key=lambda file: file.stat().st_size)
        content = bytearray(table.read_bytes())
        place = content.find(b"d" + due_ms.to_bytes(8, "big"))
        assert place > 0
        content[place : place + 8_192] = bytes(8_192)
        table.write_bytes(content)
        node.launch()
        node.becomes_ready()
        _check_ended(node)


def _check_ended(node: NodeProcess) -> None:
    """It ends for damage. If a compaction met that first, only the next start knows."""
    code = node.wait()
    if code == 1:
        assert "A write failed" in node.log_tail()
        code = node.refused()
    assert 3 == code, f"the damage was not found: {node.log_tail()}"
    assert "store_damaged" in node.log_tail()
