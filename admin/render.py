"""Tables of a cluster, for people."""

from collections.abc import Sequence

from admin import planned, shown
from admin.tables import Parts, Row, grid, members


def show_status(cluster: Row, plan: Row | None = None) -> Parts:
    """The nodes of a cluster, and the plan that runs."""
    leader = cluster["node_leader"]
    yield f"cluster {cluster['cluster_id']}, node leader {leader or 'none'}"
    if missing := cluster.get("under_replicated"):
        yield f"{missing} vnodes have fewer replicas than they are to have"
    if cluster.get("no_fault_tolerance"):
        yield "no fault tolerance: the loss of one node can stop vnodes"
    if plan is not None:
        yield planned.in_a_line(plan)
    finalised, known = cluster.get("cluster_version", 0), cluster.get("known_version", 0)
    if known > finalised:
        yield f"format {finalised}; every node knows {known}, which may be finalised"
    yield grid(
        ("node", "name", "state", "http", "version", "vnodes", "leaders", "clock"),
        [
            (
                *(shown.text(node[name]) for name in ("id", "name", "state", "http", "version")),
                *(str(node["vnodes"]), str(node["leaders"]), f"{node['clock_offset_ms']} ms"),
            )
            for node in cluster["nodes"]
        ],
        right=("vnodes", "leaders", "clock"),
    )


def show_vnodes(rows: Sequence[Row]) -> Parts:
    """The vnodes of a cluster."""
    yield grid(
        ("db", "collection", "vnode", "leader", "term", "offset", "due backlog"),
        [
            (
                *(shown.text(row["db"]), shown.text(row["collection"]), str(row["index"])),
                *(
                    str(row["leader"] or "none"),
                    str(row["term"]),
                    shown.time(row["offset"]["time"]),
                ),
                str(row["due_backlog"]),
            )
            for row in rows
        ],
        right=("vnode", "term", "due backlog"),
    )


def show_settings(settings: Row) -> Parts:
    """What holds for all nodes; that nothing is allowed is told too."""
    ranges = settings["allowed_private_cidrs"]
    ports = ", ".join(map(str, settings.get("allowed_ports", ())))
    yield members(
        [
            ("allowed_private_cidrs", shown.text(", ".join(ranges)) or "none"),
            ("allowed_ports", ports or "none"),
        ]
    )


def show_finalised(finalised: Row) -> Parts:
    """The format that the cluster uses from now on."""
    yield members([("cluster_version", str(finalised["cluster_version"]))])


def show_keys(rows: Sequence[Row]) -> Parts:
    """The master keys of a cluster."""
    yield grid(
        ("key", "", "routes", "nodes", "first of"),
        [
            (
                row["id"],
                "seals" if row["current"] else "" if row["needed"] else "not needed",
                str(row["routes"]),
                shown.text(", ".join(row["nodes"])) or "none",
                shown.text(", ".join(row["first_of"])) or "none",
            )
            for row in rows
        ],
        right=("routes",),
    )


def show_resealed(result: Row) -> Parts:
    """How far sealing again has come, and what may be removed now."""
    yield members([(name, str(result[name])) for name in ("current", "resealed", "left")])
    if result["left"]:
        yield "Secrets are left that other keys have sealed: type it again."
        return
    yield f"All secrets are sealed with {result['current']}."
    if result["not_needed"]:
        yield (
            f"No node needs {', '.join(result['not_needed'])} any more. Keep it with the backups"
            " that were taken until now: their secrets are sealed with it."
        )


def show_join_token(issued: Row) -> Parts:
    """A token for a node that joins."""
    yield members(
        [("token", shown.text(issued["token"])), ("expires", shown.time(issued["expires_time"]))]
    )
