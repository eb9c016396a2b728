"""How plans look in JSON."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Final

import msgspec
from msgspec import Meta

from node.api.schemas import Time, between, one_of
from node.compacting.standing import CompactionStanding
from timemachine import limits
from timemachine.model import PlanKind, PlanState
from timemachine.rebalancing import Standing

_NULL: Final[dict[str, Any]] = {"type": "null"}
_TEXT: Final[dict[str, Any]] = {"type": "string"}
_EMPTY: Final[dict[str, Any]] = {"maxItems": 0}
_NO_COMPACTION: Final[dict[str, Any]] = {"vnodes": _EMPTY, "bytes_per_s": _NULL}
_NO_COLLECTION: Final[dict[str, Any]] = {"db": _NULL, "collection": _NULL, "replicas": _NULL}


def _takes(*kinds: PlanKind, required: Sequence[str] = (), **members: Any) -> dict[str, Any]:
    """What plans of these kinds take."""
    properties = {"kind": {"enum": list(kinds)}, **members}
    return {"required": ["kind", *required], "properties": properties}


class PlanBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What POST /v1/cluster/plans takes."""

    kind: Annotated[str, one_of("What it changes.", *PlanKind)]
    nodes: Annotated[
        list[str],
        Meta(
            description="Ids or names of nodes. `drain`, `remove`: those to empty. `rebalance`:"
            " those that were drained and are to have replicas again. `compact`: those that are to"
            " compact; none given are all.",
            extra_json_schema={"maxItems": limits.NODES_MAX},
        ),
    ] = []
    db: Annotated[str | None, Meta(description="`replicate`, `compact`: the database.")] = None
    collection: Annotated[
        str | None,
        Meta(description="`replicate`, `compact`: the collection. `compact` without one: all."),
    ] = None
    replicas: Annotated[
        Annotated[int, between(1, limits.REPLICAS_MAX)] | None,
        Meta(description="`replicate`: how many replicas each of its vnodes is to have."),
    ] = None
    transfers: Annotated[
        Annotated[int, between(1, limits.PLAN_TRANSFERS_MAX)] | None,
        Meta(
            description="How many vnodes change at once"
            f" ({limits.PLAN_TRANSFERS_DEFAULT}). `compact`: how many nodes do (1)."
        ),
    ] = None
    vnodes: Annotated[
        list[Annotated[int, between(0, limits.VNODES_PER_COLLECTION_MAX - 1)]],
        Meta(
            description="`compact`: vnodes of the collection; none given are all.",
            extra_json_schema={"maxItems": limits.VNODES_PER_COLLECTION_MAX},
        ),
    ] = []
    bytes_per_s: Annotated[
        Annotated[int, between(limits.COMPACT_RATE_BYTES_MIN, limits.COMPACT_RATE_BYTES_MAX)]
        | None,
        Meta(
            description="`compact`: how many bytes a second a node reads and writes for it at most,"
            f" on average ({limits.COMPACT_RATE_BYTES_DEFAULT})."
        ),
    ] = None

    SCHEMA: ClassVar[dict[str, Any]] = {
        "oneOf": [
            _takes(PlanKind.REBALANCE, **_NO_COLLECTION, **_NO_COMPACTION),
            _takes(
                PlanKind.DRAIN,
                PlanKind.REMOVE,
                required=["nodes"],
                nodes={"minItems": 1},
                **_NO_COLLECTION,
                **_NO_COMPACTION,
            ),
            _takes(
                PlanKind.REPLICATE,
                required=["db", "collection", "replicas"],
                db=_TEXT,
                collection=_TEXT,
                replicas={"type": "integer"},
                nodes=_EMPTY,
                **_NO_COMPACTION,
            ),
            _takes(PlanKind.COMPACT, **_NO_COLLECTION, vnodes=_EMPTY),
            _takes(
                PlanKind.COMPACT,
                required=["db", "collection"],
                db=_TEXT,
                collection=_TEXT,
                replicas=_NULL,
            ),
        ]
    }


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


class CompactionNodeView(msgspec.Struct, frozen=True, kw_only=True):
    """What one node does for a plan that compacts."""

    node: str
    state: Annotated[
        str,
        one_of(
            "How far it is. `silent`: it has begun, and does not answer. `low_space`: its disk is"
            " nearly full, and it waits for room.",
            *CompactionStanding,
        ),
    ]
    range_bytes: Annotated[int, Meta(description="About what there was to compact before.")]
    before_bytes: Annotated[
        int | None, Meta(description="What its whole store took on its disk before.")
    ]
    disk_bytes: Annotated[
        int | None,
        Meta(description="What it takes now, or took when the node was done; null if unknown."),
    ]
    steps: Annotated[int, Meta(description="0 while that is not known.")]
    steps_done: int
    compacted_bytes: Annotated[int, Meta(description="Read and written for it so far.")]
    error: Annotated[str | None, Meta(description="Why it came to nothing.")]


class CompactionView(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan compacts, and how far it is."""

    vnodes: Annotated[list[int], Meta(description="Empty: all.")]
    bytes_per_s: int
    nodes: list[CompactionNodeView]


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
        Meta(
            description="Nodes that do not answer, and that moves under way or the next go to, or"
            " that are to compact."
        ),
    ]
    error: str | None
    created_time: Time
    expires_time: Annotated[int, Meta(description="Until when it can be confirmed.")]
    confirmed_time: Time | None
    finished_time: Time | None
    vnodes: list[MoveView]
    compaction: Annotated[CompactionView | None, Meta(description="Of a plan that compacts.")]
