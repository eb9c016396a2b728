"""How routes look in JSON, and what became of their jobs."""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from node.api.schemas import Time, Version, one_of
from timemachine.delivery.condition import STATES, Condition
from timemachine.model import Batching, Breaker, Rate, Retry, Route

MASK = "***"


class PendingVnode(msgspec.Struct, frozen=True):
    """A vnode that may still start a send to a route that was closed."""

    collection: str
    index: int


_State = Annotated[str, one_of("Whether attempts may begin, as far as this node knows.", *STATES)]
_StateReason = Annotated[
    str | None,
    Meta(description="Why; `disabled` is because of `gone`, `disabled_by_recipient`, `failing`..."),
]
_StateSince = Annotated[Time | None, Meta(description="Since when, where that is known.")]
_StateUntil = Annotated[Time | None, Meta(description="Until when, if it ends by itself.")]


class RouteView(msgspec.Struct, frozen=True, kw_only=True):
    """A route as answered: no secret, values of headers and keys masked."""

    db: str
    name: str
    version: Version
    type: str
    webhook_url: Annotated[str, Meta(description=f"User and password are masked: `{MASK}@`.")]
    https_only: bool
    headers: Annotated[dict[str, str], Meta(description=f"Every value is `{MASK}`.")]
    body: str
    timeout_ms: int
    delivery: str
    retry: Retry
    non_retryable_status: tuple[int, ...]
    smear_ms: int
    max_in_flight: int
    rate: Rate
    breaker: Annotated[Breaker | None, Meta(description="Null: it has none.")]
    disable_after_ms: int
    alert_route: Annotated[
        str | None, Meta(description="Told what fails here, in `timemachine.events`.")
    ]
    batch: Batching
    ca_pem: str | None
    client_cert_pem: str | None
    client_key_pem: Annotated[str | None, one_of("Whether there is one.", MASK, None)]
    dangerous_skip_tls_verify: bool
    enabled: Annotated[bool, Meta(description="False also where the system disabled the route.")]
    paused: bool
    disabled: Annotated[str | None, Meta(description="Why the system disabled it, if it did.")]
    state: _State
    state_reason: _StateReason
    state_since_time: _StateSince
    state_until_time: _StateUntil
    created_time: Time
    updated_time: Time
    pending_vnodes: Annotated[
        tuple[PendingVnode, ...] | msgspec.UnsetType,
        Meta(description="Only with 202: the vnodes that may still start a send. Ask again."),
    ] = msgspec.UNSET


def shown_url(route: Route) -> str:
    """Where webhooks go, with the user and the password masked."""
    if route.basic_auth is None:
        return route.webhook_url
    scheme, _, rest = route.webhook_url.partition("://")
    return f"{scheme}://{MASK}@{rest}"


def route_view(route: Route, condition: Condition) -> RouteView:
    """A route as answered: no secret, values of headers and keys masked."""
    return RouteView(
        db=route.db,
        name=route.name,
        version=route.version,
        type="webhook",
        webhook_url=shown_url(route),
        https_only=route.https_only,
        headers=dict.fromkeys(route.headers, MASK),
        body=route.body,
        timeout_ms=route.timeout_ms,
        delivery=route.delivery,
        retry=route.retry,
        non_retryable_status=route.non_retryable_status,
        smear_ms=route.smear_ms,
        max_in_flight=route.max_in_flight,
        rate=route.rate,
        breaker=route.breaker,
        disable_after_ms=route.disable_after_ms,
        alert_route=route.alert_route,
        batch=route.batch,
        ca_pem=route.ca_pem,
        client_cert_pem=route.client_cert_pem,
        client_key_pem=None if route.client_key_pem is None else MASK,
        dangerous_skip_tls_verify=route.dangerous_skip_tls_verify,
        enabled=route.enabled and route.disabled is None,
        paused=route.paused,
        disabled=route.disabled,
        state=condition.state,
        state_reason=condition.reason,
        state_since_time=condition.since_ms,
        state_until_time=condition.until_ms,
        created_time=route.created_ms,
        updated_time=route.updated_ms,
    )


_PUBLIC_KEY = Meta(
    description="`whpk_` and base64: what recipients verify `v1a` with. Null with `v1`."
)
_KEY_ID: Final = Meta(description="How attempts name the key; it says nothing of the secret.")


class PreviousSecret(msgspec.Struct, frozen=True):
    """A secret that still signs beside the current one."""

    secret: str
    expires_time: Time | None
    public_key: Annotated[str | None, _PUBLIC_KEY]
    key_id: Annotated[str, _KEY_ID]


class SecretView(msgspec.Struct, frozen=True):
    """The secrets of a route."""

    secret: str
    public_key: Annotated[str | None, _PUBLIC_KEY]
    previous: list[PreviousSecret]
    key_id: Annotated[str, _KEY_ID]


class ExampleView(msgspec.Struct, frozen=True, kw_only=True):
    """How the sending of an example went."""

    status: Annotated[str, one_of("Whether it was answered with 2xx.", "succeeded", "failed")]
    response_status: int | None
    error_code: str | None
    error_message: str | None
    webhook_id: str
    duration_ms: float


class RouteStatsView(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a route's jobs; counts of sends since the first node began, `since_time`."""

    state: _State
    state_reason: _StateReason
    state_since_time: _StateSince
    state_until_time: _StateUntil
    failing_since_time: Annotated[
        Time | None, Meta(description="Since when attempts fail and none succeeds, if for long.")
    ]
    pending: Annotated[int, Meta(description="Jobs that are scheduled for it.")]
    waiting: Annotated[int, Meta(description="Those of them that are due, and wait for it.")]
    in_flight: int
    since_time: Time
    succeeded: int
    failed: int
    last_success_time: Time | None
    last_failure_time: Time | None
    last_failure: str | None
