"""`timemachine db`: databases."""

import click

from admin import answers, complete, output, tables
from admin.ask import confirm, yes_option
from admin.command import Group
from admin.given import Given
from timemachine.client import operations

database = click.argument("database", metavar="DB", shell_complete=complete.databases)


@click.group(cls=Group, db=False)
def db() -> None:
    """Databases: namespaces of collections and routes."""


@db.command("list", db=False, examples=["timemachine db list"])
@click.pass_obj
def list_(given: Given) -> None:
    """List the databases."""
    answers.show_all(given, operations.list_databases(), tables.databases)


@db.command(db=False, examples=["timemachine db get default"])
@database
@click.pass_obj
def get(given: Given, database: str) -> None:
    """Show a database."""
    answers.show(given, operations.get_database(database))


@db.command(db=False, examples=["timemachine db put shop"])
@database
@click.pass_obj
def put(given: Given, database: str) -> None:
    """Create a database, if it is not there yet."""
    answers.show(given, operations.put_database(database))


@db.command(
    db=False,
    examples=["timemachine db delete shop", "timemachine db delete shop --force --yes"],
)
@database
@click.option("--force", is_flag=True, help="With all its collections, jobs and routes.")
@yes_option
@click.pass_obj
def delete(given: Given, database: str, force: bool, yes: bool) -> None:
    """Delete a database."""
    if force:
        question = f"Delete database `{database}` with all its collections, jobs and routes?"
        confirm(question, yes=yes)
    answer = answers.ask(given, operations.delete_database(database, force=force))
    output.deleted(answer, f"deleted database {database}", as_json=bool(given.as_json))
