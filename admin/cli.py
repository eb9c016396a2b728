"""The commands of an admin: so far those that look."""

import json
from collections.abc import Callable
from typing import Any

import click
from rich.console import Console

from admin.render import show_status, show_vnodes
from timemachine.client import SyncClient
from timemachine.errors import ClientError

_HELP = {"help_option_names": ["-h", "--help"]}


@click.group(context_settings=_HELP)
@click.option(
    "--server",
    envvar="TIMEMACHINE_SERVER",
    default="http://127.0.0.1:8001",
    show_default=True,
    metavar="URL",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_context
def admin(context: click.Context, server: str, as_json: bool) -> None:  # noqa: FBT001
    """Look at a cluster.

    Example: timemachine admin status
    """
    context.obj = (server, as_json)


def _ask(
    given: tuple[str, bool], path: str, show: Callable[[Console, Any], None], member: str | None
) -> None:
    server, as_json = given
    try:
        with SyncClient(server) as client:
            answer: Any = client.request("GET", path)
    except ClientError as error:
        raise click.ClickException(error.detail) from None
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    else:
        show(Console(), answer if member is None else answer[member])


@admin.command(context_settings=_HELP)
@click.pass_obj
def status(given: tuple[str, bool]) -> None:
    """Show the nodes of the cluster."""
    _ask(given, "/v1/cluster", show_status, None)


@admin.command(context_settings=_HELP)
@click.pass_obj
def vnodes(given: tuple[str, bool]) -> None:
    """Show every vnode: its leader, term, offset and backlog."""
    _ask(given, "/v1/cluster/vnodes", show_vnodes, "items")
