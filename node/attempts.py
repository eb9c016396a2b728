"""The attempts of one route, over all vnodes of its database, the newest first."""

from collections.abc import Iterator
from heapq import heapify, heappop, heapreplace
from typing import ClassVar

import msgspec

from timemachine.model import AttemptRecord, JobRecord
from timemachine.replica.records import find_attempt, read_attempt, read_job, read_listed
from timemachine.storage.api import Row, Store
from timemachine.storage.keys import ReplicaKeys, read_u64

_CHUNK_ROWS = 16
_STEPS_BETWEEN_YIELDS = 32
_ATTEMPT_BYTES = 1_024

RoutePosition = tuple[bytes, int, int, int]
"""Of an attempt: its row without the route (settled_ms, log index, number), the uid of its
collection, the index of its vnode, its place in that row."""


class RouteAttempt(msgspec.Struct, frozen=True, array_like=True):
    """One attempt with the job that it was made for, and where it stands."""

    position: RoutePosition
    job_id: str
    record: JobRecord
    attempt: AttemptRecord


class AttemptsPage(msgspec.Struct, frozen=True, array_like=True):
    """Attempts, the newest first, and what to go on before; None at the end."""

    attempts: list[RouteAttempt]
    position: RoutePosition | None

    halted: ClassVar[bool] = False


def newest_first(position: RoutePosition) -> tuple[bytes, int, int, int]:
    """A sort key under which attempts stand as they are listed."""
    row, uid, index, place = position
    return _older_first(row), uid, index, -place


class _Source:
    """The rows of one vnode, read backwards in chunks."""

    def __init__(self, store: Store, start: bytes, stop: bytes) -> None:
        self._store = store
        self._start = start
        self._stop = stop
        self._rows: list[Row] = []
        self._place = 0
        self._more = True

    def take(self) -> Row | None:
        """The next older row, its key without the route; None at the end."""
        if self._place >= len(self._rows):
            if not self._more:
                return None
            self._rows = self._store.scan(self._start, self._stop, _CHUNK_ROWS, reverse=True)
            self._place = 0
            self._more = len(self._rows) == _CHUNK_ROWS
            if not self._rows:
                return None
            self._stop = self._rows[-1][0]
        key, value = self._rows[self._place]
        self._place += 1
        return key[len(self._start) :], value


def _older_first(key: bytes) -> bytes:
    """A sort key under which later rows come first."""
    return bytes(255 - byte for byte in key)


def route_attempts(
    store: Store,
    vnodes: list[tuple[int, int, ReplicaKeys]],
    route_uid: int,
    before: RoutePosition | None,
    limit: int,
    bytes_max: int | None = None,
) -> Iterator[AttemptsPage | None]:
    """Attempts that were settled before a position, the newest first, at most `limit`.

    `vnodes` are (uid, index, keys) in the order of uid and index. Attempts of jobs that are not
    kept any more are left out. With `bytes_max` a page is full as well when it has about so many
    bytes. Yields None whenever the caller should let others run, and at last a page.
    """
    sources: list[_Source] = []
    heads: list[tuple[bytes, int, Row]] = []
    for number, (uid, index, keys) in enumerate(vnodes):
        start, stop = keys.route_attempts_range(route_uid)
        if before is not None:
            # Rows of one moment stand in the order of their vnodes.
            row, *last, _ = before
            stop = start + row + (b"\0" if [uid, index] >= last else b"")
        source = _Source(store, start, stop)
        sources.append(source)
        head = source.take()
        if head is not None:
            heads.append((_older_first(head[0]), number, head))
        if number % _STEPS_BETWEEN_YIELDS == _STEPS_BETWEEN_YIELDS - 1:
            yield None
    heapify(heads)
    found: list[RouteAttempt] = []
    steps = size = 0
    while heads:
        _, number, (key, value) = heads[0]
        uid, index, keys = vnodes[number]
        listed = read_listed(value)
        places = len(listed)
        if before is not None and (key, uid, index) == before[:3]:
            places = min(places, before[3])
        while places:
            places -= 1
            job_id, serial = listed[places]
            read = _read(store, keys, job_id, serial, read_u64(key[8:16]))
            if read is not None:
                position = key, uid, index, places
                found.append(RouteAttempt(position, job_id, *read))
                size += _ATTEMPT_BYTES + len(read[1].response_body)
                if len(found) == limit or (bytes_max is not None and size >= bytes_max):
                    yield AttemptsPage(found, position)
                    return
            steps += 1
            if steps % _STEPS_BETWEEN_YIELDS == 0:
                yield None
        head = sources[number].take()
        if head is None:
            heappop(heads)
        else:
            heapreplace(heads, (_older_first(head[0]), number, head))
    yield AttemptsPage(found, None)


def _read(
    store: Store,
    keys: ReplicaKeys,
    job_id: str,
    serial: int,
    settled_index: int,
) -> tuple[JobRecord, AttemptRecord] | None:
    raw_id = job_id.encode()
    job = store.get(keys.job + raw_id)
    if job is None:
        return None
    record = read_job(job)
    attempt = find_attempt(store, keys, raw_id, record, serial)
    if attempt is None:
        return None
    made = read_attempt(attempt)
    if made.fence > settled_index:
        return None  # the job was purged, and this is of another one with its id
    return record, made
