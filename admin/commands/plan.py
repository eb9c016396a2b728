"""`timemachine admin plan`: what nodes are to move or to compact, and having it done."""

from typing import Final, Literal

import click

from admin import answers, arguments, complete, planned, planning
from admin.arguments import collection_argument
from admin.command import Group
from admin.given import Given
from admin.parsed import Parsed
from timemachine import limits
from timemachine.client import operations

_all: Final = click.option(
    "--all", "every", is_flag=True, help=f"Every move, not only the first {planned.MOVES_SHOWN}."
)
_no_wait: Final = click.option(
    "--no-wait", is_flag=True, help="Do not wait for its end, once it runs."
)
_dry_run: Final = click.option("--dry-run", is_flag=True, help="Only make the plan and show it.")
_making: Final = arguments.together(
    click.option(
        "--transfers",
        type=click.IntRange(1, limits.PLAN_TRANSFERS_MAX),
        metavar="N",
        help=f"How many vnodes change at once. [{limits.PLAN_TRANSFERS_DEFAULT}]",
    ),
    _all,
    _dry_run,
    _no_wait,
)
_nodes: Final = click.argument("nodes", metavar="NODE...", nargs=-1, required=True)
_plan: Final = click.argument("plan")


def _indexes(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() and part.isascii() for part in parts):
        raise ValueError(f"{text!r} is no list of vnodes. Write for instance 0,3.")
    return [int(part) for part in parts]


@click.group(cls=Group, db=False)
def plan() -> None:
    """Plans: what is to move when nodes come, go or change, and what they compact.

    Nothing happens before a plan is confirmed. At a terminal the cluster's id is to be typed for
    that; elsewhere the plan is only made and shown, and `admin plan confirm PLAN` has it run.
    """


@plan.command(
    db=False,
    examples=[
        "timemachine admin plan rebalance",
        "timemachine admin plan rebalance --transfers 4 --dry-run",
        "timemachine admin plan rebalance --back n2",
    ],
)
@click.option(
    "--back",
    multiple=True,
    metavar="NODE",
    help="A node that was drained and is to have replicas again; repeat it.",
)
@_making
@click.pass_context
def rebalance(
    context: click.Context,
    back: tuple[str, ...],
    transfers: int | None,
    every: bool,
    dry_run: bool,
    no_wait: bool,
) -> None:
    """Give each node its share of the replicas, after nodes have come or changed."""
    call = operations.make_plan("rebalance", nodes=back, transfers=transfers)
    planning.make(context, call, every=every, dry_run=dry_run, no_wait=no_wait)


def _empty(
    context: click.Context,
    kind: Literal["drain", "remove"],
    nodes: tuple[str, ...],
    transfers: int | None,
    *,
    every: bool,
    dry_run: bool,
    no_wait: bool,
) -> None:
    call = operations.make_plan(kind, nodes=nodes, transfers=transfers)
    planning.make(context, call, every=every, dry_run=dry_run, no_wait=no_wait)


@plan.command(db=False, examples=["timemachine admin plan drain n2"])
@_nodes
@_making
@click.pass_context
def drain(
    context: click.Context,
    nodes: tuple[str, ...],
    transfers: int | None,
    every: bool,
    dry_run: bool,
    no_wait: bool,
) -> None:
    """Move all replicas from nodes, which stay in the cluster without any.

    Nodes are named by id or by name. `admin plan rebalance --back NODE` takes one back.
    """
    _empty(context, "drain", nodes, transfers, every=every, dry_run=dry_run, no_wait=no_wait)


@plan.command(db=False, examples=["timemachine admin plan remove n2"])
@_nodes
@_making
@click.pass_context
def remove(
    context: click.Context,
    nodes: tuple[str, ...],
    transfers: int | None,
    every: bool,
    dry_run: bool,
    no_wait: bool,
) -> None:
    """Move all replicas from nodes, which then leave the cluster for good.

    Also from nodes that are dead: what they had is copied from the others. Nodes are named by id
    or by name. One that was removed comes back only as a new node, with an empty directory.
    """
    _empty(context, "remove", nodes, transfers, every=every, dry_run=dry_run, no_wait=no_wait)


@plan.command(examples=["timemachine admin plan replicate carts 2"])
@collection_argument
@click.argument("replicas", type=click.IntRange(1, limits.REPLICAS_MAX))
@_making
@click.pass_context
def replicate(
    context: click.Context,
    collection: str,
    replicas: int,
    transfers: int | None,
    every: bool,
    dry_run: bool,
    no_wait: bool,
) -> None:
    """Give the vnodes of a collection another count of replicas."""
    db = context.ensure_object(Given).database
    call = operations.make_plan(
        "replicate", db=db, collection=collection, replicas=replicas, transfers=transfers
    )
    planning.make(context, call, every=every, dry_run=dry_run, no_wait=no_wait)


@plan.command(
    examples=[
        "timemachine admin plan compact",
        "timemachine admin plan compact n1 n2 --transfers 2",
        "timemachine admin plan compact --collection carts --vnodes 0,3 --bytes-per-s 16777216",
    ]
)
@click.argument("nodes", metavar="[NODE...]", nargs=-1)
@click.option(
    "--collection",
    metavar="NAME",
    shell_complete=complete.collections,
    help="Only what nodes have of this collection.",
)
@click.option(
    "--vnodes",
    type=Parsed("vnodes", _indexes),
    metavar="N,N,...",
    help="Only these vnodes of the collection, by index.",
)
@click.option(
    "--transfers",
    type=click.IntRange(1, limits.PLAN_TRANSFERS_MAX),
    metavar="N",
    help="How many nodes compact at once. [1]",
)
@click.option(
    "--bytes-per-s",
    type=click.IntRange(limits.COMPACT_RATE_BYTES_MIN, limits.COMPACT_RATE_BYTES_MAX),
    metavar="N",
    help=f"What each reads and writes for it at most. [{limits.COMPACT_RATE_BYTES_DEFAULT}]",
)
@_dry_run
@_no_wait
@click.pass_context
def compact(
    context: click.Context,
    nodes: tuple[str, ...],
    collection: str | None,
    vnodes: list[int] | None,
    transfers: int | None,
    bytes_per_s: int | None,
    dry_run: bool,
    no_wait: bool,
) -> None:
    """Give the space of what was deleted back to the disks.

    Of all nodes, if none are named by id or by name. Nothing moves, and nothing is deleted that
    could still be read. Vnodes that are asked for singly cost more, for what they give back,
    than whole nodes.
    """
    if collection is None and vnodes is not None:
        raise click.UsageError("--vnodes are those of a collection: name it with --collection.")
    call = operations.make_plan(
        "compact",
        nodes=nodes,
        db=None if collection is None else context.ensure_object(Given).database,
        collection=collection,
        transfers=transfers,
        vnodes=vnodes or (),
        bytes_per_s=bytes_per_s,
    )
    planning.make(context, call, every=True, dry_run=dry_run, no_wait=no_wait)


@plan.command(db=False, examples=["timemachine admin plan confirm PLAN"])
@_plan
@_all
@_no_wait
@click.pass_context
def confirm(context: click.Context, plan: str, every: bool, no_wait: bool) -> None:
    """Have a plan run, and wait for its end.

    At a terminal it is shown before, and the cluster's id is to be typed; elsewhere the plan's id
    is enough. It is refused if the cluster has changed since it was made. Exit code 1 when it
    failed or was cancelled.
    """
    planning.confirm(context, plan, every=every, no_wait=no_wait)


@plan.command(db=False, examples=["timemachine admin plan show PLAN"])
@_plan
@_all
@click.pass_obj
def show(given: Given, plan: str, every: bool) -> None:
    """Show a plan, and how far it is."""
    planning.show(given, plan, every=every)


@plan.command("list", db=False, examples=["timemachine admin plan list"])
@click.pass_obj
def list_(given: Given) -> None:
    """List the plans, the newest first."""
    answers.show_all(given, operations.list_plans(), planned.plans, nothing="no plan")


@plan.command(db=False, examples=["timemachine admin plan watch PLAN"])
@_plan
@click.pass_context
def watch(context: click.Context, plan: str) -> None:
    """Wait for the end of a plan, showing how far it is.

    Exit code 1 when it failed or was cancelled, or does not run.
    """
    planning.watch(context, plan)


@plan.command(db=False, examples=["timemachine admin plan pause PLAN"])
@_plan
@click.pass_obj
def pause(given: Given, plan: str) -> None:
    """Begin no further moves or steps. Those that are under way come to their end."""
    answers.show(given, operations.pause_plan(plan), planned.outcome)


@plan.command(db=False, examples=["timemachine admin plan resume PLAN"])
@_plan
@click.pass_obj
def resume(given: Given, plan: str) -> None:
    """Go on with a plan that was paused."""
    answers.show(given, operations.resume_plan(plan), planned.outcome)


@plan.command(db=False, examples=["timemachine admin plan cancel PLAN"])
@_plan
@click.pass_obj
def cancel(given: Given, plan: str) -> None:
    """End a plan before its end. What was moved or compacted stays so."""
    answers.show(given, operations.cancel_plan(plan), planned.outcome)
