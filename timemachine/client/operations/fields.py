"""What calls take: a job of a batch, the settings of a route, and where a read is answered."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

import msgspec

from timemachine.client.call import Time

Consistency = Literal["linearizable", "stale"]
"""How a read is answered: with all that was acknowledged before, or from the node's own replica."""

PlanKind = Literal["rebalance", "drain", "remove", "replicate", "compact"]
"""What a plan changes about where replicas are; `compact` moves none."""


class NewJob(msgspec.Struct, frozen=True, kw_only=True):
    """One job of a batch; either `trigger_time` or `delay_ms`."""

    route: str
    trigger_time: Time | None = None
    delay_ms: int | None = None
    meta: Any = None
    tags: tuple[str, ...] = ()
    ordering_key: str | None = None
    id: str | None = None


class RetryFields(TypedDict, total=False):
    """When and how often a failed delivery is tried again."""

    schedule_ms: Sequence[int]
    max_attempts: int
    max_age_ms: int
    jitter: float


class RateFields(TypedDict, total=False):
    """At most `count` attempts per `period_ms`; no limit when `count` is None."""

    count: int | None
    period_ms: int


class BreakerFields(TypedDict, total=False):
    """When nothing is sent for a while to a recipient that fails."""

    failure_ratio: float
    min_requests: int
    window_ms: int
    open_ms: int
    half_open_requests: int


class BatchFields(TypedDict, total=False):
    """How many jobs one webhook may carry."""

    max_jobs: int
    max_bytes: int
    max_wait_ms: int
    format: Literal["jobs", "cloudevents"]


class RouteFields(TypedDict, total=False):
    """The settings of a route. What is left out has its default, or with PATCH stays."""

    webhook_url: str
    type: Literal["webhook", "REST"]
    https_only: bool
    headers: Mapping[str, str]
    body: Literal["job", "meta"]
    secret: str
    timeout_ms: int
    delivery: Literal["at_least_once", "at_most_once"]
    retry: RetryFields
    non_retryable_status: Sequence[int]
    smear_ms: int
    max_in_flight: int
    rate: RateFields
    breaker: BreakerFields | None
    disable_after_ms: int
    alert_route: str | None
    batch: BatchFields
    ca_pem: str | None
    client_cert_pem: str | None
    client_key_pem: str | None
    dangerous_skip_tls_verify: bool
    enabled: bool


def route_body(fields: RouteFields) -> dict[str, Any]:
    """The settings given. A misspelt one is refused here, before it travels."""
    unknown = fields.keys() - RouteFields.__annotations__.keys()
    if unknown:
        raise TypeError(f"a route has no setting named {', '.join(sorted(unknown))}")
    return dict(fields)
