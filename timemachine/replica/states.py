"""States and queues as the plain numbers that records hold, and the moves that are allowed.

A member of an enumeration would cost a look-up each time it is named, on the path of every job.
"""

from typing import Final

from timemachine.model import ALLOWED_MOVES, JobState, Queue

SCHEDULED: Final = int(JobState.SCHEDULED)
FIRING: Final = int(JobState.FIRING)
RETRYING: Final = int(JobState.RETRYING)
HELD: Final = int(JobState.HELD)
DELIVERED: Final = int(JobState.DELIVERED)
DEAD: Final = int(JobState.DEAD)
CANCELLED: Final = int(JobState.CANCELLED)

CLAIMABLE: Final = (SCHEDULED, RETRYING, HELD)
TERMINAL: Final = (DELIVERED, DEAD, CANCELLED)

NO_QUEUE: Final = int(Queue.NONE)
DUE: Final = int(Queue.DUE)
WAITING: Final = int(Queue.WAITING)
PARKED: Final = int(Queue.PARKED)
BEHIND: Final = int(Queue.BEHIND)
NO_ROW: Final = (NO_QUEUE, PARKED, BEHIND)
"""Those whose jobs stand in no index of what is next."""

MOVES: Final = frozenset((int(a), int(b)) for a, b in ALLOWED_MOVES if a is not None)

assert {b for a, b in ALLOWED_MOVES if a is None} == {SCHEDULED}, "jobs begin as scheduled"
