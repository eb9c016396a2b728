"""One replica's log: what storage shows, what is younger, and how far it is committed."""

from collections.abc import Sequence

from timemachine.errors import StoreDamaged
from timemachine.raft.messages import Entry, limit_size
from timemachine.raft.storage import Compacted, EntryUnavailable, Storage
from timemachine.raft.unstable import Unstable


class Log:
    """The entries of one replica, from `first_index()` to `last_index()`.

    Entries before `unstable.offset` are read from storage, the others from `unstable`.

    Invariants:
    1. Indexes are contiguous.
    2. Terms never decrease along the log.
    3. `applied <= applying <= committed <= last_index()`. `committed` is known to be durable on a
       majority, `applying` was handed to the host, `applied` was reported back by it.
    4. `committed` and `applied` never fall.
    5. A committed entry never changes: nothing is appended at or before `committed`.
    6. `first_index() <= applied + 1`: the host compacts only what it has applied.
    """

    __slots__ = (
        "applied",
        "applying",
        "committed",
        "committed_size_per_ready_max",
        "storage",
        "unstable",
    )

    def __init__(self, storage: Storage, committed_size_per_ready_max: int) -> None:
        self.storage = storage
        self.unstable = Unstable(storage.last_index() + 1)
        self.committed_size_per_ready_max = committed_size_per_ready_max
        # What a snapshot replaced was committed and applied.
        self.committed = self.applying = self.applied = storage.first_index() - 1

    def first_index(self) -> int:
        """The index of the oldest entry that can be read."""
        return self.storage.first_index()

    def last_index(self) -> int:
        """The index of the newest entry."""
        return self.unstable.last_index()

    def last_term(self) -> int:
        """The term of the newest entry."""
        return self.term(self.last_index())

    def term(self, index: int) -> int:
        """The term of the entry at `index`, also for `first_index() - 1`.

        Raises Compacted below that, EntryUnavailable above `last_index()`.
        """
        term = self.unstable.maybe_term(index)
        if term is not None:
            return term
        if index >= self.unstable.offset:
            # Storage may still show an old end there, which the next write replaces.
            raise EntryUnavailable(f"entry {index} is missing, the log ends at {self.last_index()}")
        return self.storage.term(index)

    def slice(self, low: int, high: int, size_max: int) -> list[Entry]:
        """The entries with `low <= index < high`, cut to `size_max` bytes but never to nothing.

        Raises Compacted if `low` lies before `first_index()`.
        """
        assert low <= high <= self.last_index() + 1, f"[{low}, {high}) is beyond the log"
        offset = self.unstable.offset
        if low >= offset:
            return limit_size(self.unstable.slice(low, high), size_max)
        stored_high = min(high, offset)
        entries = self.storage.entries(low, stored_high, size_max)
        if high > offset and len(entries) == stored_high - low:
            entries = limit_size(entries + self.unstable.slice(offset, high), size_max)
        return entries

    def append(self, entries: Sequence[Entry]) -> None:
        """Put `entries` at their indexes; whatever was at and after the first one is gone."""
        first = entries[0]
        assert first.index > self.committed, f"entry {first.index} is committed"
        assert first.term >= self.term(first.index - 1), f"the term falls at {first.index}"
        self.unstable.truncate_and_append(entries)

    def commit_to(self, index: int) -> None:
        """Everything up to `index` is committed; a smaller index than before changes nothing.

        Raises StoreDamaged if the log ends before `index`: it has lost entries that it had.
        """
        if index > self.committed:
            if index > self.last_index():
                raise StoreDamaged(
                    f"entry {index} is committed, the log ends at {self.last_index()}"
                )
            self.committed = index

    def maybe_commit(self, index: int, term: int) -> bool:
        """Commit up to `index` if its entry has this `term`; whether that moved `committed`.

        The leader passes its own term: only an entry of its own term is committed because enough
        replicas have it, older ones are committed along with it (dissertation 3.6.2).
        """
        if index > self.committed and self._term_or_zero(index) == term != 0:
            self.commit_to(index)
            return True
        return False

    def has_next_committed_entries(self) -> bool:
        """Whether there are committed entries that were not handed out yet."""
        return self.applying < self.committed

    def next_committed_entries(self) -> list[Entry]:
        """The committed entries to apply next, at most `committed_size_per_ready_max` bytes."""
        if self.applying == self.committed:
            return []
        return self.slice(self.applying + 1, self.committed + 1, self.committed_size_per_ready_max)

    def accept_applying(self, index: int) -> None:
        """The host took the entries up to `index` and is applying them."""
        assert self.applying <= index <= self.committed
        self.applying = index

    def applied_to(self, index: int) -> None:
        """The host has applied everything up to `index`."""
        assert self.applied <= index <= self.committed
        self.applied = index
        self.applying = max(self.applying, index)

    def _term_or_zero(self, index: int) -> int:
        try:
            return self.term(index)
        except (Compacted, EntryUnavailable):
            return 0
