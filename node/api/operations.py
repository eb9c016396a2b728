"""What an operation of the API is, told beside the method that answers it.

`@operation` is the only way into the table of paths, so nothing is served that is not described:
`dispatch` looks requests up in it, `openapi` and `reference` write it down for people and tools.
The method's name is the operation's id, the first line of its docstring the summary, the rest of
it the description. `docs/reference/openapi.md` shows how to add one.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from node.api.media import JSON
from timemachine import limits

NAME_PATTERN: Final = "^[A-Za-z0-9][A-Za-z0-9_.-]*$"
_VARIABLE = re.compile(r"\{([a-z]+)\}")
_REFUSAL = re.compile(r"([45][0-9]{2}) ([a-z_]+)")
_ATTRIBUTE: Final = "__operation__"

Method = TypeVar("Method", bound=Callable[..., Any])


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """A variable part of a path, a query parameter, or a header of a request or an answer.

    schema   JSON Schema of its value
    values   the texts it may have, where `queries` is to see to that
    example  a value for the examples; of a path always there
    """

    name: str
    description: str
    schema: dict[str, Any]
    values: tuple[str, ...] = ()
    example: Any = None


DATABASE: Final = "/v1/dbs/{db}"
COLLECTION: Final = f"{DATABASE}/collections/{{collection}}"
JOBS: Final = f"{COLLECTION}/jobs"
JOB: Final = f"{JOBS}/{{id}}"
ROUTE: Final = f"{DATABASE}/routes/{{route}}"
"""Paths that several modules have operations at, or below."""


def _name(name: str, what: str, example: str) -> Parameter:
    schema = {
        "type": "string",
        "pattern": NAME_PATTERN,
        "maxLength": limits.NAME_CHARACTERS_MAX,
    }
    return Parameter(name=name, description=what, schema=schema, example=example)


PATH_PARAMETERS: Final = {
    each.name: each
    for each in (
        _name("db", "The database; `default` exists from the start.", "default"),
        _name("collection", "The collection.", "carts"),
        _name("route", "The route.", "hello"),
        Parameter(
            name="id",
            description=f"The job's id: 1 to {limits.JOB_ID_BYTES_MAX} bytes of UTF-8 without"
            " control characters, percent-encoded; not `.` or `..`.",
            schema={
                "type": "string",
                "pattern": r"^(?!\.{1,2}$)[^\x00-\x1f\x7f-\x9f]+$",
                "maxLength": limits.JOB_ID_BYTES_MAX,
            },
            example="cart-1042",
        ),
        Parameter(
            name="n",
            description="The attempt's number: 1 for the first one.",
            schema={"type": "integer", "minimum": 1, "maximum": limits.RETRY_ATTEMPTS_MAX},
            example=1,
        ),
        _name("name", "The database for POST, else the route, of the database `default`.", "hello"),
        _name("outer", "The database for POST, else the collection.", "carts"),
        Parameter(
            name="inner",
            description="The collection for POST, else the job's id.",
            schema={"type": "string", "minLength": 1},
            example="cart-1042",
        ),
        Parameter(
            name="task",
            description="The task's id.",
            schema={"type": "string", "minLength": 1},
            example="0197c2f0-7d5e-7c3e-9d2b-3c8a5a1f9e10",
        ),
        Parameter(
            name="restore",
            description="The restore's id.",
            schema={"type": "string", "minLength": 1},
            example="0197c2f0-7d5e-7c3e-9d2b-3c8a5a1f9e12",
        ),
        Parameter(
            name="vnode",
            description="The vnode's number in its collection, from 0 on.",
            schema={
                "type": "integer",
                "minimum": 0,
                "maximum": limits.VNODES_PER_COLLECTION_MAX - 1,
            },
            example=0,
        ),
        Parameter(
            name="plan",
            description="The plan's id.",
            schema={"type": "string", "minLength": 1},
            example="0197c2f0-7d5e-7c3e-9d2b-3c8a5a1f9e11",
        ),
    )
}
"""The variable parts of paths. The same name stands for the same thing everywhere."""

CONSISTENCY: Final = Parameter(
    name="consistency",
    description="`stale` reads the answering node's own replica.",
    schema={"enum": ["linearizable", "stale"], "default": "linearizable"},
    values=("stale", "linearizable"),
)
_TIME_SCHEMA: Final[dict[str, Any]] = {
    "anyOf": [
        {"type": "integer", "minimum": 0, "maximum": limits.TIME_MS_MAX},
        {"type": "string", "format": "date-time"},
    ]
}

FROM: Final = Parameter(name="from", description="Due at this time or later.", schema=_TIME_SCHEMA)
TO: Final = Parameter(name="to", description="Due before this time.", schema=_TIME_SCHEMA)


def flag(name: str, description: str) -> Parameter:
    """A query parameter that is true or false."""
    return Parameter(
        name=name,
        description=description,
        schema={"type": "boolean", "default": False},
        values=("true", "false", "1", "0"),
    )


REQUEST_ID: Final = Parameter(
    name="X-Request-Id",
    description="Names the request in the node's log; made by the node when absent or unfit.",
    schema={"type": "string"},
)
IDEMPOTENCY_KEY: Final = Parameter(
    name="Idempotency-Key",
    description="A repeat with the same key gets the first answer again for"
    f" {limits.REQUESTS_KEPT_MS // 3_600_000} hours; the same key with another request is 422.",
    schema={
        "type": "string",
        "pattern": r"^[\t -~]*[!-~][\t -~]*$",
        "maxLength": limits.IDEMPOTENCY_KEY_BYTES_MAX,
    },
)
IF_MATCH: Final = Parameter(
    name="If-Match",
    description='Only if the stored version is one of these: `"3"`, or `*` for any. Else 412.',
    schema={"type": "string", "pattern": r'^(?:\*|"[0-9]{1,18}"(?:, ?"[0-9]{1,18}"){0,9})$'},
)
IF_NONE_MATCH: Final = Parameter(
    name="If-None-Match",
    description="`*`: only if there is none yet. Else 412.",
    schema={"type": "string", "enum": ["*"]},
)
REQUEST_HEADERS: Final = (REQUEST_ID, IDEMPOTENCY_KEY, IF_MATCH, IF_NONE_MATCH)

ANSWER_HEADERS: Final = {
    each.name: each
    for each in (
        Parameter(
            name="X-Request-Id",
            description="The request's name, given or made.",
            schema={"type": "string"},
        ),
        Parameter(
            name="ETag",
            description="The version, for `If-Match`.",
            schema={"type": "string"},
            example='"3"',
        ),
        Parameter(
            name="Location",
            description="Where the new job is.",
            schema={"type": "string", "format": "uri-reference"},
        ),
        Parameter(
            name="Idempotent-Replayed",
            description="There, and `true`, when this answer was given before.",
            schema={"type": "string", "enum": ["true"]},
        ),
        Parameter(
            name="WWW-Authenticate",
            description="What is asked for.",
            schema={"type": "string"},
        ),
        Parameter(
            name="Retry-After",
            description="Seconds to wait before another try.",
            schema={"type": "integer", "minimum": 1},
        ),
        Parameter(
            name="Cache-Control",
            description="Whether the answer may be kept.",
            schema={"type": "string"},
        ),
    )
}
ALWAYS_SENT: Final = frozenset(ANSWER_HEADERS) - {"Idempotent-Replayed"}
"""Of the headers that an answer is said to have, those that are never missing."""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of success: what it means, and what its body is.

    `also` are the same in other media types, `headers` the ones beside X-Request-Id.
    """

    meaning: str
    body: Any = None
    media: str = JSON
    also: Mapping[str, Any] = {}
    headers: tuple[str, ...] = ()


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """A request that succeeds. The path has the examples of its parameters, but for `path`."""

    path: Mapping[str, str] = {}
    query: Mapping[str, Any] = {}
    body: Any = msgspec.UNSET


class Operation(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One operation. `place` is its path with a star for each variable part.

    handler        name of the method that answers
    query          parameters, others are refused; None if nobody looks at the query
    headers        beside X-Request-Id
    body, more     the type of the JSON body, and of the same in other media types
    body_required  whether an empty body is refused
    answers        success by status
    refusals       (status, code) of each problem, sorted
    sheds          whether it is refused when the node is overloaded or stopping
    anonymous      whether it is answered without a token
    """

    id: str
    handler: str
    method: str
    path: str
    place: str
    tag: str
    summary: str
    description: str
    parameters: tuple[Parameter, ...]
    query: tuple[Parameter, ...] | None
    headers: tuple[Parameter, ...]
    body: Any
    more: Mapping[str, Any]
    body_required: bool
    answers: Mapping[int, Told]
    refusals: tuple[tuple[int, str], ...]
    example: Example
    sheds: bool
    anonymous: bool


# Also a GET may come with a body, which is then refused or not looked at.
_ANY: Final = (
    "400 bad_http",
    "413 too_large",
    "415 unsupported_media_type",
)
_NODE: Final = ("500 internal",)
_CHECKED: Final = ("400 invalid_request",)
_SHED: Final = ("503 unavailable",)
_LOGGED: Final = ("422 idempotency_key_reused", "429 too_many_requests")
_WITH_TOKEN: Final = ("401 unauthorized",)

IN_DATABASE: Final = ("404 database_not_found",)
IN_COLLECTION: Final = (*IN_DATABASE, "404 collection_not_found")


def operation(
    method: str,
    path: str,
    *,
    tag: str,
    id: str | None = None,
    answers: Mapping[int, Told],
    query: Iterable[Parameter] | None = (),
    headers: tuple[Parameter, ...] = (),
    body: Any = None,
    more: Mapping[str, Any] | None = None,
    body_required: bool = True,
    refusals: Iterable[str] = (),
    example: Example | None = None,
    sheds: bool = True,
    anonymous: bool = False,
    plain: bool = False,
) -> Callable[[Method], Method]:
    """Make a handler's method the operation `method path`; see `Operation` for the arguments.

    A method that answers at several paths has several of these, and each its own `id`.

    `refusals` are "status code", beside those that follow from the rest: what every request can
    meet, and what comes with a condition and with an Idempotency-Key. Reads of `/v1`
    take `consistency`. With `plain` only those that are given and those of the whole node are
    problems; the others are among `answers`.
    """
    told = [*_NODE, *refusals] if plain else [*_NODE, *_ANY, *refusals]
    if query is not None and not plain:
        told += _CHECKED
    if sheds:
        told += _SHED
    if not anonymous:
        told += _WITH_TOKEN
    if IDEMPOTENCY_KEY in headers:
        told += _LOGGED[1:] if plain else _LOGGED
    if not plain and (IF_MATCH in headers or IF_NONE_MATCH in headers):
        told.append("412 precondition_failed")
    known = None if query is None else tuple(query)
    if known is not None and method == "GET" and path.startswith("/v1/"):
        known = (*known, CONSISTENCY)

    def described(handler: Method) -> Method:
        summary, _, description = (handler.__doc__ or "").partition("\n")
        described = Operation(
            id=id or handler.__name__,
            handler=handler.__name__,
            method=method,
            path=path,
            place=place_of(path),
            tag=tag,
            summary=summary.removesuffix("."),
            description=_unindented(description),
            parameters=tuple(PATH_PARAMETERS[name] for name in _VARIABLE.findall(path)),
            query=known,
            headers=(*headers, REQUEST_ID),
            body=body,
            more=more or {},
            body_required=body_required,
            answers=answers,
            refusals=tuple(sorted({_refusal(each) for each in told})),
            example=example or Example(),
            sheds=sheds,
            anonymous=anonymous,
        )
        # Decorators are applied from below.
        setattr(handler, _ATTRIBUTE, [described, *getattr(handler, _ATTRIBUTE, ())])
        return handler

    return described


def place_of(path: str) -> str:
    """A path with a star for each variable part."""
    return _VARIABLE.sub("*", path[1:])


def operations_of(kind: type) -> list[Operation]:
    """The operations of a class of handlers, in the order in which they stand there."""
    return [each for member in vars(kind).values() for each in getattr(member, _ATTRIBUTE, ())]


def _refusal(text: str) -> tuple[int, str]:
    found = _REFUSAL.fullmatch(text)
    assert found is not None, f"{text!r} is not of the form `404 job_not_found`"
    return int(found[1]), found[2]


def _unindented(text: str) -> str:
    return "\n".join(line.strip() for line in text.splitlines()).strip()
