"""Why a job was late, as answered."""

from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import Meta

from node.api.schemas import Time, one_of
from node.engine import Engine
from timemachine import explaining, limits
from timemachine.model import AttemptRecord, Collection, JobRecord, Node

_STEPS = "accepted due claimed sent answered failed settled cancelled dead".split()


class StepView(msgspec.Struct, frozen=True):
    """Something that happened to the job, or is to happen."""

    step: Annotated[str, one_of("What happened.", *_STEPS, "given up", "behind")]
    time: Time
    attempt: int | None
    node: Annotated[str | None, Meta(description="The node that did it, as far as is known.")]
    term: int | None
    detail: str | None


class PhaseView(msgspec.Struct, frozen=True):
    """Where some of the time since the trigger time went."""

    phase: Annotated[str, one_of("What passed.", *explaining.PHASES)]
    attempt: Annotated[int | None, Meta(description="Of or before which attempt.")]
    from_time: Time
    duration_ms: float
    reason: Annotated[
        str | None,
        Meta(
            description="Of `wait`: "
            + ", ".join(f"`{each}`" for each in explaining.HELD_UP_BY)
            + "; of `retry`: how the attempt before failed; `open` of a send that goes on."
        ),
    ]


class ExplanationView(msgspec.Struct, frozen=True):
    """Why a job was late, of the version that it has."""

    sentence: Annotated[str, Meta(description="Where most of the time went.")]
    late_ms: Annotated[
        int | None,
        Meta(description="How late its first attempt began, or is; null where it is not due."),
    ]
    steps: list[StepView]
    phases: list[PhaseView]


def explanation_view(
    engine: Engine, collection: Collection, job_id: str, record: JobRecord
) -> ExplanationView:
    """Why this job was late, from what this node has of it."""
    attempts = [
        each
        for each in engine.read_attempts(collection, job_id, record)
        if (each.uid, each.version) == (record.uid, record.version)
    ]
    facts = explaining.Facts(
        record,
        _shortened(attempts),
        engine.read_leaders(collection, job_id),
        _closed(engine, collection, record),
        engine.now_ms(),
        engine.ahead_of(collection, job_id, record),
    )
    told = explaining.explain(facts)
    return ExplanationView(
        told.sentence,
        told.late_ms,
        [_step(each, engine.meta.nodes.values()) for each in told.steps],
        [
            PhaseView(each.phase, each.attempt, each.from_ms, each.duration_ms, each.reason)
            for each in told.phases
        ],
    )


def _shortened(attempts: list[AttemptRecord]) -> list[AttemptRecord]:
    """The first and the last ones."""
    most = limits.EXPLAINED_ATTEMPTS_MAX
    return attempts if len(attempts) <= most else attempts[:1] + attempts[1 - most :]


def _closed(engine: Engine, collection: Collection, record: JobRecord) -> str | None:
    routes = engine.meta.routes_by_uid
    route = routes.get(record.route_uid) or engine.meta.routes.get((collection.db, record.route))
    if route is None:
        return "missing"
    if route.open:
        return None
    return "paused" if route.paused else "disabled"


def _step(step: explaining.Step, nodes: Iterable[Node]) -> StepView:
    by = step.node
    if isinstance(by, int):
        by = next((node.id for node in nodes if node.number == by), None)
    return StepView(step.step, step.time_ms, step.attempt, by, step.term, step.detail)
