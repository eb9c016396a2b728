"""What all commands that ask a node have in common: shared options, examples, errors."""

import errno
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Any, Final

import click
import msgspec

from admin.errors import Failure
from admin.examples import ExampleCommand
from admin.given import Given, shared_options
from admin.session import Session
from admin.suggest import instead
from timemachine.client import ApiError, BadAnswer, ClientError

HELP: Final = {"help_option_names": ["-h", "--help"]}
_HINT_TIMEOUT_MS: Final = 2_000


class Command(ExampleCommand):
    """A command that asks a node; `db` says whether things in a database, which --db names."""

    def __init__(self, *args: Any, db: bool = True, **settings: Any) -> None:
        settings.setdefault("context_settings", HELP)
        super().__init__(*args, **settings)
        self.shared = shared_options(db=db)
        self.params = [*self.params, *self.shared]

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; an error of the client becomes one for the terminal."""
        given = ctx.ensure_object(Given)
        if isinstance(sys.stdout, TextIOWrapper):
            # A terminal that cannot show a character gets its number, like standard error.
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            return super().invoke(ctx)
        except ClientError as error:
            raise _explained(error, ctx, given) from None
        except (msgspec.DecodeError, LookupError) as error:
            # Something answers there, but it is no node, or a much newer one.
            strange = BadAnswer(f"The answer is not what a node of TimeMachine sends: {error}.")
            raise Failure(strange, as_json=bool(given.as_json)) from error
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # click ends quietly when nobody reads on
            raise click.ClickException(f"{error.strerror or error}.") from error
        except UnicodeError:
            raise click.UsageError("Some of this is text that cannot be sent.", ctx) from None
        except ValueError as error:
            # What the SDK does not even send: empty names, headers of several lines.
            raise click.UsageError(f"This cannot be sent: {error}.", ctx) from error

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The command's own options first, then those that all commands take."""
        _two_sections(self, self.shared, ctx, formatter)


class Group(click.Group):
    """A group of such commands."""

    command_class = Command

    def __init__(self, *args: Any, db: bool = True, **settings: Any) -> None:
        settings.setdefault("context_settings", HELP)
        super().__init__(*args, **settings)
        self.shared = shared_options(db=db)
        self.params = [*self.params, *self.shared]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Options, then the commands."""
        _two_sections(self, self.shared, ctx, formatter)
        self.format_commands(ctx, formatter)


def _two_sections(
    command: click.Command,
    shared: Sequence[click.Parameter],
    ctx: click.Context,
    formatter: click.HelpFormatter,
) -> None:
    rows: dict[bool, list[tuple[str, str]]] = {False: [], True: []}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        # Arguments stand in the line of usage, and are named for what they are.
        if record is not None and isinstance(parameter, click.Option):
            rows[parameter in shared].append(record)
    for title, records in (("Options", rows[False]), ("Shared options", rows[True])):
        if records:
            with formatter.section(title):
                formatter.write_dl(records)


def _explained(error: ClientError, context: click.Context, given: Given) -> Failure:
    """The failure of a command, with what it may have meant instead."""
    as_json = bool(given.as_json)
    if as_json or not isinstance(error, ApiError):
        return Failure(error, as_json=as_json)
    asked = {
        what: value
        for what in ("collection", "route", "id")
        if isinstance(value := context.params.get(what), str)
    }
    db = context.params.get("database") or given.database
    try:
        with Session(given, timeout_ms=_HINT_TIMEOUT_MS) as session:
            sentence, hints = instead(session, error.code, db, asked)
    except ClientError:
        sentence, hints = None, []
    return Failure(error, sentence=sentence, hints=hints or None)
