"""Arguments and options that commands of several groups take."""

from collections.abc import Callable
from typing import Any

import click

from admin import complete, times

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def together(*options: Decorator) -> Decorator:
    """Several options as one decorator; help shows them in this order."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


collection_argument = click.argument("collection", shell_complete=complete.collections)
route_argument = click.argument("route", shell_complete=complete.routes)
if_match = click.option(
    "--if-match", type=int, metavar="VERSION", help="Only while this is its version."
)
limit = click.option(
    "--limit", type=click.IntRange(min=1), default=100, show_default=True, help="How many."
)


attempt_filters = together(
    click.option(
        "--status", metavar="STATUS,...", help="That ended so: succeeded, failed, unknown."
    ),
    click.option("--response", metavar="STATUS", help="That were answered so: 503, 5xx, or none."),
    click.option(
        "--from", "from_time", type=times.TIME, metavar="TIME", help="Settled at or after this."
    ),
    click.option("--to", "to_time", type=times.TIME, metavar="TIME", help="Settled before this."),
)
"""Options that say which attempts; `which` makes of them what operations take."""


def which(
    *, from_time: times.When | None, to_time: times.When | None, **named: str | None
) -> dict[str, Any]:
    """What options that filter say, as operations of the SDK take it."""
    return {**named, **times.window(from_time, to_time)}
