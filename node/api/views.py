"""How things look in JSON: the types that answers are made of, and that describe them."""

from base64 import b64encode
from typing import Annotated

import msgspec
from msgspec import Meta

from node.api.schemas import one_of
from node.engine import Engine
from timemachine import limits
from timemachine.identifiers import webhook_id
from timemachine.model import (
    AttemptRecord,
    AttemptStatus,
    Collection,
    DeadReason,
    JobRecord,
    JobState,
    Rate,
    Retry,
    Route,
    TaskKind,
    TaskState,
)

MASK = "***"

Time = Annotated[int, Meta(description="Milliseconds since the Unix epoch, UTC.")]
Version = Annotated[int, Meta(description="1 at first, one more with each change.")]
_OUTCOMES = ("cancelled", "in_flight", "already_delivered", "already_dead")


class Previous(msgspec.Struct, frozen=True):
    """What became of the version that was replaced."""

    version: int
    outcome: Annotated[
        str,
        one_of(
            "`in_flight` or `already_delivered` when it was claimed before.",
            "replaced",
            "in_flight",
            "already_delivered",
        ),
    ]


class JobView(msgspec.Struct):
    """A job as answered."""

    id: str
    trigger_time: Time
    route: str
    meta: Annotated[msgspec.Raw, Meta(description="Any JSON, byte for byte as it came.")]
    tags: tuple[str, ...]
    db: str
    collection: str
    uid: Annotated[str, Meta(description="Another one in each life of the id.")]
    state: Annotated[str, one_of("Where the job stands.", *(state.text for state in JobState))]
    version: Version
    vnode: Annotated[int, Meta(description="Index of the vnode that keeps it.")]
    created_time: Time
    updated_time: Time
    attempts: Annotated[int, Meta(description="Attempts begun for this version.")]
    next_attempt_time: Time | None
    last_error: str | None
    webhook_id: Annotated[str, Meta(description="The header `webhook-id` of every attempt.")]
    reason: Annotated[str | None, one_of("Why it is dead.", *DeadReason, None)]
    ordering_key: None = None
    past_due: Annotated[
        bool | msgspec.UnsetType, Meta(description="The trigger time was in the past: it is due.")
    ] = msgspec.UNSET
    previous: Previous | msgspec.UnsetType = msgspec.UNSET
    outcome: Annotated[str | msgspec.UnsetType, one_of("What the deletion found.", *_OUTCOMES)] = (
        msgspec.UNSET
    )


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


def stored_job_view(
    engine: Engine, collection: Collection, job_id: str, record: JobRecord
) -> JobView:
    """A job as answered, whose record alone is at hand."""
    vnode = engine.vnode_of(collection, job_id)
    return job_view(collection, vnode, job_id, record, engine.read_meta(collection, job_id))


class PhasesView(msgspec.Struct, frozen=True):
    """How long the parts of an attempt took, in milliseconds."""

    resolve: float
    connect: float
    tls: float
    first_byte: float


class AttemptView(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt as answered: what was sent where, and what came back."""

    attempt: Annotated[int, Meta(description="1 for the first of a version.")]
    version: Version
    status: Annotated[str, one_of("How it ended.", *AttemptStatus)]
    trigger: Annotated[str, Meta(description="Why it was made.")]
    url: str
    node: str
    term: int
    fence: Annotated[int, Meta(description="Rises with every attempt of the vnode.")]
    claimed_time: Time
    started_time: Time
    ended_time: Time
    duration_ms: float
    phases_ms: PhasesView
    remote_ip: str | None
    response_status: int | None
    response_headers: dict[str, str]
    response_body: str
    response_body_encoding: Annotated[
        str, one_of("`base64` where the body is not UTF-8.", "utf-8", "base64")
    ]
    response_truncated: bool
    content_removed: Annotated[
        bool, Meta(description="The response was removed; see `remove_content`.")
    ]
    error_code: str | None
    error_message: str | None
    error_phase: str | None
    retry_after: Annotated[str | None, Meta(description="The header, as the recipient sent it.")]
    next_attempt_time: Time | None


def attempt_view(record: AttemptRecord) -> AttemptView:
    """An attempt as answered. A body that is not UTF-8 is given as base64."""
    try:
        body, encoding = record.response_body.decode(), "utf-8"
    except UnicodeDecodeError:
        body, encoding = b64encode(record.response_body).decode(), "base64"
    return AttemptView(
        attempt=record.attempt,
        version=record.version,
        status=record.status,
        trigger=record.trigger,
        url=record.url,
        node=record.node,
        term=record.term,
        fence=record.fence,
        claimed_time=record.claimed_ms,
        started_time=record.started_ms,
        ended_time=record.ended_ms,
        duration_ms=round(record.total_ms, 3),
        phases_ms=PhasesView(
            round(record.resolve_ms, 3),
            round(record.connect_ms, 3),
            round(record.tls_ms, 3),
            round(record.first_byte_ms, 3),
        ),
        remote_ip=record.remote_ip,
        response_status=record.response_status,
        response_headers=dict(record.response_headers),
        response_body=body,
        response_body_encoding=encoding,
        response_truncated=record.response_truncated,
        content_removed=record.content_removed,
        error_code=record.error_code,
        error_message=record.error_message,
        error_phase=record.error_phase,
        retry_after=record.retry_after,
        next_attempt_time=record.next_attempt_ms,
    )


class RouteAttemptView(AttemptView, frozen=True, kw_only=True):
    """An attempt of a route's job as answered."""

    job_id: str
    db: str
    collection: str
    webhook_id: Annotated[str | None, Meta(description="Null where a version of before was sent.")]


class RouteStatsView(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a route's jobs; counts of sends since the node began, at `since_time`."""

    state: Annotated[str, Meta(description="`open`, `paused`, or `disabled: ` and why.")]
    pending: Annotated[int, Meta(description="Jobs that are scheduled for it.")]
    waiting: Annotated[int, Meta(description="Those of them that are due, and wait for it.")]
    in_flight: int
    since_time: Time
    succeeded: int
    failed: int
    last_success_time: Time | None
    last_failure_time: Time | None
    last_failure: str | None


class BucketView(msgspec.Struct, frozen=True):
    """How many jobs are due from a time on and before another."""

    from_: Time = msgspec.field(name="from")
    to: Time
    count: int


class ForecastView(msgspec.Struct, frozen=True):
    """How many jobs will be due when."""

    items: list[BucketView]


class TaskBegun(msgspec.Struct, frozen=True):
    """A task that was begun."""

    task: Annotated[str, Meta(description="Its id, for `get_task`.")]


class DryRunView(msgspec.Struct, frozen=True):
    """What a task would do."""

    count: Annotated[int, Meta(description="How many jobs it would find now.")]
    sample: Annotated[
        list[JobView],
        Meta(description=f"{limits.TASK_SAMPLE_JOBS} of them at most."),
    ]


class TaskView(msgspec.Struct, frozen=True, kw_only=True):
    """A task as answered."""

    id: str
    kind: Annotated[str, one_of("What it does.", *TaskKind)]
    db: str
    state: Annotated[str, one_of("How far it is.", *TaskState)]
    progress: Annotated[
        dict[str, int], Meta(description="Jobs so far by what became of them; `done` is all.")
    ]
    result: Annotated[dict[str, int] | None, Meta(description="The counts at its end.")]
    error: str | None
    created_time: Time
    finished_time: Time | None


class DatabaseView(msgspec.Struct, frozen=True):
    """A database as answered."""

    name: str
    created_time: Time


class CollectionView(msgspec.Struct, kw_only=True):
    """A collection as answered."""

    db: str
    name: str
    num_vnodes: int
    replicas: int
    history_retention_ms: int
    under_replicated: Annotated[
        bool, Meta(description="Whether the cluster has fewer nodes than it asks for.")
    ]
    created_time: Time
    version: Version
    counts: Annotated[
        dict[str, int] | msgspec.UnsetType, Meta(description="Jobs by state; only in GET of one.")
    ] = msgspec.UNSET


def collection_view(collection: Collection, nodes: int) -> CollectionView:
    """A collection as answered, without counts."""
    return CollectionView(
        db=collection.db,
        name=collection.name,
        num_vnodes=collection.num_vnodes,
        replicas=collection.replicas,
        history_retention_ms=collection.history_retention_ms,
        under_replicated=nodes < collection.replicas,
        created_time=collection.created_ms,
        version=collection.version,
    )


class RouteBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`batch` of a route: only its default has a meaning yet."""

    max_jobs: Annotated[int, Meta(extra_json_schema={"enum": [1]})] = 1
    max_bytes: Annotated[int, Meta(extra_json_schema={"enum": [262_144]})] = 262_144
    max_wait_ms: Annotated[int, Meta(extra_json_schema={"enum": [0]})] = 0


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
    breaker: None
    disable_after_ms: int
    batch: RouteBatch
    ca_pem: str | None
    client_cert_pem: str | None
    client_key_pem: Annotated[str | None, one_of("Whether there is one.", MASK, None)]
    dangerous_skip_tls_verify: bool
    enabled: Annotated[bool, Meta(description="False also where the system disabled the route.")]
    paused: bool
    disabled: Annotated[str | None, Meta(description="Why the system disabled it, if it did.")]
    state: Annotated[str, Meta(description="`open`, `paused`, or `disabled: ` and why.")]
    created_time: Time
    updated_time: Time


def route_view(route: Route) -> RouteView:
    """A route as answered: no secret, values of headers and keys masked."""
    url = route.webhook_url
    if route.basic_auth is not None:
        scheme, _, rest = url.partition("://")
        url = f"{scheme}://{MASK}@{rest}"
    return RouteView(
        db=route.db,
        name=route.name,
        version=route.version,
        type="webhook",
        webhook_url=url,
        https_only=route.https_only,
        headers=dict.fromkeys(route.headers, MASK),
        body=route.body,
        timeout_ms=route.timeout_ms,
        delivery=route.delivery,
        retry=route.retry,
        non_retryable_status=route.non_retryable_status,
        smear_ms=0,
        max_in_flight=route.max_in_flight,
        rate=route.rate,
        breaker=None,
        disable_after_ms=0,
        batch=RouteBatch(),
        ca_pem=route.ca_pem,
        client_cert_pem=route.client_cert_pem,
        client_key_pem=None if route.client_key_pem is None else MASK,
        dangerous_skip_tls_verify=route.dangerous_skip_tls_verify,
        enabled=route.enabled and route.disabled is None,
        paused=route.paused,
        disabled=route.disabled,
        state=route_state(route),
        created_time=route.created_ms,
        updated_time=route.updated_ms,
    )


class PreviousSecret(msgspec.Struct, frozen=True):
    """A secret that still signs beside the current one."""

    secret: str
    expires_time: Time | None


class SecretView(msgspec.Struct, frozen=True):
    """The secrets of a route."""

    secret: str
    previous: list[PreviousSecret]


class ExampleView(msgspec.Struct, frozen=True, kw_only=True):
    """How the sending of an example went."""

    status: Annotated[str, one_of("Whether it was answered with 2xx.", "succeeded", "failed")]
    response_status: int | None
    error_code: str | None
    error_message: str | None
    webhook_id: str
    duration_ms: float


class NodeView(msgspec.Struct, frozen=True, kw_only=True):
    """A node of the cluster."""

    id: str
    name: str
    http: str
    https: Annotated[bool, Meta(description="Whether it speaks HTTPS at `http`.")]
    rpc: str
    zone: str
    state: str
    version: str
    vnodes: int
    leaders: int
    clock_offset_ms: int


class ClusterView(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster; `node_id` is the answering node."""

    cluster_id: str
    node_id: str
    node_leader: str
    nodes: list[NodeView]


class ReplicaView(msgspec.Struct, frozen=True, kw_only=True):
    """One copy of a vnode; `lag` in log entries."""

    node: str
    role: str
    lag: int


class OffsetView(msgspec.Struct, frozen=True, kw_only=True):
    """How far a vnode has fired."""

    time: int
    job_id: str


class VnodeView(msgspec.Struct, frozen=True, kw_only=True):
    """A vnode; `leader` is a node's id."""

    db: str
    collection: str
    index: int
    leader: str | None
    term: int
    replicas: list[ReplicaView]
    offset: OffsetView
    due_backlog: int


class VnodesView(msgspec.Struct, frozen=True):
    """All vnodes."""

    items: list[VnodeView]


class StatusView(msgspec.Struct, frozen=True):
    """One word."""

    status: str


class VersionView(msgspec.Struct, frozen=True):
    """The version of the node's program."""

    version: str


def route_state(route: Route) -> str:
    """Whether attempts may start, and if not, why."""
    if route.open:
        return "open"
    if route.paused:
        return "paused"
    return f"disabled: {route.disabled or 'enabled is false'}"
