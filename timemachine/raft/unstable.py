"""The young end of the log: entries, and a snapshot, that storage does not show yet."""

from collections.abc import Sequence

from timemachine.raft.messages import Entry, Snapshot


class Unstable:
    """Entries from `offset` on: waiting to be handed to the host, or being written by it.

    Entries stay here until the host has said that they are durable, because only then does
    storage show them. `offset` may lie at or before storage's last index: then the next write
    replaces the end of the stored log. A `snapshot` received from a leader replaces everything
    before `offset` until storage shows it.

    Invariants:
    1. `entries[i].index == offset + i`: contiguous, and known by position.
    2. Terms never decrease along `entries`.
    3. `offset <= offset_in_progress <= offset + len(entries)`: the entries before
       `offset_in_progress` were handed out and are being written.
    4. `offset + len(entries) - 1` is the last index of the whole log.
    5. A list that was handed out never changes afterwards.
    6. With a `snapshot`, `offset` was right behind it when it came and has not fallen since.
    """

    __slots__ = ("entries", "offset", "offset_in_progress", "snapshot", "snapshot_in_progress")

    def __init__(self, offset: int) -> None:
        self.entries: list[Entry] = []
        self.offset = offset
        self.offset_in_progress = offset
        self.snapshot: Snapshot | None = None
        self.snapshot_in_progress = False

    def last_index(self) -> int:
        """The index of the newest entry of the log, wherever it is."""
        return self.offset + len(self.entries) - 1

    def maybe_term(self, index: int) -> int | None:
        """The term of the entry at `index` if it is known here, else None."""
        position = index - self.offset
        if 0 <= position < len(self.entries):
            return self.entries[position].term
        if self.snapshot is not None and self.snapshot.metadata.index == index:
            return self.snapshot.metadata.term
        return None

    def has_next_entries(self) -> bool:
        """Whether there are entries that were not handed out yet."""
        return self.offset_in_progress - self.offset < len(self.entries)

    def next_entries(self) -> list[Entry]:
        """The entries that were not handed out yet."""
        return self.entries[self.offset_in_progress - self.offset :]

    def next_snapshot(self) -> Snapshot | None:
        """The snapshot if it was not handed out yet."""
        return None if self.snapshot_in_progress else self.snapshot

    def accept_in_progress(self) -> None:
        """The host took everything here and is writing it: do not hand it out again."""
        self.offset_in_progress = self.offset + len(self.entries)
        self.snapshot_in_progress = self.snapshot is not None

    def stable_to(self, index: int, term: int) -> None:
        """Let go of the entries up to `index`: storage shows them.

        Ignored when the entry at `index` is not here, or has another term than `term`: then it
        was replaced while it was being written, and its successor is not durable.
        """
        count = index + 1 - self.offset
        if not 0 < count <= len(self.entries) or self.entries[count - 1].term != term:
            return
        del self.entries[:count]
        self.offset = index + 1
        self.offset_in_progress = max(self.offset_in_progress, self.offset)

    def stable_snapshot_to(self, index: int) -> None:
        """Let go of the snapshot that ends at `index`: storage shows it. Ignored for another."""
        if self.snapshot is not None and self.snapshot.metadata.index == index:
            self.snapshot = None
            self.snapshot_in_progress = False

    def restore(self, snapshot: Snapshot) -> None:
        """Start over behind `snapshot`: all entries are gone."""
        self.offset = self.offset_in_progress = snapshot.metadata.index + 1
        self.entries = []
        self.snapshot = snapshot
        self.snapshot_in_progress = False

    def truncate_and_append(self, entries: Sequence[Entry]) -> None:
        """Add `entries`, dropping everything at and after the first one's index.

        What is dropped and already being written has to be written again, so `in progress` ends
        before it.
        """
        first = entries[0].index
        assert first <= self.offset + len(self.entries), f"entry {first} leaves a gap"
        if first < self.offset:
            self.entries = list(entries)
            self.offset = first
            self.offset_in_progress = first
        else:
            self.entries[first - self.offset :] = entries
            self.offset_in_progress = min(self.offset_in_progress, first)

    def slice(self, low: int, high: int) -> list[Entry]:
        """The entries with `low <= index < high`, all of which must be here."""
        assert self.offset <= low <= high <= self.offset + len(self.entries)
        return self.entries[low - self.offset : high - self.offset]
