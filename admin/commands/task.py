"""`timemachine task`: work on many jobs, in the background."""

import click

from admin import answers, bulk, tables
from admin.command import Group
from admin.given import Given
from timemachine.client import operations


@click.group(cls=Group, db=False)
def task() -> None:
    """Tasks: work on many jobs, in the background."""


@task.command("list", db=False, examples=["timemachine task list"])
@click.pass_obj
def list_(given: Given) -> None:
    """List the tasks, the newest first."""
    answers.show_all(given, operations.list_tasks(), tables.tasks, nothing="no task")


@task.command(db=False, examples=["timemachine task get TASK"])
@click.argument("task")
@click.pass_obj
def get(given: Given, task: str) -> None:
    """Show how far a task is."""
    answers.show(given, operations.get_task(task))


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
    answers.show(given, operations.cancel_task(task))
