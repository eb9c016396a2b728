"""Mutations of plans: what moves, in which order, and when that is over."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import msgspec

from node import membership as driving
from node.moving import Moving
from tests.sim.mutations.planting import Mutation, swap, swapped, swapped_item
from timemachine import membership
from timemachine.membership import Standing, Wanted
from timemachine.model import Plan, PlanState
from timemachine.placement import Move
from timemachine.raft import ConfChangeType, ConfState
from timemachine.rebalancing import drafting
from timemachine.replica.meta import AdvancePlan, machine
from timemachine.replica.meta.tables import Tables


def _removes_first(original: Any) -> Any:
    def next_change(
        wanted: Wanted, members: ConfState, standings: Mapping[int, Standing], last_index: int
    ) -> Any:
        going = sorted(set(members.voters) - set(wanted.voters) - set(wanted.learners))
        if going and wanted.voters and not members.voters_outgoing:
            return membership._change((ConfChangeType.REMOVE_NODE, going[0]))
        return original(wanted, members, standings, last_index)

    return next_change


@contextmanager
def _begins_twice() -> Iterator[None]:
    """What two node leaders propose is done by both, and each step is proposed as if by two."""
    advance = machine._HANDLERS[AdvancePlan]
    propose = Moving._propose

    def advanced(tables: Tables, command: AdvancePlan) -> Any:
        plan = tables.plans.get(command.id)
        begun = command.begun if plan is None else plan.begun
        return advance(tables, msgspec.structs.replace(command, begun=begun))

    def twofold(self: Moving, command: Any) -> None:
        propose(self, command)
        propose(self, command)

    with ExitStack() as stack:
        stack.enter_context(swapped_item(machine._HANDLERS, AdvancePlan, advanced))
        stack.enter_context(swapped(Moving, "_propose", twofold))
        yield


def _ends_early(original: Any) -> Any:
    def next_(self: Moving, plan: Plan) -> None:
        if plan.state is PlanState.RUNNING and plan.begun >= plan.moves:
            self._open.clear()
        original(self, plan)

    return next_


def _forgets_one(original: Any) -> Any:
    def drain(*args: Any) -> list[Move]:
        moves: list[Move] = original(*args)
        return moves[:-1]

    return drain


MUTATIONS = {
    "move-removes-first": Mutation(
        "A replica that moves leaves its group before the new one votes.",
        ("C10", "C11", "C12", "C1", "C8", "crash"),
        swap(driving, "next_change", _removes_first),
    ),
    "plan-begins-twice": Mutation(
        "Moves are begun again by who has not heard that they were.",
        ("C12",),
        _begins_twice,
    ),
    "plan-ends-early": Mutation(
        "A plan ends when its last moves have begun.",
        ("C12",),
        swap(Moving, "_next", _ends_early),
    ),
    "drain-forgets": Mutation(
        "A node that is emptied keeps a replica.",
        ("C12",),
        swap(drafting, "drain", _forgets_one),
    ),
}
