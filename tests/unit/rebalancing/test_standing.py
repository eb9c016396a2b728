"""How far moves are, by what meta and the leaders of vnodes say."""

from collections.abc import Callable

from timemachine.model import Placement, Plan, PlanKind, PlanState
from timemachine.placement import Group, Move
from timemachine.rebalancing import Standing, is_settled, standings

_SWAP = Move(1, 0, 1, (4,), (3,))
_MORE = Move(1, 1, 1, (4,))
_DONE = Placement(1, 0, (1, 2, 3), (1, 2, 4), (), 3, 1)
_MOVING = Placement(1, 0, (1, 2, 3), (1, 2, 4), (3,), 2, 1)


def _plan(begun: int, *void: int, state: PlanState = PlanState.RUNNING) -> Plan:
    return Plan(
        id="p",
        kind=PlanKind.DRAIN,
        basis=b"",
        created_ms=0,
        expires_ms=1,
        moves=2,
        begun=begun,
        void=void,
        state=state,
    )


def _of(placement: Placement | None) -> Callable[[Group], Placement | None]:
    return lambda _: placement


def test_a_move_is_done_when_who_goes_has_gone() -> None:
    """It stands in the placement until then."""
    assert is_settled(_SWAP, _DONE, ())
    assert not is_settled(_SWAP, _MOVING, (1, 2, 4))


def test_where_nobody_goes_those_who_vote_tell() -> None:
    """All of them, and nobody else."""
    placement = Placement(1, 1, (1, 2), (1, 2, 4), (), 2)
    assert not is_settled(_MORE, placement, ())
    assert not is_settled(_MORE, placement, (1, 2))
    assert is_settled(_MORE, placement, {4, 2, 1})


def test_moves_wait_until_they_are_begun() -> None:
    """Then they are under way, done, or void."""
    moves = [_SWAP, _SWAP]
    assert [Standing.WAITING] * 2 == standings(_plan(0), moves, _of(_MOVING), {})
    assert [Standing.MOVING, Standing.WAITING] == standings(_plan(1), moves, _of(_MOVING), {})
    assert [Standing.DONE, Standing.VOID] == standings(_plan(2, 1), moves, _of(_DONE), {})
    assert [Standing.VOID] * 2 == standings(_plan(2), moves, _of(None), {})


def test_very_many_moves_that_came_to_nothing_are_looked_up_at_once() -> None:
    """Named regression: a plan of a collection that was deleted held the loop up when shown."""

    class Looked(int):
        times = 0

        def __eq__(self, other: object) -> bool:
            Looked.times += 1
            return int(self) == other

        __hash__ = int.__hash__

    moves = [_SWAP] * 500
    plan = _plan(500, *map(Looked, range(500)))
    assert [Standing.VOID] * 500 == standings(plan, moves, _of(None), {})
    assert Looked.times <= 2_000


def test_what_leaders_tell_counts_for_their_vnodes() -> None:
    """By group."""
    placement = Placement(1, 1, (1, 2), (1, 2, 4), (), 2)
    told = {(1, 1): [1, 2, 4]}
    assert [Standing.DONE] == standings(_plan(1), [_MORE], _of(placement), told)
    assert [Standing.MOVING] == standings(_plan(1), [_MORE], _of(placement), {})


def test_a_plan_that_is_over_is_not_looked_at_again() -> None:
    """Its vnodes may be changing for another reason; of a cancelled one the last may go on."""
    done = _plan(1, state=PlanState.DONE)
    assert [Standing.DONE] == standings(done, [_SWAP], _of(_MOVING), {})
    cancelled = _plan(1, state=PlanState.CANCELLED)
    assert [Standing.MOVING] == standings(cancelled, [_SWAP], _of(_MOVING), {})
