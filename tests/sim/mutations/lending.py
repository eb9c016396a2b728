"""Mutations of credits: what is lent."""

from typing import Any

from tests.sim.mutations.planting import Mutation, swap
from timemachine.delivery.credits import Kind
from timemachine.delivery.ratelimit import RateLimit
from timemachine.delivery.routequeue import RouteQueue


def _uses_what_is_lent(of: Kind) -> Any:
    def make(original: Any) -> Any:
        def set_lent(self: RouteQueue, kind: Kind, lent: int) -> None:
            if kind != of:
                original(self, kind, lent)

        return set_lent

    return make


def _forgets_what_has_begun(_: Any) -> Any:
    def used(self: RateLimit, mono_ms: float) -> int:
        return 0

    return used


MUTATIONS = {
    "lent-and-used": Mutation(
        "A lender goes on to use what it has lent.",
        ("S13",),
        swap(RouteQueue, "set_lent", _uses_what_is_lent(Kind.FLIGHT)),
    ),
    "rate-lent-and-used": Mutation(
        "A lender goes on to use what it has lent of a rate.",
        ("S14",),
        swap(RouteQueue, "set_lent", _uses_what_is_lent(Kind.RATE)),
    ),
    "rate-forgotten": Mutation(
        "A node forgets at once what it has begun of a rate.",
        ("S14",),
        swap(RateLimit, "used", _forgets_what_has_begun),
    ),
}
