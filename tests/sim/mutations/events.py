"""Mutations of operational events: what is forgotten before it is told, and told as another."""

from typing import Any

import node.events
from node.events import Events
from tests.sim.mutations.planting import Mutation, swap


def _forgets_at_once(create: Any) -> Any:
    """Whoever tells does not wait for the answers."""

    def forgetful(self: Events, db: str, jobs: Any, told: Any) -> None:
        create(self, db, jobs, lambda _: None)
        told(True)

    return forgetful


def _draws_uids(event_uid: Any) -> Any:
    """Each time that an event is told its job is another one."""
    times = 0

    def anew(group: Any, serial: int, event: Any) -> bytes:
        nonlocal times
        times += 1
        drawn: bytes = event_uid(group, serial + (times << 32), event)
        return drawn

    return anew


MUTATIONS = {
    "event-forgotten": Mutation(
        "An event is forgotten before its job is known to be there.",
        ("C15",),
        swap(Events, "_create", _forgets_at_once),
    ),
    "event-told-anew": Mutation(
        "An event that is told again is another webhook.",
        ("C15",),
        swap(node.events, "event_uid", _draws_uids),
    ),
}
