"""Watches what nodes do for plans that compact: who says that it is done has given space back."""

from typing import Any

from node.compacting.reports import CompactionReport
from node.engine import Engine
from tests.checks.violation import Violation
from tests.sim.cluster.disk import DamageableStore
from timemachine.storage.compacting import spans


class WatchedCompaction:
    """The parts of plans that one life of a node carries out.

    What was deleted before a part began is gone when the node says that the part is done. Where
    only some vnodes are compacted, those count that it had before and has still.
    """

    def __init__(self, engine: Engine, store: DamageableStore) -> None:
        self._engine = engine
        self._store = store
        self._part: Any = None
        self._before = 0
        self._ranges: set[int] = set()
        compacting = engine._compacting
        reconcile = compacting.reconcile

        def watched() -> None:
            reconcile()
            part = compacting._part
            if part is not None and part is not self._part:
                self._part = part
                self._before = store.sequence + 1
                self._ranges = self._wanted()

        compacting.reconcile = watched  # type: ignore[method-assign]

    def _wanted(self) -> set[int]:
        """The ranges that are to be compacted, by their numbers."""
        assert self._part is not None
        compacting, compaction = self._engine._compacting, self._part._compaction
        if not compaction.uid:
            return set(range(compacting.replicas.next_incarnation))
        vnodes = compacting.vnodes(compaction.uid, compaction.indexes)
        return {vnode.keys.incarnation for vnode in vnodes}

    def ended(self, report: CompactionReport) -> str:
        """The node has told how its part ended; the id of the plan. Raises Violation."""
        assert self._part is not None
        plan_id: str = self._part.id
        # Where it met damage, the next write tells.
        if report.error is None and not self._store.damaged:
            for start, stop in spans(self._ranges & self._wanted()):
                left = self._store.deleted_in(start, stop, self._before)
                if left:
                    told = f"plan {plan_id} has left {len(left)} deleted rows on node {report.node}"
                    raise Violation("C12", f"{told}, such as {left[0]!r}")
        return plan_id
