"""Every example of every command's help, typed against a real node."""

import shlex
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import click
import pytest

from admin.examples import ExampleCommand
from tests.cluster.process import NodeProcess, Recipient, wait_until
from tests.cluster.terminal import Terminal
from tests.docs.cli_page import commands
from tests.docs.page import blocks

EXAMPLES = [
    example
    for path, context in commands()
    if isinstance(context.command, ExampleCommand) and path != "timemachine completion"
    for example in context.command.examples
]
_numbers = count()


@pytest.fixture(scope="module")
def recipient() -> Iterator[Recipient]:
    """Where jobs go."""
    with Recipient() as recipient:
        yield recipient


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """One node for all examples; each has a database of its own."""
    with NodeProcess(tmp_path_factory.mktemp("cli") / "data") as node:
        yield node.start()


@pytest.fixture
def world(
    node: NodeProcess, recipient: Recipient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Terminal:
    """What the examples speak of: a collection, a route, jobs, and files in this folder."""
    db = f"examples-{next(_numbers)}"
    base = f"/v1/dbs/{db}"

    def put(path: str, body: Any = None) -> None:
        status, answer = node.ask("PUT", base + path, body)
        assert status in (200, 201), answer

    put("")
    put("/collections/carts", {"num_vnodes": 2})
    put("/routes/hello", {"webhook_url": recipient.url})
    put("/routes/nobody", {"webhook_url": "http://127.0.0.1:1/", "retry": {"max_attempts": 1}})
    far = {"trigger_time": 1_896_076_800_000, "tags": ["cart"]}
    put("/collections/carts/jobs/order-7", {"route": "hello", **far})
    put("/collections/carts/jobs/dead-7", {"route": "nobody", "delay_ms": 0})
    dead = f"{base}/collections/carts/jobs/dead-7"
    wait_until(lambda: "dead" == node.ask("GET", dead)[1]["state"], "the job does not die")
    node.ask("PUT", "/v1/dbs/shop")
    (tmp_path / "meta.json").write_text('{"cart": 7}\n')
    (tmp_path / "route.json").write_text('{"webhook_url": "http://127.0.0.1:4000/"}')
    (tmp_path / "jobs.ndjson").write_text('{"route": "hello", "trigger_time": 1896076800000}\n' * 3)
    monkeypatch.chdir(tmp_path)
    return Terminal(node.address, db)


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples(example: str, world: Terminal, node: NodeProcess) -> None:
    """Each works as it stands, also for programs."""
    line, _, source = example.partition(" < ")
    if "job watch" in line:
        world("job", "run", "carts", "order-7")
    if "delete shop" in line and "--force" not in line:
        world("db", "put", "shop")
    words = shlex.split(line)[1:]
    if words[-1] == "TASK":
        begun = world("job", "cancel", "carts", "--yes", "--no-wait", "--json")
        words[-1] = begun.json["task"]
        if words[1] == "watch":
            wait_until(
                lambda: "running" != node.ask("GET", f"/v1/tasks/{words[-1]}")[1]["state"],
                "the task does not end",
            )
    if "salvage" in line:
        with NodeProcess(Path("data-2")) as stopped:
            stopped.start().set_up("http://127.0.0.1:1/", num_vnodes=1)
            stopped.stop()
    text = Path(source).read_bytes() if source else None
    done = world(*words, text=text)
    assert done.out or done.err


def test_the_first_commands_of_the_manual(node: NodeProcess, tmp_path: Path) -> None:
    """Typed one after the other, they work as they stand."""
    tm = Terminal(node.address, f"examples-{next(_numbers)}")
    tm("db", "put", tm.environment["TIMEMACHINE_DB"])
    lines = blocks("docs/reference/cli.md")[0].splitlines()
    done = [tm(*shlex.split(line)[1:]) for line in lines]
    assert 4 == len(done)
    assert "scheduled" in done[-1].out


def test_there_are_examples() -> None:
    """The list is not empty by some mistake, and holds each command of the groups."""
    named = {tuple(shlex.split(example)[1:3]) for example in EXAMPLES}
    groups = {"db", "collection", "route", "job", "task", "admin"}
    for path, context in commands():
        words = tuple(path.split()[1:])
        if not isinstance(context.command, click.Group) and words and words[0] in groups:
            assert words in named
