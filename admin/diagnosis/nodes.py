"""Nodes that are down, silent, not ready, drained, or without a majority."""

from collections.abc import Iterator

from admin.diagnosis.seen import Finding, Names, Seen, bring_back


def of_nodes(seen: Seen, names: Names) -> Iterator[Finding]:
    """Nodes that do not answer, cannot serve, or are to have nothing."""
    for node in seen.present:
        name, told = names[node["id"]], seen.nodes[node["id"]]
        if node["state"] == "down":
            yield Finding(
                code="node_down",
                level="act",
                node=node["id"],
                what=f"Node {name} is down: the others do not hear it.",
                do=_of_the_dead(seen, name),
            )
        elif told.fault is not None:
            yield Finding(
                code="node_silent",
                level="act",
                node=node["id"],
                what=f"Node {name} did not answer here: {told.fault}",
                do=(
                    f"The others hear it. See whether this machine may reach {node['http']}; what"
                    " it would tell of itself is missing below."
                ),
            )
        if told.unready is not None:
            yield _unready(node["id"], name, told.unready)
        if node["state"] == "leaving" and not _is_emptied_by_a_plan(seen, node["id"]):
            yield Finding(
                code="node_drained",
                level="note",
                node=node["id"],
                what=f"Node {name} was drained: it gets no replicas.",
                do=(
                    f"`timemachine admin plan rebalance --back {name}` gives it some again,"
                    f" `timemachine admin plan remove {name}` ends its membership."
                ),
            )


def _of_the_dead(seen: Seen, name: str) -> str:
    start = "Start it, or see in its log why it ended."
    if seen.cluster["node_leader"] is None:
        return start  # no plan can run
    return (
        f"{start} If it is gone for good, `timemachine admin plan remove {name}` has the others"
        " take over what it had."
    )


def _is_emptied_by_a_plan(seen: Seen, node: str) -> bool:
    return any(
        plan["state"] in ("running", "paused") and node in plan["nodes"] for plan in seen.plans
    )


def _unready(node: str, name: str, why: str) -> Finding:
    if "disk is nearly full" in why:
        do = "Free space on its disk, or give it a larger one: until then it takes no new jobs."
    elif "store failed" in why:
        do = "Look at its disk and its log, and start it again."
    else:
        do = "It has just begun, or sees no majority: see its log if that lasts."
    return Finding(code="node_unready", level="act", node=node, what=f"Node {name}: {why}", do=do)


def of_quorum(seen: Seen, names: Names) -> Iterator[Finding]:
    """Whether there is a node leader, seen by all, and what the loss of a node would do."""
    down = sorted(names[each] for each in seen.down)
    if seen.cluster["node_leader"] is None:
        yield Finding(
            code="no_node_leader",
            level="act",
            what="There is no node leader: neither nodes nor collections nor routes can change.",
            do=bring_back(down),
        )
    for node in seen.present:
        view = seen.nodes[node["id"]].cluster
        if view is None:
            continue
        if view["cluster_id"] != seen.cluster["cluster_id"]:
            yield Finding(
                code="other_cluster",
                level="act",
                node=node["id"],
                what=f"At {node['http']} a node of another cluster answers, {view['cluster_id']}.",
                do=f"See what runs there: node {names[node['id']]} should.",
            )
        elif view["node_leader"] is None and seen.cluster["node_leader"] is not None:
            yield Finding(
                code="node_cut_off",
                level="act",
                node=node["id"],
                what=f"Node {names[node['id']]} sees no node leader, others do.",
                do="See whether it reaches the other nodes, and they it, at their RPC addresses.",
            )
    if seen.cluster["no_fault_tolerance"]:
        yield Finding(
            code="no_fault_tolerance",
            level="note",
            what="The loss of one node can stop vnodes, or changes of the cluster.",
            do=(
                "Three nodes and three replicas bear it: let nodes join, and"
                " `timemachine admin plan replicate COLLECTION 3`."
            ),
        )
