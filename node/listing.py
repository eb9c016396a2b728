"""Listing jobs in trigger order over all vnodes, from the indexes, without holding up the loop."""

from collections.abc import Iterator
from heapq import heapify, heappop, heapreplace

import msgspec

from node.selection import Selection, index_ranges
from timemachine import limits
from timemachine.model import JobRecord
from timemachine.replica.records import read_job, read_meta
from timemachine.storage.api import Row, Store
from timemachine.storage.keys import ReplicaKeys, u64

_CHUNK_ROWS = 32
_STEPS_BETWEEN_YIELDS = 32
_BYTES_BETWEEN_YIELDS = 1024 * 1024
_JOB_BYTES = 256

Position = tuple[int, str]
"""Of a job in trigger order: its trigger time in milliseconds, its id."""

FoundJob = tuple[str, JobRecord, bytes]
"""A job: its id, its record, its meta."""


class JobsPage(msgspec.Struct, frozen=True, array_like=True):
    """Jobs in trigger order, and what to go on after; None at the end.

    `halted` where it ends because so many rows were looked at. Else it is full.
    """

    jobs: list[FoundJob]
    position: Position | None
    halted: bool = False


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
    bytes_max: int | None = None,
) -> Iterator[JobsPage | None]:
    """Merge the index ranges that can hold the jobs that are meant.

    Yields None whenever the caller should let others run, and at last a page: at most `limit`
    jobs, from after the position `after`. A page may hold fewer, and still say what to go on
    after: where no index leads to just these jobs, it ends after so many were looked at. With
    `bytes_max` it is full as well when its jobs have about so many bytes.
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
    jobs: list[FoundJob] = []
    position: Position | None = None
    looked_at = size = size_yielded = 0
    while heads:
        key, number = heads[0]
        full = len(jobs) == limit or (bytes_max is not None and size >= bytes_max)
        if full or looked_at == limits.LIST_ROWS_LOOKED_AT_MAX:
            yield JobsPage(jobs, position, not full)
            return
        source = sources[number]
        row = source.take()
        if row is None:
            heappop(heads)
        else:
            heapreplace(heads, (row, number))
        looked_at += 1
        before = position
        position = int.from_bytes(key[:8], "big"), key[8:].decode()
        data = store.get(source.keys.job + key[8:])
        # In two ranges stands what has changed its state since the first of them was read.
        if data is not None and position != before:
            record = read_job(data)
            # The job may have moved on since the index row was read.
            if record.trigger_ms == position[0] and selection.takes(record):
                meta = read_meta(store, source.keys, key[8:], record)
                jobs.append((position[1], record, meta))
                size += _JOB_BYTES + len(meta)
        if looked_at % _STEPS_BETWEEN_YIELDS == 0 or size - size_yielded > _BYTES_BETWEEN_YIELDS:
            size_yielded = size
            yield None
    yield JobsPage(jobs, None)


def count_jobs(
    store: Store,
    vnodes: list[ReplicaKeys],
    selection: Selection,
    *,
    unattempted: bool = False,
    sample: int = 0,
) -> Iterator[tuple[int, list[tuple[int, FoundJob]]] | None]:
    """Count the jobs that are meant; those that were never attempted only, if asked.

    Yields None whenever the caller should let others run, and at last (count, some of the jobs),
    each of these with the place of its vnode among `vnodes`.
    """
    total = steps = 0
    found: list[tuple[int, FoundJob]] = []
    for place, keys in enumerate(vnodes):
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
                            meta = read_meta(store, keys, raw_id, record)
                            found.append((place, (raw_id.decode(), record, meta)))
                    steps += 1
                    if steps % _STEPS_BETWEEN_YIELDS == 0:
                        yield None
                if len(rows) < limits.BULK_JOBS_PER_COMMAND_MAX:
                    break
                cursor = rows[-1][0] + b"\0"
        yield None
    yield total, found
