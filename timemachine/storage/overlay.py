"""The view that applying reads through while batches are on their way to the disk.

While a batch is being synced, `Store.get` still answers the rows of before. Whoever applies the
next entries has to see what the last ones wrote, so reads go through the batch being built, then
the batches under way (newest first), then the store. A batch that fails takes everything that
followed from it along: nothing of it was promised to anybody yet.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from timemachine.storage.api import Batch, Store

_ABSENT = object()
_NOTHING: Mapping[bytes, bytes] = MappingProxyType({})


class Overlay:
    """The batch being built, over sealed batches in flight, over the store.

    `put`, `put_all` and `delete` write into the batch being built; `seal` hands it out;
    `settled` says that the oldest one handed out is durable; `discard` that it never will be.
    """

    __slots__ = ("_current", "_flying", "_store_get", "_store_near")

    def __init__(self, store: Store) -> None:
        self._store_get = store.get
        self._store_near = store.near
        self._current: Batch = {}
        self._flying: list[Batch] = []

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
        return batch

    def settled(self) -> None:
        """The oldest sealed batch is durable: the store shows it from now on."""
        self._flying.pop(0)

    def discard(self) -> None:
        """A sealed batch failed: forget everything that is not durable."""
        self._current = {}
        self._flying.clear()
