"""Which jobs are meant: what lists, bulk tasks and dry runs filter by, and the index that leads."""

import msgspec

from timemachine.model import PENDING_STATES, JobRecord, JobState
from timemachine.storage.keys import ReplicaKeys


class Selection(msgspec.Struct, frozen=True):
    """Jobs for which all that is given holds; None leaves it open.

    `route` is a name; `route_uid` the uid that it has now, 0 when there is no such route. Trigger
    times are from `from_ms` on and before `to_ms`.
    """

    states: frozenset[JobState] | None = None
    route: str | None = None
    route_uid: int = 0
    tag: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None

    def takes(self, record: JobRecord) -> bool:
        """Whether a job is meant."""
        return (
            (self.states is None or record.state in self.states)
            and (self.route is None or record.route == self.route)
            and (self.tag is None or self.tag in record.tags)
            and (self.from_ms is None or record.trigger_ms >= self.from_ms)
            and (self.to_ms is None or record.trigger_ms < self.to_ms)
        )


def index_ranges(keys: ReplicaKeys, selection: Selection) -> list[tuple[bytes, bytes]]:
    """The ranges of one vnode that hold every job that is meant, each in trigger order.

    The keys in them are start + trigger_ms (8) + job id.
    """
    if selection.tag is not None:
        return [keys.tag_range(selection.tag)]
    states = selection.states
    if selection.route is not None and states is not None and states <= PENDING_STATES:
        # What is pending is bound to the route that exists, or to none yet. Ended jobs may be
        # bound to predecessors of that name, which no index leads to.
        uids = {selection.route_uid, 0}
        return [keys.route_range(uid) for uid in sorted(uids)]
    places = set(JobState) if states is None else set(states)
    if JobState.FIRING in places:
        # A firing job stands under the state that it was claimed from.
        places |= {JobState.SCHEDULED, JobState.RETRYING, JobState.HELD}
    places.discard(JobState.FIRING)
    return [keys.state_range(int(place)) for place in sorted(places)]


def walk_ranges(keys: ReplicaKeys, selection: Selection) -> list[tuple[bytes, bytes]]:
    """The same for a walk that takes its time: what changes its range meanwhile is met as well.

    Held jobs become scheduled or retrying when their route is resumed, and the reverse when it is
    paused: so their range comes first, and again at last. Jobs without a route, which are bound to
    one as soon as there is one, come before those that have it.
    """
    ranges = index_ranges(keys, selection)
    held = keys.state_range(int(JobState.HELD))
    if held in ranges and len(ranges) > 1:
        return [held, *(each for each in ranges if each != held), held]
    return ranges
