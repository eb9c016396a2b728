"""A disk that fails or fills up under a running node: acknowledged is acknowledged."""

import contextlib
import errno
import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

JOBS = "/v1/dbs/default/collections/jobs/jobs"
FAR_MS = 4_000_000_000_000


class Node:
    """A node process with an environment of its own."""

    def __init__(self, directory: Path, log: Path, *flags: str, **environment: str) -> None:
        self.log = log
        with log.open("a") as stream:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "node", "serve", "--data", str(directory)),
                    *("--http", "127.0.0.1:0", *flags),
                ],
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
                env={**os.environ, **environment},
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.ready = line.startswith("ready ")
        self.address = line.split()[1].removeprefix("http=") if self.ready else ""

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """One request. Raises OSError when the node is gone."""
        connection = http.client.HTTPConnection(self.address, timeout=10)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def end(self, *, ask: bool = False) -> int:
        """Wait for its exit, asking for it first or killing it at last; returns the exit code."""
        if ask:
            self.process.terminate()
        try:
            code = self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code


def _set_up(node: Node) -> None:
    assert node.ready, node.log.read_text()
    assert 201 == node.ask("PUT", "/v1/dbs/default/collections/jobs", {"num_vnodes": 2})[0]
    url = {"webhook_url": "http://127.0.0.1:9/"}
    assert 201 == node.ask("PUT", "/v1/dbs/default/routes/hook", url)[0]


def _fill(node: Node, prefix: str, count: int, meta: str = "x" * 300) -> tuple[list[str], set[int]]:
    """Create jobs one by one until the node refuses or is gone; returns what was acknowledged."""
    acked: list[str] = []
    refusals: set[int] = set()
    for number in range(count):
        job = {"id": f"{prefix}{number}", "trigger_time": FAR_MS, "route": "hook", "meta": meta}
        try:
            status, _ = node.ask("POST", JOBS, job)
        except (OSError, http.client.HTTPException):
            break
        if status == 201:
            acked.append(job["id"])  # type: ignore[arg-type]
        else:
            refusals.add(status)
            if len(refusals) > 0 and number > len(acked) + 20:
                break
    return acked, refusals


def _all_there(directory: Path, log: Path, acked: list[str]) -> None:
    node = Node(directory, log, "--allow-private", "127.0.0.0/8")
    assert node.ready, log.read_text()
    for job_id in acked:
        assert 200 == node.ask("GET", f"{JOBS}/{job_id}")[0], f"{job_id} was acknowledged and lost"
    assert 0 == node.end(ask=True)


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled fault shim."""
    library = tmp_path_factory.mktemp("shim") / "shim.so"
    source = Path(__file__).resolve().parents[1] / "faults" / "shim.c"
    subprocess.run(
        ["cc", "-O1", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True
    )
    return library


@pytest.mark.root("preload")
@pytest.mark.parametrize(
    "rule",
    [
        f"sync .log {errno.EIO} 0",
        f"write .log {errno.ENOSPC} 0",
        f"write .log {errno.ENOSPC} 300",
    ],
    ids=["sync fails", "write fails", "torn write"],
)
def test_a_failing_disk_loses_nothing_acknowledged(tmp_path: Path, shim: Path, rule: str) -> None:
    """The node stops with exit code 1 and says why; the next start has all acknowledged."""
    directory, log, rules = tmp_path / "data", tmp_path / "log", tmp_path / "rule"
    node = Node(
        directory,
        log,
        *("--allow-private", "127.0.0.0/8"),
        LD_PRELOAD=str(shim),
        SHIM_DIR=str(directory),
        SHIM_RULE=str(rules),
    )
    _set_up(node)
    acked, _ = _fill(node, "before", 40)
    assert 40 == len(acked)
    rules.write_text(rule + "\n")
    more, refusals = _fill(node, "after", 200)
    assert refusals <= {503}
    assert 1 == node.end()
    assert "the store failed" in log.read_text()
    _all_there(directory, log, acked + more)


@contextlib.contextmanager
def _tmpfs(path: Path, size: str) -> Iterator[None]:
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.root("tmpfs")
def test_a_nearly_full_disk_refuses_creators_and_still_deletes(tmp_path: Path) -> None:
    """Below the reserve creators get 507, deletes go on, and with space creators do again."""
    mounted, log = tmp_path / "disk", tmp_path / "log"
    with _tmpfs(mounted, "24m"):
        flags = ("--allow-private", "127.0.0.0/8", "--disk-reserve-mb", "8")
        node = Node(mounted / "data", log, *flags)
        _set_up(node)
        acked, _ = _fill(node, "early", 5)
        ballast = mounted / "data" / ".filler"
        ballast.write_bytes(b"x" * (18 * 1024 * 1024))
        time.sleep(1.2)
        status, problem = node.ask(
            "POST", JOBS, {"id": "late", "trigger_time": FAR_MS, "route": "hook"}
        )
        assert (507, "disk_full") == (status, problem["code"])
        assert 200 == node.ask("DELETE", f"{JOBS}/early0")[0]
        ballast.unlink()
        time.sleep(1.2)
        assert 1 == len(_fill(node, "again", 1)[0])
        assert 0 == node.end(ask=True)
        _all_there(mounted / "data", log, acked)


@pytest.mark.root("tmpfs")
def test_a_full_disk_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """Without any reserve the disk fills up under the node: after space returns, all is there."""
    mounted, log = tmp_path / "disk", tmp_path / "log"
    with _tmpfs(mounted, "4m"):
        node = Node(
            mounted / "data", log, "--allow-private", "127.0.0.0/8", "--disk-reserve-mb", "0"
        )
        _set_up(node)
        acked, refusals = _fill(node, "job", 400, "y" * 30_000)
        assert acked
        assert refusals <= {503, 507}
        assert 1 == node.end()
        subprocess.run(["mount", "-o", "remount,size=64m", str(mounted)], check=True)
        _all_there(mounted / "data", log, acked)


def test_another_secret_key_is_refused(tmp_path: Path) -> None:
    """With the wrong key the node does not start: exit code 3, and it says which key."""
    log = tmp_path / "log"
    node = Node(tmp_path / "data", log)
    assert node.ready
    assert 0 == node.end(ask=True)
    (tmp_path / "data" / "secret.key").unlink()
    node = Node(tmp_path / "data", log)
    assert not node.ready
    assert 3 == node.end()
    assert "secret.key is gone" in log.read_text()


def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    """Two nodes never share a directory: exit code 3."""
    node = Node(tmp_path / "data", tmp_path / "log")
    second = Node(tmp_path / "data", tmp_path / "log2")
    assert not second.ready
    assert 3 == second.end()
    assert "Another process" in (tmp_path / "log2").read_text()
    assert 0 == node.end(ask=True)
