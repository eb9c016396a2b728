"""Arguments and options that commands of several groups take."""

from collections.abc import Callable
from typing import Any

import click

from admin import complete

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
