"""What a job that is due waits for now, as far as its route, its vnode and its node tell. Pure."""

from collections.abc import Iterator
from typing import Final

from admin import inspected, shown
from admin.inspected import Facts
from admin.tables import Row

LATE_MS: Final = 100
"""From here on it is to be explained."""


def causes(facts: Facts) -> list[str]:
    """Sentences, the first cause first."""
    return [*_of_waiting(facts), *_of_clocks(facts)]


def _limits(route: Row | None) -> str:
    if route is None:
        return ""
    rate = route["rate"]
    told = f" (max_in_flight {route['max_in_flight']}"
    if rate["count"] is not None:
        told += f", {rate['count']} attempts in {shown.duration(rate['period_ms'])}"
    return f"{told})"


def _of_waiting(facts: Facts) -> Iterator[str]:
    """What an attempt that is due waits for now."""
    job, route, stats, vnode = facts.job, facts.route, facts.stats, facts.vnode
    due = job["next_attempt_time"]
    if job["state"] not in inspected.PENDING:
        return
    if route is None:
        yield f"There is no route `{job['route']}` now."
    elif route["state"] != "open":
        yield f"Its route `{route['name']}` is {route['state']}: its jobs wait until that ends."
    elif job["state"] == "held":
        yield (
            "It is held though its route is open: so are jobs that were past due when they were"
            " restored, until `timemachine admin past-due` decides on them."
        )
    if vnode is not None and vnode["leader"] is None:
        yield f"Vnode {vnode['index']} has no leader: its jobs wait until it has one."
    if due is None or int(due) + LATE_MS > facts.now_ms:
        return
    if route is not None and route["state"] == "open" and stats is not None:
        if int(stats["in_flight"]) >= int(route["max_in_flight"]):
            yield (
                f"Its route has {stats['in_flight']} requests under way, of max_in_flight"
                f" {route['max_in_flight']}: the recipient is slow, or the limit low."
            )
        elif stats["waiting"] and route["rate"]["count"] is not None:
            yield f"{stats['waiting']} due jobs wait for its route{_limits(route)}."
    if vnode is not None and int(vnode["due_backlog"]) > 1:
        yield f"{vnode['due_backlog']} due jobs of its vnode wait."


def _of_clocks(facts: Facts) -> Iterator[str]:
    by = {each["node"] for each in facts.job["explanation"]["steps"]}
    for node in facts.cluster["nodes"]:
        offset = int(node["clock_offset_ms"])
        if node["id"] in by and abs(offset) >= LATE_MS:
            yield (
                f"The clock of node {node['name'] or node['id']} is"
                f" {shown.duration(abs(offset))} off that of the node that was asked: its times"
                " are by its own."
            )
