"""Mutations of plans that compact: whose part is over, and what a step gives back."""

from collections.abc import Iterable
from typing import Any

from node.compacting import leading
from node.compacting.reports import CompactionReport
from node.compacting.working import _Part
from tests.sim.mutations.planting import Mutation, swap
from timemachine.model import CompactionPart
from timemachine.replica.meta import CompactionEnd
from timemachine.storage.compacting import Span


def _silent_is_done(original: Any) -> Any:
    def end(
        part: CompactionPart, report: CompactionReport | None, there: Iterable[int]
    ) -> CompactionEnd | None:
        found: CompactionEnd | None = original(part, report, there)
        if found is None and part.at_work and report is None:
            return CompactionEnd(part.node)
        return found

    return end


def _untouched(_: Any) -> Any:
    def touch(self: _Part, step: Span) -> None:
        """What lies in the lowest level stays there."""

    return touch


MUTATIONS = {
    "silent-has-compacted": Mutation(
        "A node that does not tell how far it is with compacting is taken for done.",
        ("C12",),
        swap(leading, "_end", _silent_is_done),
    ),
    "compacts-untouched": Mutation(
        "A node compacts without writing the bounds of each step anew.",
        ("C12",),
        swap(_Part, "_touch", _untouched),
    ),
}
