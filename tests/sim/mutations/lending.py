"""Mutations of credits: what is lent."""

from typing import Any

from tests.sim.mutations.planting import Mutation, swap
from timemachine.delivery.credits import Kind
from timemachine.delivery.routequeue import RouteQueue


def _uses_what_is_lent(_: Any) -> Any:
    def set_lent(self: RouteQueue, kind: Kind, lent: int) -> None:
        pass

    return set_lent


MUTATIONS = {
    "lent-and-used": Mutation(
        "A lender goes on to use what it has lent.",
        ("S13",),
        swap(RouteQueue, "set_lent", _uses_what_is_lent),
    ),
}
