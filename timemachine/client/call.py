"""One request to the API, before it is bytes, and how its parts are written."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote, urlencode

T = TypeVar("T")

Time = int | datetime
"""Milliseconds since the Unix epoch, UTC, or an aware datetime."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One operation of the API and the type of its answer.

    method, path     the path is percent-encoded
    answer           what the JSON of a 2xx is; bytes where it is none, type(None) when nobody cares
    query            pairs, in order
    body             what the JSON of the request is made from, None for no body
    headers          further headers
    idempotency_key  the caller's own; writes without one get one of the client's
    new_ids          give the jobs in `body` that have no id one of the client's
    items_max        how many items of a list are wanted, over all its pages
    try_ms_min       how long one try may take at least, where an answer takes its time
    """

    method: str
    path: str
    answer: type[T]
    query: tuple[tuple[str, str], ...] = ()
    body: Any = None
    headers: tuple[tuple[str, str], ...] = ()
    idempotency_key: str | None = None
    new_ids: bool = False
    items_max: int | None = None
    try_ms_min: int = 0
    writes: bool = field(init=False)

    def __post_init__(self) -> None:
        """Reads need no key. Raises ValueError for a list of less than nothing."""
        if self.items_max is not None and self.items_max < 0:
            raise ValueError("limit must not be negative")
        object.__setattr__(self, "writes", self.method not in ("GET", "HEAD"))

    @property
    def target(self) -> str:
        """Path and query, as in the request line."""
        if not self.query:
            return self.path
        return f"{self.path}?{urlencode(self.query, quote_via=quote, safe='')}"


def path_of(*segments: str) -> str:
    """A path under /v1 with every segment percent-encoded; job ids may hold anything."""
    for segment in segments:
        if not isinstance(segment, str):
            raise TypeError(f"a name or id must be text, not {type(segment).__name__}")
        if not segment:
            raise ValueError("a name or id must not be empty")
    return "/v1/" + "/".join(quote(segment, safe="") for segment in segments)


def collection_path(db: str, collection: str, *rest: str) -> str:
    """The path of a collection, and what is in it."""
    return path_of("dbs", db, "collections", collection, *rest)


def route_path(db: str, route: str, *rest: str) -> str:
    """The path of a route, and what is in it."""
    return path_of("dbs", db, "routes", route, *rest)


def job_path(db: str, collection: str, id: str, *rest: str) -> str:
    """The path of a job, and what is in it."""
    return collection_path(db, collection, "jobs", id, *rest)


def query_of(**parameters: str | int | bool | Sequence[str] | None) -> tuple[tuple[str, str], ...]:
    """The query pairs of those parameters that are neither None nor False.

    A trailing underscore of a name is dropped (`from_`); several values become a comma list.
    """
    pairs = []
    for name, value in parameters.items():
        if value is None or value is False:
            continue
        if value is True:
            text = "true"
        elif isinstance(value, str | int):
            text = str(value)
        else:
            text = ",".join(value)
        pairs.append((name.rstrip("_"), text))
    return tuple(pairs)


def given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are not None: what a caller left out is left out of the body."""
    return {name: value for name, value in fields.items() if value is not None}


def condition_of(if_match: int | None, *, create_only: bool = False) -> tuple[tuple[str, str], ...]:
    """The headers that make a write conditional on a version, or on there being nothing yet."""
    headers: list[tuple[str, str]] = []
    if if_match is not None:
        headers.append(("If-Match", f'"{if_match}"'))
    if create_only:
        headers.append(("If-None-Match", "*"))
    return tuple(headers)


def time_ms(value: Time) -> int:
    """`value` in milliseconds since the Unix epoch, fractions cut off.

    Raises ValueError for a naive datetime: whose clock it means is anybody's guess.
    """
    given: object = value  # Not everybody runs a type checker.
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise ValueError("a datetime needs a time zone, for instance datetime.now(tz=UTC)")
        return (value - _EPOCH) // timedelta(milliseconds=1)
    if isinstance(given, bool) or not isinstance(given, int):
        raise TypeError(f"a time is an int or an aware datetime, not {type(given).__name__}")
    return given


def optional_time_ms(value: Time | None) -> int | None:
    """`time_ms`, or None for None."""
    return None if value is None else time_ms(value)


def job_body(
    *,
    trigger_time: Time | None,
    delay_ms: int | None,
    route: str,
    meta: Any,
    tags: Iterable[str],
    ordering_key: str | None,
    id: str | None = None,
) -> dict[str, Any]:
    """A job as it is sent. What has its default is left out, so that older nodes take it too."""
    if (trigger_time is None) == (delay_ms is None):
        raise ValueError("a job needs either trigger_time or delay_ms")
    body: dict[str, Any] = {} if id is None else {"id": id}
    if trigger_time is not None:
        body["trigger_time"] = time_ms(trigger_time)
    else:
        body["delay_ms"] = delay_ms
    body["route"] = route
    body["meta"] = meta
    if tags := texts(tags):
        body["tags"] = tags
    if ordering_key is not None:
        body["ordering_key"] = ordering_key
    return body


def texts(values: Iterable[str]) -> list[str]:
    """Tags as a list. Raises TypeError for one text, which would be taken apart."""
    if isinstance(values, str):
        raise TypeError("tags are a list of text, not one text")
    return list(values)
