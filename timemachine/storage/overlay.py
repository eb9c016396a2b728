"""The view that applying reads through while batches are on their way to the disk.

While a batch is being synced, `Store.get` still answers the rows of before. Whoever applies the
next entries has to see what the last ones wrote, so reads go through the batch being built, then
the batches under way (newest first), then the store. A batch that fails takes everything that
followed from it along: nothing of it was promised to anybody yet.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from timemachine.storage.api import Batch, Store
from timemachine.storage.keys import after_prefix

_ABSENT = object()
_SCAN_ROWS_FIRST = 4
_NOTHING: Mapping[bytes, bytes] = MappingProxyType({})


class Overlay:
    """The batch being built, over sealed batches in flight, over the store.

    `put`, `put_all` and `delete` write into the batch being built; `seal` hands it out;
    `settled` says that the oldest one handed out is durable; `discard` that it never will be.
    `put_listed` writes a row of a table of which `first` finds the first one.
    """

    __slots__ = (
        "_current",
        "_flying",
        "_listed",
        "_listed_flying",
        "_store_get",
        "_store_near",
        "_store_scan",
    )

    def __init__(self, store: Store) -> None:
        self._store_get = store.get
        self._store_near = store.near
        self._store_scan = store.scan
        self._current: Batch = {}
        self._flying: list[Batch] = []
        # By table, the keys of it that were written in each of these batches.
        self._listed: dict[bytes, set[bytes]] = {}
        self._listed_flying: list[dict[bytes, set[bytes]]] = []

    def near(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """What to give to `get` for each of `keys`, in the same turn of the loop: see Store.near.

        It is what the store has, and what batches will make of it is not in there.
        """
        return self._store_near(sorted(keys))

    def get(self, key: bytes, near: Mapping[bytes, bytes] = _NOTHING) -> bytes | None:
        """The value at `key` as it will be when all batches are written."""
        value = self._current.get(key, _ABSENT)
        if value is not _ABSENT:
            return value  # type: ignore[return-value]
        for batch in reversed(self._flying):
            value = batch.get(key, _ABSENT)
            if value is not _ABSENT:
                return value  # type: ignore[return-value]
        value = near.get(key)
        return self._store_get(key) if value is None else value

    def put(self, key: bytes, value: bytes) -> None:
        """Set `key` in the batch being built."""
        self._current[key] = value

    def put_all(self, rows: Mapping[bytes, bytes | None]) -> None:
        """Set several keys in the batch being built; None deletes."""
        self._current.update(rows)

    def delete(self, key: bytes) -> None:
        """Delete `key` in the batch being built."""
        self._current[key] = None

    def put_listed(self, table: bytes, key: bytes, value: bytes | None) -> None:
        """Set `table` + `key` in the batch being built; None deletes."""
        self._current[table + key] = value
        self._listed.setdefault(table, set()).add(table + key)

    def first(self, table: bytes, low: bytes) -> tuple[bytes, bytes] | None:
        """The first row of a table from `low` on, as it will be when all batches are written.

        Its key is without the table. Every row of the table comes by `put_listed`. The store is
        scanned from `low` on, so that is to be near: LevelDB walks over deleted keys.
        """
        fresh: set[bytes] = set()
        for listed in (*self._listed_flying, self._listed):
            fresh |= listed.get(table, fresh)
        start, stop = table + low, after_prefix(table)
        best = min(
            [key for key in fresh if key >= start and self.get(key) is not None], default=b""
        )
        count = _SCAN_ROWS_FIRST
        while True:
            rows = self._store_scan(start, best or stop, count)
            for key, value in rows:
                if key not in fresh:
                    return key[len(table) :], value
            if len(rows) < count:
                break
            start, count = rows[-1][0] + b"\0", 4 * count
        last = self.get(best) if best else None
        return None if last is None else (best[len(table) :], last)

    def pending(self, start: bytes, stop: bytes) -> Batch:
        """What the store does not show yet of the keys from `start` on, before `stop`."""
        found: Batch = {}
        for batch in (*self._flying, self._current):
            for key, value in batch.items():
                if start <= key < stop:
                    found[key] = value
        return found

    def __len__(self) -> int:
        """Rows in the batch being built."""
        return len(self._current)

    def forget(self, start: bytes, stop: bytes) -> None:
        """Take back what the batch being built has of the keys from `start` on, before `stop`."""
        for key in [key for key in self._current if start <= key < stop]:
            del self._current[key]

    def seal(self) -> Batch:
        """Close the batch being built and return it; it stays visible until `settled`."""
        batch = self._current
        self._current = {}
        self._flying.append(batch)
        self._listed_flying.append(self._listed)
        self._listed = {}
        return batch

    def settled(self) -> None:
        """The oldest sealed batch is durable: the store shows it from now on."""
        self._flying.pop(0)
        self._listed_flying.pop(0)

    def discard(self) -> None:
        """A sealed batch failed: forget everything that is not durable."""
        self._current = {}
        self._flying.clear()
        self._listed = {}
        self._listed_flying.clear()
