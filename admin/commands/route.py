"""`timemachine route`: where jobs are sent, and how."""

from functools import partial
from typing import Any, Literal

import click
import msgspec

from admin import answers, arguments, bulk, exits, output, tables, times
from admin.arguments import if_match, route_argument
from admin.ask import confirm, yes_option
from admin.command import Group
from admin.fields import CONTENT, body_of, route_options
from admin.given import Given
from timemachine import limits
from timemachine.client import operations
from timemachine.client.answers import RouteSecret
from timemachine.client.call import Call, condition_of, route_path


def _print_secret(given: Given, call: Call[RouteSecret]) -> None:
    """What recipients verify with now, alone, or all that was answered."""
    answer = answers.ask(given, call)
    if given.as_json:
        click.echo(answer)
    else:
        found = msgspec.json.decode(answer, type=RouteSecret)
        click.echo(found.public_key or found.secret)


@click.group(cls=Group)
def route() -> None:
    """Routes: where jobs are sent, and how."""


@route.command("list", examples=["timemachine route list"])
@click.pass_obj
def list_(given: Given) -> None:
    """List the routes of a database."""
    answers.show_all(
        given,
        operations.list_routes(given.database),
        tables.routes,
        nothing=f"no route in database `{given.database}`",
    )


@route.command(examples=["timemachine route get hello", "timemachine route get hello --json"])
@route_argument
@click.pass_obj
def get(given: Given, route: str) -> None:
    """Show a route. Values of headers and keys are masked."""
    answers.show(given, operations.get_route(given.database, route))


@route.command(
    examples=[
        "timemachine route put hello --url http://127.0.0.1:4000/",
        "timemachine route put hello --url http://127.0.0.1:4000/ --retry-schedule-ms 5s,5m",
        "timemachine route put hello --url http://127.0.0.1:4000/ --header x-team=games",
        "timemachine route put hello --from-file route.json",
    ]
)
@route_argument
@route_options
@if_match
@click.option("--create-only", is_flag=True, help="Only if there is no such route yet.")
@click.pass_obj
def put(
    given: Given, /, route: str, if_match: int | None, create_only: bool, **options: Any
) -> None:
    """Create or replace a route.

    What is not given has its default; the secret stays. What `route get --json` prints can be
    given back with --from-file; options win over the file.
    """
    headers = condition_of(if_match, create_only=create_only)
    body = body_of(options)
    answers.show(
        given, Call("PUT", route_path(given.database, route), object, body=body, headers=headers)
    )


@route.command(
    examples=[
        "timemachine route patch hello --max-in-flight 16",
        "timemachine route patch hello --set 'rate={\"count\": null}'",
    ]
)
@route_argument
@route_options
@if_match
@click.pass_obj
def patch(given: Given, /, route: str, if_match: int | None, **options: Any) -> None:
    """Change some settings of a route.

    What is not given stays. Headers, and the two members of the rate, are replaced together.
    """
    body = body_of(options)
    if not body:
        raise click.UsageError("Give at least one setting to change.")
    headers = condition_of(if_match)
    answers.show(
        given, Call("PATCH", route_path(given.database, route), object, body=body, headers=headers)
    )


@route.command(
    examples=[
        "timemachine route delete hello --force --yes",
    ]
)
@route_argument
@click.option("--force", is_flag=True, help="Even if jobs wait for it; these end dead.")
@if_match
@yes_option
@click.pass_obj
def delete(given: Given, route: str, force: bool, if_match: int | None, yes: bool) -> None:
    """Delete a route."""
    if force:
        question = f"Delete route `{route}` of `{given.database}`, so that its jobs end dead?"
        confirm(question, yes=yes)
    call = operations.delete_route(given.database, route, force=force, if_match=if_match)
    answer = answers.ask(given, call)
    output.deleted(answer, f"deleted route {route}", as_json=bool(given.as_json))


@route.command(examples=["timemachine route secret hello"])
@route_argument
@click.pass_obj
def secret(given: Given, route: str) -> None:
    """Print the secret that a recipient verifies webhooks with.

    Only the current secret is printed, so that it can go into a variable; of a private key, whsk_,
    the public one, whpk_. With --json all of them, also earlier ones that still sign.
    """
    _print_secret(given, operations.get_route_secret(given.database, route))


@route.command(
    "rotate-secret",
    examples=[
        "timemachine route rotate-secret hello --grace-period-ms 1h --yes",
        "timemachine route rotate-secret hello --type v1a --yes",
    ],
)
@route_argument
@click.option(
    "--grace-period-ms",
    type=times.DURATION,
    metavar="MS",
    help="How long the old secret signs beside the new one. [1d]",
)
@click.option(
    "--secret-file",
    type=CONTENT,
    metavar="FILE",
    help="The new secret, whsec_... or whsk_...; else one is made. - is stdin.",
)
@click.option(
    "--type",
    "kind",
    type=click.Choice(["v1", "v1a"]),
    help="What to make: a shared secret, or a private key. [as it is]",
)
@yes_option
@click.pass_obj
def rotate_secret(
    given: Given,
    route: str,
    grace_period_ms: int | None,
    secret_file: str | None,
    kind: Literal["v1", "v1a"] | None,
    yes: bool,
) -> None:
    """Give a route a new secret, and print it; of a private key the public one.

    Until the grace period is over, webhooks are signed with both, so that recipients can change
    to the new one meanwhile.
    """
    confirm(f"Give route `{route}` of `{given.database}` a new secret?", yes=yes)
    call = operations.rotate_route_secret(
        given.database,
        route,
        secret=None if secret_file is None else secret_file.strip(),
        type=kind,
        grace_period_ms=grace_period_ms,
    )
    _print_secret(given, call)


@route.command(examples=["timemachine route pause hello"])
@route_argument
@click.pass_obj
def pause(given: Given, route: str) -> None:
    """Start no more sends to a route; its jobs are held when they are due.

    Where pending_vnodes are shown, these may still start a send: a node does not
    answer. Pause it again to see whether they have stopped.
    """
    answers.show(given, operations.pause_route(given.database, route))


@route.command(examples=["timemachine route resume hello"])
@route_argument
@click.pass_obj
def resume(given: Given, route: str) -> None:
    """Send to a paused or disabled route again, what was held first."""
    answers.show(given, operations.resume_route(given.database, route))


@route.command("send-example", examples=["timemachine route send-example hello"])
@route_argument
@click.pass_context
def send_example(context: click.Context, route: str) -> None:
    """Send one example webhook now, and show how it went.

    Exit code 1 when the recipient did not answer 2xx.
    """
    given = context.ensure_object(Given)
    answer = answers.show(given, operations.send_example(given.database, route))
    if output.decoded(answer).get("status") != "succeeded":
        context.exit(exits.FAILED)


@route.command(examples=["timemachine route stats hello"])
@route_argument
@click.pass_obj
def stats(given: Given, route: str) -> None:
    """Show a route's state, its waiting jobs, and how its attempts went lately."""
    answers.show(given, operations.route_stats(given.database, route))


@route.command(
    examples=[
        "timemachine route attempts hello --limit 20",
        "timemachine route attempts hello --status failed --response 5xx --from -1h",
    ]
)
@route_argument
@arguments.attempt_filters
@arguments.limit
@click.pass_obj
def attempts(given: Given, /, route: str, limit: int, **which: Any) -> None:
    """Show the attempts to send to a route, the newest first."""
    call = operations.route_attempts(
        given.database,
        route,
        limit=limit,
        page_size=min(limit, limits.LIST_LIMIT_MAX),
        **arguments.which(**which),
    )
    answers.show_all(given, call, tables.route_attempts, nothing="no attempt yet")


@route.command(examples=["timemachine route redrive hello --from -1d --to now --yes"])
@route_argument
@bulk.window_options
@bulk.task_options
@click.pass_context
def redrive(
    context: click.Context,
    /,
    route: str,
    from_time: times.When | None,
    to_time: times.When | None,
    **how: Any,
) -> None:
    """Send the dead jobs of a time window again.

    The window is about their trigger times.
    """
    given = context.ensure_object(Given)
    window = times.window(from_time, to_time)
    begin = partial(operations.redrive_route, given.database, route, **window)
    bulk.run(context, begin, "Send {jobs} again that died?", **how)


@route.command(
    "replay-missing",
    examples=["timemachine route replay-missing hello --from -1d --to now --yes"],
)
@route_argument
@bulk.window_options
@bulk.task_options
@click.pass_context
def replay_missing(
    context: click.Context,
    /,
    route: str,
    from_time: times.When | None,
    to_time: times.When | None,
    **how: Any,
) -> None:
    """Send those dead jobs of a time window that were never attempted.

    The window is about their trigger times.
    """
    given = context.ensure_object(Given)
    window = times.window(from_time, to_time)
    begin = partial(operations.replay_missing, given.database, route, **window)
    bulk.run(context, begin, "Send {jobs} that died without an attempt?", **how)
