"""What the nodes answer, as types.

Members that a newer node adds are ignored, members that an older one leaves out have defaults.
Times are integer milliseconds since the Unix epoch, UTC.
"""

from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One page of a list; `next_cursor` asks for the next one, None when there is none."""

    items: tuple[T, ...]
    next_cursor: str | None = None


class Database(msgspec.Struct, frozen=True, kw_only=True):
    """A namespace of collections and routes."""

    name: str
    created_time: int = 0


class Collection(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs that share vnodes, replicas and retention. `counts` are jobs by state."""

    name: str
    db: str = ""
    num_vnodes: int = 0
    replicas: int = 0
    history_retention_ms: int = 0
    version: int = 0
    created_time: int = 0
    counts: dict[str, int] = {}
    under_replicated: bool = False


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """When and how often a failed delivery is tried again."""

    schedule_ms: tuple[int, ...] = ()
    max_attempts: int = 0
    max_age_ms: int = 0
    jitter: float = 0.0


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """At most `count` attempts per `period_ms`; no limit when `count` is None."""

    count: int | None = None
    period_ms: int = 0


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Where jobs are sent. Header values and credentials are masked; the secret is elsewhere.

    `paused` is what an operator asked for, `disabled` the reason why the cluster stopped the route;
    `state` says whether attempts may start, and if not, why.
    `pending_vnodes`, after pausing, is what may still start a send.
    """

    name: str = ""
    db: str = ""
    version: int = 0
    type: str = "webhook"
    webhook_url: str = ""
    https_only: bool = False
    headers: dict[str, str] = {}
    body: str = "job"
    timeout_ms: int = 0
    delivery: str = "at_least_once"
    retry: Retry = Retry()
    non_retryable_status: tuple[int, ...] = ()
    smear_ms: int = 0
    max_in_flight: int = 0
    rate: Rate = Rate()
    breaker: dict[str, Any] | None = None
    disable_after_ms: int | None = None
    batch: dict[str, Any] | None = None
    ca_pem: str | None = None
    client_cert_pem: str | None = None
    client_key_pem: str | None = None
    dangerous_skip_tls_verify: bool = False
    enabled: bool = True
    paused: bool = False
    disabled: str | None = None
    state: str = ""
    created_time: int = 0
    updated_time: int = 0
    pending_vnodes: int | tuple[Any, ...] | None = None


class PreviousSecret(msgspec.Struct, frozen=True, kw_only=True):
    """A secret that webhooks are still signed with, until `expires_time`."""

    secret: str
    expires_time: int

    def __repr__(self) -> str:
        """Without the secret."""
        return f"PreviousSecret(expires_time={self.expires_time})"


class RouteSecret(msgspec.Struct, frozen=True, kw_only=True):
    """The signing secrets of a route."""

    secret: str
    previous: tuple[PreviousSecret, ...] = ()

    def __repr__(self) -> str:
        """Without the secrets."""
        return f"RouteSecret(<1 current, {len(self.previous)} previous>)"


class Previous(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the version that a PUT or PATCH replaced.

    `outcome`: `replaced`, or `in_flight` / `already_delivered` when it was already claimed.
    """

    version: int
    outcome: str


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job.

    `state` is one of scheduled, firing, retrying, held, delivered, dead (with `reason`) and
    cancelled. After a delete `outcome` says what became of it, after a change `previous` what
    became of the version before.
    """

    id: str
    db: str = ""
    collection: str = ""
    uid: str = ""
    state: str = ""
    version: int = 0
    vnode: int | None = None
    trigger_time: int = 0
    route: str = ""
    meta: Any = None
    tags: tuple[str, ...] = ()
    ordering_key: str | None = None
    created_time: int = 0
    updated_time: int = 0
    attempts: int = 0
    next_attempt_time: int | None = None
    last_error: str | None = None
    webhook_id: str | None = None
    reason: str | None = None
    past_due: bool = False
    outcome: str | None = None
    previous: Previous | None = None


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP request for a job. `status` is succeeded, failed or unknown.

    A response that is not UTF-8 is base64; `response_body_encoding` says which.
    """

    attempt: int = 0
    version: int = 0
    status: str = ""
    trigger: str = ""
    node: str = ""
    term: int = 0
    fence: int | str = 0
    url: str = ""
    claimed_time: int | None = None
    started_time: int | None = None
    ended_time: int | None = None
    duration_ms: float | None = None
    phases_ms: dict[str, float] = {}
    remote_ip: str | None = None
    response_status: int | None = None
    response_headers: dict[str, str] = {}
    response_body: str = ""
    response_body_encoding: str = "utf-8"
    response_truncated: bool = False
    error_code: str | None = None
    error_message: str | None = None
    error_phase: str | None = None
    retry_after: str | None = None
    next_attempt_time: int | None = None


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


class BatchItem(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one job of a batch: the job, or the error."""

    status: int
    job: Job | None = None
    error: Problem | None = None


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a batch, in the order of its jobs."""

    items: tuple[BatchItem, ...]
    created: int = 0
    failed: int = 0


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One process of the cluster."""

    id: str
    name: str = ""
    http: str = ""
    rpc: str = ""
    zone: str = ""
    state: str = ""
    version: str = ""
    vnodes: int = 0
    leaders: int = 0
    clock_offset_ms: float | None = None


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster, as the answering node (`node_id`) sees it."""

    cluster_id: str
    node_id: str
    node_leader: str | None = None
    nodes: tuple[Node, ...] = ()
