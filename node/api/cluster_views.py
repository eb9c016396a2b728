"""How the cluster and its health look in JSON."""

from typing import Annotated

import msgspec
from msgspec import Meta


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
