"""How plans look in JSON."""

from typing import Annotated

import msgspec
from msgspec import Meta

from node.api.schemas import Time, between, one_of
from timemachine import limits
from timemachine.model import PlanKind, PlanState
from timemachine.rebalancing import Standing


class PlanBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What POST /v1/cluster/plans takes."""

    kind: Annotated[str, one_of("What it changes.", *PlanKind)]
    nodes: Annotated[
        list[str],
        Meta(
            description="Ids or names of nodes. `drain`, `remove`: those to empty. `rebalance`:"
            " those that were drained and are to have replicas again.",
            extra_json_schema={"maxItems": limits.NODES_MAX},
        ),
    ] = []
    db: Annotated[str | None, Meta(description="`replicate`: the database.")] = None
    collection: Annotated[str | None, Meta(description="`replicate`: the collection.")] = None
    replicas: Annotated[
        Annotated[int, between(1, limits.REPLICAS_MAX)] | None,
        Meta(description="`replicate`: how many replicas each of its vnodes is to have."),
    ] = None
    transfers: Annotated[
        Annotated[int, between(1, limits.PLAN_TRANSFERS_MAX)],
        Meta(description="How many vnodes change at once."),
    ] = limits.PLAN_TRANSFERS_DEFAULT


class MoveView(msgspec.Struct, frozen=True, kw_only=True):
    """What changes about one vnode; nodes by their ids."""

    db: str
    collection: str
    index: int
    add: Annotated[list[str], Meta(description="Nodes that get a replica.")]
    remove: Annotated[list[str], Meta(description="Nodes that lose theirs.")]
    copied_bytes: int
    state: Annotated[
        str,
        one_of("How far it is. `void`: the vnode had changed meanwhile, or is gone.", *Standing),
    ]


class MovesView(msgspec.Struct, frozen=True, kw_only=True):
    """Moves in numbers."""

    total: int
    copies: Annotated[int, Meta(description="Replicas that are copied.")]
    waiting: int
    moving: int
    done: int
    void: int
    left: Annotated[
        int, Meta(description="Moves beyond those that one plan takes, for another plan.")
    ]


class TrafficView(msgspec.Struct, frozen=True, kw_only=True):
    """How busy the cluster was when a plan was made."""

    writes_per_s: float
    fires_per_s: float


class PlanView(msgspec.Struct, frozen=True, kw_only=True):
    """A plan. In lists `vnodes` is empty."""

    id: str
    kind: Annotated[str, one_of("What it changes.", *PlanKind)]
    state: Annotated[
        str,
        one_of("`proposed`: it does nothing until it is confirmed.", *PlanState),
    ]
    nodes: list[str]
    db: str | None
    collection: str | None
    replicas: int | None
    transfers: int
    moves: MovesView
    copied_bytes: int
    estimate_ms: Annotated[int, Meta(description="About how long it takes, all of it.")]
    traffic: TrafficView
    risks: Annotated[list[str], Meta(description="What to think of before confirming it.")]
    waits_for: Annotated[
        list[str],
        Meta(description="Nodes that do not answer, and that moves under way or the next go to."),
    ]
    error: str | None
    created_time: Time
    expires_time: Annotated[int, Meta(description="Until when it can be confirmed.")]
    confirmed_time: Time | None
    finished_time: Time | None
    vnodes: list[MoveView]
