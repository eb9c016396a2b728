"""What the node leader does about a plan that compacts: the next nodes begin, the plan ends.

Meta knows which parts have begun and which have ended; how far the others are is asked again and
again. Whoever becomes the node leader goes on with that. A node that does not answer is waited for:
it begins its part again when it is back.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

from node.compacting.reports import CompactionReport, Phase
from node.env import Timer, World
from node.gathering import Gathering
from node.gathering.questions import CompactionReports
from node.moving import running
from node.runtime import Runtime
from timemachine.errors import TimeMachineError
from timemachine.model import CompactionPart, Plan, PlanState
from timemachine.placement import present
from timemachine.replica.meta import AdvanceCompaction, CompactionEnd, EndPlan, MetaMachine
from timemachine.vnode import Vnode

_LOOK_MS: Final = 500.0
_REMOVED: Final = "It is no part of the cluster any more."


class CompactionLead:
    """Carries a plan that compacts through, while this node leads the meta group.

    `alive` is whether a node answers: no part of one that does not begins.
    """

    def __init__(
        self,
        world: World,
        runtime: Runtime,
        meta_vnode: Vnode,
        meta: MetaMachine,
        gathering: Gathering,
        *,
        alive: Callable[[int], bool],
    ) -> None:
        self._world = world
        self._runtime = runtime
        self._meta_vnode = meta_vnode
        self._meta = meta
        self._gathering = gathering
        self._alive = alive
        self._timer: Timer | None = None
        self._busy = False

    def look_soon(self) -> None:
        """Plans have changed, or who leads the meta group."""
        if self._timer is None and not self._busy and self._plan() is not None:
            self._timer = self._world.call_later(0.0, self._look)

    def _plan(self) -> Plan | None:
        """The plan to see to, if this is the node that does."""
        plan = running(self._meta)
        if plan is None or plan.compaction is None:
            return None
        return plan if self._runtime.working and self._meta_vnode.serving else None

    def _look(self) -> None:
        self._timer = None
        plan = self._plan()
        if plan is None or plan.compaction is None or self._busy:
            return
        self._busy = True
        at_work = [part.node for part in plan.compaction.parts if part.at_work]
        if at_work:
            self._gathering.poll(CompactionReports(plan.id), at_work, self._told)
        else:
            self._go_on(plan, {})

    def _told(self, found: Any) -> None:
        plan = self._plan()
        if plan is None:
            self._busy = False
        elif isinstance(found, TimeMachineError):
            self._go_on(plan, {})
        else:
            self._go_on(plan, found[0])

    def _go_on(self, plan: Plan, reports: dict[int, CompactionReport]) -> None:
        assert plan.compaction is not None
        parts = plan.compaction.parts
        there = present(self._meta.nodes.values())
        ended = [end for part in parts if (end := _end(part, reports.get(part.node), there))]
        gone = {end.node for end in ended}
        begun = [
            part.node
            for part in parts
            if not part.begun and part.node not in gone and self._alive(part.node)
        ]
        at_work = sum(part.at_work and part.node not in gone for part in parts)
        begun = begun[: max(0, plan.transfers - at_work)]
        if plan.state is not PlanState.RUNNING:
            begun = []
        now_ms = self._world.wall_ms()
        if ended or begun:
            self._propose(
                AdvanceCompaction(now_ms=now_ms, id=plan.id, begun=tuple(begun), ended=tuple(ended))
            )
        elif all(part.ended for part in parts) and plan.state is PlanState.RUNNING:
            self._propose(EndPlan(now_ms=now_ms, id=plan.id))
        else:
            self._look_later()

    def _look_later(self) -> None:
        self._busy = False
        # Not in step with others that look again and again.
        pause_ms = _LOOK_MS * (0.5 + self._world.random())
        self._timer = self._world.call_later(pause_ms, self._look)

    def _propose(self, command: AdvanceCompaction | EndPlan) -> None:
        self._runtime.propose(self._meta_vnode, command, self._answered)

    def _answered(self, result: object) -> None:
        if isinstance(result, TimeMachineError):
            # Who hands over refuses at once, again and again.
            self._look_later()
        else:
            self._busy = False
            self.look_soon()


def _end(
    part: CompactionPart, report: CompactionReport | None, there: Iterable[int]
) -> CompactionEnd | None:
    """How a part has ended that meta does not know of yet."""
    if part.ended:
        return None
    if part.node not in there:
        return CompactionEnd(part.node, error=_REMOVED)
    if part.begun and report is not None and report.phase in (Phase.DONE, Phase.FAILED):
        return CompactionEnd(
            part.node, report.disk_bytes, report.steps_done, report.compacted_bytes, report.error
        )
    return None
