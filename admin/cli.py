"""The commands of an admin: those that look, join tokens, upgrades, doctor, backups, salvage."""

from functools import partial
from typing import Final

import click
from rich.console import RenderableType

from admin import answers, live, output, planning
from admin.command import Group
from admin.given import Given
from admin.lazy import LazyGroup, Place
from admin.render import show_finalised, show_join_token, show_status, show_vnodes
from admin.session import Session
from admin.tables import Row
from admin.times import DURATION_NOT_ZERO
from timemachine import limits
from timemachine.client import operations

_WATCH_S: Final = 2.0
_WATCH_S_MIN: Final = 0.1


class _Admin(LazyGroup, Group):
    """Commands that ask a node, and one that reads what a node has left."""


_PLACES: Final = {
    "backup": Place(
        "admin.commands.backup", "backup", "Backups: take them, look at them, check them."
    ),
    "doctor": Place(
        "admin.commands.doctor", "doctor", "Ask all nodes how they are, and say what to do."
    ),
    "job": Place("admin.commands.inspect", "job", "Look into one job: why it was late."),
    "keys": Place(
        "admin.commands.keys", "keys", "Show the master keys: who has which, which are needed."
    ),
    "past-due": Place(
        "admin.commands.restore", "past_due", "Decide on the jobs that restores hold."
    ),
    "plan": Place("admin.commands.plan", "plan", "Plans: what nodes are to move, or to compact."),
    "reseal": Place(
        "admin.commands.keys", "reseal", "Change to the new master key, and seal all with it."
    ),
    "restore": Place("admin.commands.restore", "restore", "Restore a backup into this cluster."),
    "salvage": Place(
        "admin.commands.salvage", "salvage", "Take the jobs out of what a stopped node has left."
    ),
}


@click.group(cls=_Admin, db=False, places=_PLACES)
def admin() -> None:
    """Look at a cluster, let nodes join it, and help when it cannot help itself."""


@admin.command(
    db=False, examples=["timemachine admin status", "timemachine admin status --watch 5"]
)
@click.option(
    "--watch",
    type=click.FloatRange(min=_WATCH_S_MIN),
    is_flag=False,
    flag_value=_WATCH_S,
    metavar="[SECONDS]",
    help=f"Look again every so often, until Ctrl-C. [{_WATCH_S:g}]",
)
@click.pass_obj
def status(given: Given, watch: float | None) -> None:
    """Show the nodes of the cluster, and how far the plan is that runs."""
    if watch is None:
        answer, plan = _status(given)
        output.document(answer, partial(show_status, plan=plan), as_json=bool(given.as_json))
    elif given.as_json:
        raise click.UsageError("--watch is for people; with --json ask again.")
    else:
        live.again(partial(_look, given), watch)


def _status(given: Given) -> tuple[bytes, Row | None]:
    """The cluster, and for people the plan that runs."""
    with Session(given) as session:
        answer = session.ask(operations.cluster())
        return answer, None if given.as_json else planning.running(session)


def _look(given: Given) -> list[RenderableType | str]:
    answer, plan = _status(given)
    return list(show_status(output.decoded(answer), plan))


@admin.command(db=False, examples=["timemachine admin vnodes"])
@click.pass_obj
def vnodes(given: Given) -> None:
    """Show every vnode: its leader, term, offset and backlog."""
    answers.show_all(given, operations.vnodes(), show_vnodes)


@admin.command(
    "join-token",
    db=False,
    examples=["timemachine admin join-token", "timemachine admin join-token --ttl-ms 10m"],
)
@click.option(
    "--ttl-ms",
    type=DURATION_NOT_ZERO,
    metavar="MS",
    help="How long a node may join with it, such as 10m. [1h]",
)
@click.pass_obj
def join_token(given: Given, ttl_ms: int | None) -> None:
    """Make a token with which one node can join the cluster.

    It is for `timemachine serve --join ... --join-token TOKEN` there, and is shown only here.
    """
    answers.show(given, operations.issue_join_token(ttl_ms=ttl_ms), show_join_token)


@admin.command(db=False, examples=["timemachine admin finalise 1"])
@click.argument("format", type=click.IntRange(1, limits.FORMAT_MAX), metavar="FORMAT")
@click.pass_obj
def finalise(given: Given, format: int) -> None:
    """End an upgrade: the cluster uses this format from now on.

    Every node must know it; `timemachine admin status` shows which do. There is no way back: a
    program that does not know the format cannot run on this cluster's data any more.
    """
    answers.show(given, operations.finalise(cluster_version=format), show_finalised)
