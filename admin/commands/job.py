"""`timemachine job`: what is sent, and when."""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import click
import msgspec

from admin import answers, arguments, bulk, complete, exits, output, shown, tables, times
from admin.arguments import Decorator, collection_argument, if_match, together
from admin.ask import confirm, yes_option
from admin.command import Group
from admin.commands import batch, inspect
from admin.fields import JSON, checked_json, read_bytes
from admin.given import Given
from admin.session import Session
from timemachine import limits
from timemachine.client import operations
from timemachine.client.answers import Job
from timemachine.client.call import Call, condition_of, job_path, query_of

_POLL_S: Final = 1.0
_ENDED: Final = frozenset({"delivered", "dead", "cancelled"})
_PENDING: Final = tuple(state for state in complete.STATES if state not in _ENDED)

id_argument = click.argument("id")


def content_options(*, route_required: bool) -> Decorator:
    """Options that say what a job is."""
    return together(
        click.option(
            "--route",
            required=route_required,
            metavar="ROUTE",
            shell_complete=complete.routes,
            help="Where it is sent.",
        ),
        click.option(
            "--at",
            "--trigger-time",
            "at",
            type=times.TIME,
            metavar="TIME",
            help="When: +5m, in 2h, tomorrow 09:00, 2030-01-31T08:00:00Z, or epoch milliseconds.",
        ),
        click.option(
            "--delay",
            "--delay-ms",
            "delay",
            type=times.DURATION,
            metavar="DURATION",
            help="So long from now, such as 90s or 2h30m; the same as --at +DURATION.",
        ),
        click.option("--meta", type=JSON, metavar="JSON", help="What is sent with it."),
        click.option(
            "--meta-file", metavar="FILE", help="The same from a file; - is standard input."
        ),
        click.option(
            "--tag", "tags", multiple=True, metavar="TAG", help="May be given several times."
        ),
        click.option(
            "--ordering-key",
            metavar="KEY",
            help="Sent after the job before it of the same route and key has ended.",
        ),
        click.option("--allow-missing-route", is_flag=True, help="The route may be created later."),
        click.option(
            "--idempotency-key",
            metavar="KEY",
            help="Makes a repeat of the command harmless: the first answer is given again.",
        ),
    )


def filter_options(states: Sequence[str]) -> Decorator:
    """Options that say which jobs; of those in these states."""
    return together(
        click.option(
            "--state",
            metavar="STATE,...",
            shell_complete=complete.states,
            help=f"Of {', '.join(states)}.",
        ),
        click.option(
            "--route", metavar="ROUTE", shell_complete=complete.routes, help="Sent to this route."
        ),
        click.option("--tag", metavar="TAG", help="That have this tag."),
        click.option(
            "--from", "from_time", type=times.TIME, metavar="TIME", help="Due at or after this."
        ),
        click.option("--to", "to_time", type=times.TIME, metavar="TIME", help="Due before this."),
    )


def _body(
    *,
    route: str | None,
    at: times.When | None,
    delay: int | None,
    meta: msgspec.Raw | None,
    meta_file: str | None,
    tags: tuple[str, ...],
    ordering_key: str | None,
    **_: Any,
) -> dict[str, Any]:
    """The members that options gave."""
    body: dict[str, Any] = {}
    if at is not None and delay is not None:
        raise click.UsageError("Give --at or --delay, not both.")
    if at is not None and at.delay_ms is None:
        body["trigger_time"] = at.time_ms
    elif at is not None:
        # Counted by the node: the clock here may be wrong.
        body["delay_ms"] = at.delay_ms
    elif delay is not None:
        body["delay_ms"] = delay
    if route is not None:
        body["route"] = route
    if meta is not None and meta_file is not None:
        raise click.UsageError("Give --meta or --meta-file, not both.")
    if meta_file is not None:
        try:
            meta = checked_json(read_bytes(meta_file))
        except OSError as error:
            reason = (error.strerror or "error").lower()
            raise click.UsageError(f"--meta-file: {meta_file}: {reason}.") from None
        except ValueError as error:
            raise click.UsageError(f"--meta-file: {error}") from None
    if meta is not None:
        body["meta"] = meta
    if tags:
        body["tags"] = list(tags)
    if ordering_key is not None:
        body["ordering_key"] = ordering_key
    return body


def _due(body: dict[str, Any]) -> dict[str, Any]:
    if "trigger_time" not in body and "delay_ms" not in body:
        raise click.UsageError("Say when: --at TIME or --delay DURATION.")
    return body


def _show(given: Given, call: Call[Job]) -> None:
    answers.show(given, call, _table())


def _table() -> output.Show:
    """A job as it is now, by this machine's clock."""
    return tables.job(times.now_ms())


@click.group(cls=Group)
def job() -> None:
    """Jobs: what is sent, and when."""


@job.command(
    examples=[
        """timemachine job create carts --route hello --at +5m --meta '{"cart": 7}'""",
        "timemachine job create carts --route hello --at 2030-01-31T08:00:00Z --id reminder-7",
        "timemachine job create carts --route hello --delay 90s --meta-file meta.json --tag cart",
    ]
)
@collection_argument
@click.option("--id", metavar="ID", help="Its name; one is made when none is given.")
@content_options(route_required=True)
@click.pass_obj
def create(given: Given, /, collection: str, id: str | None, **options: Any) -> None:
    """Create a job: send meta to a route at a time."""
    call = operations.create_job(
        given.database,
        collection,
        id=id,
        allow_missing_route=options["allow_missing_route"],
        idempotency_key=options["idempotency_key"],
        **_due(_body(**options)),
    )
    _show(given, call)


@job.command(
    examples=["""timemachine job put carts order-7 --route hello --at +1h --meta '{"cart": 8}'"""]
)
@collection_argument
@id_argument
@content_options(route_required=True)
@if_match
@click.option("--create-only", is_flag=True, help="Only if there is no such job yet.")
@click.pass_obj
def put(
    given: Given,
    /,
    collection: str,
    id: str,
    if_match: int | None,
    create_only: bool,
    **options: Any,
) -> None:
    """Create or replace a job.

    What became of the version before is shown as `previous`.
    """
    call = operations.put_job(
        given.database,
        collection,
        id,
        if_match=if_match,
        create_only=create_only,
        allow_missing_route=options["allow_missing_route"],
        idempotency_key=options["idempotency_key"],
        **_due(_body(**options)),
    )
    _show(given, call)


@job.command(examples=["timemachine job patch carts order-7 --at 'tomorrow 09:00'"])
@collection_argument
@id_argument
@content_options(route_required=False)
@if_match
@click.pass_obj
def patch(given: Given, /, collection: str, id: str, if_match: int | None, **options: Any) -> None:
    """Change some members of a job and leave the others as they are."""
    body = _body(**options)
    if not body:
        raise click.UsageError("Give at least one member to change.")
    call = Call(
        "PATCH",
        job_path(given.database, collection, id),
        Job,
        query=query_of(allow_missing_route=options["allow_missing_route"]),
        body=body,
        headers=condition_of(if_match),
        idempotency_key=options["idempotency_key"],
    )
    _show(given, call)


@job.command(examples=["timemachine job get carts order-7"])
@collection_argument
@id_argument
@click.pass_obj
def get(given: Given, collection: str, id: str) -> None:
    """Show a job."""
    _show(given, operations.get_job(given.database, collection, id))


@job.command(
    examples=[
        "timemachine job delete carts order-7",
        "timemachine job delete carts order-7 --purge --yes",
    ]
)
@collection_argument
@id_argument
@click.option("--purge", is_flag=True, help="Forget it too, with its attempts.")
@if_match
@yes_option
@click.pass_obj
def delete(
    given: Given, collection: str, id: str, purge: bool, if_match: int | None, yes: bool
) -> None:
    """Cancel a job.

    The outcome tells what became of it: cancelled, in_flight, already_delivered or already_dead.
    """
    if purge:
        confirm(f"Forget job `{id}` of `{collection}` and its history?", yes=yes)
    call = operations.delete_job(given.database, collection, id, purge=purge, if_match=if_match)
    answer = answers.ask(given, call)
    outcome = output.decoded(answer).get("outcome", "deleted")
    output.deleted(answer, f"{id}: {outcome}", as_json=bool(given.as_json))


@job.command(
    "list",
    examples=[
        "timemachine job list carts",
        "timemachine job list carts --state dead,retrying --route hello --from -1d --limit 20",
        "timemachine job list carts --all --json",
    ],
)
@collection_argument
@filter_options(complete.STATES)
@arguments.limit
@click.option("--all", "every", is_flag=True, help="All of them, however many.")
@click.pass_obj
def list_(given: Given, /, collection: str, limit: int, every: bool, **which: Any) -> None:
    """List jobs in the order of their trigger times."""
    # One more than wanted tells whether there are more.
    wanted = None if every else limit + 1
    page_size = min(wanted or limits.LIST_LIMIT_MAX, limits.LIST_LIMIT_MAX)
    call = operations.list_jobs(
        given.database, collection, limit=wanted, page_size=page_size, **arguments.which(**which)
    )
    more = False

    def pages(found: Any) -> Any:
        nonlocal more
        left = limit
        for page in found:
            more = not every and len(page) > left
            yield page if every else page[:left]
            left -= len(page)
            if more:
                return

    with Session(given) as session:
        output.listing(
            pages(session.pages(call)),
            tables.jobs,
            as_json=bool(given.as_json),
            nothing=f"no such job in collection `{collection}`",
        )
    if more:
        click.echo(f"There are more than {limit}: see --limit and --all.", err=True)


@job.command(examples=["timemachine job run carts order-7"])
@collection_argument
@id_argument
@click.pass_obj
def run(given: Given, collection: str, id: str) -> None:
    """Make the next attempt of a pending job now."""
    _show(given, operations.run_job(given.database, collection, id))


@job.command(
    examples=["timemachine job redrive carts dead-7"],
)
@collection_argument
@id_argument
@click.option("--force", is_flag=True, help="Also a job that was delivered.")
@click.option(
    "--new-id",
    is_flag=True,
    help="Under another webhook id: a recipient that has done it does it once more.",
)
@click.pass_obj
def redrive(given: Given, collection: str, id: str, force: bool, new_id: bool) -> None:
    """Send a dead job again, with the same webhook id."""
    call = operations.redrive_job(given.database, collection, id, force=force, new_id=new_id)
    _show(given, call)


@job.command(
    examples=[
        "timemachine job attempts carts dead-7",
        "timemachine job attempts carts dead-7 --status failed,unknown",
    ],
)
@collection_argument
@id_argument
@arguments.attempt_filters
@click.pass_obj
def attempts(given: Given, /, collection: str, id: str, **which: Any) -> None:
    """Show the attempts to send a job, each with its outcome."""
    answers.show_all(
        given,
        operations.attempts(given.database, collection, id, **arguments.which(**which)),
        tables.attempts,
        nothing="no attempt yet",
    )


@job.command("remove-content", examples=["timemachine job remove-content carts dead-7 1 --yes"])
@collection_argument
@id_argument
@click.argument("attempt", type=int)
@yes_option
@click.pass_obj
def remove_content(given: Given, collection: str, id: str, attempt: int, yes: bool) -> None:
    """Remove what a recipient answered to an attempt; that it was made stays known."""
    confirm(f"Remove the stored answer to attempt {attempt} of job `{id}`?", yes=yes)
    with Session(given) as session:
        session.carry(operations.delete_attempt_content(given.database, collection, id, attempt))
    sentence = f"removed the content of attempt {attempt}"
    output.deleted(b"null", sentence, as_json=bool(given.as_json))


@job.command(
    examples=[
        "timemachine job cancel carts --tag cart --dry-run",
        "timemachine job cancel carts --route hello --from now --to +7d --yes",
    ]
)
@collection_argument
@filter_options(_PENDING)
@bulk.task_options
@click.pass_context
def cancel(
    context: click.Context,
    /,
    collection: str,
    dry_run: bool,
    no_wait: bool,
    yes: bool,
    **which: Any,
) -> None:
    """Cancel all pending jobs that fit a filter.

    It says how many there are and asks. Exit code 1 when the task did not come to its end.
    """
    given = context.ensure_object(Given)
    begin = partial(operations.cancel_jobs, given.database, collection, **arguments.which(**which))
    bulk.run(context, begin, "Cancel {jobs}?", dry_run=dry_run, no_wait=no_wait, yes=yes)


@job.command(
    examples=[
        "timemachine job reschedule carts --tag cart --shift 1h --yes",
        "timemachine job reschedule carts --route hello --at 'tomorrow 09:00' --dry-run",
    ]
)
@collection_argument
@filter_options(_PENDING)
@click.option(
    "--at",
    "--trigger-time",
    "at",
    type=times.TIME,
    metavar="TIME",
    help="Their new trigger time.",
)
@click.option(
    "--shift",
    "--shift-ms",
    "shift",
    type=times.DURATION_SIGNED,
    metavar="DURATION",
    help="Later by so much, such as 1h; with a minus earlier.",
)
@bulk.task_options
@click.pass_context
def reschedule(
    context: click.Context,
    /,
    collection: str,
    at: times.When | None,
    shift: int | None,
    dry_run: bool,
    no_wait: bool,
    yes: bool,
    **which: Any,
) -> None:
    """Move the trigger times of all pending jobs that fit a filter.

    It says how many there are and asks. Exit code 1 when the task did not come to its end.
    """
    if (at is None) == (shift is None):
        raise click.UsageError("Give either --at TIME or --shift DURATION.")
    given = context.ensure_object(Given)
    begin = partial(
        operations.reschedule_jobs,
        given.database,
        collection,
        trigger_time=None if at is None else at.time_ms,
        shift_ms=shift,
        **arguments.which(**which),
    )
    bulk.run(context, begin, "Reschedule {jobs}?", dry_run=dry_run, no_wait=no_wait, yes=yes)


@job.command(examples=["timemachine job watch carts order-7"])
@collection_argument
@id_argument
@click.pass_context
def watch(context: click.Context, collection: str, id: str) -> None:
    """Wait until a job has ended, and show it then.

    Each change of its state is told on standard error. Exit code 1 when it was not delivered.
    """
    given = context.ensure_object(Given)
    said = ""
    with Session(given) as session:
        while True:
            answer = session.ask(operations.get_job(given.database, collection, id))
            row = output.decoded(answer)
            due = row.get("next_attempt_time")
            attempts = "1 attempt" if row["attempts"] == 1 else f"{row['attempts']} attempts"
            now = f"{row['state']}, {attempts}"
            if isinstance(due, int):
                now += f", next at {shown.time(due)}"
            if now != said:
                output.say(now, as_json=bool(given.as_json))
                said = now
            if row["state"] in _ENDED:
                break
            time.sleep(_POLL_S)
    output.document(answer, _table(), as_json=bool(given.as_json))
    if row["state"] != "delivered":
        context.exit(exits.FAILED)


job.add_command(batch.batch)
job.add_command(inspect.inspect)
