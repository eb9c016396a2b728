"""How jobs and their attempts look in JSON."""

from base64 import b64encode
from typing import Annotated

import msgspec
from msgspec import Meta

from node.api.schemas import Time, Version, one_of
from node.engine import Engine
from node.listing import FoundJob
from timemachine.identifiers import webhook_id
from timemachine.model import (
    AttemptRecord,
    AttemptStatus,
    Collection,
    DeadReason,
    JobRecord,
    JobState,
)

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
        bool | msgspec.UnsetType, Meta(description="It was due when it was accepted.")
    ] = msgspec.UNSET
    smear_ms: Annotated[
        int | msgspec.UnsetType,
        Meta(description="It is due so long after its trigger time: by its route's `smear_ms`."),
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
    view = JobView(
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
    if record.smear_ms:
        view.smear_ms = record.smear_ms
    return view


def found_job_view(engine: Engine, collection: Collection, job: FoundJob) -> JobView:
    """A job as answered that stands in a list."""
    job_id, record, meta = job
    return job_view(collection, engine.vnode_of(collection, job_id), job_id, record, meta)


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
