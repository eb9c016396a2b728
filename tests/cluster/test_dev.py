"""`timemachine dev` for somebody who types it for the first time: what goes wrong is explained."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.process import STOP_S
from tests.unit.project import ROOT

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
