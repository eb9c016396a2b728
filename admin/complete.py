"""What a shell may complete: names that the server knows. Silent when it does not answer."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from admin.given import Given

_TIMEOUT_MS: Final = 1_000
STATES: Final = ("scheduled", "firing", "retrying", "held", "delivered", "dead", "cancelled")

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _names(what: str) -> Completer:
    def complete(
        context: click.Context, parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        # These import the options, which import this; and nobody needs them before he asks.
        from admin.given import Given  # noqa: PLC0415
        from admin.session import Session  # noqa: PLC0415
        from admin.suggest import names  # noqa: PLC0415

        try:
            given = context.ensure_object(Given)
            given.timeout_ms = min(given.timeout_ms or _TIMEOUT_MS, _TIMEOUT_MS)
            with Session(given) as session:
                found = names(session, what, _database(context, given))
        except Exception:  # noqa: BLE001  # whatever it is: nobody wants a trace in his prompt
            return []
        return [CompletionItem(name) for name in found if name.startswith(incomplete)]

    return complete


def _database(context: click.Context, given: "Given") -> str:
    named = context.params.get("db")
    return named if isinstance(named, str) else given.database


databases = _names("database")
collections = _names("collection")
routes = _names("route")


def states(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """States, also behind those that a comma list has already."""
    before, comma, last = incomplete.rpartition(",")
    return [CompletionItem(before + comma + state) for state in STATES if state.startswith(last)]
