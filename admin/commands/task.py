"""`timemachine task`: work on many jobs, in the background."""

import click

from admin import bulk, output, tables
from admin.command import Group
from admin.given import Given
from admin.session import Session
from timemachine.client.call import Call, path_of


@click.group(cls=Group, db=False)
def task() -> None:
    """Tasks: work on many jobs, in the background."""


@task.command("list", db=False, examples=["timemachine task list"])
@click.pass_obj
def list_(given: Given) -> None:
    """List the tasks, the newest first."""
    with Session(given) as session:
        output.listing(
            session.pages(Call("GET", path_of("tasks"), object)),
            tables.tasks,
            as_json=bool(given.as_json),
            nothing="no task",
        )


@task.command(db=False, examples=["timemachine task get TASK"])
@click.argument("task")
@click.pass_obj
def get(given: Given, task: str) -> None:
    """Show how far a task is."""
    with Session(given) as session:
        answer = session.ask(Call("GET", path_of("tasks", task), object))
    output.document(answer, tables.one, as_json=bool(given.as_json))


@task.command(db=False, examples=["timemachine task watch TASK"])
@click.argument("task")
@click.pass_context
def watch(context: click.Context, task: str) -> None:
    """Wait for the end of a task, showing how far it is.

    Exit code 1 when it failed or was cancelled.
    """
    bulk.watch(context, task)


@task.command(db=False, examples=["timemachine task cancel TASK"])
@click.argument("task")
@click.pass_obj
def cancel(given: Given, task: str) -> None:
    """Stop a task. What it did already stays done."""
    with Session(given) as session:
        answer = session.ask(Call("POST", path_of("tasks", task, "cancel"), object))
    output.document(answer, tables.one, as_json=bool(given.as_json))
