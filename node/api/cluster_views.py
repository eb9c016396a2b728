"""How the cluster and its health look in JSON."""

from typing import Annotated

import msgspec
from msgspec import Meta

from node.api.schemas import Time, between, one_of
from timemachine import limits


class NodeView(msgspec.Struct, frozen=True, kw_only=True):
    """A node of the cluster; `vnodes` are those that it is to have a replica of."""

    id: str
    number: Annotated[int, Meta(description="Given when it joined, and never again.")]
    name: str
    http: str
    https: Annotated[bool, Meta(description="Whether it speaks HTTPS at `http`.")]
    rpc: str
    zone: str
    weight: Annotated[int, Meta(description="Its share beside the other nodes'.")]
    state: Annotated[
        str,
        one_of("`down`: the answering node does not hear it.", "up", "down", "leaving", "removed"),
    ]
    version: str
    formats: Annotated[
        tuple[int, ...], Meta(description="Those that its program knows, see `cluster_version`.")
    ]
    keys: Annotated[
        tuple[str, ...],
        Meta(description="Ids of its master keys, in the order of its key file."),
    ]
    vnodes: int
    leaders: int
    clock_offset_ms: int


class ClusterView(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster; `node_id` is the answering node."""

    cluster_id: str
    cluster_version: Annotated[
        int, Meta(description="The format that is finalised: every node must know it.")
    ]
    known_version: Annotated[
        int,
        Meta(
            description="The newest format that every node knows. Above `cluster_version` it may"
            " be finalised."
        ),
    ]
    node_id: str
    node_leader: Annotated[str | None, Meta(description="Null while there is none.")]
    under_replicated: Annotated[
        int, Meta(description="Vnodes with fewer replicas than their collections ask for.")
    ]
    no_fault_tolerance: Annotated[
        bool, Meta(description="Whether the loss of one node can stop a vnode, or all changes.")
    ]
    nodes: list[NodeView]


class ReplicaView(msgspec.Struct, frozen=True, kw_only=True):
    """One copy of a vnode; `lag` in log entries, null where nobody tells."""

    node: str
    role: Annotated[
        str,
        one_of(
            "`waiting`: its group has not taken it in yet. `unknown`: no leader tells.",
            "voter",
            "learner",
            "leaving",
            "waiting",
            "unknown",
        ),
    ]
    lag: int | None


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


class FinaliseBody(msgspec.Struct, forbid_unknown_fields=True):
    """What POST /v1/cluster/finalise takes."""

    cluster_version: Annotated[int, Meta(ge=1, le=limits.FORMAT_MAX)]


class FinalisedView(msgspec.Struct, frozen=True):
    """The format that is finalised."""

    cluster_version: int


class JoinTokenBody(msgspec.Struct, forbid_unknown_fields=True):
    """What POST /v1/cluster/join-tokens takes."""

    ttl_ms: Annotated[
        Annotated[int, between(limits.JOIN_TOKEN_TTL_MS_MIN, limits.JOIN_TOKEN_TTL_MS_MAX)] | None,
        Meta(
            description="How long a node may join with it;"
            f" {limits.JOIN_TOKEN_TTL_MS_DEFAULT} when absent."
        ),
    ] = None


class JoinTokenView(msgspec.Struct, frozen=True):
    """A token with which one node may join. It is shown here and nowhere else."""

    token: str
    expires_time: Time


class VnodesView(msgspec.Struct, frozen=True):
    """All vnodes."""

    items: list[VnodeView]


class StatusView(msgspec.Struct, frozen=True):
    """One word."""

    status: str


class VersionView(msgspec.Struct, frozen=True):
    """The version of the node's program."""

    version: str
