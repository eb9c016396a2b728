"""What a node tells of its part of a plan that compacts."""

from enum import StrEnum

import msgspec


class Phase(StrEnum):
    """What a node is at."""

    PAUSED = "paused"
    TRIMMING = "trimming"
    """It drops what its logs need no more, and erases replicas that are gone."""
    COMPACTING = "compacting"
    LOW_SPACE = "low_space"
    """Its disk is nearly full: a step needs room for what it writes, and waits for that."""
    DONE = "done"
    FAILED = "failed"


class CompactionReport(msgspec.Struct, frozen=True, array_like=True):
    """How far a node is with its part of a plan.

    steps, steps_done  how many there are, 0 while that is not known, and how many are done
    compacted_bytes    what compactions have read and written since it began, LevelDB's own too
    disk_bytes         what the store takes on its disk
    error              why it came to nothing
    """

    node: int
    phase: Phase
    steps: int
    steps_done: int
    compacted_bytes: int
    disk_bytes: int
    error: str | None = None


class CompactionSize(msgspec.Struct, frozen=True, array_like=True):
    """About how much a node has to compact, and what its whole store takes on its disk."""

    node: int
    range_bytes: int
    disk_bytes: int
