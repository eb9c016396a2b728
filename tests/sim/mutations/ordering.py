"""Mutations of ordering keys: whose turn it is."""

from typing import Any

from tests.sim.mutations.planting import Mutation, nothing, swap
from timemachine.model import JobRecord
from timemachine.replica import ordering
from timemachine.replica.rows import JobRows


def _is_always_its_turn(_: Any) -> Any:
    def has_turn(rows: JobRows, job_id: str, record: JobRecord) -> bool:
        return True

    return has_turn


def _is_never_begun(_: Any) -> Any:
    """What comes earlier in the order gets the turn of a job that is between two attempts."""

    def is_begun(record: JobRecord) -> bool:
        return False

    return is_begun


MUTATIONS = {
    "turn-not-asked": Mutation(
        "A job with an ordering key is claimed although an earlier one has not ended.",
        ("C16",),
        swap(ordering, "has_turn", _is_always_its_turn),
    ),
    "turn-lost-at-retry": Mutation(
        "A job between two attempts loses its turn to one that is made with an earlier time.",
        ("C16",),
        swap(ordering, "is_begun", _is_never_begun),
    ),
    "turn-to-nobody": Mutation(
        "When a job ends, the next of its ordering key is not told that it has the turn.",
        ("C1", "C10"),
        swap(ordering, "give_turns", nothing),
    ),
}
