"""The attempts of one route, over all vnodes of its database, the newest first."""

from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heapreplace

from timemachine import codec
from timemachine.model import AttemptRecord, Collection, JobRecord
from timemachine.replica.records import read_attempt, read_job
from timemachine.storage.api import Row, Store
from timemachine.storage.keys import ReplicaKeys, after_prefix, read_u64, u32, u64

_CHUNK_ROWS = 16
_PURGED_ROWS = 200
_STEPS_BETWEEN_YIELDS = 32
_ROUTES_LOOKED_AT = 8

_read_listed: Callable[[bytes], list[tuple[str, int]]] = codec.decoder(list[tuple[str, int]])

RoutePosition = tuple[bytes, int, int, int]
"""Of an attempt: its row without the route (settled_ms, log index, number), the uid of its
collection, the index of its vnode, its place in that row."""


class RouteAttempt:
    """One attempt with the job that it was made for."""

    __slots__ = ("attempt", "collection", "job_id", "record")

    def __init__(
        self, collection: Collection, job_id: str, record: JobRecord, attempt: AttemptRecord
    ) -> None:
        self.collection = collection
        self.job_id = job_id
        self.record = record
        self.attempt = attempt


RoutePage = tuple[list[RouteAttempt], RoutePosition | None]
"""Attempts, and what to go on before; None at the end."""


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
    vnodes: list[tuple[Collection, int, ReplicaKeys]],
    route_uid: int,
    before: RoutePosition | None,
    limit: int,
) -> Iterator[RoutePage | None]:
    """Attempts that were settled before a position, the newest first, at most `limit`.

    `vnodes` are (collection, index, keys) in the order of uid and index. Attempts of jobs that are
    not kept any more are left out. Yields None whenever the caller should let others run, and at
    last a page.
    """
    sources: list[_Source] = []
    heads: list[tuple[bytes, int, Row]] = []
    for number, (collection, index, keys) in enumerate(vnodes):
        start, stop = keys.route_attempts_range(route_uid)
        if before is not None:
            # Rows of one moment stand in the order of their vnodes.
            row, uid, last, _ = before
            stop = start + row + (b"\0" if (collection.uid, index) >= (uid, last) else b"")
        source = _Source(store, start, stop)
        sources.append(source)
        head = source.take()
        if head is not None:
            heads.append((_older_first(head[0]), number, head))
        if number % _STEPS_BETWEEN_YIELDS == _STEPS_BETWEEN_YIELDS - 1:
            yield None
    heapify(heads)
    found: list[RouteAttempt] = []
    steps = 0
    while heads:
        _, number, (key, value) = heads[0]
        collection, index, keys = vnodes[number]
        listed = _read_listed(value)
        places = len(listed)
        if before is not None and (key, collection.uid, index) == before[:3]:
            places = min(places, before[3])
        while places:
            places -= 1
            job_id, serial = listed[places]
            attempt = _read(store, keys, collection, job_id, serial, read_u64(key[8:16]))
            if attempt is not None:
                found.append(attempt)
                if len(found) == limit:
                    yield found, (key, collection.uid, index, places)
                    return
            steps += 1
            if steps % _STEPS_BETWEEN_YIELDS == 0:
                yield None
        head = sources[number].take()
        if head is None:
            heappop(heads)
        else:
            heapreplace(heads, (_older_first(head[0]), number, head))
    yield found, None


def _read(
    store: Store,
    keys: ReplicaKeys,
    collection: Collection,
    job_id: str,
    serial: int,
    settled_index: int,
) -> RouteAttempt | None:
    raw_id = job_id.encode()
    job = store.get(keys.job + raw_id)
    attempt = store.get(keys.attempts_range(raw_id)[0] + u32(serial))
    if job is None or attempt is None:
        return None
    record = read_attempt(attempt)
    if record.fence > settled_index:
        return None  # the job was purged, and this is of another one with its id
    return RouteAttempt(collection, job_id, read_job(job), record)


def old_attempt_rows(
    store: Store, keys: ReplicaKeys, before_ms: int, cursor: bytes
) -> tuple[list[bytes], bytes]:
    """Some rows, without their table's prefix, that were settled before a time.

    Looks at some routes from `cursor` on, empty at the beginning; returns the next one too.
    """
    found: list[bytes] = []
    table = keys.route_attempts
    at = len(table)
    cursor = cursor or table
    for _ in range(_ROUTES_LOOKED_AT):
        first = store.scan(cursor, after_prefix(table), 1)
        if not first:
            return found, b""
        route = first[0][0][: at + 8]
        rows = store.scan(route, route + u64(before_ms), _PURGED_ROWS)
        found += [key[at:] for key, _ in rows]
        cursor = after_prefix(route)
    return found, cursor
