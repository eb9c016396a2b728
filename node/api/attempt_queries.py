"""Which attempts a list is to show, and its cursors, which lead both ways."""

from typing import Final

import msgspec

from node.api.conventions import Call, query_time
from node.api.job_views import AttemptView
from node.api.operations import FROM, TO, Parameter
from node.api.problems import invalid
from node.attempts import AttemptFilter
from timemachine.model import AttemptStatus

_STATUSES: Final = tuple(AttemptStatus)
_CLASSES: Final = {f"{first}xx": (first * 100, first * 100 + 99) for first in range(1, 10)}

FILTERS: Final = (
    Parameter(
        name="status",
        description="A comma list: attempts that ended so.",
        schema={"type": "array", "items": {"enum": list(_STATUSES)}, "minItems": 1},
    ),
    Parameter(
        name="response",
        description="Attempts that were answered so: a status, a class of them such as `5xx`,"
        " or `none`.",
        schema={"type": "string", "pattern": "^([1-9][0-9]{2}|[1-9]xx|none)$"},
    ),
    Parameter(name="from", description="Settled at this time or later.", schema=FROM.schema),
    Parameter(name="to", description="Settled before this time.", schema=TO.schema),
)


class AttemptPage(msgspec.Struct, frozen=True):
    """One page of attempts; `next_cursor` is null at the end of the list.

    `previous_cursor` leads to the page before; it is null at the beginning of what has one.
    """

    items: list[AttemptView]
    next_cursor: str | None
    previous_cursor: str | None


def query_filter(call: Call) -> AttemptFilter:
    """Which attempts a list is to show."""
    return AttemptFilter(
        _statuses(call.query.get("status")),
        _response(call.query.get("response")),
        query_time(call, "from"),
        query_time(call, "to"),
    )


def filter_scope(call: Call) -> str:
    """What a cursor belongs to, of the filters."""
    return str([call.query.get(each.name) for each in FILTERS])


def _statuses(text: str | None) -> tuple[str, ...]:
    if text is None:
        return ()
    names = text.split(",")
    if any(name not in _STATUSES for name in names):
        raise invalid("?status", f"This is a comma list of {', '.join(_STATUSES)}.")
    return tuple(names)


def _response(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    if text == "none":
        return 0, 0
    if text in _CLASSES:
        return _CLASSES[text]
    if len(text) == 3 and text.isascii() and text.isdigit() and text[0] != "0":
        return int(text), int(text)
    raise invalid("?response", "This is a status, a class such as `5xx`, or `none`.")
