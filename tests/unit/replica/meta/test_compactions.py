"""Plans that compact, in the meta group: parts that begin, end and fail."""

from msgspec.structs import replace

from tests.unit.replica.meta.driven import DrivenMeta
from timemachine.model import Compaction, CompactionPart, NodeState, Plan, PlanKind, PlanState
from timemachine.replica.meta import (
    AdvanceCompaction,
    CompactionEnd,
    ConfirmPlan,
    EndPlan,
    PlanMoves,
    PutPlan,
    SteerPlan,
    basis_of,
)

ID = "0198-plan"


def _made(*, transfers: int = 1, nodes: tuple[int, ...] = ()) -> DrivenMeta:
    """Three nodes, and a plan that runs."""
    meta = DrivenMeta(3)
    parts = tuple(CompactionPart(node=number) for number in (1, 2, 3))
    plan = Plan(
        id=ID,
        kind=PlanKind.COMPACT,
        basis=basis_of(meta.machine),
        created_ms=2,
        expires_ms=1_000,
        nodes=nodes,
        transfers=transfers,
        compaction=Compaction(parts=parts),
    )
    assert meta.apply(PutPlan(now_ms=2, plan=plan, moves=PlanMoves(ID, (), ()))).code is None
    assert meta.apply(ConfirmPlan(now_ms=3, id=ID)).code is None
    return meta


def _parts(meta: DrivenMeta) -> dict[int, str]:
    compaction = meta.machine.plans[ID].compaction
    assert compaction is not None
    assert meta.reloaded().plans == meta.machine.plans
    return {
        part.node: "ended" if part.ended else "begun" if part.begun else "waits"
        for part in compaction.parts
    }


def test_so_many_nodes_at_once() -> None:
    """One after the other, unless more are asked for; the next begins as one ends."""
    meta = _made()
    meta.apply(AdvanceCompaction(now_ms=4, id=ID, begun=(2, 3)))
    assert {1: "waits", 2: "begun", 3: "waits"} == _parts(meta)
    meta.apply(AdvanceCompaction(now_ms=5, id=ID, begun=(1, 3)))
    assert {1: "waits", 2: "begun", 3: "waits"} == _parts(meta)
    end = CompactionEnd(2, after_bytes=7, steps=3, compacted_bytes=9)
    meta.apply(AdvanceCompaction(now_ms=6, id=ID, begun=(1, 3), ended=(end,)))
    assert {1: "begun", 2: "ended", 3: "waits"} == _parts(meta)
    compaction = meta.machine.plans[ID].compaction
    assert compaction is not None
    part = compaction.parts[1]
    assert (7, 3, 9, None) == (part.after_bytes, part.steps, part.compacted_bytes, part.error)
    meta.apply(AdvanceCompaction(now_ms=7, id=ID, ended=(CompactionEnd(2, error="twice"),)))
    assert meta.machine.plans[ID].compaction == compaction, "what is known of an end stays"


def test_it_ends_when_all_parts_have() -> None:
    """Not before; and done, if none failed."""
    meta = _made(transfers=3)
    meta.apply(AdvanceCompaction(now_ms=4, id=ID, begun=(1, 2, 3)))
    meta.apply(AdvanceCompaction(now_ms=4, id=ID, ended=(CompactionEnd(1), CompactionEnd(2))))
    assert "version_moved" == meta.apply(EndPlan(now_ms=5, id=ID)).code
    meta.apply(AdvanceCompaction(now_ms=6, id=ID, ended=(CompactionEnd(3),)))
    assert meta.apply(EndPlan(now_ms=7, id=ID)).code is None
    plan = meta.machine.plans[ID]
    assert (PlanState.DONE, None, 7) == (plan.state, plan.error, plan.finished_ms)


def test_a_part_that_failed_fails_the_plan() -> None:
    """The others were done all the same."""
    meta = _made(transfers=3)
    ends = (CompactionEnd(1), CompactionEnd(2, error="why"), CompactionEnd(3))
    meta.apply(AdvanceCompaction(now_ms=4, id=ID, begun=(1, 2, 3), ended=ends))
    meta.apply(EndPlan(now_ms=5, id=ID))
    plan = meta.machine.plans[ID]
    assert PlanState.FAILED is plan.state
    assert "1 of 3 nodes did not compact; each says why." == plan.error


def test_while_paused_parts_end_and_none_begins() -> None:
    """A step that was under way may be the last."""
    meta = _made()
    meta.apply(AdvanceCompaction(now_ms=4, id=ID, begun=(1,)))
    meta.apply(SteerPlan(now_ms=5, id=ID, state=PlanState.PAUSED))
    meta.apply(AdvanceCompaction(now_ms=6, id=ID, begun=(2,), ended=(CompactionEnd(1),)))
    assert {1: "ended", 2: "waits", 3: "waits"} == _parts(meta)
    meta.apply(SteerPlan(now_ms=7, id=ID, state=PlanState.CANCELLED))
    late = meta.apply(AdvanceCompaction(now_ms=8, id=ID, begun=(2,)))
    assert "version_moved" == late.code


def test_nodes_that_leave_go_on_leaving() -> None:
    """A rebalance takes the nodes back that it names; to compact them says nothing of that."""
    meta = _made()
    meta.apply(SteerPlan(now_ms=4, id=ID, state=PlanState.CANCELLED))
    meta.machine.keep(replace(meta.machine.nodes["n2"], state=NodeState.LEAVING))
    plan = replace(
        meta.machine.plans[ID],
        id="other",
        nodes=(2,),
        state=PlanState.PROPOSED,
        basis=basis_of(meta.machine),
    )
    meta.apply(PutPlan(now_ms=5, plan=plan, moves=PlanMoves("other", (), ())))
    assert meta.apply(ConfirmPlan(now_ms=6, id="other")).code is None
    assert NodeState.LEAVING is meta.machine.nodes["n2"].state
