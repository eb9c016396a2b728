"""In which order a task looks at the indexes."""

from node.selection import Selection, index_ranges, walk_ranges
from timemachine.model import PENDING_STATES, JobState
from timemachine.storage.keys import ReplicaKeys

KEYS = ReplicaKeys(7)


def test_held_jobs_come_first_and_last() -> None:
    """Resumed meanwhile they are where the walk comes yet; paused meanwhile as well."""
    selection = Selection(states=PENDING_STATES)
    states = (JobState.HELD, JobState.SCHEDULED, JobState.RETRYING, JobState.HELD)
    assert [KEYS.state_range(int(state)) for state in states] == walk_ranges(KEYS, selection)
    alone = Selection(states=frozenset({JobState.HELD}))
    assert [KEYS.state_range(int(JobState.HELD))] == walk_ranges(KEYS, alone)


def test_jobs_without_a_route_come_before_those_that_have_it() -> None:
    """They are bound to it when they are due and have to wait."""
    selection = Selection(states=PENDING_STATES, route="late", route_uid=9)
    assert [KEYS.route_range(0), KEYS.route_range(9)] == walk_ranges(KEYS, selection)


def test_other_walks_go_by_the_index_that_leads() -> None:
    """Each range once."""
    for selection in (
        Selection(tag="x", states=PENDING_STATES),
        Selection(states=frozenset({JobState.DEAD}), route="r", route_uid=1),
    ):
        assert index_ranges(KEYS, selection) == walk_ranges(KEYS, selection)
