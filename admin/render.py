"""Tables for people."""

from typing import Any

from rich.console import Console
from rich.table import Table


def show_status(console: Console, cluster: dict[str, Any]) -> None:
    """The nodes of a cluster."""
    console.print(f"cluster {cluster['cluster_id']}, node leader {cluster['node_leader']}")
    table = Table("node", "name", "state", "http", "version", "vnodes", "leaders", "clock")
    for node in cluster["nodes"]:
        table.add_row(
            *(node["id"], node["name"], node["state"], node["http"], node["version"]),
            *(str(node["vnodes"]), str(node["leaders"]), f"{node['clock_offset_ms']} ms"),
        )
    console.print(table)


def show_vnodes(console: Console, rows: list[dict[str, Any]]) -> None:
    """The vnodes of a cluster."""
    table = Table("db", "collection", "vnode", "leader", "term", "offset", "due backlog")
    for row in rows:
        table.add_row(
            *(row["db"], row["collection"], str(row["index"]), str(row["leader"])),
            *(str(row["term"]), str(row["offset"]["time"]), str(row["due_backlog"])),
        )
    console.print(table)
