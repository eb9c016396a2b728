"""How far a node is with its part of a plan that compacts, as it is shown."""

from enum import StrEnum

from node.compacting.reports import CompactionReport, Phase
from timemachine.model import CompactionPart


class CompactionStanding(StrEnum):
    """How far it is."""

    WAITING = "waiting"
    SILENT = "silent"
    PAUSED = "paused"
    TRIMMING = "trimming"
    COMPACTING = "compacting"
    LOW_SPACE = "low_space"
    DONE = "done"
    FAILED = "failed"


def standing_of(
    part: CompactionPart, report: CompactionReport | None, *, ended: bool
) -> CompactionStanding:
    """How far a part is; `ended` is its plan."""
    if part.ended:
        return CompactionStanding.DONE if part.error is None else CompactionStanding.FAILED
    if not part.begun or ended:
        return CompactionStanding.WAITING
    return CompactionStanding.SILENT if report is None else _OF_PHASE[report.phase]


_OF_PHASE = {phase: CompactionStanding(phase.value) for phase in Phase}
