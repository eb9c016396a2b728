"""Plans of a cluster: made, confirmed, steered, watched, and disturbed while they run."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from tests.cluster.cluster import PATIENCE_S, Cluster
from tests.cluster.process import wait_until

PLANS: Final = "/v1/cluster/plans"
_PATIENCE_S: Final = 3 * PATIENCE_S

Plan = dict[str, Any]
Strike = Callable[[Cluster, Plan], bool]
"""Does something to a cluster while a plan runs; says whether it has found anybody."""


def all_up(cluster: Cluster) -> bool:
    """Whether the node leader hears all nodes whose processes run."""
    status, seen = cluster.nodes[cluster.node_leader()].ask("GET", "/v1/cluster")
    up = {cluster.ids.get(each["id"]) for each in seen["nodes"] if each["state"] == "up"}
    return status == 200 and up >= set(cluster.running())


def propose(cluster: Cluster, kind: str, *nodes: int, transfers: int = 1) -> Plan:
    """Make a plan, one vnode at a time; `nodes` by their numbers."""
    body = {"kind": kind, "transfers": transfers, "nodes": [cluster.id_of(each) for each in nodes]}
    status, plan = cluster.ask("POST", PLANS, body)
    assert 201 == status, plan
    assert "proposed" == plan["state"], plan
    return dict(plan)


def steer(cluster: Cluster, plan: Mapping[str, Any], how: str) -> Plan:
    """Confirm, pause, resume or cancel a plan."""
    status, after = cluster.ask("POST", f"{PLANS}/{plan['id']}/{how}")
    assert 200 == status, after
    return dict(after)


def refused(cluster: Cluster, plan: Mapping[str, Any], how: str) -> str:
    """The code with which that is refused."""
    status, told = cluster.ask("POST", f"{PLANS}/{plan['id']}/{how}")
    assert 409 == status, told
    return str(told["code"])


def read(cluster: Cluster, plan: Mapping[str, Any]) -> Plan:
    """A plan as it stands now."""
    status, now = cluster.ask("GET", f"{PLANS}/{plan['id']}")
    assert 200 == status, now
    return dict(now)


def carry_out(cluster: Cluster, plan: Plan, strikes: list[Strike] | None = None) -> Plan:
    """Confirm a plan and wait until it is done; returns it as it is then.

    Meanwhile do the `strikes`, one after the other, and take those from the list that found
    somebody.
    """
    steer(cluster, plan, "confirm")
    left = [] if strikes is None else strikes
    end = time.monotonic() + _PATIENCE_S
    while (now := read(cluster, plan))["state"] == "running":
        assert time.monotonic() < end, f"it does not end: {now}\n{cluster.logs()}"
        if left and left[0](cluster, now):
            print(f"{plan['kind']}: {getattr(left.pop(0), '__name__', 'struck')}")
        time.sleep(0.02)
    assert "done" == now["state"], now
    return now


def wait_moving(cluster: Cluster, plan: Plan) -> Plan:
    """Wait until a replica is being copied for a plan; returns the plan as it is then."""
    found: list[Plan] = []

    def copies() -> bool:
        now = read(cluster, plan)
        found.append(now)
        assert "running" == now["state"], f"it has ended before: {now}"
        return copied_move(cluster, now) is not None

    wait_until(copies, f"nothing moves: {plan}", PATIENCE_S)
    return found[-1]


def wait_still(cluster: Cluster, plan: Plan) -> Plan:
    """Wait until no move of a plan is under way; returns the plan as it is then."""
    wait_until(lambda: not read(cluster, plan)["moves"]["moving"], "moves do not end", _PATIENCE_S)
    return read(cluster, plan)


def copied_move(cluster: Cluster, plan: Plan) -> tuple[int, int] | None:
    """Who sends and who takes the image of a vnode that a plan moves; None while nobody does."""
    going = {move["index"]: move for move in plan["vnodes"] if move["state"] == "moving"}
    for row in cluster.vnodes() if going else ():
        for each in row["replicas"]:
            if (
                row["index"] in going
                and each["node"] in going[row["index"]]["add"]
                and each["role"] == "learner"
                and row["leader"] in cluster.ids
            ):
                return cluster.ids[row["leader"]], cluster.ids[each["node"]]
    return None


def kill_source(cluster: Cluster, plan: Plan) -> bool:
    """Kill who sends the image of a vnode that moves, and start it again."""
    found = copied_move(cluster, plan)
    return found is not None and _again(cluster, found[0])


def kill_target(cluster: Cluster, plan: Plan) -> bool:
    """Kill who takes the image of a vnode that moves, and start it again."""
    found = copied_move(cluster, plan)
    return found is not None and _again(cluster, found[1])


def kill_node_leader(cluster: Cluster, plan: Plan) -> bool:
    """Kill the node leader when it has begun another move, and start it again."""
    begun = plan["moves"]["total"] - plan["moves"]["waiting"]
    end = time.monotonic() + PATIENCE_S
    while (now := read(cluster, plan))["state"] == "running" and time.monotonic() < end:
        if now["moves"]["total"] - now["moves"]["waiting"] > begun:
            return _again(cluster, cluster.node_leader())
    return False


def _again(cluster: Cluster, number: int) -> bool:
    """Kill a node and start it again. It may have been removed by the time that it is back."""
    cluster.kill(number)
    node = cluster.nodes[number]
    node.launch()
    if not node.becomes_ready():
        assert 0 == node.wait(), node.log_tail()
    return True


def ends_itself(cluster: Cluster, number: int) -> None:
    """Wait until a node that was removed has ended, and in order. That is no fault."""
    node = cluster.nodes[number]
    wait_until(lambda: not node.running, f"{number} runs on\n{node.log_tail()}", PATIENCE_S)
    assert 0 == node.wait(), node.log_tail()
    assert "this node was removed from its cluster" in node.log.read_text(), node.log_tail()
