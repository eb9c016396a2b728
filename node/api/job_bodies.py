"""The bodies of jobs: what their members may be, and the checks that no decoder makes."""

from typing import Annotated, Any, ClassVar, Final

import msgspec
from msgspec import Meta

from node.api.conventions import CONTROL, Ignored, checked_time
from node.api.operations import NAME_PATTERN, PATH_PARAMETERS
from node.api.problems import invalid
from node.api.schemas import between, exactly_one
from timemachine import limits

_UNSET = msgspec.UNSET
_Maybe = msgspec.UnsetType

# What members may be, said once for all bodies and lists. Said only: the checks stand in the
# handlers, since what msgspec would check costs time for every job, and reads worse.
RouteName = Annotated[
    str,
    Meta(
        description="The route that it is sent on, of the same database.",
        extra_json_schema={"pattern": NAME_PATTERN, "maxLength": limits.NAME_CHARACTERS_MAX},
    ),
]
_JobId = Annotated[str, Meta(extra_json_schema=PATH_PARAMETERS["id"].schema)]
_Milliseconds = Annotated[int, between(0, limits.TIME_MS_MAX)]
TimeGiven = (
    Annotated[int, between(0, limits.TIME_MS_MAX)]
    | Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
)
TAG_SCHEMA: Final[dict[str, Any]] = {
    "type": "string",
    "pattern": r"^[^\x00-\x1f\x7f-\x9f]+$",
    "maxLength": limits.TAG_BYTES_MAX,
}
TagName = Annotated[str, Meta(extra_json_schema=TAG_SCHEMA)]
_Tags = Annotated[tuple[TagName, ...], Meta(extra_json_schema={"maxItems": limits.TAGS_COUNT_MAX})]
WHEN = Meta(description="When it is due: milliseconds since the Unix epoch, or RFC 3339.")
_DELAY = Meta(description="Or: how long after the cluster takes it, in milliseconds.")
_META = Meta(
    description=f"Any JSON, at most {limits.META_BYTES_MAX} bytes and {limits.META_DEPTH_MAX}"
    " levels deep; delivered byte for byte as it came."
)
_ORDERING = Meta(
    description="Jobs of one route and ordering key are sent one after the other, in the order of"
    " their trigger times: each once the one before is delivered, dead or cancelled.",
)
OrderingKey = Annotated[
    str,
    Meta(
        extra_json_schema={
            "pattern": r"^[^\x00-\x1f\x7f-\x9f]+$",
            "maxLength": limits.ORDERING_KEY_BYTES_MAX,
        }
    ),
]


class JobBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A job as sent: `trigger_time` or `delay_ms`, exactly one."""

    route: RouteName
    id: Annotated[_JobId | None, Meta(description="Made by the node when absent.")] = None
    trigger_time: Annotated[TimeGiven | None, WHEN] = None
    delay_ms: Annotated[_Milliseconds | None, _DELAY] = None
    meta: Annotated[msgspec.Raw | _Maybe, _META] = _UNSET
    tags: _Tags = ()
    ordering_key: Annotated[OrderingKey | None, _ORDERING] = None

    SCHEMA: ClassVar[dict[str, Any]] = exactly_one("trigger_time", "delay_ms")


class JobPutBody(JobBody, forbid_unknown_fields=True, kw_only=True):
    """A job as sent, to be created or replaced. What GET shows beside it is ignored."""

    db: Ignored = _UNSET
    collection: Ignored = _UNSET
    uid: Ignored = _UNSET
    state: Ignored = _UNSET
    version: Ignored = _UNSET
    vnode: Ignored = _UNSET
    created_time: Ignored = _UNSET
    updated_time: Ignored = _UNSET
    attempts: Ignored = _UNSET
    next_attempt_time: Ignored = _UNSET
    last_error: Ignored = _UNSET
    webhook_id: Ignored = _UNSET
    reason: Ignored = _UNSET
    past_due: Ignored = _UNSET
    smear_ms: Ignored = _UNSET
    previous: Ignored = _UNSET
    outcome: Ignored = _UNSET


class JobPatchBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The members of a job that PATCH replaces."""

    KEEPS_ABSENT: ClassVar = True

    id: Annotated[_JobId | _Maybe, Meta(description="The one it has; it cannot change.")] = _UNSET
    trigger_time: Annotated[TimeGiven | _Maybe, WHEN] = _UNSET
    delay_ms: Annotated[_Milliseconds | _Maybe, _DELAY] = _UNSET
    route: RouteName | _Maybe = _UNSET
    meta: Annotated[msgspec.Raw | _Maybe, _META] = _UNSET
    tags: _Tags | _Maybe = _UNSET
    ordering_key: Annotated[
        OrderingKey | _Maybe | None, Meta(description="The one it has; it cannot change.")
    ] = _UNSET

    SCHEMA: ClassVar[dict[str, Any]] = {"not": {"required": ["trigger_time", "delay_ms"]}}


decode_job = msgspec.json.Decoder(JobBody).decode
decode_put_job = msgspec.json.Decoder(JobPutBody).decode
decode_patched_job = msgspec.json.Decoder(JobPatchBody).decode


def trigger_of(time: int | str | None, delay_ms: int | None, now_ms: int, prefix: str) -> int:
    """When a job is due, from the one of the two that is given."""
    if delay_ms is None:
        if time is None:
            raise invalid(f"{prefix}/trigger_time", "Give trigger_time or delay_ms.")
        return checked_time(time, f"{prefix}/trigger_time")
    if time is not None:
        raise invalid(f"{prefix}/delay_ms", "Give trigger_time or delay_ms, not both.")
    if not 0 <= delay_ms <= limits.TIME_MS_MAX - now_ms:
        raise invalid(
            f"{prefix}/delay_ms",
            "A delay is not negative, and does not lead beyond the year 9999.",
        )
    return now_ms + delay_ms


def checked_tags(tags: tuple[str, ...], prefix: str) -> tuple[str, ...]:
    """Tags within the limits, or a 400."""
    if len(tags) > limits.TAGS_COUNT_MAX:
        raise invalid(f"{prefix}/tags", f"A job has at most {limits.TAGS_COUNT_MAX} tags.")
    for number, tag in enumerate(tags):
        checked_tag(tag, f"{prefix}/tags/{number}")
    return tags


def checked_tag(tag: str, pointer: str) -> str:
    """A tag within the limits, or a 400."""
    # Not `isprintable` alone: what that says depends on the release of Unicode.
    if not 1 <= len(tag.encode()) <= limits.TAG_BYTES_MAX or (
        not tag.isprintable() and CONTROL.search(tag)
    ):
        raise invalid(
            pointer, f"A tag has 1 to {limits.TAG_BYTES_MAX} bytes without control characters."
        )
    return tag


def checked_ordering_key(key: str, prefix: str = "") -> str:
    """An ordering key within the limits, or a 400."""
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise invalid(f"{prefix}/ordering_key", "An ordering key is valid UTF-8.") from None
    if not 1 <= size <= limits.ORDERING_KEY_BYTES_MAX or (
        not key.isprintable() and CONTROL.search(key)
    ):
        raise invalid(
            f"{prefix}/ordering_key",
            f"An ordering key has 1 to {limits.ORDERING_KEY_BYTES_MAX} bytes of UTF-8"
            " without control characters.",
        )
    return key
