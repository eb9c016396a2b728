"""How far each move of a plan that runs is: seen from what meta says, and from who votes."""

from collections.abc import Callable, Collection, Mapping, Sequence
from enum import StrEnum

from timemachine.model import Placement, Plan
from timemachine.placement import Group, Move


class Standing(StrEnum):
    """How far a move is."""

    WAITING = "waiting"
    MOVING = "moving"
    DONE = "done"
    VOID = "void"
    """Its vnode had changed meanwhile, or was deleted."""


def standings(
    plan: Plan,
    moves: Sequence[Move],
    placement_of: Callable[[Group], Placement | None],
    voters: Mapping[Group, Collection[int]],
) -> list[Standing]:
    """How far the moves of a plan are, each in its place.

    `voters` are the ids of the replicas that vote in vnodes, as far as their leaders have told.
    """
    void = set(plan.void)
    return [
        Standing.VOID if at in void else _standing(plan, at, move, placement_of, voters)
        for at, move in enumerate(moves)
    ]


def _standing(
    plan: Plan,
    at: int,
    move: Move,
    placement_of: Callable[[Group], Placement | None],
    voters: Mapping[Group, Collection[int]],
) -> Standing:
    if at >= plan.begun:
        return Standing.WAITING
    if plan.completed:
        return Standing.DONE  # it has ended with its last move; others may be at work since
    group = move.uid, move.index
    placement = placement_of(group)
    if placement is None:
        return Standing.VOID
    return Standing.DONE if is_settled(move, placement, voters.get(group, ())) else Standing.MOVING


def is_settled(move: Move, placement: Placement, voters: Collection[int]) -> bool:
    """Whether a vnode has just the replicas that it is to have, after a move of it was begun.

    Replicas that are to go stand in the placement until its group has settled. Where none went,
    only `voters` tell: the ids of the replicas that vote.
    """
    if placement.removing:
        return False
    return bool(move.remove) or set(voters) == set(placement.replicas)
