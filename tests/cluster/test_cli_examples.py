"""Every example of every command's help, typed against a real node."""

import shlex
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import click
import pytest

from admin import exits
from admin.examples import ExampleCommand
from tests.cluster.cluster import Cluster
from tests.cluster.process import NodeProcess, Recipient, wait_until
from tests.cluster.terminal import Terminal
from tests.docs.cli_page import commands
from tests.docs.page import blocks

_ALL = [
    example
    for path, context in commands()
    if isinstance(context.command, ExampleCommand) and path != "timemachine completion"
    for example in context.command.examples
]
PLANS = [example for example in _ALL if "admin plan" in example]
"""These need a second node."""
EXAMPLES = [example for example in _ALL if example not in PLANS]
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
    put("/routes/nobody", {"webhook_url": "http://127.0.0.1:1024/", "retry": {"max_attempts": 1}})
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
def test_examples(
    example: str, world: Terminal, node: NodeProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
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
            stopped.start().set_up("http://127.0.0.1:1024/", num_vnodes=1)
            stopped.stop()
    if {"list", "check", "delete", "restore"} & set(words) and "backups" in words:
        taken = world("admin", "backup", "create", "backups", "--json").json
        words = [taken["id"] if word == "ID" else word for word in words]
    if "restore" in words:
        _empty(node)
    if words[-1] == "PLAN" and "--plan" in words:
        words[-1] = world(*words[:-2], "--dry-run", "--json").json["plan"]
    if "--watch" in words:
        monkeypatch.setattr(time, "sleep", _interrupt)
    text = Path(source).read_bytes() if source else None
    # The doctor ends with 1 where something has to be done: there is no node for further replicas.
    done = world(*words, text=text, code=exits.FAILED if "doctor" in words else exits.DONE)
    assert done.out or done.err


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """Two nodes, n1 and n2, and so many vnodes that a plan is not done before it is paused."""
    with Cluster(tmp_path_factory.mktemp("plans"), 2) as cluster:
        cluster.form()
        tm = Terminal(cluster.nodes[1].address)
        tm("collection", "put", "carts", "--num-vnodes", "64", "--replicas", "1")
        yield tm


@pytest.mark.parametrize("example", PLANS)
def test_examples_of_plans(example: str, pair: Terminal) -> None:
    """Each works as it stands, for a plan that is not confirmed, runs, is paused or has ended."""
    words = shlex.split(example)[1:]
    if words[-1] == "PLAN":
        stopped = words[2] in ("pause", "resume", "cancel")
        making = ("drain", "n2", "--transfers", "1") if stopped else ("rebalance",)
        words[-1] = pair("admin", "plan", *making, "--json").json["id"]
        if stopped:
            pair("admin", "plan", "confirm", words[-1], "--no-wait")
        if words[2] == "resume":
            pair("admin", "plan", "pause", words[-1])
        if words[2] == "watch":
            pair("admin", "plan", "confirm", words[-1])
    assert pair(*words).out
    if words[2] in ("pause", "resume"):
        pair("admin", "plan", "cancel", words[-1])
    if words[2] in ("pause", "resume", "cancel"):
        show = ("admin", "plan", "show", words[-1], "--json")
        wait_until(lambda: not pair(*show).json["moves"]["moving"], "what was begun does not end")


def _interrupt(_: float) -> None:
    """Ctrl-C, as soon as anything waits."""
    raise KeyboardInterrupt


def _empty(node: NodeProcess) -> None:
    """Have nothing there that a backup would overwrite."""
    for row in node.ask("GET", "/v1/dbs")[1]["items"]:
        if row["name"] != "default":
            status, answer = node.ask("DELETE", f"/v1/dbs/{row['name']}?force=true")
            assert 200 == status, answer


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
    typed = [shlex.split(example)[1:] for example in _ALL]
    named = {tuple(words[:length]) for words in typed for length in (2, 3)}
    groups = {"db", "collection", "route", "job", "task", "admin"}
    for path, context in commands():
        words = tuple(path.split()[1:])
        if not isinstance(context.command, click.Group) and words and words[0] in groups:
            assert words in named
