"""What the core reads back from its host: the Storage port, and its reference in memory.

The core never writes to a Storage. The host does, as `Ready` tells it to; a Storage therefore
shows exactly what the host has persisted, and the core keeps everything newer in `Unstable`.
"""

from collections.abc import Sequence
from typing import Protocol

from timemachine.errors import TimeMachineError
from timemachine.raft.messages import (
    ConfState,
    Entry,
    HardState,
    Snapshot,
    SnapshotMetadata,
    limit_size,
)


class Compacted(TimeMachineError):
    """The entry is no longer in the log: a snapshot stands in its place."""

    code = "raft_compacted"


class EntryUnavailable(TimeMachineError):
    """The entry is not in the log yet."""

    code = "raft_entry_unavailable"


class SnapshotOutOfDate(TimeMachineError):
    """The snapshot is not newer than the one that is there."""

    code = "raft_snapshot_out_of_date"


class SnapshotUnavailable(TimeMachineError):
    """A snapshot is being made and is not there yet; ask again later."""

    code = "raft_snapshot_unavailable"


class Storage(Protocol):
    """The durable part of one replica's log, as the core sees it.

    An exception that is not named here means that the log cannot be read; it passes through the
    core to the host, which has to stop the replica.
    """

    def initial_state(self) -> tuple[HardState, ConfState]:
        """The hard state and the membership to start from; read once."""

    def entries(self, low: int, high: int, size_max: int) -> list[Entry]:
        """The entries with `low <= index < high`, cut to `size_max` bytes but never to nothing.

        The list belongs to the caller. Raises Compacted if `low` lies before `first_index()`,
        EntryUnavailable if `high - 1` lies after `last_index()`.
        """

    def term(self, index: int) -> int:
        """The term of the entry at `index`, also for `first_index() - 1`, whose data is gone.

        Raises Compacted below that, EntryUnavailable above `last_index()`.
        """

    def first_index(self) -> int:
        """The index of the oldest entry that is (or, in an empty log, will be) there."""

    def last_index(self) -> int:
        """The index of the newest entry; `first_index() - 1` in an empty log."""

    def snapshot(self) -> Snapshot:
        """The newest snapshot, at or after `first_index() - 1`, for a follower that needs it.

        Its `data` need not be the image itself; see Snapshot. Raises SnapshotUnavailable when
        there is none yet: the core asks again when the follower answers the next heartbeat.
        """


# Shared by all storages that have none of their own yet: thousands of groups start like that.
_NO_HARD_STATE = HardState()
_NO_SNAPSHOT = Snapshot()


class MemoryStorage:
    """A Storage in memory, for hosts that keep the tail of the log at hand, and for tests.

    Invariants: entries are contiguous, `_entries[i].index == _base_index + 1 + i`; the term at
    `_base_index` stays known after the entry is gone (etcd keeps a dummy entry there), because
    an append that starts right behind the snapshot is matched against it.
    """

    __slots__ = ("_base_index", "_base_term", "_entries", "_hard_state", "_snapshot")

    def __init__(self) -> None:
        self._base_index = 0
        self._base_term = 0
        self._entries: list[Entry] = []
        self._hard_state = _NO_HARD_STATE
        self._snapshot = _NO_SNAPSHOT

    # Reading: the Storage port.

    def initial_state(self) -> tuple[HardState, ConfState]:
        """See Storage. The membership is that of the snapshot."""
        return self._hard_state, self._snapshot.metadata.conf_state

    def entries(self, low: int, high: int, size_max: int) -> list[Entry]:
        """See Storage."""
        offset = self._base_index + 1
        if low < offset:
            raise Compacted(f"entry {low} is gone, the log starts at {offset}")
        if high > offset + len(self._entries):
            raise EntryUnavailable(
                f"entry {high - 1} is missing, the log ends at {self.last_index()}"
            )
        return limit_size(self._entries[low - offset : high - offset], size_max)

    def term(self, index: int) -> int:
        """See Storage."""
        position = index - self._base_index
        if position == 0:
            return self._base_term
        if position < 0:
            raise Compacted(f"entry {index} is gone, the log starts at {self.first_index()}")
        if position > len(self._entries):
            raise EntryUnavailable(f"entry {index} is missing, the log ends at {self.last_index()}")
        return self._entries[position - 1].term

    def first_index(self) -> int:
        """See Storage."""
        return self._base_index + 1

    def last_index(self) -> int:
        """See Storage."""
        return self._base_index + len(self._entries)

    def snapshot(self) -> Snapshot:
        """See Storage."""
        return self._snapshot

    # Writing: the host's side.

    def set_hard_state(self, hard_state: HardState) -> None:
        """Replace the hard state."""
        self._hard_state = hard_state

    def append(self, entries: Sequence[Entry]) -> None:
        """Write `entries`, which follow each other, over whatever was at and after the first.

        What lies before `first_index()` is skipped: it is compacted. A gap behind the log is the
        caller's error.
        """
        if not entries:
            return
        position = entries[0].index - self._base_index - 1
        assert position <= len(self._entries), (
            f"entry {entries[0].index} leaves a gap behind {self.last_index()}"
        )
        if position < 0:
            if entries[-1].index <= self._base_index:
                return
            entries = entries[-position:]
            position = 0
        self._entries[position:] = entries

    def compact(self, index: int) -> None:
        """Drop all entries up to and including `index`; its term stays known.

        Cheap enough to follow every apply: it moves references of what stays, nothing else.
        The host must not go beyond what it has applied. Raises Compacted if there is nothing to
        drop because the log already starts behind `index`.
        """
        count = index - self._base_index
        if count <= 0:
            raise Compacted(f"the log already starts at {self.first_index()}, not before {index}")
        assert count <= len(self._entries), f"{index} lies behind the end {self.last_index()}"
        self._base_term = self._entries[count - 1].term
        self._base_index = index
        del self._entries[:count]

    def create_snapshot(
        self, index: int, conf_state: ConfState | None = None, data: bytes = b""
    ) -> Snapshot:
        """Keep and return a snapshot that ends at `index`; the log stays as it is.

        `conf_state` is the membership at `index`; None says that it did not change since the
        last snapshot. Raises SnapshotOutOfDate if a snapshot at or after `index` is there.
        """
        metadata = self._snapshot.metadata
        if index <= metadata.index:
            raise SnapshotOutOfDate(f"a snapshot at {metadata.index} is there, asked for {index}")
        conf_state = metadata.conf_state if conf_state is None else conf_state
        self._snapshot = Snapshot(data, SnapshotMetadata(conf_state, index, self.term(index)))
        return self._snapshot

    def apply_snapshot(self, snapshot: Snapshot) -> None:
        """Start over from `snapshot`: the log is empty and begins behind it.

        A snapshot at index 0 gives a new group its members. Raises SnapshotOutOfDate if a
        snapshot that is not older is there.
        """
        there = self._snapshot.metadata.index
        metadata = snapshot.metadata
        if there != 0 and there >= metadata.index:
            raise SnapshotOutOfDate(f"a snapshot at {there} is there, offered {metadata.index}")
        self._snapshot = snapshot
        self._base_index = metadata.index
        self._base_term = metadata.term
        self._entries = []
