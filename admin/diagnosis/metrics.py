"""What the metrics of nodes tell: damage, slow disks, missing connections."""

import re
from collections.abc import Iterator
from typing import Final

from admin.diagnosis.seen import Finding, Names, Seen

LEVEL0_FILES: Final = 6
"""From here on LevelDB slows writers down."""

_SAMPLE: Final = re.compile(r'(\w+)(?:\{node="(\d+)"\})? (\S+)')


def samples(page: str) -> dict[tuple[str, int | None], float]:
    """The values of a metrics page, by name and, where there is one, the number of a node."""
    found: dict[tuple[str, int | None], float] = {}
    for line in page.splitlines():
        match = _SAMPLE.fullmatch(line)
        if match is not None:
            found[match[1], None if match[2] is None else int(match[2])] = float(match[3])
    return found


def of_metrics(seen: Seen, names: Names) -> Iterator[Finding]:
    """What metrics tell of each node that was asked."""
    there = seen.present
    for node in there:
        values = samples(seen.nodes[node["id"]].metrics)
        name = names[node["id"]]
        if damaged := int(values.get(("timemachine_quarantined", None), 0)):
            yield Finding(
                code="replicas_quarantined",
                level="act",
                node=node["id"],
                what=f"Replicas of node {name} that were given up for damage: {damaged}.",
                do=(
                    "Others replace them by themselves, while a majority of each vnode is there."
                    " See its log for what was damaged, and whether its disk is to be replaced."
                ),
            )
        if (files := int(values.get(("timemachine_level0_files", None), 0))) >= LEVEL0_FILES:
            yield Finding(
                code="disk_slow",
                level="note",
                node=node["id"],
                what=f"The store of node {name} has {files} files in level 0: writes are slowed.",
                do="If that lasts its disk is too slow for what is written.",
            )
        for other in there:
            linked = values.get(("timemachine_rpc_connected", other["number"]))
            if linked == 0 and other["state"] != "down":
                yield Finding(
                    code="not_connected",
                    level="act",
                    node=node["id"],
                    what=f"Node {name} has no connection to node {names[other['id']]}.",
                    do=f"See whether it reaches {other['rpc']}, and the certificates of both.",
                )
