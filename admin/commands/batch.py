"""`timemachine job batch`: many jobs from a file or a pipe."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import IO, BinaryIO

import click
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
)

from admin import complete, exits, output, shown
from admin.arguments import collection_argument
from admin.batches import Outcome, Reader, Refused, Sending
from admin.command import Command
from admin.given import Given
from admin.session import Session
from timemachine import limits
from timemachine.client import ClientError

_BATCH_JOBS = 1_000


class _Refusals:
    """Tells of refused jobs: in a file, or people at a terminal, or else on standard error."""

    def __init__(self, file: IO[str] | None, progress: Progress) -> None:
        self._file = file
        self._people = None if file is not None or progress.disable else progress.console
        self._count = 0

    def tell(self, refused: Refused) -> None:
        """One job."""
        self._count += 1
        if self._people is None:
            (self._file or sys.stderr).write(refused.record + "\n")
        elif self._count <= limits.CLI_REFUSED_SHOWN_MAX:
            self._people.print(refused.sentence(), soft_wrap=True)

    def end(self) -> None:
        """There are no more of them: say how many were not shown."""
        left = self._count - limits.CLI_REFUSED_SHOWN_MAX
        if self._people is not None and left > 0:
            click.echo(f"{left} more refused; --failed FILE keeps them all.", err=True)


def _writable(context: click.Context, parameter: click.Parameter, value: str | None) -> Path | None:
    """The path of a file that can be written: better known before the first job is sent."""
    if value is None:
        return None
    path = Path(value)
    try:
        path.open("a").close()
    except OSError as error:
        raise click.BadParameter(f"{value}: {(error.strerror or 'error').lower()}.") from None
    return path


@click.command(
    cls=Command,
    examples=[
        "timemachine job batch carts jobs.ndjson",
        "timemachine job batch carts - --failed failed.ndjson < jobs.ndjson",
        "timemachine job batch carts jobs.ndjson --key import-2030-01-31",
    ],
)
@collection_argument
@click.argument(
    "file", required=False, type=click.Path(allow_dash=True, exists=True, dir_okay=False)
)
@click.option(
    "--batch-size",
    type=click.IntRange(1, limits.BATCH_JOBS_MAX),
    default=_BATCH_JOBS,
    show_default=True,
    metavar="N",
    help="Jobs in a request.",
)
@click.option("--route", shell_complete=complete.routes, help="For jobs that name none.")
@click.option("--allow-missing-route", is_flag=True, help="Routes may be created later.")
@click.option(
    "--key",
    help="A name for this import: the same file with the same key again creates nothing twice.",
)
@click.option(
    "--failed",
    callback=_writable,
    metavar="FILE",
    help="Where refused jobs are written; else to standard error.",
)
@click.pass_context
def batch(
    context: click.Context,
    collection: str,
    file: str | None,
    batch_size: int,
    route: str | None,
    allow_missing_route: bool,
    key: str | None,
    failed: Path | None,
) -> None:
    """Create many jobs: NDJSON, a job a line, or one JSON array.

    They are read from FILE; - is standard input, and so is no FILE at all behind a pipe.
    They are sent in batches, one after the other, so that a pipe is read only as fast as the
    cluster takes them. Each job succeeds or fails by itself. Refused ones are written as NDJSON,
    {"line", "job", "error"}, which can be given again; exit code 8 tells that there are some.
    At a terminal the first of them are told as sentences, unless --failed keeps them.
    Jobs without id get one here, so that repeats of a request create nothing twice.
    """
    given = context.ensure_object(Given)
    if file is None:
        if sys.stdin.isatty():
            raise click.UsageError("Name a file, or - to type jobs in.", context)
        file = "-"
    outcome = Outcome()
    with ExitStack() as stack:
        source: BinaryIO = (
            sys.stdin.buffer if file == "-" else stack.enter_context(Path(file).open("rb"))
        )
        kept: IO[str] | None = None
        if failed is not None:
            kept = stack.enter_context(failed.open("w", encoding="utf-8"))
        size = Path(file).stat().st_size if file != "-" else None
        session = stack.enter_context(Session(given))
        sending = Sending(
            session,
            given.database,
            collection,
            route=route,
            key=key,
            allow_missing_route=allow_missing_route,
        )
        progress = stack.enter_context(_progress(known=bool(size), as_json=bool(given.as_json)))
        refusals = _Refusals(kept, progress)
        shown_task = progress.add_task("jobs", total=size or None)
        reader = Reader(source, batch_size)
        try:
            for items in reader:
                for refused in sending.send(items, outcome):
                    refusals.tell(refused)
                progress.update(
                    shown_task, completed=reader.bytes_read, description=outcome.sentence()
                )
        except (ClientError, KeyboardInterrupt, click.UsageError):
            progress.stop()
            refusals.end()
            if outcome.last_line:
                click.echo(f"{outcome.sentence()}, up to line {outcome.last_line}.", err=True)
            raise
    refusals.end()
    if given.as_json:
        click.echo(outcome.as_json())
    else:
        click.echo(shown.text(outcome.sentence()))
    if outcome.failed:
        context.exit(exits.PARTLY)


def _progress(*, known: bool, as_json: bool) -> Progress:
    """A bar for a file, whose size is known; a count for a pipe. On standard error, or nowhere."""
    err = output.console(stderr=True)
    columns: list[ProgressColumn] = [BarColumn(), TaskProgressColumn()] if known else []
    return Progress(
        SpinnerColumn(),
        *columns,
        TextColumn("{task.description}"),
        console=err,
        transient=True,
        disable=as_json or not err.is_terminal,
    )
