"""The reference engine: a sorted map in memory, for tests and as the twin of the real one."""

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import Any

from timemachine.errors import StoreFailed
from timemachine.storage.api import Batch, Row


class MemoryStore:
    """A `Store` without a disk. What is written is "durable" as long as the object lives."""

    def __init__(self, rows: dict[bytes, bytes] | None = None) -> None:
        self._rows: dict[bytes, bytes] = dict(rows or {})
        self._keys: list[bytes] = sorted(self._rows)
        self._closed = False

    def get(self, key: bytes) -> bytes | None:
        """See Store."""
        return self._rows.get(key)

    def scan(
        self, start: bytes, stop: bytes, limit: int = 1000, *, reverse: bool = False
    ) -> list[Row]:
        """See Store."""
        low = bisect_left(self._keys, start)
        high = max(low, bisect_left(self._keys, stop))
        limit = max(0, limit)
        if reverse:
            keys = self._keys[max(low, high - limit) : high][::-1]
        else:
            keys = self._keys[low : min(high, low + limit)]
        return [(key, self._rows[key]) for key in keys]

    def keys_in(self, ranges: Sequence[tuple[bytes, bytes, int]]) -> list[bytes]:
        """See Store."""
        keys = self._keys
        return [
            key
            for start, stop, at_most in ranges
            for key in keys[bisect_left(keys, start) : bisect_left(keys, stop)][:at_most]
        ]

    def prepare(self, batch: Batch) -> Any:
        """See Store."""
        return dict(batch)

    def write(self, prepared: Any) -> None:
        """See Store."""
        if self._closed:
            raise StoreFailed("The store is closed.")
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

    def close(self) -> None:
        """See Store."""
        self._closed = True
