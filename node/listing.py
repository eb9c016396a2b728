"""Listing jobs in trigger order over all vnodes, from the indexes, without holding up the loop."""

from collections.abc import Iterator
from heapq import heapify, heappop, heapreplace

from node.selection import Selection, index_ranges
from timemachine import limits
from timemachine.model import JobRecord
from timemachine.replica.records import read_job
from timemachine.storage.api import Row, Store
from timemachine.storage.keys import ReplicaKeys, u64

_CHUNK_ROWS = 32
_STEPS_BETWEEN_YIELDS = 32

Position = tuple[int, str]
"""Of a job in trigger order: its trigger time in milliseconds, its id."""

Page = tuple[list[tuple[str, JobRecord]], Position | None]
"""Jobs with their ids, and what to go on after; None at the end."""


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

    def take(self) -> bytes | None:
        """The next trigger_ms (8) + job id, or None at the end."""
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
        return key


def list_jobs(
    store: Store,
    vnodes: list[ReplicaKeys],
    selection: Selection,
    after: Position | None,
    limit: int,
) -> Iterator[Page | None]:
    """Merge the index ranges that can hold the jobs that are meant.

    Yields None whenever the caller should let others run, and at last a page: at most `limit`
    jobs, from after the position `after`. A page may hold fewer, and still say what to go on
    after: where no index leads to just these jobs, it ends after so many were looked at.
    """
    low = u64(selection.from_ms or 0)
    if after is not None:
        low = max(low, u64(after[0]) + after[1].encode() + b"\0")
    sources = []
    for keys in vnodes:
        for start, stop in index_ranges(keys, selection):
            end = stop if selection.to_ms is None else start + u64(selection.to_ms)
            sources.append(_Source(store, keys, start + low, end, len(start)))
    heads: list[tuple[bytes, int]] = []
    for number, source in enumerate(sources):
        row = source.take()
        if row is not None:
            heads.append((row, number))
        # LevelDB walks over what was deleted, which after a bulk task may take milliseconds.
        yield None
    heapify(heads)
    steps = 0
    jobs: list[tuple[str, JobRecord]] = []
    position: Position | None = None
    looked_at = 0
    while heads:
        key, number = heads[0]
        if len(jobs) == limit or looked_at == limits.LIST_ROWS_LOOKED_AT_MAX:
            yield jobs, position
            return
        source = sources[number]
        row = source.take()
        if row is None:
            heappop(heads)
        else:
            heapreplace(heads, (row, number))
        looked_at += 1
        position = int.from_bytes(key[:8], "big"), key[8:].decode()
        data = store.get(source.keys.job + key[8:])
        if data is not None:
            record = read_job(data)
            # The job may have moved on since the index row was read.
            if record.trigger_ms == position[0] and selection.takes(record):
                jobs.append((position[1], record))
        steps += 1
        if steps % _STEPS_BETWEEN_YIELDS == 0:
            yield None
    yield jobs, None


def count_jobs(
    store: Store,
    vnodes: list[ReplicaKeys],
    selection: Selection,
    *,
    unattempted: bool = False,
    sample: int = 0,
) -> Iterator[tuple[int, list[tuple[str, JobRecord]]] | None]:
    """Count the jobs that are meant; those that were never attempted only, if asked.

    Yields None whenever the caller should let others run, and at last (count, some of the jobs).
    """
    total = steps = 0
    found: list[tuple[str, JobRecord]] = []
    for keys in vnodes:
        for start, stop in index_ranges(keys, selection):
            at = len(start)
            cursor = start + u64(selection.from_ms or 0)
            end = stop if selection.to_ms is None else start + u64(selection.to_ms)
            while True:
                rows = store.scan(cursor, end, limits.BULK_JOBS_PER_COMMAND_MAX)
                for key, _ in rows:
                    raw_id = key[at + 8 :]
                    data = store.get(keys.job + raw_id)
                    record = None if data is None else read_job(data)
                    if (
                        record is not None
                        and selection.takes(record)
                        and not (unattempted and record.attempts)
                    ):
                        total += 1
                        if len(found) < sample:
                            found.append((raw_id.decode(), record))
                    steps += 1
                    if steps % _STEPS_BETWEEN_YIELDS == 0:
                        yield None
                if len(rows) < limits.BULK_JOBS_PER_COMMAND_MAX:
                    break
                cursor = rows[-1][0] + b"\0"
        yield None
    yield total, found
