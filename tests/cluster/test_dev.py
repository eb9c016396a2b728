"""`timemachine dev` for somebody who types it for the first time: what goes wrong is explained."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from tests.cluster.process import START_S, STOP_S, wait_until
from tests.unit.project import ROOT

pytestmark = pytest.mark.timeout(180)

DEV = (sys.executable, "-m", "node", "dev")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def dev(folder: Path, *words: str) -> tuple[int, str]:
    """Run it where it cannot start: exit code, and what people read."""
    done = subprocess.run(
        [*DEV, *words],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=STOP_S,
        check=False,
    )
    assert "" == done.stdout
    return done.returncode, done.stderr


@pytest.fixture
def running(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A node in this folder, on a port of its own."""
    with subprocess.Popen(
        [*DEV, "--http", "127.0.0.1:0"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()
            process.wait(STOP_S)


def test_it_says_how_to_stop_and_where_data_is(
    running: subprocess.Popen[str], tmp_path: Path
) -> None:
    """Before the ready line; Ctrl+C ends it with 0, and the data is in the folder that it named."""
    assert running.stdout is not None
    assert running.stdout.readline().startswith("ready ")
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=STOP_S)
    assert 0 == running.returncode, told
    assert "Ctrl+C stops the node. Its data stays in .timemachine;" in told
    assert (tmp_path / ".timemachine").is_dir()


def test_the_port_is_taken(tmp_path: Path) -> None:
    """A sentence with the address, and a command that will do."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        code, told = dev(tmp_path, "--http", address)
    assert 1 == code
    assert f"\n{address} cannot be had: another program listens there" in told
    assert "timemachine dev --data .timemachine --http 127.0.0.1:0" in told


def test_the_data_is_in_use(running: subprocess.Popen[str], tmp_path: Path) -> None:
    """A second one in the same folder is told so."""
    assert running.stdout is not None
    assert running.stdout.readline().startswith("ready ")
    code, told = dev(tmp_path, "--http", "127.0.0.1:0")
    assert 3 == code
    assert "\nThe data in .timemachine is in use: another node runs on it." in told


@pytest.mark.parametrize("name", ["foreign", "file", "file/below"])
def test_the_folder_cannot_be_used(tmp_path: Path, name: str) -> None:
    """A folder of somebody else's, a file, or what cannot be made: exit code 3, no trace."""
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "notes").write_text("mine")
    (tmp_path / "file").write_text("mine")
    code, told = dev(tmp_path, "--data", name, "--http", "127.0.0.1:0")
    assert 3 == code
    assert "Traceback" not in told
    assert "\nAnother folder may do: timemachine dev --data other" in told


def test_a_program_on_the_port_for_nodes_is_no_matter(tmp_path: Path) -> None:
    """With the default address nodes are listened to on 9001; if that is taken, elsewhere."""
    try:
        listener = socket.create_server(("127.0.0.1", 9001))
    except OSError:
        pytest.skip("something listens on port 9001 already")
    with (
        listener,
        subprocess.Popen(
            DEV,
            cwd=tmp_path,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
        finally:
            process.kill()
            process.wait(STOP_S)
    assert line.startswith("ready http=127.0.0.1:8001 rpc=127.0.0.1:")
    assert " rpc=127.0.0.1:9001 " not in line


# --- several nodes -------------------------------------------------------------------------------


class Nodes:
    """`dev` with several nodes, running; what it prints is in files."""

    def __init__(self, folder: Path, *words: str) -> None:
        self._out, self._told = folder / "out", folder / "told"
        with self._out.open("w") as out, self._told.open("w") as told:
            self.process = subprocess.Popen(
                [*DEV, "--data", "data", "--http", "127.0.0.1:0", *words],
                cwd=folder,
                env=ENVIRONMENT,
                stdout=out,
                stderr=told,
            )

    def told(self) -> str:
        """What people have read so far, without the logs."""
        lines = self._told.read_text().splitlines(keepends=True)
        return "".join(line for line in lines if not line.startswith("{"))

    def ready(self) -> list[dict[str, str]]:
        """The words of the ready lines, in order, when all have come."""
        wait_until(
            lambda: "Ctrl+C stops all" in self.told() or self.process.poll() is not None,
            "it does not become ready",
            START_S,
        )
        assert self.process.poll() is None, self._told.read_text()
        lines = self._out.read_text().splitlines()
        assert all(line.startswith("ready ") for line in lines)
        return [dict(word.split("=") for word in line.split()[1:]) for line in lines]

    def pids(self) -> list[int]:
        """The processes of the nodes, as people are told them."""
        return [int(found) for found in re.findall(r"kill -9 ([0-9]+)", self.told())]

    def stop(self) -> int:
        """Ctrl+C; returns the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(STOP_S)

    def __enter__(self) -> Self:
        """It is running already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """The nodes end with it."""
        self.process.kill()
        self.process.wait(STOP_S)


def _ask(address: str, method: str, path: str) -> Any:
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request(method, path)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def _members(address: str) -> dict[str, str]:
    """Names by the ids of those that are in the cluster."""
    nodes = _ask(address, "GET", "/v1/cluster")["nodes"]
    return {node["id"]: node["name"] for node in nodes if node["state"] != "removed"}


def test_three_nodes_form_a_cluster_and_resume_it(tmp_path: Path) -> None:
    """One ready line each; all are of one cluster, also after Ctrl+C and another start."""
    with Nodes(tmp_path, "--nodes", "3") as nodes:
        ready = nodes.ready()
        assert 3 == len(ready)
        expected = {words["node"]: f"node-{number}" for number, words in enumerate(ready, 1)}
        assert expected == _members(ready[2]["http"])
        ranges = _ask(ready[1]["http"], "GET", "/v1/cluster/settings")["allowed_private_cidrs"]
        assert ["127.0.0.0/8", "::1/128"] == ranges
        assert all(f"http://{words['http']}  kill -9 " in nodes.told() for words in ready)
        assert 0 == nodes.stop()
    with Nodes(tmp_path) as nodes:
        again = nodes.ready()
        assert [words["node"] for words in ready] == [words["node"] for words in again]
        assert [words["rpc"] for words in ready] == [words["rpc"] for words in again]
        assert expected == _members(again[0]["http"])
        assert 0 == nodes.stop()


def test_a_node_that_dies_is_told_and_the_next_start_resumes_it(tmp_path: Path) -> None:
    """It is not started again behind one's back; the others go on."""
    with Nodes(tmp_path, "--nodes", "3") as nodes:
        ready = nodes.ready()
        os.kill(nodes.pids()[1], signal.SIGKILL)
        sentence = "node-2 was killed by signal 9. It is not started again by itself."
        wait_until(lambda: sentence in nodes.told(), "nobody tells")
        assert "node-1 and node-3 go on" in nodes.told()
        assert "timemachine dev --data data" in nodes.told()
        assert 3 == len(_members(ready[2]["http"]))
        os.kill(nodes.pids()[0], signal.SIGKILL)
        wait_until(lambda: "Only node-3 runs, no majority of 3" in nodes.told(), "nobody tells")
        assert 1 == nodes.stop()
    with Nodes(tmp_path) as nodes:
        assert [words["node"] for words in ready] == [words["node"] for words in nodes.ready()]
        assert 0 == nodes.stop()


def test_more_nodes_join_and_a_lost_folder_is_replaced(tmp_path: Path) -> None:
    """Two nodes become three; where the data of one is gone, a new node takes its place."""
    with Nodes(tmp_path, "--nodes", "2") as nodes:
        ready = nodes.ready()
        assert 0 == nodes.stop()
    with Nodes(tmp_path, "--nodes", "3") as nodes:
        more = nodes.ready()
        assert [words["node"] for words in ready] == [words["node"] for words in more[:2]]
        assert 0 == nodes.stop()
    shutil.rmtree(tmp_path / "data" / "node-1")
    with Nodes(tmp_path) as nodes:
        now = nodes.ready()
        lost = ready[0]["node"]
        assert f"node-1 has no data: it joins in place of {lost}." in nodes.told()
        members = _members(now[0]["http"])
        assert lost not in members
        assert ["node-1", "node-2", "node-3"] == sorted(members.values())
        assert 0 == nodes.stop()


def test_nodes_end_with_the_command(tmp_path: Path) -> None:
    """Also if it is killed: nothing goes on in the background."""
    with Nodes(tmp_path, "--nodes", "2") as nodes:
        nodes.ready()
        pids = nodes.pids()
        nodes.process.kill()
        nodes.process.wait(STOP_S)
        wait_until(lambda: not any(map(_lives, pids)), "a node goes on")


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_another_number_of_nodes(tmp_path: Path) -> None:
    """A folder of one node takes no three, and one of several no fewer; what to type is said."""
    with Nodes(tmp_path, "--nodes", "2") as nodes:
        nodes.ready()
        code, told = dev(tmp_path, "--data", "data", "--http", "127.0.0.1:0")
        assert 3 == code
        assert "The data in data is in use" in told
        assert 0 == nodes.stop()
    code, told = dev(tmp_path, "--data", "data", "--nodes", "1")
    assert 2 == code
    assert "data holds a cluster of 2 nodes" in told
    (tmp_path / "one" / "store").mkdir(parents=True)
    code, told = dev(tmp_path, "--data", "one", "--nodes", "3")
    assert 2 == code
    assert "one holds the data of one node, and cannot hold 3." in told
    assert "timemachine dev --nodes 3 --data other" in told
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("mine")
    code, told = dev(tmp_path, "--data", "mine", "--nodes", "3")
    assert 3 == code
    assert "mine holds files that are not TimeMachine's (notes)." in told
    assert ["notes"] == [each.name for each in (tmp_path / "mine").iterdir()]


def test_the_port_of_one_of_several_is_taken(tmp_path: Path) -> None:
    """It is said whose and which; the nodes that had begun are stopped."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        code, told = dev(tmp_path, "--nodes", "2", "--http", f"127.0.0.1:{port}")
    assert 1 == code
    assert "node-1 cannot start." in told
    assert f"\n127.0.0.1:{port} cannot be had: another program listens there" in told
    assert "timemachine dev --nodes 2 --data .timemachine --http 127.0.0.1:0" in told
