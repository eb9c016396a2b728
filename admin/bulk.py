"""Commands over many jobs: count first, ask, start a task, watch it."""

from collections.abc import Callable
from typing import Any, Final

import click
import msgspec

from admin import exits, output, shown, tables, times
from admin.arguments import together
from admin.ask import confirm, yes_option
from admin.given import Given
from admin.session import Session
from admin.watching import until_ended
from timemachine.client import operations
from timemachine.client.call import Call

_RUNNING: Final = "running"
_DONE: Final = "done"


task_options = together(
    click.option("--dry-run", is_flag=True, help="Only say how many jobs it would be."),
    click.option("--no-wait", is_flag=True, help="Print the task, do not wait for its end."),
    yes_option,
)
"""Options of what becomes a task."""

window_options = together(
    click.option("--from", "from_time", type=times.TIME, metavar="TIME", help="From this time on."),
    click.option("--to", "to_time", type=times.TIME, metavar="TIME", help="Before this time."),
)
"""Options that name a time window."""


def run(
    context: click.Context,
    begin: Callable[..., Call[Any]],
    question: str,
    *,
    dry_run: bool,
    no_wait: bool,
    yes: bool,
) -> None:
    """Do something to many jobs, for which `begin` makes the call, given `dry_run`.

    `question` has a place for {jobs}, such as `3 jobs`.
    """
    given = context.ensure_object(Given)
    as_json = bool(given.as_json)
    count = None
    with Session(given) as session:
        if dry_run or not yes:
            answer = session.ask(begin(dry_run=True))
            if dry_run:
                output.document(answer, _sample, as_json=as_json)
                return
            count = msgspec.json.decode(answer, type=dict[str, Any])["count"]
            if count == 0:
                # Not begun: what comes up meanwhile was not asked for.
                output.document(answer, _sample, as_json=as_json)
                return
            confirm(question.format(jobs=_jobs(count)), yes=False)
        answer = session.ask(begin(dry_run=False))
    if no_wait:
        output.document(answer, tables.one, as_json=as_json)
        return
    watch(context, msgspec.json.decode(answer, type=dict[str, Any])["task"], total=count)


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count} jobs"


def _sample(row: tables.Row) -> tables.Parts:
    if row["count"] == 0:
        yield "There is no such job."
        return
    yield f"It would be {_jobs(row['count'])}."
    sample = row.get("sample") or []
    if sample and all(isinstance(each, dict) and "id" in each for each in sample):
        yield from tables.jobs(sample)
    else:
        for each in sample:
            yield f"  {shown.text(each)}"


def watch(context: click.Context, task: str, *, total: int | None = None) -> None:
    """Wait for the end of a task; people see how far it is. `total` jobs were there before it."""
    given = context.ensure_object(Given)

    def look(row: tables.Row) -> tuple[str, int, int | None, bool]:
        return f"task {task}", row["progress"]["done"], total, row["state"] != _RUNNING

    answer = until_ended(
        given,
        operations.get_task(task),
        look,
        goes_on=f"The task goes on. `timemachine task watch {task}` watches it,"
        f" `timemachine task cancel {task}` stops it.",
    )
    output.document(answer, tables.one, as_json=bool(given.as_json))
    if msgspec.json.decode(answer, type=dict[str, Any])["state"] != _DONE:
        context.exit(exits.FAILED)
