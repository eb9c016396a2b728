"""What is wrong with a cluster, and what to do about it. Pure: from what its nodes told."""

from collections.abc import Sequence

from admin import planned, shown
from admin.diagnosis import clocks, metrics, nodes, plans, vnodes
from admin.diagnosis.seen import Finding, Seen, Told
from admin.tables import Parts

__all__ = ["Finding", "Seen", "Told", "findings", "show", "well"]


def findings(seen: Seen) -> list[Finding]:
    """All that was found, what has to be done first."""
    names = planned.names_of(seen.cluster)
    found = [
        *nodes.of_nodes(seen, names),
        *nodes.of_quorum(seen, names),
        *clocks.of_clocks(seen, names),
        *clocks.of_versions(seen, names),
        *metrics.of_metrics(seen, names),
        *vnodes.of_vnodes(seen, names),
        *plans.of_plans(seen, names),
    ]
    return sorted(found, key=lambda each: each.level != "act")


def well(found: Sequence[Finding]) -> bool:
    """Whether nothing has to be done."""
    return all(each.level != "act" for each in found)


def show(seen: Seen, found: Sequence[Finding]) -> Parts:
    """What was found, with what to do about it."""
    asked = sum(told.fault is None for told in seen.nodes.values())
    cluster = shown.text(seen.cluster["cluster_id"])
    yield f"cluster {cluster}: asked {asked} of {len(seen.nodes)} nodes"
    for level, title in (("act", "To be done:"), ("note", "Good to know:")):
        those = [each for each in found if each.level == level]
        if those:
            yield ""
            yield title
        for each in those:
            yield f"- {shown.text(each.what)}"
            yield f"  {shown.text(each.do)}"
    if well(found):
        yield ""
        yield "Nothing has to be done."
