"""The Store port: what the rest of TimeMachine asks of a storage engine.

A store is one sorted map of bytes to bytes. It is written by exactly one writer, one
`write()` at a time, and each write is one atomic, synced batch: when it returns, all of it
survives a power loss, or none of it is there. There is no other way to write, so "un-synced
now, the next sync will cover it" cannot be said (LevelDB loses such writes when its log
rotates in between).
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from timemachine.errors import StoreDamaged

Batch = dict[bytes, bytes | None]
"""One atomic write: key to new value, `None` deletes. Later assignments to a key win."""

Row = tuple[bytes, bytes]


class Prepared(Protocol):
    """An opaque batch in the engine's own form, made by `Store.prepare`."""


class Getting(Protocol):
    """What stores, views and overlays have in common."""

    def get(self, key: bytes) -> bytes | None:
        """See Store."""


class Reading(Getting, Protocol):
    """What a store and a view of one have in common."""

    def scan(
        self, start: bytes, stop: bytes, limit: int = 1000, *, reverse: bool = False
    ) -> list[Row]:
        """See Store."""


class View(Protocol):
    """A store as it was when the view was made; writes since then do not show.

    A view keeps the engine from forgetting what it shows, so whoever made it closes it. It is
    closed with its store at the latest. Reading a closed view raises StoreError.
    """

    def get(self, key: bytes) -> bytes | None:
        """See Store."""

    def scan(
        self,
        start: bytes,
        stop: bytes,
        limit: int = 1000,
        *,
        reverse: bool = False,
        bytes_max: int | None = None,
    ) -> list[Row]:
        """See Store. With `bytes_max`, the row that brings keys and values to it is the last."""

    def close(self) -> None:
        """Let go of it; harmless when repeated, and after the store was closed."""


class Store(Protocol):
    """A sorted, durable byte map. Reads may run while one write is under way in another thread.

    `on_damage` hears of every StoreDamaged that is about to be raised by a read, of the store or
    of a view of it: whoever reads need not know what follows from it.
    """

    on_damage: Callable[[StoreDamaged], None]

    def get(self, key: bytes) -> bytes | None:
        """The value at `key`, or None. Raises StoreDamaged when its bytes fail their checksum."""

    def scan(
        self, start: bytes, stop: bytes, limit: int = 1000, *, reverse: bool = False
    ) -> list[Row]:
        """Rows with `start <= key < stop` in key order (or reverse order), at most `limit`.

        Backwards a row right at `start` is the last that is looked for: what lies before it, maybe
        many deleted ones, costs nothing. Raises StoreDamaged when a row fails its checksum.
        """

    def keys_in(self, ranges: Sequence[tuple[bytes, bytes, int]]) -> list[bytes]:
        """The keys of several ranges (start, stop, at most), which rise and do not overlap.

        Of each the first ones with `start <= key < stop`, at most so many. For many small ranges:
        one iterator that seeks costs a fraction of one for each of them. Raises StoreDamaged when
        a row fails its checksum.
        """

    def near(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Some of the rows at `keys`, and maybe others: those that one short walk comes by.

        `keys` rise. What is missing may be there, and may be damaged; `get` tells. To step from
        row to row costs a tenth of `get`. It pays where keys lie next to each other, as those of
        jobs that were made and are due together do: ids that the node draws rise with time.
        """

    def view(self) -> View:
        """What is durable now, to be read for as long as it takes. The caller closes it."""

    def prepare(self, batch: Batch) -> Prepared:
        """Turn `batch` into the engine's form: the part of writing that needs the interpreter."""

    def write(self, prepared: Prepared) -> None:
        """Write and sync one batch. Blocks; meant for a worker thread.

        Raises StoreFailed. After that every later write raises it too: the handle is dead.
        """

    def pressure(self) -> int:
        """How far compaction lags behind: LevelDB's number of level-0 files (0 is calm)."""

    def approximate_bytes(self, start: bytes, stop: bytes) -> int:
        """About how many bytes on disk the keys `start <= key < stop` take."""

    def compact(self, start: bytes, stop: bytes) -> None:
        """Give back the space of deleted rows between two explicit bounds.

        Blocks, and may run in a thread beside the one that writes. What LevelDB has in the lowest
        level that has any of the range stays as it is, unless rows above reach over it: see
        `timemachine.storage.compacting`.
        """

    def flush(self) -> None:
        """Have what was written in tables, and no more in the log. Blocks, as `compact` does."""

    def compacted_bytes(self) -> int:
        """About how many bytes compactions have read and written since the store was opened."""

    def disk_bytes(self) -> int:
        """How many bytes the store takes on its disk."""

    def close(self) -> None:
        """Close the handle; harmless when repeated."""
