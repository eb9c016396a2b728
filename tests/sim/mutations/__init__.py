"""Planted faults: what the simulator is worth.

Each mutation breaks one rule of production's code, while it is planted, in a way in which such a
rule is broken by mistake. None of them is known to the simulator, to its nemesis or to the checks.
How many seeds each needs is told in `docs/design/simulation.md`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tests.sim.mutations import (
    backups,
    breakers,
    compactions,
    consensus,
    events,
    firing,
    forwarding,
    growth,
    leases,
    lending,
    membership,
    ordering,
    plans,
    snapshots,
)
from tests.sim.mutations.counted import FIRST_FOUND
from tests.sim.mutations.planting import Mutation

MUTATIONS: Final[dict[str, Mutation]] = {
    **consensus.MUTATIONS,
    **leases.MUTATIONS,
    **firing.MUTATIONS,
    **forwarding.MUTATIONS,
    **snapshots.MUTATIONS,
    **membership.MUTATIONS,
    **growth.MUTATIONS,
    **plans.MUTATIONS,
    **compactions.MUTATIONS,
    **backups.MUTATIONS,
    **lending.MUTATIONS,
    **breakers.MUTATIONS,
    **events.MUTATIONS,
    **ordering.MUTATIONS,
}

_FEW: Final = 26


def seeds_needed(name: str) -> int:
    """How many seeds had to be run, from 0 on, when it was last counted."""
    return FIRST_FOUND[name] + 1


def is_rare(name: str) -> bool:
    """Whether to find it takes too long for each push."""
    return seeds_needed(name) > _FEW


@contextmanager
def planted(name: str) -> Iterator[None]:
    """The mutation of this name is in production's code. Raises KeyError for none."""
    with MUTATIONS[name].plant():
        yield
