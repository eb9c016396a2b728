"""Refusals and faults as `application/problem+json` (RFC 9457)."""

import re
from typing import Annotated

import msgspec
from msgspec import Meta

from timemachine import errors

_TITLES = {
    400: "Bad request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    408: "Request time-out",
    409: "Conflict",
    412: "Precondition failed",
    413: "Too large",
    415: "Unsupported media type",
    422: "Unprocessable",
    429: "Too many requests",
    500: "Internal error",
    503: "Unavailable",
    507: "Insufficient storage",
}
_PATH = re.compile(r" - at `(?P<kind>key in )?\$(?P<path>[^`]*)`$")
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<name>.*)`$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(?P<name>[^`]*)`$")
_STEP = re.compile(r"\.(?P<name>[^.\[]+)|\[(?P<index>[0-9]+)\]")

REFUSALS: dict[str, tuple[type[errors.TimeMachineError], str]] = {
    "job_exists": (errors.Conflict, "A different job with this id exists."),
    "job_not_found": (errors.NotFound, "There is no job with this id."),
    "ordering_key_fixed": (
        errors.Conflict,
        "The job of this id has another ordering key, or none, and that cannot be changed.",
    ),
    "placed_too_long_ago": (errors.Unavailable, "The create was on its way too long; ask again."),
    "job_finished": (errors.Conflict, "The job has ended; PUT it to start it again."),
    "job_not_dead": (errors.Conflict, "Only a dead job can be redriven."),
    "job_delivered": (errors.Conflict, "The job was delivered; redrive it with ?force=true."),
    "precondition_failed": (errors.PreconditionFailed, "The version is another one by now."),
    "idempotency_key_reused": (
        errors.KeyReused,
        "This Idempotency-Key was used with another request.",
    ),
    "immutable_field": (errors.Conflict, "num_vnodes cannot change once a collection exists."),
    "database_not_found": (errors.NotFound, "There is no database of this name."),
    "collection_not_found": (errors.NotFound, "There is no collection of this name."),
    "route_not_found": (errors.NotFound, "There is no route of this name."),
    "limit_reached": (errors.TooLarge, "The cluster's limit for these is reached."),
    "too_many_tasks": (errors.TooManyRequests, "Too many tasks are running; wait for one to end."),
    "too_many_tokens": (
        errors.TooManyRequests,
        "Too many join tokens are valid; wait for one to expire.",
    ),
    "format_finalised": (
        errors.Conflict,
        "A newer format is finalised already; there is no way back.",
    ),
    "nodes_behind": (errors.Conflict, "Not every node knows this format yet."),
    "node_not_found": (errors.NotFound, "There is no such node."),
    "vnode_not_found": (errors.NotFound, "There is no such vnode."),
    "node_down": (errors.Conflict, "A node that would get replicas does not answer."),
    "no_node_left": (errors.Conflict, "No member would be left to have anything."),
    "plan_not_found": (errors.NotFound, "There is no such plan."),
    "plan_ended": (errors.Conflict, "The plan has ended; make another one."),
    "plan_expired": (errors.Conflict, "The plan is too old; make another one."),
    "plan_running": (errors.Conflict, "Another plan runs; wait for its end, or cancel it."),
    "plan_outdated": (
        errors.Conflict,
        "The cluster has changed since the plan was made; make another one.",
    ),
    "backup_view_gone": (
        errors.Conflict,
        "The view that the page would come from is gone; begin the vnode anew.",
    ),
    "restore_not_found": (errors.NotFound, "There is no such restore."),
    "restore_ended": (errors.Conflict, "The restore has ended."),
    "restore_conflict": (
        errors.Conflict,
        "Collections or routes of the backup are here already; a restore overwrites nothing.",
    ),
    "sealed_with_another_key": (
        errors.Conflict,
        "The secrets of the backup are sealed with a master key that this cluster does not have.",
    ),
    "keys_differ": (errors.Conflict, "The nodes do not agree yet on which master key is first."),
    "key_moved": (errors.Conflict, "The master key has changed meanwhile; ask again."),
    "plan_not_confirmed": (errors.Conflict, "The plan does not run yet; confirm it."),
    "attempt_not_found": (errors.NotFound, "There is no such attempt of this job."),
    "task_not_found": (errors.NotFound, "There is no such task."),
    "version_moved": (errors.PreconditionFailed, "The version is another one by now."),
    "not_found": (errors.NotFound, "There is nothing of this name."),
    "collection_not_empty": (
        errors.Conflict,
        "The collection has jobs; delete it with ?force=true.",
    ),
    "database_in_use": (errors.Conflict, "The database `default` cannot be deleted."),
    "database_not_empty": (
        errors.Conflict,
        "The database has collections or routes; delete it with ?force=true.",
    ),
    "route_in_use": (
        errors.Conflict,
        "Jobs are scheduled for this route; delete it with ?force=true.",
    ),
    "not_ready": (errors.Unavailable, "The node cannot serve yet, or not any more."),
    "bad_http": (errors.InvalidRequest, "This is no HTTP request that can be read."),
    "blocked_address": (
        errors.InvalidRequest,
        "The URL leads to an address or a port that is not for webhooks and not allowed.",
    ),
}
"""What the API refuses with beside the codes of the classes: code -> (class, sentence)."""


_SENTENCES = {
    kind.code: (kind.__doc__ or "").partition("\n")[0]
    for kind in vars(errors).values()
    if isinstance(kind, type)
    and issubclass(kind, errors.TimeMachineError)
    # The SDK's errors have the node's codes, and sentences of their own.
    and not issubclass(kind, errors.ClientError)
}


class NoSuchMethod(errors.MethodNotAllowed):
    """This address does not take that method."""

    def __init__(self, allowed: list[str]) -> None:
        super().__init__(f"This address takes {', '.join(allowed)}.")
        self.allowed = allowed


def refusal(code: str | None, sentence: str | None = None) -> errors.TimeMachineError:
    """The error for a machine's refusal code, with its usual sentence or a better one."""
    kind, usual = REFUSALS[code or ""]
    return kind(sentence or usual, code="precondition_failed" if code == "version_moved" else code)


def meaning_of(code: str) -> str:
    """The sentence of a code, whoever refuses with it. Raises KeyError."""
    if code in REFUSALS:
        return REFUSALS[code][1]
    return _SENTENCES[code]


class Fault(msgspec.Struct, frozen=True):
    """One thing that is wrong with the input."""

    pointer: Annotated[
        str,
        Meta(description="A JSON pointer into the body, `?name` of the query, or a header's name."),
    ]
    detail: str


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request was refused (RFC 9457)."""

    type: Annotated[str, Meta(extra_json_schema={"format": "uri"})]
    title: str
    status: int
    detail: Annotated[str, Meta(description="One sentence for people.")]
    code: Annotated[str, Meta(description="Stable, for programs.")]
    error: Annotated[str, Meta(description="The same as `detail`.")]
    errors: list[Fault] | msgspec.UnsetType = msgspec.UNSET


def problem(error: errors.TimeMachineError) -> Problem:
    """The problem document of an error."""
    status = error.http_status
    faults = error.errors if isinstance(error, errors.InvalidRequest) else ()
    return Problem(
        type=f"urn:timemachine:error:{error.specific_code}",
        title=_TITLES.get(status, "Error"),
        status=status,
        detail=error.detail,
        code=error.specific_code,
        error=error.detail,
        errors=[Fault(pointer, detail) for pointer, detail in faults] or msgspec.UNSET,
    )


def invalid(pointer: str, detail: str, *, code: str | None = None) -> errors.InvalidRequest:
    """A 400 that names one field. `pointer` is a JSON pointer into the body, or `?name`."""
    name = pointer.lstrip("/?") or ("query" if pointer else "body")
    return errors.InvalidRequest(f"{name}: {detail}", errors=[(pointer, detail)], code=code)


def step(name: str) -> str:
    """The step of a JSON pointer to a member of this name (RFC 6901, 3)."""
    return "/" + name.replace("~", "~0").replace("/", "~1")


def check_range(pointer: str, value: float | None, low: float, high: float) -> None:
    """Refuse a number beyond these bounds, both included; None is within."""
    if value is not None and not low <= value <= high:
        raise invalid(pointer, f"This is {low} to {high}.")


def too_large(pointer: str, detail: str) -> errors.TooLarge:
    """A 413 that names the field and its limit."""
    return errors.TooLarge(f"{pointer.lstrip('/') or 'body'}: {detail}")


def from_validation(error: Exception, prefix: str = "") -> errors.InvalidRequest:
    """What msgspec found wrong, as a 400 that points at the member."""
    if isinstance(error, RecursionError):
        return invalid(prefix, "The JSON is nested too deeply.")
    if isinstance(error, UnicodeDecodeError):
        return invalid(prefix, "The JSON is not valid UTF-8.")
    text = str(error)
    pointer = prefix
    found = _PATH.search(text)
    if found is not None:
        text = text[: found.start()]
        pointer += "".join(
            "/" + (step["name"] or step["index"])
            for step in _STEP.finditer(found["path"].replace("[...]", ""))
        )
    named = _UNKNOWN.match(text) or _MISSING.match(text)
    if named is not None:
        pointer += step(named["name"])
        unknown = text.startswith("Object contains")
        text = "This member is not known here." if unknown else "This member is required."
    elif not isinstance(error, msgspec.ValidationError):
        text = f"This is not valid JSON: {text}."
    else:
        text += "."
    return invalid(pointer, text)
