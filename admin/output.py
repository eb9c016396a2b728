"""Where answers are printed: tables for people, exactly the API's JSON for programs.

With `--json` standard output is one JSON document. A list is an array with an item a line, written
as its pages come; one that is cut off by an error is not closed, so that no program takes it for
whole.
"""

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import click
import msgspec
from rich.console import Console, RenderableType

from admin import shown

WIDE = 10_000
"""Columns of a table: nothing is cut off, nothing is folded."""

_FILLING = re.compile(r" +((?:\x1b\[0m)?)$", re.MULTILINE)

Show = Callable[[Any], Iterable[RenderableType | str]]
"""Makes of one decoded document, or of a page of them, what people see."""


def console(*, stderr: bool = False) -> Console:
    """A console; without colours when it is no terminal or NO_COLOR is set."""
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def people(parts: Iterable[RenderableType | str], *, err: bool = False) -> None:
    """Print what people see, sentences and tables; with `err` beside what programs read."""
    out = console(stderr=err)
    # A row is a line, which a narrow terminal goes on with: ids and times stay in one piece.
    out.width = WIDE
    for part in parts:
        if isinstance(part, str):
            click.echo(part, err=err)
        else:
            with out.capture() as captured:
                out.print(part)
            # Columns are filled up with spaces, which nobody wants in a file or in a next line.
            click.echo(_FILLING.sub(r"\1", captured.get()), nl=False, err=err)


def decoded(answer: bytes) -> dict[str, Any]:
    """An object as Python has it; a job's meta stays the text that came, whatever it holds.

    Raises msgspec.DecodeError for anything but an object.
    """
    members = msgspec.json.decode(answer, type=dict[str, msgspec.Raw])
    return {
        name: bytes(content).decode() if name == "meta" else msgspec.json.decode(content)
        for name, content in members.items()
    }


def document(answer: bytes, show: Show, *, as_json: bool) -> None:
    """Print one document."""
    if as_json:
        click.echo(answer)
    else:
        people(show(decoded(answer)))


def listing(
    pages: Iterator[list[bytes]], show: Show, *, as_json: bool, nothing: str = "nothing"
) -> None:
    """Print a list, page by page. People are told on standard error when there is `nothing`."""
    if not as_json:
        empty = True
        for page in pages:
            if page:
                empty = False
                people(show([decoded(item) for item in page]))
        if empty:
            click.echo(f"There is {nothing}.", err=True)
        return
    before = "["
    for page in pages:
        for item in page:
            click.echo(before.encode() + b"\n" + item, nl=False)
            before = ","
        sys.stdout.flush()
    click.echo("[]" if before == "[" else "\n]")


def deleted(answer: bytes, sentence: str, *, as_json: bool) -> None:
    """Say that something is gone; programs get what it was."""
    click.echo(answer if as_json else shown.text(sentence))


def say(sentence: str, *, as_json: bool = False) -> None:
    """Tell people how it goes, on standard error; programs read standard output."""
    if not as_json:
        click.echo(shown.text(sentence), err=True)
