"""The cluster as a whole: what meta says, beside what leaders report."""

from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from node.overview import (
    ReplicaReport,
    VnodeReport,
    node_state,
    overview,
    vnode_rows,
)
from tests.unit.replica.meta.driven import DrivenMeta, node
from timemachine.model import NodeState, Placement
from timemachine.replica.meta import MetaMachine, PutCollection


def _meta(nodes: int, vnodes: int = 2, replicas: int = 3) -> tuple[MetaMachine, int]:
    meta = DrivenMeta(nodes)
    result = meta.apply(
        PutCollection(now_ms=2, db="default", name="c", num_vnodes=vnodes, replicas=replicas)
    )
    assert result.collection is not None
    return meta.machine, result.collection.uid


def _report(uid: int, index: int, leader: int, *replicas: ReplicaReport) -> VnodeReport:
    return VnodeReport(uid, index, leader, 5, replicas, 77, "a", 3)


def _last(steps: Iterator[Any]) -> Any:
    *pauses, found = steps
    assert set(pauses) <= {None}
    return found


def test_a_vnode_is_shown_with_what_its_leader_tells() -> None:
    """Who votes and who copies, the leader knows; who is to leave, meta does."""
    meta, uid = _meta(4)
    meta.keep(Placement(uid, 0, (1, 2, 3), (1, 2, 1 << 16 | 4), (3,)))
    told = _report(
        uid,
        0,
        2,
        ReplicaReport(1, True, 4),
        ReplicaReport(2, True, 0),
        ReplicaReport(3, True, 9),
        ReplicaReport(1 << 16 | 4, False, 80),
    )
    rows = _last(vnode_rows(meta, {told.group: told}))
    assert rows[0] == {
        "db": "default",
        "collection": "c",
        "index": 0,
        "leader": "n2",
        "term": 5,
        "replicas": [
            {"node": "n1", "role": "voter", "lag": 4},
            {"node": "n2", "role": "voter", "lag": 0},
            {"node": "n4", "role": "learner", "lag": 80},
            {"node": "n3", "role": "leaving", "lag": 9},
        ],
        "offset": {"time": 77, "job_id": "a"},
        "due_backlog": 3,
    }
    # Nobody tells of the other one.
    assert (None, 0) == (rows[1]["leader"], rows[1]["term"])
    assert {("unknown", None)} == {(each["role"], each["lag"]) for each in rows[1]["replicas"]}


def test_a_replica_that_its_group_has_not_taken_in_waits() -> None:
    """It is wanted, and its leader does not know of it yet."""
    meta, uid = _meta(3)
    told = _report(uid, 0, 1, ReplicaReport(1, True, 0))
    rows = _last(vnode_rows(meta, {told.group: told}))
    roles = {each["node"]: each["role"] for each in rows[0]["replicas"]}
    assert {"n1": "voter", "n2": "waiting", "n3": "waiting"} == roles


def test_a_node_that_was_forgotten_is_named_by_its_number() -> None:
    """The vnode is where it was all the same."""
    meta, uid = _meta(1)
    meta.keep(Placement(uid, 0, (9,), (9,)))
    told = _report(uid, 0, 9)
    row = _last(vnode_rows(meta, {told.group: told}))[0]
    assert ("9", "9") == (row["leader"], row["replicas"][0]["node"])


def test_long_lists_are_made_in_steps() -> None:
    """So that others have their turn between them."""
    meta, _ = _meta(3, vnodes=1000)
    steps = list(vnode_rows(meta, {}))
    assert len(steps) > 4
    assert isinstance(steps[-1], list)
    assert 1000 == len(steps[-1])


@pytest.mark.parametrize(
    ("nodes", "missing", "fragile"), [(1, 2, True), (2, 2, True), (3, 0, False), (5, 0, False)]
)
def test_what_is_missing_is_counted(nodes: int, missing: int, fragile: bool) -> None:
    """Over all collections."""
    meta, uid = _meta(nodes)
    voters = [ReplicaReport(number, True, 0) for number in range(1, min(nodes, 3) + 1)]
    reports = {(uid, index): _report(uid, index, 1, *voters) for index in (0, 1)}
    found = _last(overview(meta, reports, nodes))
    assert (missing, fragile) == (found.under_replicated, found.no_fault_tolerance)
    assert 2 * min(nodes, 3) == sum(found.vnodes.values())
    assert {1: 2} == found.leaders


def test_one_replica_is_enough_for_who_wants_one_and_tolerates_nothing() -> None:
    """Both are said."""
    meta, _ = _meta(3, replicas=1)
    found = _last(overview(meta, {}, 3))
    assert (0, True) == (found.under_replicated, found.no_fault_tolerance)


def test_who_does_not_vote_yet_is_not_counted_on() -> None:
    """Meta has placed three replicas; the loss of one of those two that vote stops them all."""
    meta, uid = _meta(3)
    voters = [ReplicaReport(number, True, 0) for number in (1, 2)]
    whole = {(uid, 0): _report(uid, 0, 1, *voters, ReplicaReport(3, True, 0))}
    young = {(uid, 0): _report(uid, 0, 1, *voters, ReplicaReport(3, False, 0))}
    assert not _last(overview(meta, whole, 3)).no_fault_tolerance
    assert _last(overview(meta, young, 3)).no_fault_tolerance
    assert _last(overview(meta, whole, 2)).no_fault_tolerance


def test_the_state_of_a_node() -> None:
    """What it is to be, and whether it is heard."""
    leaving = replace(node(2), state=NodeState.LEAVING)
    removed = replace(node(3), state=NodeState.REMOVED)
    heard = {1, 2, 3}
    assert ["up", "leaving", "removed"] == [
        node_state(each, heard) for each in (node(1), leaving, removed)
    ]
    assert ["down", "down", "removed"] == [
        node_state(each, {9}) for each in (node(1), leaving, removed)
    ]
