"""A plan that compacts as people see it: of whom, at what rate, how far each node is. Pure."""

from collections.abc import Mapping
from typing import Final

from rich.table import Table

from admin import shown
from admin.tables import Parts, Row, grid

_ENDED: Final = ("done", "failed")
_WAITING: Final = "waiting"


def aim(row: Row, compaction: Row, nodes: str) -> str:
    """What is compacted; `nodes` are those that were named, in words."""
    what = "all"
    if row["collection"]:
        what = f"{row['db']}/{row['collection']}"
        if compaction["vnodes"]:
            what += f", vnodes {', '.join(map(str, compaction['vnodes']))}"
    return f"compact {what}{f' of {nodes}' if nodes else ''}"


def cost(row: Row, compaction: Row) -> str:
    """What it takes, in a line."""
    count = len(compaction["nodes"])
    return (
        f"{count} {'node' if count == 1 else 'nodes'}, {row['transfers']} at once,"
        f" {shown.size(compaction['bytes_per_s'])} a second each:"
        f" {shown.size(range_bytes(compaction))} to go through,"
        f" about {shown.duration(row['estimate_ms'])}"
    )


def range_bytes(compaction: Row) -> int:
    """About how much there is to go through, of all nodes."""
    return sum(int(node["range_bytes"]) for node in compaction["nodes"])


def ended(compaction: Row) -> int:
    """How many nodes are done, or have failed."""
    return sum(node["state"] in _ENDED for node in compaction["nodes"])


def progress(compaction: Row) -> str:
    """How far it is, in a line; steps are those of the nodes that are at it."""
    nodes = compaction["nodes"]
    at_work = [node for node in nodes if node["state"] not in (*_ENDED, _WAITING)]
    failed = sum(node["state"] == "failed" for node in nodes)
    done = f"{ended(compaction) - failed} of {len(nodes)} nodes done"
    if failed:
        done += f", {failed} failed"
    if at_work:
        done += f", {len(at_work)} under way"
        if steps := sum(int(node["steps"]) for node in at_work):
            done += f", {sum(int(node['steps_done']) for node in at_work)} of {steps} steps"
    return done


def given_back(compaction: Row) -> Parts:
    """What the disks of nodes that are done took before, and take now."""
    known = [
        (int(node["before_bytes"]), int(node["disk_bytes"]))
        for node in compaction["nodes"]
        if node["state"] == "done" and None not in (node["before_bytes"], node["disk_bytes"])
    ]
    if known:
        before, now = (sum(each) for each in zip(*known, strict=True))
        yield f"their stores took {shown.size(before)} before, {shown.size(now)} now"


def by_node(compaction: Row, names: Mapping[str, str]) -> Table:
    """What each node had, has now and has done for it."""
    return grid(
        ("node", "to compact", "before", "now", "steps", "compacted", "state", "error"),
        [
            (
                names.get(node["node"]) or shown.text(node["node"]),
                shown.size(node["range_bytes"]),
                *(
                    "" if node[name] is None else shown.size(node[name])
                    for name in ("before_bytes", "disk_bytes")
                ),
                f"{node['steps_done']} of {node['steps']}" if node["steps"] else "",
                shown.size(node["compacted_bytes"]) if node["compacted_bytes"] else "",
                shown.text(node["state"]),
                shown.text(node["error"] or ""),
            )
            for node in compaction["nodes"]
        ],
        right=("to compact", "before", "now", "steps", "compacted"),
    )
