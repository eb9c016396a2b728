"""Refusals as they come, and the errors that they become."""

from http import HTTPStatus
from typing import Final

import msgspec

from timemachine.errors import (
    ApiConflict,
    ApiDenied,
    ApiError,
    ApiInvalid,
    ApiNotFound,
    ApiOverloaded,
    ApiPreconditionFailed,
)

RETRIED_STATUS: Final = frozenset({429, 502, 503, 504})
"""Answers after which the same request may succeed: two say so, two come from proxies."""

SAID_BY_NODES_ONLY: Final = frozenset({404, 405, 409, 412})
"""What these say is about the cluster's own things: from any other server they say nothing of them.

The others mean the same from a proxy: credentials, a request that is too large or malformed, load.
"""

_ERROR_OF_STATUS: Final[dict[int, type[ApiError]]] = {
    400: ApiInvalid,
    401: ApiDenied,
    403: ApiDenied,
    404: ApiNotFound,
    409: ApiConflict,
    412: ApiPreconditionFailed,
    413: ApiInvalid,
    415: ApiInvalid,
    422: ApiInvalid,
    429: ApiOverloaded,
    502: ApiOverloaded,
    503: ApiOverloaded,
    504: ApiOverloaded,
    507: ApiOverloaded,
}


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault of bad input: where (a JSON pointer) and what."""

    pointer: str = ""
    detail: str = ""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """An error as the nodes send it (RFC 9457)."""

    code: str | None = None
    title: str | None = None
    status: int | None = None
    detail: str | None = None
    error: str | None = None
    errors: tuple[Fault, ...] = ()


def phrase(status: int) -> str:
    """What HTTP calls a status."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "no known status"


def api_error(problem: Problem, status: int, *, within: str = "") -> ApiError:
    """The error of a status, as good as its problem tells.

    `within` is the JSON pointer of the one item that it is about: places are told from there on.
    """
    detail = problem.detail or problem.error or problem.title or f"{status} {phrase(status)}"
    place = within.lstrip("/") + "/"
    if within and detail.startswith(place):
        detail = detail.removeprefix(place)
    return _ERROR_OF_STATUS.get(status, ApiError)(
        detail,
        code=problem.code,
        status=status,
        errors=[
            (
                fault.pointer.removeprefix(within)
                if fault.pointer.startswith(f"{within}/")
                else fault.pointer,
                fault.detail,
            )
            for fault in problem.errors
        ],
    )
