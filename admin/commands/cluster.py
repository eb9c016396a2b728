"""`timemachine cluster`: what holds for all nodes."""

import click
import msgspec

from admin import answers, output
from admin.command import Group
from admin.given import Given
from admin.parsed import Parsed
from admin.render import show_settings
from admin.session import Session
from timemachine.client import operations
from timemachine.client.answers import Settings


def _ranges(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _ports(text: str) -> list[int]:
    try:
        return [int(part) for part in _ranges(text)]
    except ValueError:
        raise ValueError("Ports are numbers, such as 81,8443.") from None


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
        "timemachine cluster settings set --allowed-private-cidrs 127.0.0.0/8,::1/128,10.0.0.0/8",
        "timemachine cluster settings set --allowed-ports 81,6000",
    ],
)
@click.option(
    "--allowed-private-cidrs",
    type=Parsed("ranges", _ranges),
    metavar="CIDR,...",
    help="All private ranges that webhooks may go to; '' for none.",
)
@click.option(
    "--allowed-ports",
    type=Parsed("ports", _ports),
    metavar="PORT,...",
    help="All ports that webhooks may go to beside those that they always may; '' for none.",
)
@click.pass_obj
def set_(
    given: Given, allowed_private_cidrs: list[str] | None, allowed_ports: list[int] | None
) -> None:
    """Replace settings, from the next connection on; those that are not named stay.

    Ranges that a list does not name are not allowed any more: see `settings get` first.
    """
    if allowed_private_cidrs is None and allowed_ports is None:
        raise click.UsageError("Name what is to be set.")
    with Session(given) as session:
        known = msgspec.json.decode(session.ask(operations.get_settings()), type=Settings)
        answer = session.ask(
            operations.put_settings(
                allowed_private_cidrs=(
                    known.allowed_private_cidrs
                    if allowed_private_cidrs is None
                    else allowed_private_cidrs
                ),
                allowed_ports=known.allowed_ports if allowed_ports is None else allowed_ports,
            )
        )
    output.document(answer, show_settings, as_json=bool(given.as_json))
