"""How things look in JSON."""

from base64 import b64encode
from typing import Any

import msgspec

from timemachine.identifiers import webhook_id
from timemachine.model import AttemptRecord, Collection, JobRecord, JobState, Route

MASK = "***"


class Previous(msgspec.Struct, frozen=True):
    """What became of the version that was replaced."""

    version: int
    outcome: str


class JobView(msgspec.Struct):
    """A job as answered."""

    id: str
    trigger_time: int
    route: str
    meta: msgspec.Raw
    tags: tuple[str, ...]
    db: str
    collection: str
    uid: str
    state: str
    version: int
    vnode: int
    created_time: int
    updated_time: int
    attempts: int
    next_attempt_time: int | None
    last_error: str | None
    webhook_id: str
    reason: str | None
    ordering_key: None = None
    past_due: bool | msgspec.UnsetType = msgspec.UNSET
    previous: Previous | msgspec.UnsetType = msgspec.UNSET
    outcome: str | msgspec.UnsetType = msgspec.UNSET


_STATE_TEXT = tuple(state.text for state in JobState)


def job_view(
    collection: Collection, vnode: int, job_id: str, record: JobRecord, meta: bytes
) -> JobView:
    """A job as answered."""
    # By position: so many keywords cost more than encoding it all.
    return JobView(
        job_id,
        record.trigger_ms,
        record.route,
        msgspec.Raw(meta),
        record.tags,
        collection.db,
        collection.name,
        record.uid.hex(),
        _STATE_TEXT[record.state],
        record.version,
        vnode,
        record.created_ms,
        record.updated_ms,
        record.attempts,
        record.due_ms if record.queue and record.claim is None else None,
        record.last_error,
        webhook_id(record.uid, record.version, record.occurrence),
        record.reason,
    )


def attempt_view(record: AttemptRecord) -> dict[str, Any]:
    """An attempt as answered. A body that is not UTF-8 is given as base64."""
    try:
        body, encoding = record.response_body.decode(), "utf-8"
    except UnicodeDecodeError:
        body, encoding = b64encode(record.response_body).decode(), "base64"
    return {
        "attempt": record.attempt,
        "version": record.version,
        "status": record.status,
        "trigger": record.trigger,
        "url": record.url,
        "node": record.node,
        "term": record.term,
        "fence": record.fence,
        "claimed_time": record.claimed_ms,
        "started_time": record.started_ms,
        "ended_time": record.ended_ms,
        "duration_ms": round(record.total_ms, 3),
        "phases_ms": {
            "resolve": round(record.resolve_ms, 3),
            "connect": round(record.connect_ms, 3),
            "tls": round(record.tls_ms, 3),
            "first_byte": round(record.first_byte_ms, 3),
        },
        "remote_ip": record.remote_ip,
        "response_status": record.response_status,
        "response_headers": dict(record.response_headers),
        "response_body": body,
        "response_body_encoding": encoding,
        "response_truncated": record.response_truncated,
        "content_removed": record.content_removed,
        "error_code": record.error_code,
        "error_message": record.error_message,
        "error_phase": record.error_phase,
        "retry_after": record.retry_after,
        "next_attempt_time": record.next_attempt_ms,
    }


def collection_view(collection: Collection, nodes: int) -> dict[str, Any]:
    """A collection as answered, without counts."""
    return {
        "db": collection.db,
        "name": collection.name,
        "num_vnodes": collection.num_vnodes,
        "replicas": collection.replicas,
        "history_retention_ms": collection.history_retention_ms,
        "under_replicated": nodes < collection.replicas,
        "created_time": collection.created_ms,
        "version": collection.version,
    }


def route_view(route: Route) -> dict[str, Any]:
    """A route as answered: no secret, values of headers and keys masked."""
    url = route.webhook_url
    if route.basic_auth is not None:
        scheme, _, rest = url.partition("://")
        url = f"{scheme}://{MASK}@{rest}"
    return {
        "db": route.db,
        "name": route.name,
        "version": route.version,
        "type": "webhook",
        "webhook_url": url,
        "https_only": route.https_only,
        "headers": dict.fromkeys(route.headers, MASK),
        "body": route.body,
        "timeout_ms": route.timeout_ms,
        "delivery": route.delivery,
        "retry": msgspec.to_builtins(route.retry),
        "non_retryable_status": list(route.non_retryable_status),
        "smear_ms": 0,
        "max_in_flight": route.max_in_flight,
        "rate": msgspec.to_builtins(route.rate),
        "breaker": None,
        "disable_after_ms": 0,
        "batch": {"max_jobs": 1, "max_bytes": 262144, "max_wait_ms": 0},
        "ca_pem": route.ca_pem,
        "client_cert_pem": route.client_cert_pem,
        "client_key_pem": None if route.client_key_pem is None else MASK,
        "dangerous_skip_tls_verify": route.dangerous_skip_tls_verify,
        "enabled": route.enabled and route.disabled is None,
        "paused": route.paused,
        "disabled": route.disabled,
        "state": route_state(route),
        "created_time": route.created_ms,
        "updated_time": route.updated_ms,
    }


def route_state(route: Route) -> str:
    """Whether attempts may start, and if not, why."""
    if route.open:
        return "open"
    if route.paused:
        return "paused"
    return f"disabled: {route.disabled or 'enabled is false'}"
