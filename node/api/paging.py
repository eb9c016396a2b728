"""Lists, a page at a time: how long a page is, and the cursor that leads to the next one."""

import asyncio
import binascii
import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Final, Generic, TypeVar

import msgspec

from node.api.conventions import DIGITS, Answer, Call, encode_content, json_answer
from node.api.operations import Parameter
from node.api.problems import invalid
from timemachine import limits
from timemachine.model import Plan, Task

Natural = Annotated[int, msgspec.Meta(ge=0)]
"""A number in a cursor. Cursors are not signed: what they hold may be anybody's."""

Row = TypeVar("Row")
T = TypeVar("T")
Made = TypeVar("Made", Plan, Task)
_VIEWS_BETWEEN_YIELDS = 64

_LIMIT: Final = Parameter(
    name="limit",
    description="How many items one answer has at most.",
    schema={
        "type": "integer",
        "minimum": 1,
        "maximum": limits.LIST_LIMIT_MAX,
        "default": limits.LIST_LIMIT_DEFAULT,
    },
)
_CURSOR: Final = Parameter(
    name="cursor",
    description="`next_cursor` of the page before; it fits the same list with the same filters.",
    schema={"type": "string"},
)
PAGED: Final = (_LIMIT, _CURSOR)


class Page(msgspec.Struct, Generic[T], frozen=True):
    """One page of a list; `next_cursor` is null at its end."""

    items: list[T]
    next_cursor: str | None


def query_limit(call: Call) -> int:
    """The `limit` of a list."""
    text = call.query.get("limit")
    if text is None:
        return limits.LIST_LIMIT_DEFAULT
    if DIGITS.fullmatch(text) is None or not 1 <= int(text) <= limits.LIST_LIMIT_MAX:
        raise invalid("?limit", f"The limit is 1 to {limits.LIST_LIMIT_MAX}.")
    return int(text)


def write_cursor(position: tuple[Any, ...], scope: str) -> str:
    """An opaque cursor that only fits the list it came from."""
    return urlsafe_b64encode(_mark(scope) + encode_content(position)).decode().rstrip("=")


def read_cursor(call: Call, scope: str, shape: type[T]) -> T | None:
    """The position of a cursor, which has this shape, or None without one."""
    text = call.query.get("cursor")
    if text is None:
        return None
    try:
        data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        position = msgspec.msgpack.decode(data[6:], type=shape)
    except (ValueError, binascii.Error, msgspec.DecodeError, RecursionError):
        raise invalid("?cursor", "This is no cursor of this list.") from None
    if data[:6] != _mark(scope):
        raise invalid("?cursor", "This cursor belongs to another list.")
    return position


def _mark(scope: str) -> bytes:
    return hashlib.sha256(scope.encode("utf-8", "surrogatepass")).digest()[:6]


async def viewed(rows: Iterable[Row], view: Callable[[Row], T]) -> list[T]:
    """The view of each row; others have their turn between some of them."""
    items = []
    for number, row in enumerate(rows, 1):
        items.append(view(row))
        if number % _VIEWS_BETWEEN_YIELDS == 0:
            await asyncio.sleep(0)
    return items


def newest(call: Call, rows: Iterable[Made], scope: str) -> tuple[list[Made], str | None]:
    """One page of a list that is small enough to sort in memory, the newest first; its cursor."""
    after = read_cursor(call, scope, tuple[Natural, str])
    found = sorted(rows, key=_made, reverse=True)
    if after is not None:
        found = [row for row in found if _made(row) < after]
    limit = query_limit(call)
    shown = found[:limit]
    cursor = write_cursor(_made(shown[-1]), scope) if len(found) > limit else None
    return shown, cursor


def _made(row: Plan | Task) -> tuple[int, str]:
    return row.created_ms, row.id


def page(call: Call, rows: list[Any], scope: str, key: str, view: Callable[[Any], Any]) -> Answer:
    """One page of a list that is small enough to sort in memory."""
    position = read_cursor(call, scope, tuple[str])
    limit = query_limit(call)
    rows.sort(key=lambda row: getattr(row, key))
    if position is not None:
        rows = [row for row in rows if getattr(row, key) > position[0]]
    more = len(rows) > limit
    rows = rows[:limit]
    cursor = write_cursor((getattr(rows[-1], key),), scope) if more else None
    return json_answer(Page([view(row) for row in rows], cursor))
