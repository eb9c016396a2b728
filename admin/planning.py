"""Commands of plans: made, shown, confirmed by somebody who names the cluster, watched."""

import sys
from typing import Any

import click
import msgspec

from admin import exits, output, planned
from admin.ask import confirm_cluster
from admin.given import Given
from admin.session import Session
from admin.tables import Row
from admin.watching import until_ended
from timemachine.client import ClientError, operations
from timemachine.client.answers import Plan
from timemachine.client.call import Call

_DONE = "done"
_UNDER_WAY = ("running", "paused")


def make(
    context: click.Context, call: Call[Plan], *, every: bool, dry_run: bool, no_wait: bool
) -> None:
    """Make a plan and show it; at a terminal ask, and have it run."""
    given = context.ensure_object(Given)
    with Session(given) as session:
        answer = session.ask(call)
        if given.as_json:
            # Nobody is asked, since this is all that may be printed.
            click.echo(answer)
            return
        row, cluster = _decoded(answer), _decoded(session.ask(operations.cluster()))
    output.people(planned.plan(cluster, every=every)(row))
    if dry_run or planned.is_idle(row):
        return
    if not sys.stdin.isatty():
        output.say(planned.not_begun(row))
        return
    confirm_cluster(cluster["cluster_id"])
    _run(context, row["id"], no_wait=no_wait)


def confirm(context: click.Context, plan: str, *, every: bool, no_wait: bool) -> None:
    """Have a plan run; somebody at a terminal is shown it, and asked, before."""
    given = context.ensure_object(Given)
    if sys.stdin.isatty():
        with Session(given) as session:
            row = _decoded(session.ask(operations.get_plan(plan)))
            cluster = _decoded(session.ask(operations.cluster()))
        if row["state"] == "proposed":
            parts = planned.plan(cluster, every=every)(row)
            output.people(parts, err=bool(given.as_json))
            confirm_cluster(cluster["cluster_id"])
    _run(context, plan, no_wait=no_wait)


def _run(context: click.Context, plan: str, *, no_wait: bool) -> None:
    given = context.ensure_object(Given)
    with Session(given) as session:
        answer = session.ask(operations.confirm_plan(plan))
    if no_wait:
        output.document(answer, planned.outcome, as_json=bool(given.as_json))
    else:
        watch(context, plan)


def show(given: Given, plan: str, *, every: bool) -> None:
    """Print a plan as it is now."""
    with Session(given) as session:
        answer = session.ask(operations.get_plan(plan))
        if given.as_json:
            click.echo(answer)
            return
        cluster = _decoded(session.ask(operations.cluster()))
    output.people(planned.plan(cluster, every=every)(_decoded(answer)))


def watch(context: click.Context, plan: str) -> None:
    """Wait for the end of a plan; people see how far it is."""
    given = context.ensure_object(Given)
    answer = until_ended(
        given,
        operations.get_plan(plan),
        _look,
        goes_on=f"The plan goes on. `timemachine admin plan watch {plan}` watches it,"
        f" `timemachine admin plan cancel {plan}` stops it.",
    )
    output.document(answer, planned.outcome, as_json=bool(given.as_json))
    if _decoded(answer)["state"] != _DONE:
        context.exit(exits.FAILED)


def running(session: Session) -> Row | None:
    """The plan that runs or is paused, as far as the node that is asked knows."""
    # Its own replica of meta will do: nobody who wants to see a broken cluster waits for a leader.
    call = operations.list_plans(consistency="stale")
    try:
        rows = (_decoded(item) for page in session.pages(call) for item in page)
        return next((row for row in rows if row["state"] in _UNDER_WAY), None)
    except ClientError:
        return None


def _look(row: Row) -> tuple[str, int, int | None, bool]:
    name = f"plan {row['id']}"
    if row["state"] == "paused":
        name += ", paused"
    elif row["waits_for"]:
        name += ", waits for nodes that do not answer"
    return name, *planned.far(row), row["state"] not in _UNDER_WAY


def _decoded(answer: bytes) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(answer, type=dict[str, Any])
    return found
