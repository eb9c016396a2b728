"""A group whose commands are imported when they are needed: `--help` and completion stay quick."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple

import click

from admin.given import shared_options


class Place(NamedTuple):
    """Where a command is: its module, its name there, and its one line in the list of commands."""

    module: str
    name: str
    summary: str


class LazyGroup(click.Group):
    """A group that knows some commands only by their places."""

    def __init__(self, *args: Any, places: Mapping[str, Place] | None = None, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self.places = dict(places or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands, in order."""
        return sorted({*self.commands, *self.places})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command, imported if it was not yet."""
        if cmd_name not in self.commands and cmd_name in self.places:
            place = self.places[cmd_name]
            command = getattr(import_module(place.module), place.name)
            assert isinstance(command, click.Command)
            self.add_command(command, cmd_name)
        return super().get_command(ctx, cmd_name)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the line; an option that stands too far left is told its place."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if any(error.option_name in option.opts for option in shared_options(db=True)):
                raise click.UsageError(
                    f"{error.option_name} stands behind the command, or behind its group:"
                    f" {ctx.command_path} job list carts {error.option_name} ...",
                    ctx,
                ) from None
            raise

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is asked for; where there is none, click names those of like names."""
        if self.get_command(ctx, args[0]) is None:
            for name in self.places:
                self.get_command(ctx, name)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        names = self.list_commands(ctx)
        room = formatter.width - 6 - max(map(len, names), default=0)
        rows = [
            (
                name,
                self.places[name].summary
                if name in self.places
                else self.commands[name].get_short_help_str(room),
            )
            for name in names
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
