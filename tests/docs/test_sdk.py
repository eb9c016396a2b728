"""The reference of the SDK: complete, and its examples run as they stand, with both clients."""

import ast
import asyncio
import inspect
import io
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.cluster.process import NodeProcess, Recipient
from tests.docs.page import blocks
from tests.unit.project import ROOT
from timemachine import client
from timemachine.client import Client, ClientError, RouteFields, SyncClient, operations
from timemachine.client.answers import Page

PAGE = "docs/reference/sdk.md"
SAID_ONCE = {"self", "idempotency_key", "consistency"}
"""Parameters that the page explains once, instead of in each row."""

COMPOSED = {
    "create_many": "iterator of `CreateResult`",
    "batcher": "a batcher",
    "wait_task": "`Task`",
    "close": "-",
}
"""What methods return that are made of more than one call."""

METHODS = [name for name in vars(Client) if not name.startswith("_")]
STRUCTS = sorted(
    name
    for name in client.__all__
    if isinstance(each := getattr(client, name), type) and issubclass(each, msgspec.Struct)
)
ERRORS = sorted(
    name
    for name in client.__all__
    if isinstance(each := getattr(client, name), type) and issubclass(each, ClientError)
)


def sentence(documented: Any) -> str:
    """The first sentence of a docstring, as one line of a table."""
    text = " ".join((inspect.getdoc(documented) or "").split())
    return re.split(r"(?<=[.])\s", text)[0].replace("|", "\\|")


def method_row(name: str) -> str:
    """How a method is called, what it returns, what it does."""
    build = getattr(operations, name, getattr(Client, name))
    signature = inspect.signature(build)
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in signature.parameters.values()
        if parameter.name not in SAID_ONCE
    ]
    shown = str(inspect.Signature(parameters))
    answer = COMPOSED.get(name)
    if answer is None:
        (found,) = signature.return_annotation.__args__
        if found is type(None):
            answer = "-"
        elif found is Any:
            answer = "plain JSON"
        elif getattr(found, "__origin__", None) is Page:
            several = "iterator" if "limit" in signature.parameters else "list"
            answer = f"{several} of `{found.__args__[0].__name__}`"
        else:
            answer = f"`{found.__name__}`"
    return f"| `{name}{shown}` | {answer} | {sentence(build)} |"


def struct_row(name: str) -> str:
    """What an answer holds."""
    kind = getattr(client, name)
    properties = [
        each
        for each, member in vars(kind).items()
        if isinstance(member, property) and not each.startswith("_")
    ]
    members = ", ".join(f"`{each}`" for each in (*kind.__struct_fields__, *properties))
    return f"| `{name}` | {members} | {sentence(kind)} |"


def error_row(name: str) -> str:
    """What an error means."""
    kind = getattr(client, name)
    return f"| `{name}` | `{kind.code}` | {sentence(kind)} |"


ROWS = [*map(method_row, METHODS), *map(struct_row, STRUCTS), *map(error_row, ERRORS)]


@pytest.mark.parametrize("row", ROWS, ids=[*METHODS, *STRUCTS, *ERRORS])
def test_everything_has_its_row(row: str) -> None:
    """Each method, each answer and each error stands in the reference as it is."""
    assert row in (ROOT / PAGE).read_text().splitlines(), f"the page lacks: {row}"


def test_what_is_shared_is_shared() -> None:
    """What the page says once holds: writes take a key, reads a consistency."""
    for name in set(METHODS) - COMPOSED.keys() - {"request", "ready", "version"}:
        parameters = inspect.signature(getattr(operations, name)).parameters
        assert len({"idempotency_key", "consistency"} & parameters.keys()) == 1, name


def test_the_fields_of_a_route_are_named() -> None:
    """Whoever looks for a setting finds its name."""
    page = (ROOT / PAGE).read_text()
    assert [] == [name for name in RouteFields.__annotations__ if f"`{name}`" not in page]


# --- the examples ------------------------------------------------------------------------------

BLOCKS = blocks(PAGE)
PROGRAMS = [block for block in BLOCKS if "asyncio.run(" in block or "SyncClient(" in block]
"""Programs of their own."""

EXAMPLES = [block for block in BLOCKS if block not in PROGRAMS]
"""What is done with the client `tm` that the programs have made."""


def expected(block: str) -> list[str]:
    """What an example says that it prints."""
    return re.findall(r"^ *print\(.*\)  # (.*)$", block, re.MULTILINE)


class Play:
    """Runs code of the page against a real node."""

    def __init__(self, node: str, recipient: str) -> None:
        self.node = node
        self._recipient = recipient

    def text(self, block: str) -> str:
        """A block with the addresses of this test."""
        block = block.replace("http://127.0.0.1:8001", self.node)
        return block.replace("http://127.0.0.1:4000/", self._recipient)

    def program(self, block: str) -> None:
        """Run a program of its own."""
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", self.text(block)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "" == done.stderr
        assert expected(block) == done.stdout.splitlines()

    async def asynchronous(self) -> None:
        """Run the examples as they stand."""
        async with Client(self.node) as tm:
            names: dict[str, Any] = {"tm": tm}
            for block in EXAMPLES:
                flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
                code = compile(self.text(block), PAGE, "exec", flags=flags)
                with redirect_stdout(io.StringIO()) as printed:
                    running = eval(code, names)  # noqa: S307  # the page is ours
                    if running is not None:
                        await running
                assert expected(block) == _lines(printed, block), block

    def synchronous(self) -> None:
        """Run them without the words that only the async client needs."""
        with SyncClient(self.node) as tm:
            names: dict[str, Any] = {"tm": tm}
            for block in EXAMPLES:
                text = re.sub(r"\b(async|await) ", "", self.text(block))
                with redirect_stdout(io.StringIO()) as printed:
                    exec(text, names)  # noqa: S102  # the page is ours
                assert expected(block) == _lines(printed, block), block


def _lines(printed: io.StringIO, block: str) -> list[str]:
    """What was printed; a line that a loop repeats counts once."""
    lines = printed.getvalue().splitlines()
    return list(dict.fromkeys(lines)) if "for _ in" in block else lines


def test_a_page_of_examples() -> None:
    """The examples are found, and most say what they print."""
    assert 2 == len(PROGRAMS)
    assert 12 < sum(bool(expected(block)) for block in EXAMPLES)


@pytest.mark.parametrize("way", [Play.asynchronous, Play.synchronous])
def test_the_examples_run(way: Callable[[Play], Any], tmp_path: Path) -> None:
    """Every example works against a real node, with either client, and prints what it says."""
    with Recipient() as recipient, NodeProcess(tmp_path / "data") as node:
        node.start()
        play = Play(f"http://{node.address}", recipient.url)
        for block in PROGRAMS:
            play.program(block)
        running = way(play)
        if running is not None:
            asyncio.run(running)
