"""How things look in JSON: the types that answers are made of, and that describe them.

Those of jobs and their attempts are in `job_views`, of routes in `route_views`, of the cluster in
`cluster_views`.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from node.api.job_views import JobView
from node.api.schemas import Time, Version, one_of
from timemachine import limits
from timemachine.model import Collection, TaskKind, TaskState
from timemachine.placement import no_fault_tolerance, present, under_replicated
from timemachine.replica.meta import MetaMachine


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
    content_retention_ms: int | None
    under_replicated: Annotated[
        bool,
        Meta(description="Whether some vnode has fewer replicas than `replicas` asks for."),
    ]
    no_fault_tolerance: Annotated[
        bool, Meta(description="Whether the loss of one node can stop a vnode: it has one or two.")
    ]
    created_time: Time
    version: Version
    counts: Annotated[
        dict[str, int] | msgspec.UnsetType, Meta(description="Jobs by state; only in GET of one.")
    ] = msgspec.UNSET


def collection_view(collection: Collection, meta: MetaMachine) -> CollectionView:
    """A collection as answered, without counts. One that is gone lacks nothing."""
    there = present(meta.nodes.values())
    kept = collection.uid in meta.collections_by_uid
    placements = meta.placements_of(collection) if kept else []
    return CollectionView(
        db=collection.db,
        name=collection.name,
        num_vnodes=collection.num_vnodes,
        replicas=collection.replicas,
        history_retention_ms=collection.history_retention_ms,
        content_retention_ms=collection.content_retention_ms,
        under_replicated=under_replicated(collection, placements, there) > 0,
        no_fault_tolerance=no_fault_tolerance(placements, there),
        created_time=collection.created_ms,
        version=collection.version,
    )
