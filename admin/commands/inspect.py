"""`timemachine job inspect`, also below `admin`: why a job was late, in one line of time."""

from typing import Any

import click
import msgspec

from admin import causes, inspected, output, planned, times
from admin.arguments import collection_argument
from admin.command import Command, Group
from admin.given import Given
from admin.session import Session
from timemachine.client import ApiNotFound, operations
from timemachine.client.call import Call


def _maybe(session: Session, call: Call[Any]) -> bytes | None:
    try:
        return session.ask(call)
    except ApiNotFound:
        return None


def _decoded(answer: bytes | None) -> dict[str, Any] | None:
    return None if answer is None else output.decoded(answer)


def _raw(answer: bytes | None) -> msgspec.Raw:
    return msgspec.Raw(b"null" if answer is None else answer)


def _inspect(given: Given, collection: str, id: str) -> None:
    """Show when a job was accepted, due, claimed, sent, answered and settled, and why it was late.

    Of the version that it has now. Times are by the clocks of the nodes that did it; the distance
    is from the step before. `--json` prints an object of `job` with its `explanation`, `attempts`,
    `route`, `stats`, `vnode`, as the API answers them, and `causes`: what it waits for now.
    """
    db = given.database
    with Session(given) as session:
        job = session.ask(operations.get_job(db, collection, id, explain=True))
        row = output.decoded(job)
        tried = [
            item for page in session.pages(operations.attempts(db, collection, id)) for item in page
        ]
        route = _maybe(session, operations.get_route(db, row["route"]))
        stats = _maybe(session, operations.route_stats(db, row["route"]))
        place = (db, collection, row["vnode"])
        vnode = next(
            (
                item
                for page in session.pages(operations.vnodes())
                for item in page
                if _place_of(output.decoded(item)) == place
            ),
            None,
        )
        cluster = output.decoded(session.ask(operations.cluster()))
    versions = [output.decoded(each)["version"] for each in tried]
    facts = inspected.Facts(
        job=row,
        earlier=len(versions) - versions.count(row["version"]),
        route=_decoded(route),
        stats=_decoded(stats),
        vnode=_decoded(vnode),
        cluster=cluster,
        now_ms=times.now_ms(),
    )
    why = causes.causes(facts)
    if not given.as_json:
        output.people(inspected.show(facts, why, planned.names_of(cluster)))
        return
    document = {
        "job": _raw(job),
        "attempts": [msgspec.Raw(each) for each in tried],
        "route": _raw(route),
        "stats": _raw(stats),
        "vnode": _raw(vnode),
        "causes": why,
    }
    click.echo(msgspec.json.encode(document))


def _place_of(vnode: dict[str, Any]) -> tuple[str, str, int]:
    return vnode["db"], vnode["collection"], vnode["index"]


def _command(path: str) -> click.Command:
    """The command at one of its places."""
    run = collection_argument(click.argument("id")(click.pass_obj(_inspect)))
    return click.command("inspect", cls=Command, examples=[f"{path} carts order-7"])(run)


inspect = _command("timemachine job inspect")


@click.group(cls=Group)
def job() -> None:
    """Look into one job."""


job.add_command(_command("timemachine admin job inspect"))
