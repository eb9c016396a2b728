"""Plans in the meta machine."""

from tests.unit.replica.meta.driven import DrivenMeta
from timemachine.model import Plan, PlanKind, PlanState
from timemachine.replica.meta import (
    ConfirmPlan,
    EndPlan,
    PlanMoves,
    PutPlan,
    basis_of,
)

LATER_MS = 200_000_000


def put(meta: DrivenMeta, now_ms: int) -> PutPlan:
    """A plan without moves, whose id follows from a key."""
    plan = Plan(
        id="of-a-key",
        kind=PlanKind.REBALANCE,
        basis=basis_of(meta.machine),
        created_ms=now_ms,
        expires_ms=now_ms + 1_000,
    )
    return PutPlan(now_ms=now_ms, plan=plan, moves=PlanMoves(plan.id, (), ()), request=None)


def test_a_key_that_is_used_again_leaves_a_plan_that_runs() -> None:
    """Found: its answer is forgotten after a day, and the plan was replaced in the middle."""
    meta = DrivenMeta()
    meta.apply(put(meta, 1))
    meta.apply(ConfirmPlan(now_ms=2, id="of-a-key"))
    result = meta.apply(put(meta, LATER_MS))
    assert result.plan is not None
    assert ("unchanged", PlanState.RUNNING, 1) == (
        result.kind,
        result.plan.state,
        result.plan.created_ms,
    )
    meta.apply(EndPlan(now_ms=LATER_MS, id="of-a-key"))
    result = meta.apply(put(meta, LATER_MS))
    assert result.plan is not None
    assert ("created", PlanState.PROPOSED, LATER_MS) == (
        result.kind,
        result.plan.state,
        result.plan.created_ms,
    )
