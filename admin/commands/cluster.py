"""`timemachine cluster`: what holds for all nodes."""

import click

from admin import answers
from admin.command import Group
from admin.given import Given
from admin.parsed import Parsed
from admin.render import show_settings
from timemachine.client import operations


def _ranges(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


@click.group(cls=Group, db=False)
def cluster() -> None:
    """The cluster: what holds for all nodes."""


@cluster.group(cls=Group, db=False)
def settings() -> None:
    """Settings of the cluster; they hold at once, and through restarts."""


@settings.command(db=False, examples=["timemachine cluster settings get"])
@click.pass_obj
def get(given: Given) -> None:
    """Show the settings."""
    answers.show(given, operations.get_settings(), show_settings)


@settings.command(
    "set",
    db=False,
    examples=[
        "timemachine cluster settings set --allowed-private-cidrs 127.0.0.0/8,::1/128,10.0.0.0/8"
    ],
)
@click.option(
    "--allowed-private-cidrs",
    required=True,
    type=Parsed("ranges", _ranges),
    metavar="CIDR,...",
    help="All private ranges that webhooks may go to; '' for none.",
)
@click.pass_obj
def set_(given: Given, allowed_private_cidrs: list[str]) -> None:
    """Replace the settings, from the next connection on.

    Ranges that are not named here are not allowed any more: see `settings get` first.
    """
    call = operations.put_settings(allowed_private_cidrs=allowed_private_cidrs)
    answers.show(given, call, show_settings)
