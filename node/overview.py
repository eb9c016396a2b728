"""The cluster as a whole: what meta says of nodes and vnodes, beside what their leaders report.

Meta knows who has which replicas and says nothing of how they are. That the leader of a vnode
tells: a report. Where there is none, the vnode is shown with what meta knows, and without a leader.
"""

from collections import Counter
from collections.abc import Collection as Sized
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from node.replicas import job_machine
from timemachine.group import node_of
from timemachine.model import Collection, Node, NodeState, Placement
from timemachine.placement import no_fault_tolerance, present, tolerant, under_replicated
from timemachine.replica.meta import MetaMachine
from timemachine.vnode import Vnode

Group = tuple[int, int]

_STEP: Final = 200
"""Vnodes that are looked at before others have their turn."""


class ReplicaReport(msgspec.Struct, frozen=True, array_like=True):
    """A member of a group as its leader sees it; `lag` in log entries."""

    replica: int
    voter: bool
    lag: int


class VnodeReport(msgspec.Struct, frozen=True, array_like=True):
    """What the leader of a vnode tells of it. `leader` is the number of its node."""

    uid: int
    index: int
    leader: int
    term: int
    replicas: tuple[ReplicaReport, ...]
    offset_due_ms: int
    offset_job_id: str
    due_backlog: int

    @property
    def group(self) -> Group:
        """The vnode."""
        return self.uid, self.index


def report(vnode: Vnode, due_backlog: int) -> VnodeReport:
    """What this node tells of a vnode that it leads."""
    status = vnode.core.status()
    state = job_machine(vnode).state
    voters = {*status.conf_state.voters, *status.conf_state.voters_outgoing}
    return VnodeReport(
        *vnode.group,
        leader=node_of(status.id),
        term=status.term,
        replicas=tuple(
            ReplicaReport(replica, replica in voters, max(0, status.last_index - progress.match))
            for replica, progress in status.progress.items()
        ),
        offset_due_ms=state.offset_due_ms,
        offset_job_id=state.offset_job_id,
        due_backlog=due_backlog,
    )


class Overview(msgspec.Struct, frozen=True):
    """What the cluster has, in numbers.

    vnodes, leaders     replicas that each node is to have, and vnodes that it leads, by its number
    under_replicated    vnodes with fewer replicas than their collections want
    no_fault_tolerance  whether the loss of one node can stop a vnode, or the meta group
    """

    vnodes: Mapping[int, int]
    leaders: Mapping[int, int]
    under_replicated: int
    no_fault_tolerance: bool


def overview(
    meta: MetaMachine, reports: Mapping[Group, VnodeReport], meta_voters: int
) -> Iterator[Overview | None]:
    """What the cluster has; None now and then, so that others have their turn.

    `meta_voters` is how many nodes vote in the meta group: who has just come does not yet.
    """
    there = present(meta.nodes.values())
    vnodes: Counter[int] = Counter()
    missing, seen = 0, 0
    fragile = not tolerant(meta_voters) or any(map(_fragile, reports.values()))
    for collection in list(meta.collections_by_uid.values()):
        placements = meta.placements_of(collection)
        missing += under_replicated(collection, placements, there)
        fragile = fragile or no_fault_tolerance(placements, there)
        vnodes.update(node_of(each) for one in placements for each in one.replicas)
        seen += len(placements)
        if seen >= _STEP:
            seen = 0
            yield None
    leaders = Counter(each.leader for each in reports.values())
    yield Overview(vnodes, leaders, missing, fragile)


def _fragile(told: VnodeReport) -> bool:
    """Whether the loss of one node can stop a vnode, whatever meta has placed."""
    return not tolerant(sum(each.voter for each in told.replicas))


def node_state(node: Node, answering: Sized[int]) -> str:
    """How a node is: removed, down, leaving or up. `answering` are the numbers that are heard."""
    if not node.present:
        return "removed"
    if node.number not in answering:
        return "down"
    return "leaving" if node.state is NodeState.LEAVING else "up"


def node_ids(meta: MetaMachine) -> dict[int, str]:
    """The ids of the nodes by their numbers."""
    return {node.number: node.id for node in meta.nodes.values()}


def vnode_rows(
    meta: MetaMachine, reports: Mapping[Group, VnodeReport]
) -> Iterator[list[dict[str, Any]] | None]:
    """The rows of /v1/cluster/vnodes; None now and then, so that others have their turn."""
    ids = node_ids(meta)
    rows: list[dict[str, Any]] = []
    for _, collection in sorted(meta.collections_by_uid.items()):
        for placement in meta.placements_of(collection):
            told = reports.get((placement.uid, placement.index))
            rows.append(_row(collection, placement, told, ids))
            if not len(rows) % _STEP:
                yield None
    yield rows


def _row(
    collection: Collection, placement: Placement, told: VnodeReport | None, ids: dict[int, str]
) -> dict[str, Any]:
    known = {} if told is None else {each.replica: each for each in told.replicas}
    return {
        "db": collection.db,
        "collection": collection.name,
        "index": placement.index,
        "leader": None if told is None else named(ids, told.leader),
        "term": 0 if told is None else told.term,
        "replicas": [
            {
                "node": named(ids, node_of(each)),
                "role": _role(placement, each, known),
                "lag": None if each not in known else known[each].lag,
            }
            for each in placement.replicas + placement.removing
        ],
        "offset": {
            "time": 0 if told is None else told.offset_due_ms,
            "job_id": "" if told is None else told.offset_job_id,
        },
        "due_backlog": 0 if told is None else told.due_backlog,
    }


def named(ids: Mapping[int, str], number: int) -> str:
    """The id of a node; one that was forgotten is named by its number."""
    return ids.get(number) or str(number)


def _role(placement: Placement, replica: int, known: Mapping[int, ReplicaReport]) -> str:
    """What a replica is now, by what its leader tells: `known`, which is empty where none does."""
    if replica in placement.removing:
        return "leaving"
    if not known:
        return "unknown"
    if replica not in known:
        return "waiting"
    return "voter" if known[replica].voter else "learner"
