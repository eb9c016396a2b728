"""`timemachine collection`: where jobs are kept."""

import click

from admin import answers, output, tables, times
from admin.arguments import collection_argument
from admin.ask import confirm, yes_option
from admin.command import Group
from admin.given import Given
from timemachine.client import operations


@click.group(cls=Group)
def collection() -> None:
    """Collections: where jobs are kept."""


@collection.command("list", examples=["timemachine collection list"])
@click.pass_obj
def list_(given: Given) -> None:
    """List the collections of a database."""
    answers.show_all(
        given,
        operations.list_collections(given.database),
        tables.collections,
        nothing=f"no collection in database `{given.database}`",
    )


@collection.command(examples=["timemachine collection get carts"])
@collection_argument
@click.pass_obj
def get(given: Given, collection: str) -> None:
    """Show a collection, with how many jobs are in which state."""
    answers.show(given, operations.get_collection(given.database, collection))


@collection.command(
    examples=[
        "timemachine collection put carts",
        "timemachine collection put carts --history-retention-ms 30d",
    ]
)
@collection_argument
@click.option("--num-vnodes", type=int, metavar="N", help="Cannot be changed later. [12]")
@click.option("--replicas", type=int, metavar="N", help="How many nodes keep each vnode. [3]")
@click.option(
    "--history-retention-ms",
    type=times.DURATION,
    metavar="MS",
    help="How long ended jobs can be read: milliseconds, or 12h, 30d. [7d]",
)
@click.option(
    "--content-retention-ms",
    type=times.DURATION,
    metavar="MS",
    help="How long what recipients answered is kept. [as long as the attempts]",
)
@click.pass_obj
def put(
    given: Given,
    collection: str,
    num_vnodes: int | None,
    replicas: int | None,
    history_retention_ms: int | None,
    content_retention_ms: int | None,
) -> None:
    """Create a collection, or change one.

    What is not given has its default when the collection is new; num_vnodes stays as it is.
    """
    call = operations.put_collection(
        given.database,
        collection,
        num_vnodes=num_vnodes,
        replicas=replicas,
        history_retention_ms=history_retention_ms,
        content_retention_ms=content_retention_ms,
    )
    answers.show(given, call)


@collection.command(
    examples=[
        "timemachine collection delete carts --force --yes",
    ]
)
@collection_argument
@click.option("--force", is_flag=True, help="With all its jobs; without it, only an empty one.")
@yes_option
@click.pass_obj
def delete(given: Given, collection: str, force: bool, yes: bool) -> None:
    """Delete a collection."""
    if force:
        question = f"Delete collection `{collection}` of `{given.database}` with all its jobs?"
        confirm(question, yes=yes)
    answer = answers.ask(
        given, operations.delete_collection(given.database, collection, force=force)
    )
    output.deleted(answer, f"deleted collection {collection}", as_json=bool(given.as_json))


@collection.command(
    examples=[
        "timemachine collection forecast carts",
        "timemachine collection forecast carts --from now --to +7d --bucket-ms 1d",
    ]
)
@collection_argument
@click.option("--from", "from_time", type=times.TIME, metavar="TIME", help="[now]")
@click.option("--to", "to_time", type=times.TIME, metavar="TIME", help="[a day after --from]")
@click.option(
    "--bucket-ms", type=times.DURATION_NOT_ZERO, metavar="MS", help="Width of a bar. [1h]"
)
@click.pass_obj
def forecast(
    given: Given,
    collection: str,
    from_time: times.When | None,
    to_time: times.When | None,
    bucket_ms: int | None,
) -> None:
    """Show how many jobs are due when."""
    window = times.window(from_time, to_time)
    call = operations.forecast(given.database, collection, **window, bucket_ms=bucket_ms)
    answers.show_all(given, call, tables.forecast)
