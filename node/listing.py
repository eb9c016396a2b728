"""Listing jobs in trigger order over all vnodes, from the indexes, without holding up the loop."""

from collections.abc import Iterator
from heapq import heapify, heappop, heapreplace

from timemachine.model import JobRecord, JobState
from timemachine.replica.machine import read_job
from timemachine.storage.api import Row, Store
from timemachine.storage.keys import ReplicaKeys, u64

_CHUNK_ROWS = 32
_STEPS_BETWEEN_YIELDS = 64


class _Source:
    """One index range of one vnode, read in chunks."""

    __slots__ = ("at", "keys", "next_key", "place", "rows", "stop", "store")

    def __init__(self, store: Store, keys: ReplicaKeys, start: bytes, stop: bytes, at: int) -> None:
        self.store = store
        self.keys = keys
        self.next_key = start
        self.stop = stop
        self.at = at
        self.rows: list[Row] = []
        self.place = 0

    def take(self) -> tuple[bytes, str] | None:
        """The next (sort key, job id), or None at the end."""
        if self.place >= len(self.rows):
            if self.next_key >= self.stop:
                return None
            self.rows = self.store.scan(self.next_key, self.stop, _CHUNK_ROWS)
            self.place = 0
            if len(self.rows) < _CHUNK_ROWS:
                self.next_key = self.stop
            else:
                self.next_key = self.rows[-1][0] + b"\0"
            if not self.rows:
                return None
        key = self.rows[self.place][0][self.at :]
        self.place += 1
        return key, key[8:].decode()


def list_jobs(
    store: Store,
    vnodes: list[ReplicaKeys],
    *,
    states: frozenset[JobState] | None,
    route_uid: int | None,
    from_ms: int | None,
    to_ms: int | None,
    after: tuple[int, str] | None,
    limit: int,
) -> Iterator[list[tuple[str, JobRecord]] | None]:
    """Merge the index ranges that can hold matching jobs.

    Yields None whenever the caller should let others run, and at last the page: at most `limit`
    of (job id, record), in order of (trigger time, job id), from after the position `after`.
    """
    low = u64(from_ms or 0)
    if after is not None:
        low = max(low, u64(after[0]) + after[1].encode() + b"\0")
    sources = []
    for keys in vnodes:
        for start, stop in _ranges(keys, states, route_uid):
            at = len(start)
            end = start + u64(to_ms) if to_ms is not None else stop
            sources.append(_Source(store, keys, start + low, end, at))
    heads: list[tuple[bytes, int, str]] = []
    steps = 0
    for number, source in enumerate(sources):
        row = source.take()
        if row is not None:
            heads.append((row[0], number, row[1]))
        steps += 1
        if steps % _STEPS_BETWEEN_YIELDS == 0:
            yield None
    heapify(heads)
    page: list[tuple[str, JobRecord]] = []
    while heads and len(page) < limit:
        key, number, job_id = heads[0]
        source = sources[number]
        row = source.take()
        if row is None:
            heappop(heads)
        else:
            heapreplace(heads, (row[0], number, row[1]))
        data = store.get(source.keys.job + key[8:])
        if data is not None:
            record = read_job(data)
            # The job may have moved on since the index row was read.
            if key[:8] == u64(record.trigger_ms) and (
                states is None or JobState(record.state) in states
            ):
                page.append((job_id, record))
        steps += 1
        if steps % _STEPS_BETWEEN_YIELDS == 0:
            yield None
    yield page


def _ranges(
    keys: ReplicaKeys, states: frozenset[JobState] | None, route_uid: int | None
) -> list[tuple[bytes, bytes]]:
    if route_uid is not None:
        return [keys.route_range(route_uid)]
    places = set(JobState) if states is None else set(states)
    if JobState.FIRING in places:
        # A firing job stands under the state that it was claimed from.
        places |= {JobState.SCHEDULED, JobState.RETRYING, JobState.HELD}
    places.discard(JobState.FIRING)
    return [keys.state_range(int(place)) for place in sorted(places)]
