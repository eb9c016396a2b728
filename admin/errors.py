"""What went wrong, as a sentence with hints for people, as JSON for programs, and as exit code."""

import json
import sys
from typing import IO, Any

import click

from admin import exits, shown
from admin.session import NobodyThere
from timemachine.client import (
    ApiConflict,
    ApiDenied,
    ApiError,
    ApiInvalid,
    ApiNotFound,
    ApiOverloaded,
    ApiPreconditionFailed,
    ClientError,
    NoAnswer,
)

_EXIT_OF: tuple[tuple[type[ClientError], int], ...] = (
    (ApiInvalid, exits.USAGE),
    (ApiNotFound, exits.NOT_FOUND),
    (ApiConflict, exits.CONFLICT),
    (ApiPreconditionFailed, exits.CONFLICT),
    (ApiDenied, exits.DENIED),
    (ApiOverloaded, exits.UNREACHABLE),
    (NoAnswer, exits.UNREACHABLE),
)

_OPTIONS = {
    "?force=true": "--force",
    "?allow_missing_route=true": "--allow-missing-route",
    "PUT /v1/cluster/settings": "`timemachine cluster settings set`",
}
"""What the API's sentences tell to do, as it is typed."""


def exit_code(error: ClientError) -> int:
    """The exit code that stands for an error."""
    if isinstance(error, ApiError) and error.status == 405:
        return exits.USAGE
    return next((code for kind, code in _EXIT_OF if isinstance(error, kind)), exits.FAILED)


def advice(error: ClientError) -> list[str]:
    """What to do about an error, where that can be said."""
    if isinstance(error, NobodyThere):
        return [
            "Start one on this machine with `timemachine dev`,",
            "or name another with --server URL or TIMEMACHINE_SERVER.",
        ]
    if isinstance(error, ApiDenied):
        return ["Give the API token with --token-file FILE or in TIMEMACHINE_TOKEN."]
    if isinstance(error, NoAnswer) and error.maybe_done:
        return ["The node may have done it nevertheless: look before you repeat it."]
    if isinstance(error, ApiPreconditionFailed):
        return ["What --if-match or --create-only asks for does not hold: look at what is there."]
    return []


def for_terminals(sentence: str) -> str:
    """A sentence of the API, with options for its parameters and commands for its requests."""
    for parameter, option in _OPTIONS.items():
        sentence = sentence.replace(f"send {parameter}", f"add {option}").replace(parameter, option)
    return sentence


class Failure(click.ClickException):
    """A command failed: printed to standard error, with an exit code of its own."""

    def __init__(
        self,
        error: ClientError,
        *,
        sentence: str | None = None,
        hints: list[str] | None = None,
        as_json: bool = False,
    ) -> None:
        super().__init__(sentence or for_terminals(error.detail))
        self.exit_code = exit_code(error)  # type: ignore[misc]  # click's own manner
        self.error = error
        self.hints = advice(error) if hints is None else hints
        self.as_json = as_json

    def show(self, file: IO[Any] | None = None) -> None:
        """Print it."""
        file = sys.stderr if file is None else file
        if self.as_json:
            click.echo(json.dumps(problem(self.error)), file=file)
            return
        click.echo(f"Error: {shown.text(self.message)}", file=file)
        for pointer, sentence in self.error.errors:
            detail = for_terminals(sentence)
            if self.message not in (detail, f"{pointer.lstrip('/?')}: {detail}"):
                click.echo(f"  {shown.text(pointer)}  {shown.text(detail)}", file=file)
        for hint in self.hints:
            click.echo(shown.text(hint), file=file)


def problem(error: ClientError) -> dict[str, Any]:
    """An error for programs: stable names, the node's own code."""
    return {
        "code": error.code,
        "status": error.status,
        "detail": error.detail,
        "errors": [{"pointer": pointer, "detail": detail} for pointer, detail in error.errors],
    }
