"""Plans that compact: which nodes have begun their parts, which have ended.

Each node reads here whether its part has begun, and whether the plan runs, is paused or has ended.
So a node leader that is lost stops nobody, and whoever follows it goes on from here.
"""

from msgspec.structs import replace

from timemachine.model import CompactionPart, Plan, PlanState
from timemachine.replica.meta import commands as c
from timemachine.replica.meta.records import MetaResult, refused
from timemachine.replica.meta.tables import Tables


def advance_compaction(tables: Tables, command: c.AdvanceCompaction) -> MetaResult:
    """Have parts begin, as many at once as the plan allows; keep how others ended."""
    plan = tables.plans.get(command.id)
    if plan is None or plan.compaction is None or not plan.under_way:
        return refused("version_moved")
    ends = {end.node: end for end in command.ended}
    parts = [_ended(part, ends.get(part.node)) for part in plan.compaction.parts]
    if plan.state is PlanState.RUNNING:
        room = plan.transfers - sum(part.at_work for part in parts)
        for at, part in enumerate(parts):
            if part.node in command.begun and not part.begun and room > 0:
                parts[at] = replace(part, begun=True)
                room -= 1
    plan = replace(plan, compaction=replace(plan.compaction, parts=tuple(parts)))
    tables.keep(plan)
    return MetaResult(kind="replaced", plan=plan)


def _ended(part: CompactionPart, end: c.CompactionEnd | None) -> CompactionPart:
    if end is None or part.ended:
        return part
    return replace(
        part,
        begun=True,
        ended=True,
        after_bytes=end.after_bytes,
        steps=end.steps,
        compacted_bytes=end.compacted_bytes,
        error=end.error,
    )


def has_open_parts(plan: Plan) -> bool:
    """Whether nodes have still to compact for a plan."""
    return plan.compaction is not None and not all(part.ended for part in plan.compaction.parts)


def failed_parts(plan: Plan) -> str | None:
    """In a sentence: how many parts of a plan came to nothing; None for none."""
    parts = () if plan.compaction is None else plan.compaction.parts
    count = sum(part.error is not None for part in parts)
    return f"{count} of {len(parts)} nodes did not compact; each says why." if count else None
