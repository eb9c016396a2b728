"""Vnodes without a leader or with too few replicas, and replicas that do not keep up."""

from collections.abc import Collection, Iterator, Sequence
from typing import Final

from admin.diagnosis.seen import Finding, Names, Seen, bring_back
from admin.tables import Row

LAG_ENTRIES: Final = 1_000
"""A replica that is further behind does not keep up; one that does has some on their way."""
NAMED: Final = 5
"""Vnodes that a finding names; how many there are it says anyhow."""


def of_vnodes(seen: Seen, names: Names) -> Iterator[Finding]:
    """What is missing of vnodes, or behind."""
    down = set(seen.down)
    if missing := seen.cluster["under_replicated"]:
        yield Finding(
            code="under_replicated",
            level="act",
            what=f"Vnodes that have fewer replicas than they are to have: {missing}.",
            do=(
                "The cluster adds them by itself, where nodes are left for them: start those that"
                " are down, or let one join."
            ),
        )
    leaderless = [row for row in seen.vnodes if row["leader"] is None]
    if leaderless:
        lost = {each["node"] for row in leaderless for each in row["replicas"]} & down
        yield Finding(
            code="no_leader",
            level="act",
            what=f"Vnodes without a leader, whose jobs wait: {_listed(leaderless)}.",
            do=bring_back(sorted(names[each] for each in lost)),
        )
    behind = _behind(seen, down)
    for node, (count, most) in behind.items():
        yield Finding(
            code="replicas_behind",
            level="act",
            node=node,
            what=(
                f"Replicas on node {names.get(node, node)} that are {LAG_ENTRIES} entries behind"
                f" or more: {count}; the most is {most}."
            ),
            do="Ask again: if it does not get less, look at its disk, its load and the network.",
        )
    copied = sum(
        each["role"] in ("learner", "waiting") for row in seen.vnodes for each in row["replicas"]
    )
    if copied:
        yield Finding(
            code="replicas_copied",
            level="note",
            what=f"Replicas that are being copied: {copied}.",
            do="They count once they have caught up.",
        )


def _behind(seen: Seen, down: Collection[str]) -> dict[str, tuple[int, int]]:
    """(how many replicas do not keep up, by how much at most), by node."""
    found: dict[str, tuple[int, int]] = {}
    for row in seen.vnodes:
        for each in row["replicas"]:
            lag = each["lag"] or 0
            # One that is down is told of already, and a learner has all before it.
            if each["role"] == "voter" and lag >= LAG_ENTRIES and each["node"] not in down:
                count, most = found.get(each["node"], (0, 0))
                found[each["node"]] = (count + 1, max(most, lag))
    return found


def _listed(rows: Sequence[Row]) -> str:
    named = ", ".join(f"{row['db']}/{row['collection']} {row['index']}" for row in rows[:NAMED])
    return named if len(rows) <= NAMED else f"{named} and {len(rows) - NAMED} more"
