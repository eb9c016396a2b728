"""What the nodes of a cluster told of themselves, and what is found in it."""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from admin.tables import Row

Names = Mapping[str, str]
"""What nodes are called, by their ids."""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What one node told of itself; `fault` is why it did not, `unready` why it cannot serve."""

    fault: str | None = None
    unready: str | None = None
    cluster: Row | None = None
    metrics: str = ""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked: the cluster as one node sees it, and each node, by its id."""

    cluster: Row
    vnodes: Sequence[Row]
    plans: Sequence[Row]
    nodes: Mapping[str, Told]

    @property
    def present(self) -> list[Row]:
        """The nodes that were not removed."""
        return [node for node in self.cluster["nodes"] if node["state"] != "removed"]

    @property
    def down(self) -> list[str]:
        """The ids of those that the others do not hear."""
        return [node["id"] for node in self.present if node["state"] == "down"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was found. `act`: something has to be done; `note`: good to know."""

    code: str
    level: Literal["act", "note"]
    node: str | None = None
    what: str
    do: str


def bring_back(down: Sequence[str]) -> str:
    """What to do where a majority is missing, and these nodes are down."""
    if down:
        return f"A majority has to be there: start {', '.join(down)}."
    return "A new one is elected within seconds. If that lasts, see whether nodes reach each other."
