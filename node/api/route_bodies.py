"""The bodies of routes: what their members may be. `route_checks` checks it."""

import re
from typing import Annotated, Any, ClassVar, Final

import msgspec
from msgspec import Meta

from node.api.conventions import Ignored
from node.api.schemas import between
from timemachine import limits
from timemachine.model import Batching, Breaker, Retry, Route

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
STATUSES_MAX = 300
_UNSET = msgspec.UNSET
_Maybe = msgspec.UnsetType
_STORED = {field.name: field.default for field in msgspec.structs.fields(Route)}


def _about(description: str, stored: str = "", /, **schema: Any) -> Meta:
    """Says what a member may be; `route_checks` checks it.

    `stored` is the field of a route whose default it takes.
    """
    if stored:
        schema["default"] = msgspec.to_builtins(_STORED[stored])
    return Meta(description=description, extra_json_schema=schema)


SECRET_SCHEMA: Final[dict[str, Any]] = {"format": "webhook-secret", "pattern": "^wh(sec|sk)_"}
"""A signing secret as it is given (Standard Webhooks)."""

_HEADER_NAME = Meta(
    extra_json_schema={
        "pattern": f"^{TOKEN.pattern}$",
        "maxLength": limits.HEADER_NAME_BYTES_MAX,
    }
)
_HEADER_VALUE = Meta(
    extra_json_schema={
        "pattern": r"^(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?$",
        "maxLength": limits.HEADER_VALUE_BYTES_MAX,
    }
)
_URL = _about(
    "Where webhooks go, by POST; a user and a password in it become basic authentication.",
    format="uri",
    maxLength=limits.URL_BYTES_MAX,
)


class RetryBody(msgspec.Struct, forbid_unknown_fields=True):
    """When and how often a failed delivery is tried again."""

    schedule_ms: Annotated[
        tuple[Annotated[int, between(0, limits.RETRY_DELAY_MS_MAX)], ...] | _Maybe,
        _about(
            "Pauses before the second attempt, the third and so on; the last one repeats.",
            default=list(Retry().schedule_ms),
            maxItems=limits.RETRY_SCHEDULE_COUNT_MAX,
        ),
    ] = _UNSET
    max_attempts: Annotated[
        Annotated[int, between(1, limits.RETRY_ATTEMPTS_MAX)] | _Maybe,
        _about("The first one counts.", default=Retry().max_attempts),
    ] = _UNSET
    max_age_ms: Annotated[
        Annotated[int, between(0, limits.RETRY_AGE_MS_MAX)] | _Maybe,
        _about("No attempt begins so long after the first one.", default=Retry().max_age_ms),
    ] = _UNSET
    jitter: Annotated[
        Annotated[float, between(0, 1)] | _Maybe,
        _about("By how much of itself a pause varies.", default=Retry().jitter),
    ] = _UNSET


class RateBody(msgspec.Struct, forbid_unknown_fields=True):
    """At most `count` attempts begin in each `period_ms`; null: no limit."""

    count: Annotated[int, between(1, limits.ROUTE_RATE_COUNT_MAX)] | None = None
    period_ms: Annotated[int, between(1, limits.ROUTE_RATE_PERIOD_MS_MAX)] = 1000


class BreakerBody(msgspec.Struct, forbid_unknown_fields=True):
    """When nothing is sent for a while to a recipient that fails."""

    failure_ratio: Annotated[
        Annotated[float, between(0.01, 1)] | _Maybe,
        _about("The share of failed attempts that opens it.", default=Breaker().failure_ratio),
    ] = _UNSET
    min_requests: Annotated[
        Annotated[int, between(1, limits.BREAKER_REQUESTS_MAX)] | _Maybe,
        _about("Of fewer attempts nothing is concluded.", default=Breaker().min_requests),
    ] = _UNSET
    window_ms: Annotated[
        Annotated[int, between(limits.BREAKER_WINDOW_MS_MIN, limits.BREAKER_WINDOW_MS_MAX)]
        | _Maybe,
        _about("Which attempts are looked at.", default=Breaker().window_ms),
    ] = _UNSET
    open_ms: Annotated[
        Annotated[int, between(limits.BREAKER_OPEN_MS_MIN, limits.BREAKER_OPEN_MS_MAX)] | _Maybe,
        _about("How long nothing is sent.", default=Breaker().open_ms),
    ] = _UNSET
    half_open_requests: Annotated[
        Annotated[int, between(1, limits.BREAKER_HALF_OPEN_MAX)] | _Maybe,
        _about("As many then try the recipient.", default=Breaker().half_open_requests),
    ] = _UNSET


class BatchBody(msgspec.Struct, forbid_unknown_fields=True):
    """How many jobs one webhook takes, as a JSON array; null: one, and no array."""

    max_jobs: Annotated[
        Annotated[int, between(1, limits.ROUTE_BATCH_JOBS_MAX)] | _Maybe,
        _about("1: webhooks are no arrays.", default=Batching().max_jobs),
    ] = _UNSET
    max_bytes: Annotated[
        Annotated[int, between(limits.ROUTE_BATCH_BYTES_MIN, limits.ROUTE_BATCH_BYTES_MAX)]
        | _Maybe,
        _about("Of the array; one job is sent however large.", default=Batching().max_bytes),
    ] = _UNSET
    max_wait_ms: Annotated[
        Annotated[int, between(0, limits.ROUTE_BATCH_WAIT_MS_MAX)] | _Maybe,
        _about("How long the first job waits for others.", default=Batching().max_wait_ms),
    ] = _UNSET
    format: Annotated[
        str | _Maybe,
        _about(
            "`cloudevents`: each item is a CloudEvent.",
            default=Batching().format,
            enum=["jobs", "cloudevents"],
        ),
    ] = _UNSET


class RouteBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The members of a route that PATCH replaces. What GET shows beside them is ignored."""

    KEEPS_ABSENT: ClassVar = True

    webhook_url: Annotated[str | _Maybe, _URL] = _UNSET
    type: Annotated[str, _about("`REST` means the same.", enum=["webhook", "REST"])] = "webhook"
    https_only: Annotated[
        bool | _Maybe, _about("Refuse a `webhook_url` that is not https.", "https_only")
    ] = _UNSET
    headers: Annotated[
        dict[
            Annotated[str, _HEADER_NAME],
            Annotated[str, _HEADER_VALUE],
        ]
        | _Maybe,
        _about(
            "Sent with every webhook; values are masked on reads.",
            maxProperties=limits.ROUTE_HEADERS_COUNT_MAX,
        ),
    ] = _UNSET
    body: Annotated[
        str | _Maybe,
        _about(
            "`job`: the job's stable part; `meta`: its meta alone.", "body", enum=["job", "meta"]
        ),
    ] = _UNSET
    secret: Annotated[
        str | _Maybe | None,
        _about(
            "Signs the webhooks: `whsec_` (`v1`) or `whsk_` (`v1a`), and base64. Absent: made at"
            " first, then kept.",
            **SECRET_SCHEMA,
        ),
    ] = _UNSET
    timeout_ms: Annotated[
        Annotated[int, between(limits.ROUTE_TIMEOUT_MS_MIN, limits.ROUTE_TIMEOUT_MS_MAX)] | _Maybe,
        _about("How long one attempt may take.", "timeout_ms"),
    ] = _UNSET
    delivery: Annotated[
        str | _Maybe,
        _about(
            "`at_most_once` never sends what may have been sent.",
            "delivery",
            enum=["at_least_once", "at_most_once"],
        ),
    ] = _UNSET
    retry: RetryBody | _Maybe = _UNSET
    non_retryable_status: Annotated[
        tuple[Annotated[int, between(300, 599)], ...] | _Maybe,
        _about(
            "Answers after which no further attempt is made.",
            "non_retryable_status",
            maxItems=STATUSES_MAX,
        ),
    ] = _UNSET
    smear_ms: Annotated[
        Annotated[int, between(0, limits.ROUTE_SMEAR_MS_MAX)] | _Maybe,
        _about("Jobs of one moment are spread over so long a time after it.", "smear_ms"),
    ] = _UNSET
    max_in_flight: Annotated[
        Annotated[int, between(1, limits.ROUTE_IN_FLIGHT_MAX)] | _Maybe,
        _about("How many sends may be under way at once.", "max_in_flight"),
    ] = _UNSET
    rate: RateBody | _Maybe = _UNSET
    breaker: Annotated[BreakerBody | _Maybe | None, _about("Null: none.")] = _UNSET
    disable_after_ms: Annotated[
        Annotated[int, between(0, limits.DISABLE_AFTER_MS_MAX)] | _Maybe,
        _about(
            "Disable it when attempts have only failed for so long; 0: never.", "disable_after_ms"
        ),
    ] = _UNSET
    alert_route: Annotated[
        str | _Maybe | None,
        _about(
            "The route of this database that is told what fails here; null: none.", "alert_route"
        ),
    ] = _UNSET
    batch: BatchBody | _Maybe | None = _UNSET
    ca_pem: Annotated[
        str | _Maybe | None, _about("Authorities that the recipient's certificate may come from.")
    ] = _UNSET
    client_cert_pem: Annotated[
        str | _Maybe | None, _about("What the node shows of itself; with `client_key_pem`.")
    ] = _UNSET
    client_key_pem: Annotated[str | _Maybe | None, _about("Sealed, and masked on reads.")] = _UNSET
    dangerous_skip_tls_verify: Annotated[
        bool | _Maybe,
        _about("Send to whoever answers there.", "dangerous_skip_tls_verify"),
    ] = _UNSET
    enabled: Annotated[bool | _Maybe, _about("Whether attempts may start.", "enabled")] = _UNSET
    db: Ignored = _UNSET
    name: Ignored = _UNSET
    version: Ignored = _UNSET
    paused: Ignored = _UNSET
    disabled: Ignored = _UNSET
    state: Ignored = _UNSET
    state_reason: Ignored = _UNSET
    state_since_time: Ignored = _UNSET
    state_until_time: Ignored = _UNSET
    created_time: Ignored = _UNSET
    updated_time: Ignored = _UNSET
    pending_vnodes: Ignored = _UNSET


class RoutePutBody(RouteBody, forbid_unknown_fields=True, kw_only=True):
    """A route as sent, to be created or replaced. What GET shows beside it is ignored."""

    KEEPS_ABSENT: ClassVar = False

    webhook_url: Annotated[str, _URL]


decode_route = msgspec.json.Decoder(RoutePutBody).decode
decode_patched_route = msgspec.json.Decoder(RouteBody).decode
