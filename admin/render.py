"""Tables of a cluster, for people."""

from collections.abc import Sequence

from admin import shown
from admin.tables import Parts, Row, grid, members


def show_status(cluster: Row) -> Parts:
    """The nodes of a cluster."""
    yield f"cluster {cluster['cluster_id']}, node leader {cluster['node_leader']}"
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
                *(str(row["leader"]), str(row["term"]), shown.time(row["offset"]["time"])),
                str(row["due_backlog"]),
            )
            for row in rows
        ],
        right=("vnode", "term", "due backlog"),
    )


def show_settings(settings: Row) -> Parts:
    """What holds for all nodes; that nothing is allowed is told too."""
    ranges = settings["allowed_private_cidrs"]
    yield members([("allowed_private_cidrs", shown.text(", ".join(ranges)) or "none")])
