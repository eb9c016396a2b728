"""Clocks that are off, and programs of several versions."""

from collections.abc import Iterator
from statistics import median_low
from typing import Final

from admin import shown
from admin.diagnosis.seen import Finding, Names, Seen

CLOCK_MS: Final = 100
"""Clocks that are further apart than this are not kept by NTP."""
CLOCK_FIRES_MS: Final = 500
"""Of three nodes or more, one whose clock is further from the median fires nothing."""


def of_clocks(seen: Seen, names: Names) -> Iterator[Finding]:
    """Clocks beside each other: of two nobody knows which is wrong, of three the median does."""
    offsets = {
        node["id"]: int(node["clock_offset_ms"]) for node in seen.present if node["state"] != "down"
    }
    if len(offsets) == 2:
        apart = abs(max(offsets.values()) - min(offsets.values()))
        if apart >= CLOCK_MS:
            both = " and ".join(names[each] for each in offsets)
            yield Finding(
                code="clocks_apart",
                level="act",
                what=f"The clocks of {both} are {shown.duration(apart)} apart.",
                do="Run NTP on both: jobs are fired by the clock of the node that leads them.",
            )
        return
    middle = median_low(offsets.values()) if offsets else 0
    for node, offset in offsets.items():
        off = abs(offset - middle)
        if off >= CLOCK_MS:
            fires = " It fires nothing." if off > CLOCK_FIRES_MS else ""
            yield Finding(
                code="clock_off",
                level="act",
                node=node,
                what=f"The clock of node {names[node]} is {shown.duration(off)} off.{fires}",
                do="Run NTP there: jobs are fired by the clock of the node that leads them.",
            )


def of_versions(seen: Seen, names: Names) -> Iterator[Finding]:
    """Several versions at once, and a format that may be finalised."""
    there = seen.present
    versions = sorted({str(node["version"]) for node in there})
    if len(versions) > 1:
        told = "; ".join(
            f"{version} on {', '.join(names[n['id']] for n in there if n['version'] == version)}"
            for version in versions
        )
        yield Finding(
            code="versions_differ",
            level="act",
            what=f"Nodes run several versions: {told}.",
            do="End the upgrade: stop, replace and start the others one by one.",
        )
    finalised, known = seen.cluster["cluster_version"], seen.cluster["known_version"]
    if known > finalised:
        yield Finding(
            code="format_not_finalised",
            level="note",
            what=f"The cluster uses format {finalised}, and every node knows {known}.",
            do=f"Once you will not go back: `timemachine admin finalise {known}`.",
        )
