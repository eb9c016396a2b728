"""The documentation, played: what it tells to type works, and prints what it says."""

import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.docs.page import fences, played
from tests.docs.reader import PROGRAMS, Reader, Terminal
from tests.unit.project import ROOT

README: Final = ROOT / "README.md"
PLAYED: Final = (
    ROOT / "docs" / "quickstart.md",
    ROOT / "docs" / "reference" / "api.md",
    ROOT / "docs" / "reference" / "original.md",
    *sorted((ROOT / "docs" / "howto").glob("*.md")),
    ROOT / "docs" / "operate" / "cluster.md",
    ROOT / "docs" / "operate" / "compaction.md",
    ROOT / "docs" / "operate" / "backup.md",
    ROOT / "docs" / "operate" / "keys.md",
    ROOT / "docs" / "operate" / "network.md",
    ROOT / "docs" / "operate" / "plans.md",
)
"""Each is played from its text alone: a new how-to is among them without being named here."""


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """Somebody with a terminal."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    with Reader(tmp_path) as reader:
        yield reader


@pytest.mark.parametrize("path", PLAYED, ids=lambda path: path.stem)
def test_the_page_plays(reader: Reader, path: Path) -> None:
    """Every block is typed, saved or compared, or plainly marked as not run."""
    if "openssl " in path.read_text() and shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    reader.play(played(path))


# --- the README --------------------------------------------------------------------------------


def _readme() -> list[str]:
    return [block.text for block in fences(README.read_text(encoding="utf-8"))]


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_demo_holds_its_promises(reader: Reader) -> None:
    """The first thing that the README tells to type ends well, and says so."""
    demo, _ = _readme()[0].splitlines()
    assert "The promises held." in reader.type_in(demo)[0]


def test_the_readme_names_commands_of_the_makefile(reader: Reader) -> None:
    """`make demo` and `make test` are what the README says they are."""
    demo, test = map(reader.instead, _readme()[0].splitlines())
    assert demo == ".venv/bin/python -m node demo"
    assert test.startswith(".venv/bin/python -m pytest")


def test_the_readme_plays(reader: Reader) -> None:
    """`make run` prints the README's commands; each is answered, and the webhook comes."""
    _, run, commands, _ = _readme()
    with socket.create_server(("127.0.0.1", reader.recipient_port)) as recipient:
        recipient.settimeout(30)
        node = reader.start("node", run)
        node.wait_for(reader.instead("ready http=127.0.0.1:8001 ...\n"))
        shown = commands.replace("127.0.0.1:8001", f"127.0.0.1:{reader.node_port}")
        assert shown.splitlines() == _tried(node)
        _, statuses = reader.type_in(commands)
        assert [201, 201, 201] == statuses
        assert b'"meta":{"hi": 1}' in _request(recipient)
        assert any((reader.folder / ".run").iterdir()), "its data is elsewhere"


def test_the_three_nodes_of_the_readme(reader: Reader) -> None:
    """The command runs three nodes; all that it prints to try works, at the last of them too."""
    nodes = reader.start("nodes", _readme()[3])
    nodes.wait_for("Ctrl+C stops all of them...\n")
    addresses = re.findall(r"^ready http=(\S+)", nodes.shown(), re.MULTILINE)
    assert 3 == len(addresses)
    lines = "\n".join(_tried(nodes))
    assert [201, 201, 201] == reader.type_in(lines)[1]
    assert [200, 200, 201] == reader.type_in(lines.replace(addresses[0], addresses[2]))[1]
    assert (reader.folder / ".run3" / "node-3").is_dir()


def _request(listener: socket.socket) -> bytes:
    """The first request that comes, as far as its body."""
    connection, _ = listener.accept()
    with connection:
        request = b""
        while b"\r\n\r\n{" not in request:
            part = connection.recv(65_536)
            assert part, request
            request += part
    return request


# --- what the node itself tells to type ----------------------------------------------------------


def _tried(node: Terminal) -> list[str]:
    """The commands that a node printed to try."""
    return [line.strip() for line in node.shown().splitlines() if line.startswith("  curl ")]


def test_what_dev_prints_can_be_typed(reader: Reader) -> None:
    """The three commands that `timemachine dev` prints work to the letter, and may be repeated."""
    node = reader.start("node", ".venv/bin/timemachine dev")
    node.wait_for("ready http=...\n")
    lines = _tried(node)
    assert 3 == len(lines)
    printed, statuses = reader.type_in("\n".join(lines))
    assert [201, 201, 201] == statuses
    assert all(text in printed for text in ('"name":"jobs"', '"name":"hello"', '"scheduled"'))
    assert [200, 200, 201] == reader.type_in("\n".join(lines))[1]


def test_dev_prints_the_port_that_it_got(reader: Reader) -> None:
    """With port 0 the commands name the port that the system chose, and work to the letter."""
    node = reader.start("node", ".venv/bin/timemachine dev --http 127.0.0.1:0")
    node.wait_for("ready http=...\n")
    (address,) = re.findall(r"^ready http=(\S+)", node.shown(), re.MULTILINE)
    lines = _tried(node)
    assert [True] * 3 == [f" http://{address}/" in line for line in lines]
    assert [201, 201, 201] == reader.type_in("\n".join(lines))[1]
