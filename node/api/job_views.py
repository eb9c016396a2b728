"""How jobs and their attempts look in JSON."""

from base64 import b64encode
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from node.api.explanation_views import ExplanationView
from node.api.schemas import Time, Version, one_of
from node.engine import Engine
from node.listing import FoundJob
from timemachine.identifiers import batch_id, webhook_id
from timemachine.model import (
    AttemptRecord,
    AttemptStatus,
    Collection,
    DeadReason,
    HeldUp,
    JobRecord,
    JobState,
)
from timemachine.replica.records import without_content
from timemachine.signing import key_id_text

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
    webhook_id: Annotated[
        str, Meta(description="The header `webhook-id` of every attempt; in a batch, of its item.")
    ]
    reason: Annotated[str | None, one_of("Why it is dead.", *DeadReason, None)]
    ordering_key: str | None = None
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
    explanation: ExplanationView | msgspec.UnsetType = msgspec.UNSET


_STATE_TEXT = tuple(state.text for state in JobState)


def job_view(
    collection: Collection, vnode: int, job_id: str, record: JobRecord, meta: bytes
) -> JobView:
    """A job as answered."""
    # By position: so many keywords cost more than encoding it all.
    view = JobView(
        str(job_id),
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
    if record.order is not None:
        view.ordering_key = record.order.key
    return view


def found_job_view(engine: Engine, collection: Collection, job: FoundJob) -> JobView:
    """A job as answered that stands in a list."""
    job_id, record, meta = job
    vnode = engine.vnode_of(collection, record.home(job_id))
    return job_view(collection, vnode, job_id, record, meta)


class PhasesView(msgspec.Struct, frozen=True):
    """How long the parts of an attempt took, in milliseconds."""

    queue: Annotated[float, Meta(description="Waiting for a connection; not in `duration_ms`.")]
    resolve: float
    connect: float
    tls: float
    first_byte: Annotated[float, Meta(description="From sending to the first byte of the answer.")]


_WHY_MADE: Final = {
    "scheduled": "scheduled",
    "manual": "manual",
    "redrive": "redrive",
    "unknown": "orphan",
}
"""`trigger` by why the attempt was made; all else are reasons of a failure before."""


class AttemptBatch(msgspec.Struct, frozen=True):
    """The request of several jobs that an attempt was."""

    webhook_id: Annotated[str, Meta(description="Names the batch; each item has its own.")]
    size: Annotated[int, Meta(description="How many jobs it had; 0 where that is not known.")]
    answer_in: Annotated[
        str | None, Meta(description="The job whose attempt has the response; null: this one.")
    ]


class AttemptView(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt as answered: what was sent where, and what came back."""

    id: Annotated[str, Meta(description="`webhook_id`, a hyphen and `attempt`.")]
    webhook_id: Annotated[
        str, Meta(description="The header `webhook-id` that was sent; in a batch, of its item.")
    ]
    job_id: str
    db: str
    collection: str
    route: Annotated[
        str | None, Meta(description="Null where a version was replaced while it was sent.")
    ]
    attempt: Annotated[int, Meta(description="1 for the first of a version.")]
    version: Version
    status: Annotated[str, one_of("How it ended.", *AttemptStatus)]
    trigger: Annotated[
        str,
        one_of(
            "Why it was made: its time had come, one before had failed, one before was of unknown"
            " outcome, or somebody asked for it.",
            *("scheduled", "retry", "orphan", "manual", "redrive"),
        ),
    ]
    retry_reason: Annotated[
        str | None, Meta(description="How the one before failed, where it is a retry.")
    ]
    url: Annotated[str, Meta(description="Without user and password.")]
    key_ids: Annotated[
        list[str], Meta(description="Which keys signed it; see the secrets of the route.")
    ]
    node: Annotated[str, Meta(description="Who claimed it; empty where that is not known.")]
    term: int
    fence: Annotated[int, Meta(description="Rises with every attempt of the vnode.")]
    trigger_time: Annotated[Time | None, Meta(description="Of the version; null as `route`.")]
    due_time: Annotated[Time | None, Meta(description="When it was due; null as `route`.")]
    held_up: Annotated[
        str | None,
        one_of(
            "What it waited for when it was due, as its leader saw it: `in_flight`, `rate` and"
            " `node` are limits, `recipient` is its 429, `route` a route that was paused, disabled"
            " or far behind, `batch` others that its request took along.",
            *(each.text for each in HeldUp),
        ),
    ]
    claimed_time: Time
    started_time: Time
    ended_time: Time
    settled_time: Annotated[
        Time | None, Meta(description="When its outcome was given to the log to be committed.")
    ]
    settled_term: Annotated[
        int | None, Meta(description="Another one than `term` where another leader did that.")
    ]
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
    batch: AttemptBatch | None


def attempt_view(
    record: AttemptRecord, job_id: str, collection: Collection, now_ms: int
) -> AttemptView:
    """An attempt of a job as answered. A body that is not UTF-8 is given as base64.

    What the recipient answered is not shown when its time is over, whether it is forgotten yet or
    not.
    """
    kept_ms = collection.content_retention_ms
    if kept_ms is not None and (record.settled_ms or record.ended_ms) < now_ms - kept_ms:
        record = without_content(record)
    try:
        body, encoding = record.response_body.decode(), "utf-8"
    except UnicodeDecodeError:
        body, encoding = b64encode(record.response_body).decode(), "base64"
    sent_as = webhook_id(record.uid, record.version, 0)
    trigger = _WHY_MADE.get(record.trigger, "retry")
    return AttemptView(
        id=f"{sent_as}-{record.attempt}",
        webhook_id=sent_as,
        job_id=str(job_id),
        db=collection.db,
        collection=collection.name,
        route=record.route or None,
        attempt=record.attempt,
        version=record.version,
        status=record.status,
        trigger=trigger,
        retry_reason=record.trigger if trigger == "retry" else None,
        url=record.url,
        key_ids=[key_id_text(each) for each in record.key_ids],
        node=record.node,
        term=record.term,
        fence=record.fence,
        trigger_time=record.trigger_ms,
        due_time=record.due_ms or record.trigger_ms,
        held_up=HeldUp(record.held_up).text,
        claimed_time=record.claimed_ms,
        started_time=record.started_ms,
        ended_time=record.ended_ms,
        settled_time=record.settled_ms or None,
        settled_term=record.settled_term or None,
        duration_ms=round(record.total_ms, 3),
        phases_ms=PhasesView(
            round(record.queue_ms, 3),
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
        batch=(
            AttemptBatch(batch_id(record.batch), record.batch_size, record.answer_in)
            if record.batch
            else None
        ),
    )
