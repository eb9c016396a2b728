"""Every behaviour of the fault receiver, and how an attempt that meets it has to end."""

from typing import Final, Literal, NamedTuple

from tests.faults.receiver import INVALID, RETRY_AFTER
from timemachine import limits

MIB: Final = 1024 * 1024
KEPT_BYTES: Final = limits.ATTEMPT_BODY_BYTES_MAX
"""What is kept of a response body."""

Class = Literal["delivered", "retry", "gone"]


class Ending(NamedTuple):
    """How an attempt ends.

    outcome    what becomes of the job: delivered, tried again, or dead with its route disabled
    status     of the response
    code       of the error: without a response, for with one its status says it
    phase      in which there was the error
    truncated  whether there was more of the body than is kept
    """

    outcome: Class
    status: int | None = None
    code: str | None = None
    phase: str | None = None
    truncated: bool = False


_SILENT: Final = Ending("retry", None, "timeout", "headers")
_CUT: Final = Ending("retry", None, "connection_reset", "headers")
_NO_HTTP: Final = Ending("retry", None, "protocol_error", "headers")
_OK: Final = Ending("delivered", 200)
_MORE: Final = Ending("delivered", 200, truncated=True)


def _of_status(status: int) -> Ending:
    if 200 <= status <= 299:
        return Ending("delivered", status)
    return Ending("gone" if status == 410 else "retry", status)


_STATUSES: Final = (
    *(200, 201, 202, 204, 299),
    *(300, 301, 302, 303, 304, 307, 308),
    *(400, 401, 403, 404, 409, 413, 422, 429),
    *(500, 502, 503, 504, 600),
)

ENDINGS: Final[dict[str, Ending]] = {
    **{f"/status/{status}": _of_status(status) for status in (*_STATUSES, 410)},
    **{f"/status/503?retry-after={form}": _of_status(503) for form in RETRY_AFTER},
    # Redirects are answers, and no success.
    **{f"/redirect/{status}": _of_status(status) for status in (301, 302, 303, 307, 308)},
    # Nothing, or not enough, until the deadline.
    "/stall/before-reading": _SILENT,
    "/stall/after-request": _SILENT,
    "/stall/head": _SILENT,
    "/drip/head": _SILENT,
    # The status has come: whatever happens to the body, it counts.
    "/stall/body": _MORE,
    "/stall/body?code=503": Ending("retry", 503, truncated=True),
    "/drip/body": _MORE,
    "/drip/body?code=500": Ending("retry", 500, truncated=True),
    "/close/after-head": _MORE,
    "/close/after-head?code=410": Ending("gone", 410, truncated=True),
    "/close/in-body": _MORE,
    "/reset/in-body": _MORE,
    "/reset/in-body?code=500": Ending("retry", 500, truncated=True),
    # Gone before a status.
    "/close/after-request": _CUT,
    "/close/in-head": _CUT,
    "/reset/after-request": _CUT,
    # The answer is complete, and then nothing more comes.
    "/close/header": _OK,
    "/close/idle": _OK,
    # Too much.
    f"/big/{KEPT_BYTES}": _OK,
    f"/big/{KEPT_BYTES + 1}": _MORE,
    f"/big/{MIB}?chunk=1": _MORE,
    f"/big/{128 * MIB}": _MORE,
    f"/trailers/{128 * MIB}": _MORE,
    f"/header/{MIB}": _NO_HTTP,
    "/headers/500": _OK,
    "/largest": _OK,
    "/gzip-bomb": _OK,
    "/interim/5": _OK,
    "/interim/5?code=103": _OK,
    "/interim/flood": _NO_HTTP,
    "/interim/flood?code=103": _NO_HTTP,
    # No HTTP, or another one, or too much of it.
    **{f"/invalid/{kind}": _NO_HTTP for kind in INVALID},
    "/switch": _NO_HTTP,
    "/ice": _NO_HTTP,
    "/two-responses": _OK,
    "/extra/late": _OK,
}
"""By the path that asks for the behaviour; over http, of a request that fits into one write."""

UNREAD: Final = {
    "/close/before-reading": ("connection_reset", ("send", "headers")),
    "/close/in-request": ("connection_reset", ("send", "headers")),
}
"""Where the recipient does not read all, and closes: the code, and the phases in which one may be.

Whether the last byte was taken by then is for the kernels to say.
"""

TLS: Final = {
    "right": None,
    "wrong_name": "is for another name",
    "expired": "has expired",
    "not_yet_valid": "is not valid yet",
    "self_signed": "is not signed by a trusted authority",
    "needs_client": "asks for one",
    "old": "The TLS handshake",
    "tls_1_0": "The TLS handshake",
}
"""By the kind of certificate: part of the sentence that says what is wrong with it."""


def waits_for_deadline(path: str) -> bool:
    """Whether nothing but the deadline ends an attempt that meets this."""
    return path.startswith(("/stall/", "/drip/"))
