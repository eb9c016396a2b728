"""The README and the quickstart, played: what they tell to type works, and prints what they say."""

import ast
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.process import wait_until
from tests.docs.reader import PROGRAMS, Program, Reader, blocks, quoted

README = "README.md"
QUICKSTART = "docs/quickstart.md"


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """Somebody with a terminal."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    with Reader(tmp_path) as reader:
        yield reader


def _start_node(reader: Reader, command: str) -> Program:
    """Start a node, and wait until it says that it serves as the quickstart tells it."""
    program = reader.start(command)
    ready = reader.instead(quoted(QUICKSTART, r"`(ready http=\S+) \.\.\.`"))
    assert ready == program.wait_for_line()[: len(ready)]
    return program


def _tried(program: Program) -> list[str]:
    """The commands that a node printed to try."""
    return [line.strip() for line in program.logged() if line.startswith("  curl ")]


@pytest.mark.slow
def test_the_demo_holds_its_promises(reader: Reader) -> None:
    """The first thing that the README tells to type ends well, and says so."""
    demo, _ = blocks(README)[0].splitlines()
    assert "The promises held." in reader.run(reader.instead(demo))


def test_the_readme_names_commands_of_the_makefile(reader: Reader) -> None:
    """`make demo` and `make test` are what the README says they are."""
    demo, test = map(reader.instead, blocks(README)[0].splitlines())
    assert f"{sys.executable} -m node demo" == demo
    assert test.startswith(f"{sys.executable} -m pytest")


def test_the_readme_plays(reader: Reader) -> None:
    """`make run` prints the README's commands; each is answered, and the webhook comes."""
    _, run, commands = blocks(README)
    with socket.create_server(("127.0.0.1", reader.recipient_port)) as recipient:
        recipient.settimeout(30)
        node = _start_node(reader, reader.instead(run))
        shown = commands.replace("127.0.0.1:8001", f"127.0.0.1:{reader.node_port}")
        assert shown.splitlines() == _tried(node)
        collection, route, job = reader.curl(reader.instead(commands))
        assert [201, 201, 201] == [collection.status, route.status, job.status]
        assert ("jobs", "hello") == (collection.body["name"], route.body["name"])
        assert ("scheduled", {"hi": 1}) == (job.body["state"], job.body["meta"])
        assert b'"meta":{"hi": 1}' in _request(recipient)
        assert any((reader.folder / "run").iterdir()), "its data is elsewhere"


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


def test_the_quickstart_plays(reader: Reader) -> None:
    """From nothing to a verified webhook, as the page tells it."""
    run, receiver, create, start, job, ask, sdk = blocks(QUICKSTART)
    name = quoted(QUICKSTART, r"Save it as `(\S+)`")
    _start_node(reader, reader.instead(run))
    reader.save(name, receiver)
    *made, secret = reader.curl(reader.instead(create))
    assert [201, 201, 200] == [answer.status for answer in (*made, secret)]
    placeholder = quoted(QUICKSTART, r"The last answer holds the secret, `(\S+)`")
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", secret.body["secret"])
    command = reader.instead(start).replace(placeholder, secret.body["secret"])
    recipient = reader.start(command)
    wait_until(lambda: _listens(reader.recipient_port), "the receiver does not start")

    (created,) = reader.curl(reader.instead(job))
    assert (201, "first", "scheduled") == (
        created.status,
        created.body["id"],
        created.body["state"],
    )
    webhook = ast.literal_eval(recipient.wait_for_line())
    assert ("first", {"cart": 7}) == (webhook["id"], webhook["meta"])
    state, attempts = reader.instead(ask).splitlines()
    wait_until(lambda: "delivered" == reader.curl(state)[0].body["state"], "it is not delivered")
    (tried,) = reader.curl(attempts)
    assert [("succeeded", 204)] == [
        (attempt["status"], attempt["response_status"]) for attempt in tried.body["items"]
    ]

    reader.save("sdk.py", sdk)
    assert "scheduled\n" == reader.run(f"{sys.executable} sdk.py")
    assert {"cart": 8} == ast.literal_eval(recipient.wait_for_line(1))["meta"]


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def test_what_dev_prints_can_be_typed(reader: Reader) -> None:
    """The three commands that `timemachine dev` prints work to the letter, and may be repeated."""
    command = f"{sys.executable} -m node dev --data data --http 127.0.0.1:{reader.node_port}"
    node = _start_node(reader, command)
    lines = _tried(node)
    assert 3 == len(lines)
    collection, route, job = reader.curl("\n".join(lines))
    assert [201, 201, 201] == [collection.status, route.status, job.status]
    assert ("jobs", "hello", "scheduled") == (
        collection.body["name"],
        route.body["name"],
        job.body["state"],
    )
    assert [200, 200, 201] == [answer.status for answer in reader.curl("\n".join(lines))]


def test_dev_prints_the_port_that_it_got(reader: Reader) -> None:
    """With port 0 the commands name the port that the system chose, and work to the letter."""
    node = reader.start(f"{sys.executable} -m node dev --data data --http 127.0.0.1:0")
    address = node.wait_for_line().split()[1].removeprefix("http=")
    lines = _tried(node)
    assert [True] * 3 == [f" http://{address}/" in line for line in lines]
    assert [201, 201, 201] == [answer.status for answer in reader.curl("\n".join(lines))]
