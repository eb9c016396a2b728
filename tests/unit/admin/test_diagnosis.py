"""What is found in clusters, and what is said to do about it."""

from typing import Any

import pytest

from admin.diagnosis import Seen, Told, findings, show, well
from admin.diagnosis.metrics import samples
from tests.unit.admin.test_compacted import NODE as COMPACTING
from tests.unit.admin.test_compacted import with_nodes
from tests.unit.admin.test_planned import PLAN
from tests.unit.admin.test_tables import look


def node(number: int, **changes: Any) -> dict[str, Any]:
    """A node that is well."""
    return {
        "id": f"e{number}",
        "number": number,
        "name": f"n{number}",
        "http": f"10.0.0.{number}:8001",
        "rpc": f"10.0.0.{number}:9001",
        "state": "up",
        "version": "1.0",
        "vnodes": 1,
        "clock_offset_ms": 0,
        **changes,
    }


NODES = [node(1), node(2), node(3)]
CLUSTER: dict[str, Any] = {
    "cluster_id": "c1",
    "cluster_version": 1,
    "known_version": 1,
    "node_leader": "e1",
    "under_replicated": 0,
    "no_fault_tolerance": False,
    "nodes": NODES,
}
REPLICAS = [{"node": f"e{number}", "role": "voter", "lag": 3} for number in (1, 2, 3)]
VNODE: dict[str, Any] = {
    "db": "default",
    "collection": "carts",
    "index": 0,
    "leader": "e1",
    "replicas": REPLICAS,
}
METRICS = """# HELP timemachine_quarantined Replicas.
timemachine_quarantined 0.0
timemachine_level0_files 2.0
timemachine_rpc_connected{node="1"} 1.0
timemachine_rpc_connected{node="3"} 1.0
"""


def seen(*nodes: dict[str, Any], **changes: Any) -> Seen:
    """A cluster that is well, but for these nodes and other changes."""
    told: dict[str, Any] = {}
    listed = [next((each for each in nodes if each["id"] == usual["id"]), usual) for usual in NODES]
    listed += [each for each in nodes if each["id"] not in {usual["id"] for usual in NODES}]
    whole = {name: changes.pop(name) for name in ("vnodes", "plans", "told") if name in changes}
    cluster = {**CLUSTER, "nodes": listed, **changes}
    for each in listed:
        told[each["id"]] = Told(cluster=CLUSTER, metrics=METRICS)
    told.update(whole.get("told", {}))
    return Seen(
        cluster=cluster,
        vnodes=whole.get("vnodes", [VNODE]),
        plans=whole.get("plans", []),
        nodes=told,
    )


def test_a_cluster_that_is_well() -> None:
    """Nothing is found, and that is said."""
    whole = seen()
    assert [] == findings(whole)
    assert look(show(whole, [])) == (
        """
cluster c1: asked 3 of 3 nodes

Nothing has to be done.
"""
    )


def test_a_cluster_that_is_not() -> None:
    """What has to be done stands first; what a node said cannot steer the terminal."""
    ill = seen(
        node(2, state="down"),
        under_replicated=1,
        known_version=2,
        told={"e2": Told(fault="no answer"), "e3": Told(unready="the disk is nearly full\x1b[2J")},
    )
    found = findings(ill)
    assert not well(found)
    assert look(show(ill, found), 200) == (
        r"""
cluster c1: asked 2 of 3 nodes

To be done:
- Node n2 is down: the others do not hear it.
  Start it, or see in its log why it ended. If it is gone for good, `timemachine admin plan remove n2` has the others take over what it had.
- Node n3: the disk is nearly full\x1b[2J
  Free space on its disk, or give it a larger one: until then it takes no new jobs.
- Vnodes that have fewer replicas than they are to have: 1.
  The cluster adds them by itself, where nodes are left for them: start those that are down, or let one join.

Good to know:
- The cluster uses format 1, and every node knows 2.
  Once you will not go back: `timemachine admin finalise 2`.
"""  # noqa: E501  # as it is printed
    )


def lag(entries: int, role: str = "voter") -> dict[str, Any]:
    """The vnode, its replica on n3 so far behind."""
    return {**VNODE, "replicas": [*REPLICAS[:2], {"node": "e3", "role": role, "lag": entries}]}


LOST: dict[str, Any] = {**VNODE, "leader": None}
RUNNING = {**PLAN, "state": "running"}


@pytest.mark.parametrize(
    ("told", "level", "code", "who", "said"),
    [
        (seen(node_leader=None), "act", "no_node_leader", None, "elected within seconds"),
        (seen(told={"e2": Told(fault="refused")}), "act", "node_silent", "e2", "10.0.0.2:8001"),
        (seen(told={"e2": Told(unready="the store failed.")}), "act", "node_unready", "e2", "disk"),
        (
            seen(told={"e2": Told(cluster={**CLUSTER, "node_leader": None})}),
            "act",
            "node_cut_off",
            "e2",
            "RPC addresses",
        ),
        (
            seen(told={"e2": Told(cluster={**CLUSTER, "cluster_id": "c2"})}),
            "act",
            "other_cluster",
            "e2",
            "node n2 should",
        ),
        (seen(node(2, state="leaving")), "note", "node_drained", "e2", "rebalance --back n2"),
        (seen(no_fault_tolerance=True), "note", "no_fault_tolerance", None, "Three nodes"),
        (seen(node(3, clock_offset_ms=-130)), "act", "clock_off", "e3", "NTP"),
        (seen(node(2, version="1.1")), "act", "versions_differ", None, "End the upgrade"),
        (seen(known_version=2), "note", "format_not_finalised", None, "admin finalise 2"),
        (
            seen(told={"e1": Told(metrics="timemachine_quarantined 2.0\n")}),
            "act",
            "replicas_quarantined",
            "e1",
            "damaged",
        ),
        (
            seen(told={"e1": Told(metrics="timemachine_level0_files 6.0\n")}),
            "note",
            "disk_slow",
            "e1",
            "too slow",
        ),
        (
            seen(told={"e1": Told(metrics='timemachine_rpc_connected{node="2"} 0.0\n')}),
            "act",
            "not_connected",
            "e1",
            "10.0.0.2:9001",
        ),
        (seen(under_replicated=2), "act", "under_replicated", None, "by itself"),
        (seen(vnodes=[LOST]), "act", "no_leader", None, "elected within seconds"),
        (seen(vnodes=[lag(1_000)]), "act", "replicas_behind", "e3", "Ask again"),
        (seen(vnodes=[lag(9_000, "learner")]), "note", "replicas_copied", None, "caught up"),
        (seen(plans=[{**PLAN, "state": "paused"}]), "act", "plan_paused", None, "plan resume p1"),
        (
            seen(plans=[{**RUNNING, "waits_for": ["e2"]}]),
            "act",
            "plan_waits",
            None,
            "plan cancel p1",
        ),
        (seen(plans=[RUNNING]), "note", "plan_runs", None, "plan watch p1"),
        (seen(plans=[PLAN]), "note", "plan_proposed", None, "plan confirm p1"),
    ],
)
def test_each_finding(told: Seen, level: str, code: str, who: str | None, said: str) -> None:
    """It is the only one, says of which node it is, and what to do."""
    (found,) = findings(told)
    assert (level, code, who) == (found.level, found.code, found.node)
    assert said in found.do


def test_a_majority_that_is_lost() -> None:
    """Vnodes without a leader name the nodes to start; so does a lost node leader."""
    down = [node(2, state="down"), node(3, state="down")]
    silent = {"e2": Told(fault="no answer"), "e3": Told(fault="no answer")}
    many = [{**LOST, "index": index} for index in range(7)]
    found = {
        each.code: each
        for each in findings(seen(*down, node_leader=None, vnodes=many, told=silent))
    }
    assert "A majority has to be there: start n2, n3." == found["no_leader"].do
    assert "A majority has to be there: start n2, n3." == found["no_node_leader"].do
    assert "Start it, or see in its log why it ended." == found["node_down"].do
    assert found["no_leader"].what.endswith("default/carts 4 and 2 more.")


def test_replicas_of_nodes_that_are_down_are_told_once() -> None:
    """That they are behind follows, and is no finding of its own."""
    ill = seen(node(3, state="down"), vnodes=[lag(9_000)], told={"e3": Told(fault="no answer")})
    assert ["node_down"] == [each.code for each in findings(ill)]


def test_two_clocks() -> None:
    """Of two nobody knows which one is wrong; of three the one that is far does not fire."""
    two = seen(node(2, clock_offset_ms=700), node(3, state="removed"))
    (found,) = findings(two)
    assert ("clocks_apart", "The clocks of n1 and n2 are 700ms apart.") == (found.code, found.what)
    (found,) = findings(seen(node(2, clock_offset_ms=700)))
    assert "The clock of node n2 is 700ms off. It fires nothing." == found.what
    # Asked at the node whose clock is wrong, all others seem to be.
    (found,) = findings(seen(node(2, clock_offset_ms=200), node(3, clock_offset_ms=203)))
    assert "The clock of node n1 is 200ms off." == found.what


def test_a_compaction_that_waits_for_room() -> None:
    """The node whose disk is full is named, beside the plan that runs."""
    plan = with_nodes({**COMPACTING, "state": "low_space"}, state="running")
    act, note = findings(seen(plans=[plan]))
    assert ("compaction_low_space", "e1", "plan_runs") == (act.code, act.node, note.code)


def test_samples_of_a_page() -> None:
    """Numbers by name and node; comments and other labels are left out."""
    page = METRICS + 'timemachine_outcomes_total{outcome="delivered"} 3.0\n'
    assert {
        ("timemachine_quarantined", None): 0.0,
        ("timemachine_level0_files", None): 2.0,
        ("timemachine_rpc_connected", 1): 1.0,
        ("timemachine_rpc_connected", 3): 1.0,
    } == samples(page)
