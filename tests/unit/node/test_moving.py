"""What is told of a plan that runs."""

from node.moving import waits_for
from timemachine.model import Plan, PlanKind, PlanState
from timemachine.placement import Move
from timemachine.rebalancing import Standing

MOVES = [Move(1, index, 1, (to,)) for index, to in enumerate((5, 6, 7, 8, 9))]


def _waits_for(begun: int, *standings: Standing, state: PlanState = PlanState.RUNNING) -> list[int]:
    """Of a plan that does two moves at once, while nobody but node 9 answers."""
    plan = Plan(
        id="p",
        kind=PlanKind.REBALANCE,
        basis=b"",
        created_ms=0,
        expires_ms=0,
        transfers=2,
        moves=len(MOVES),
        begun=begun,
        state=state,
    )
    told = [*standings, *([Standing.WAITING] * (len(MOVES) - len(standings)))]
    return list(waits_for(plan, MOVES, told, lambda number: number == 9))


def test_a_plan_tells_of_whom_it_waits_for() -> None:
    """Those whom a move is under way to as well: it was not told that such a move held it up."""
    assert [5, 6] == _waits_for(0)
    assert [6, 7, 8] == _waits_for(2, Standing.DONE, Standing.MOVING)
    assert [8] == _waits_for(3, Standing.DONE, Standing.VOID, Standing.DONE)
    assert [7] == _waits_for(3, *[Standing.DONE] * 2, Standing.MOVING, state=PlanState.CANCELLED)
    assert [] == _waits_for(5, *[Standing.DONE] * 5, state=PlanState.DONE)
