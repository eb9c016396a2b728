"""One replica's log: what storage shows, what is younger, and how far it is committed."""

from collections.abc import Sequence

from timemachine.errors import StoreDamaged
from timemachine.raft.messages import Entry, Snapshot, limit_size
from timemachine.raft.storage import Compacted, EntryUnavailable, Storage
from timemachine.raft.unstable import Unstable


class Log:
    """The entries of one replica, from `first_index()` to `last_index()`.

    Entries before `unstable.offset` are read from storage, the others from `unstable`; while
    `unstable` holds a snapshot, the log begins behind it, whatever storage still shows.

    Invariants:
    1. Indexes are contiguous.
    2. Terms never decrease along the log.
    3. `applied <= applying <= committed <= last_index()`. `committed` is known to be durable on a
       majority, `applying` was handed to the host, `applied` was reported back by it.
    4. `committed` and `applied` never fall.
    5. A committed entry never changes: nothing is appended at or before `committed`.
    6. `first_index() <= applied + 1`: the host compacts only what it has applied.

    With `overlapping`, several parcels of committed entries may be under way at once (async
    storage writes). Then `committed_size_per_ready_max` bounds them together, and only entries
    that storage shows are handed out: one that is still being written may be written too late
    for the state machine.
    """

    __slots__ = (
        "_applying_bytes",
        "_applying_paused",
        "overlapping",
        "applied",
        "applying",
        "committed",
        "committed_size_per_ready_max",
        "storage",
        "unstable",
    )

    def __init__(
        self, storage: Storage, committed_size_per_ready_max: int, *, overlapping: bool = False
    ) -> None:
        self.storage = storage
        self.unstable = Unstable(storage.last_index() + 1)
        self.committed_size_per_ready_max = committed_size_per_ready_max
        self.overlapping = overlapping
        self._applying_bytes = 0
        self._applying_paused = False
        # What a snapshot replaced was committed and applied.
        self.committed = self.applying = self.applied = storage.first_index() - 1

    def first_index(self) -> int:
        """The index of the oldest entry that can be read."""
        snapshot = self.unstable.snapshot
        if snapshot is not None:
            return snapshot.metadata.index + 1
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
        if self.unstable.snapshot is not None:
            raise Compacted(f"entry {index} is gone, the log starts at {self.first_index()}")
        return self.storage.term(index)

    def term_or_zero(self, index: int) -> int:
        """The term of the entry at `index`, or 0 where it is not known."""
        try:
            return self.term(index)
        except (Compacted, EntryUnavailable):
            return 0

    def matches(self, index: int, term: int) -> bool:
        """Whether the entry at `index` is known and has this `term`."""
        try:
            return self.term(index) == term
        except (Compacted, EntryUnavailable):
            return False

    def is_up_to_date(self, index: int, term: int) -> bool:
        """Whether a log that ends at (`index`, `term`) holds all that this one may have committed.

        The rule for granting votes (dissertation 3.6.1).
        """
        last_term = self.last_term()
        return term > last_term or (term == last_term and index >= self.last_index())

    def find_conflict_by_term(self, index: int, term: int) -> tuple[int, int]:
        """A guess where this log may still agree with one whose entry at `index` has this `term`.

        That is the newest entry at or before `index` whose term is not above `term`, with its
        term; or the newest one whose term is not known here, with 0. Both sides use it to jump
        over whole terms instead of probing entry by entry (dissertation 3.5, at its end).
        """
        while index > 0:
            try:
                found = self.term(index)
            except (Compacted, EntryUnavailable):
                return index, 0
            if found <= term:
                return index, found
            index -= 1
        return 0, 0

    def slice(self, low: int, high: int, size_max: int) -> list[Entry]:
        """The entries with `low <= index < high`, cut to `size_max` bytes but never to nothing.

        Raises Compacted if `low` lies before `first_index()`.
        """
        assert low <= high <= self.last_index() + 1, f"[{low}, {high}) is beyond the log"
        if self.unstable.snapshot is not None and low < self.first_index():
            raise Compacted(f"entry {low} is gone, the log starts at {self.first_index()}")
        offset = self.unstable.offset
        if low >= offset:
            return limit_size(self.unstable.slice(low, high), size_max)
        stored_high = min(high, offset)
        entries = self.storage.entries(low, stored_high, size_max)
        if high > offset and len(entries) == stored_high - low:
            entries = limit_size(entries + self.unstable.slice(offset, high), size_max)
        return entries

    def entries_from(self, index: int, size_max: int) -> list[Entry]:
        """All entries from `index` on, cut to `size_max` bytes but never to nothing; maybe none.

        Raises Compacted if `index` lies before `first_index()`.
        """
        last = self.last_index()
        return self.slice(index, last + 1, size_max) if index <= last else []

    def append(self, entries: Sequence[Entry]) -> None:
        """Put `entries` at their indexes; whatever was at and after the first one is gone."""
        first = entries[0]
        assert first.index > self.committed, f"entry {first.index} is committed"
        assert first.term >= self.term(first.index - 1), f"the term falls at {first.index}"
        self.unstable.truncate_and_append(entries)

    def maybe_append(
        self, index: int, term: int, entries: Sequence[Entry], commit: int
    ) -> int | None:
        """Take a leader's `entries`, which follow its entry at (`index`, `term`).

        Entries that are here already stay; the first one that differs replaces everything from
        there on. Returns the index up to which both logs now agree, and commits up to `commit`
        within that; None, and nothing changed, if the entry at `index` is not the same.

        Raises StoreDamaged if the leader contradicts what is committed here: one of the two has
        lost what it had.
        """
        if not self.matches(index, term):
            return None
        for position, entry in enumerate(entries):
            if not self.matches(entry.index, entry.term):
                if entry.index <= self.committed:
                    raise StoreDamaged(
                        f"Entry {entry.index} is committed in term"
                        f" {self.term_or_zero(entry.index)}, the leader has term {entry.term}."
                    )
                self.append(entries[position:])
                break
        last = index + len(entries)
        self.commit_to(min(commit, last))
        return last

    def restore(self, snapshot: Snapshot) -> None:
        """Start over behind `snapshot`, which is committed."""
        self.committed = snapshot.metadata.index
        self.unstable.restore(snapshot)

    def snapshot(self) -> Snapshot:
        """The newest snapshot. Raises SnapshotUnavailable if there is none to be had now."""
        return self.unstable.snapshot or self.storage.snapshot()

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

        A leader that has counted copies passes its own term: only an entry of its own term is
        committed because enough replicas have it, older ones along with it (dissertation 3.6.2).
        """
        if index > self.committed and self.term_or_zero(index) == term != 0:
            self.commit_to(index)
            return True
        return False

    def has_next_committed_entries(self) -> bool:
        """Whether there are committed entries to be handed out now.

        None while a snapshot waits to be installed: it goes first.
        """
        if self.overlapping:
            return not self._applying_paused and self.applying < self._appliable()
        return self.applying < self.committed and self.unstable.snapshot is None

    def next_committed_entries(self) -> list[Entry]:
        """The committed entries to apply next, at most `committed_size_per_ready_max` bytes."""
        if not self.has_next_committed_entries():
            return []
        high = self._appliable() if self.overlapping else self.committed
        size_max = self.committed_size_per_ready_max - self._applying_bytes
        return self.slice(self.applying + 1, high + 1, size_max)

    def accept_applying(self, index: int, size: int = 0) -> None:
        """The host took the entries up to `index`, of `size` bytes, and is applying them."""
        assert self.applying <= index <= self.committed
        self.applying = index
        if self.overlapping:
            self._applying_bytes += size
            # If not everything fitted, the next entry would be too much.
            self._applying_paused = (
                self._applying_bytes >= self.committed_size_per_ready_max
                or index < self._appliable()
            )

    def applied_to(self, index: int, size: int = 0) -> None:
        """The state machine has everything up to `index`; `size` bytes of it came as entries."""
        assert self.applied <= index <= self.committed
        self.applied = index
        self.applying = max(self.applying, index)
        if self.overlapping:
            self._applying_bytes = max(0, self._applying_bytes - size)
            self._applying_paused = self._applying_bytes >= self.committed_size_per_ready_max

    def _appliable(self) -> int:
        """Up to where committed entries may be handed out, with `overlapping`."""
        if self.unstable.snapshot is not None:
            return self.applying
        return min(self.committed, self.unstable.offset - 1)
