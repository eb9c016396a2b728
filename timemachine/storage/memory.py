"""The reference engine: a sorted map in memory, for tests and as the twin of the real one."""

from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakSet

from timemachine.errors import StoreDamaged, StoreError, StoreFailed
from timemachine.storage.api import Batch, Row

_CLOSED = "The view is closed."


def _scan(
    rows: dict[bytes, bytes],
    keys: list[bytes],
    start: bytes,
    stop: bytes,
    limit: int,
    *,
    reverse: bool,
) -> list[Row]:
    low = bisect_left(keys, start)
    high = max(low, bisect_left(keys, stop))
    limit = max(0, limit)
    if reverse:
        found = keys[max(low, high - limit) : high][::-1]
    else:
        found = keys[low : min(high, low + limit)]
    return [(key, rows[key]) for key in found]


class MemoryStoreView:
    """A `View` of a MemoryStore: the rows themselves, until the store has to change them."""

    def __init__(self, rows: dict[bytes, bytes], keys: list[bytes]) -> None:
        self._content: tuple[dict[bytes, bytes], list[bytes]] | None = (rows, keys)

    def _open(self) -> tuple[dict[bytes, bytes], list[bytes]]:
        if self._content is None:
            raise StoreError(_CLOSED)
        return self._content

    def get(self, key: bytes) -> bytes | None:
        """See View."""
        return self._open()[0].get(key)

    def scan(
        self,
        start: bytes,
        stop: bytes,
        limit: int = 1000,
        *,
        reverse: bool = False,
        bytes_max: int | None = None,
    ) -> list[Row]:
        """See View."""
        found = _scan(*self._open(), start, stop, limit, reverse=reverse)
        if bytes_max is not None:
            size = 0
            for number, (key, value) in enumerate(found, 1):
                size += len(key) + len(value)
                if size >= bytes_max:
                    return found[:number]
        return found

    def shows(self, rows: dict[bytes, bytes]) -> bool:
        """Whether it is open and of these very rows."""
        return self._content is not None and self._content[0] is rows

    def close(self) -> None:
        """See View."""
        self._content = None


class MemoryStore:
    """A `Store` without a disk. What is written is "durable" as long as the object lives."""

    def __init__(self, rows: dict[bytes, bytes] | None = None) -> None:
        self._rows: dict[bytes, bytes] = dict(rows or {})
        self._keys: list[bytes] = sorted(self._rows)
        self._views: WeakSet[MemoryStoreView] = WeakSet()
        self._shared = False
        self._closed = False
        self.on_damage: Callable[[StoreDamaged], None] = lambda _: None

    def get(self, key: bytes) -> bytes | None:
        """See Store."""
        return self._rows.get(key)

    def scan(
        self, start: bytes, stop: bytes, limit: int = 1000, *, reverse: bool = False
    ) -> list[Row]:
        """See Store."""
        return _scan(self._rows, self._keys, start, stop, limit, reverse=reverse)

    def keys_in(self, ranges: Sequence[tuple[bytes, bytes, int]]) -> list[bytes]:
        """See Store."""
        keys = self._keys
        return [
            key
            for start, stop, at_most in ranges
            for key in keys[bisect_left(keys, start) : bisect_left(keys, stop)][:at_most]
        ]

    def near(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """See Store."""
        rows = self._rows
        return {key: rows[key] for key in keys if key in rows}

    def view(self) -> MemoryStoreView:
        """See Store. The rows are copied once, and only if they are written while it is open."""
        if self._closed:
            raise StoreError("The store is closed.")
        view = MemoryStoreView(self._rows, self._keys)
        self._views.add(view)
        self._shared = True
        return view

    def prepare(self, batch: Batch) -> Any:
        """See Store."""
        return dict(batch)

    def write(self, prepared: Any) -> None:
        """See Store."""
        if self._closed:
            raise StoreFailed("The store is closed.")
        if self._shared:
            if any(view.shows(self._rows) for view in self._views):
                self._rows = dict(self._rows)
                self._keys = list(self._keys)
            self._shared = False
        for key, value in prepared.items():
            if value is not None:
                if key not in self._rows:
                    insort(self._keys, key)
                self._rows[key] = value
            elif self._rows.pop(key, None) is not None:
                del self._keys[bisect_left(self._keys, key)]

    def image(self) -> dict[bytes, bytes]:
        """A copy of all rows."""
        return dict(self._rows)

    def pressure(self) -> int:
        """See Store."""
        return 0

    def approximate_bytes(self, start: bytes, stop: bytes) -> int:
        """See Store."""
        rows = self.scan(start, stop, len(self._keys))
        return sum(len(key) + len(value) for key, value in rows)

    def compact(self, start: bytes, stop: bytes) -> None:
        """See Store."""

    def flush(self) -> None:
        """See Store."""

    def compacted_bytes(self) -> int:
        """See Store."""
        return 0

    def disk_bytes(self) -> int:
        """See Store."""
        return sum(len(key) + len(value) for key, value in self._rows.items())

    def close(self) -> None:
        """See Store."""
        self._closed = True
        for view in list(self._views):
            view.close()
