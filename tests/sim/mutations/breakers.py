"""Mutations of circuit breakers: what is parked while one is open."""

from typing import Any

from node.delivery.breakers import Breakers
from tests.sim.mutations.planting import Mutation, swap
from timemachine.delivery.breaker import CircuitBreaker
from timemachine.delivery.routequeue import RouteQueue


def _is_never_tried(_: Any) -> Any:
    def may_be_tried(self: CircuitBreaker, now_ms: float) -> bool:
        return False

    return may_be_tried


def _forgets_what_it_drops(_: Any) -> Any:
    """What was queued is taken out of memory, and nobody remembers from where to read it."""

    def make_room(self: Breakers, queue: RouteQueue) -> None:
        for item in queue.take_all():
            item.head.known.pop(item.job_id, None)

    return make_room


MUTATIONS = {
    "breaker-never-tried": Mutation(
        "A breaker that is open stays so, and its jobs wait for ever.",
        ("C1", "C10"),
        swap(CircuitBreaker, "may_be_tried", _is_never_tried),
    ),
    "breaker-drops": Mutation(
        "What is queued when a breaker opens is dropped, and not read again.",
        ("S12", "C1", "C10"),
        swap(Breakers, "_make_room", _forgets_what_it_drops),
    ),
}
