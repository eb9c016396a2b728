"""The reference of the command line: what `--help` says. `python -m tests.docs.cli_page` writes it.

What stands before the first command is written by hand. The options that all commands share stand
there once, and are left out below.
"""

from collections.abc import Iterator
from typing import Final

import click

from node.__main__ import main
from tests.unit.project import ROOT

PAGE: Final = ROOT / "docs" / "reference" / "cli.md"
FIRST: Final = "## timemachine\n"
SHARED: Final = "\n\nShared options:\n"
_WIDTH: Final = 80


def commands(
    command: click.Command = main, path: str = "timemachine"
) -> Iterator[tuple[str, click.Context]]:
    """A command and all below it, as they are called, in the order of the lists."""
    settings = {**command.context_settings, "terminal_width": _WIDTH}
    context = click.Context(command, info_name=path, **settings)
    yield path, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from commands(inner, f"{path} {name}")


def help_of(context: click.Context) -> str:
    """What --help says, without the shared options."""
    text = "\n".join(line.rstrip() for line in context.get_help().splitlines())
    before, shared, after = text.partition(SHARED)
    # The shared options end with an empty line, or with the text.
    return before + after[after.index("\n\n") :] if shared and "\n\n" in after else before


def generated() -> str:
    """The part of the page that is not written by hand."""
    return "\n".join(f"## {path}\n\n```\n{help_of(context)}\n```\n" for path, context in commands())


def written() -> tuple[str, str]:
    """(what is written by hand, the rest) of the page as it stands."""
    before, first, after = PAGE.read_text().partition(FIRST)
    return before, first + after


if __name__ == "__main__":
    PAGE.write_text(written()[0] + generated())
