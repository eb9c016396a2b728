"""Which version of stored and sent bytes a cluster uses, and who may take part in it.

A format is a version of everything that is stored, logged and sent: rows, commands, frames. A
program knows some of them (`KNOWN`), each node tells which its own knows, and meta holds the one
that the cluster has finalised (`cluster_version`). The rule:

* Nothing newer than the finalised format is stored, logged or sent. So nodes with an older and a
  newer program work together, and the newer one may be taken back.
* A newer format is finalised when every member knows it, and an admin says so. There is no way
  back: rows of the newer format are written from then on.
* Who does not know the finalised format takes no part: it neither joins, nor connects, nor starts.

A command says with `since` from which format on it may be proposed. Whoever would write a newer
row or frame asks for the finalised format first.
"""

from collections.abc import Collection, Iterable
from typing import Final

from timemachine import codec
from timemachine.errors import StoreForeign
from timemachine.model import Node

KNOWN: Final[tuple[int, ...]] = (codec.VERSION,)
"""The formats that this program reads and writes."""


def behind(nodes: Iterable[Node], version: int) -> list[Node]:
    """The members whose programs do not know a format, by their numbers."""
    lacking = [node for node in nodes if node.present and version not in node.formats]
    return sorted(lacking, key=lambda node: node.number)


def known_by_all(nodes: Iterable[Node]) -> int:
    """The newest format that every member knows; 0 if there is none, or no member."""
    each = [set(node.formats) for node in nodes if node.present]
    return max(set.intersection(*each), default=0) if each else 0


def why_not_finalised(nodes: Iterable[Node], finalised: int, version: int) -> str:
    """Why a cluster must not change from format `finalised` to `version`, as a code, or ""."""
    if version < finalised:
        return "format_finalised"
    return "nodes_behind" if behind(nodes, version) else ""


def may_propose(since: int, finalised: int) -> bool:
    """Whether a command that came with format `since` may be proposed."""
    return since <= finalised


def told(formats: Collection[int]) -> str:
    """Formats as people read them: "1", "1 to 3", "none"."""
    if not formats:
        return "none"
    first, last = min(formats), max(formats)
    return str(first) if first == last else f"{first} to {last}"


def check(finalised: int, formats: Collection[int]) -> None:
    """Raise StoreForeign, with what to do, for a program that does not know its cluster's format.

    It may have been taken back after the format was finalised.
    """
    if finalised not in formats:
        raise StoreForeign(
            f"The cluster of this node has finalised format {finalised}; this program knows"
            f" {told(formats)}. Start the newer version again."
        )
