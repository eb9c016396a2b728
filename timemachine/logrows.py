"""The rows that make one replica's log durable, and the storage that its core reads.

The core reads from memory (`GroupStorage`), which holds the kept end of the log; the rows are read
once, at the start. Rows go into the overlay when a cycle gathers, memory follows when their batch
is durable.
"""

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from timemachine import codec, limits
from timemachine.errors import CodecError, StoreDamaged
from timemachine.group import GroupConfig
from timemachine.members import members_row, read_members
from timemachine.raft import (
    ConfState,
    Entry,
    EntryType,
    HardState,
    MemoryStorage,
    Snapshot,
    SnapshotMetadata,
)
from timemachine.storage.api import Reading, Store
from timemachine.storage.keys import ReplicaKeys, u64
from timemachine.storage.overlay import Overlay

_ENTRIES_MAX = 1_000_000
_TAIL_ROWS = 1_000


class LogState(msgspec.Struct, frozen=True, array_like=True):
    """The hard state row: etcd's three, and where the kept log begins."""

    term: int = 0
    vote: int = 0
    commit: int = 0
    base_index: int = 0
    base_term: int = 0


class LoggedEntry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A row of the log. `crc` is the CRC-32 of `data`, checked when the log is read back."""

    term: int
    type: int
    crc: int
    data: bytes


class Tail(NamedTuple):
    """The end of a log, of a replica that does not run.

    commit   up to which it was known to be committed
    entries  that can be read, without a gap
    damaged  whether there are others behind them
    """

    commit: int
    entries: list[Entry]
    damaged: bool


def read_tail(store: Reading, keys: ReplicaKeys, applied_index: int) -> Tail:
    """What the rows of a replica have of its log behind an entry, as far as it verifies."""
    commit = 0
    entries: list[Entry] = []
    try:
        row = store.get(keys.hard_state)
        commit = 0 if row is None else _read_log_state(row).commit
        while True:
            start = keys.log + u64(applied_index + len(entries) + 1)
            rows = store.scan(start, keys.log_stop, _TAIL_ROWS)
            for key, value in rows:
                index = int.from_bytes(key[len(keys.log) :], "big")
                logged: LoggedEntry = _read_entry(value)
                is_next = index == applied_index + len(entries) + 1
                if not is_next or zlib.crc32(logged.data) != logged.crc:
                    return Tail(commit, entries, damaged=True)
                # An entry that changes the membership says nothing to the machine.
                data = logged.data if logged.type == EntryType.NORMAL else b""
                entries.append(Entry(logged.term, index, EntryType(logged.type), data))
            if len(rows) < _TAIL_ROWS:
                return Tail(commit, entries, damaged=False)
    except (StoreDamaged, CodecError):
        return Tail(commit, entries, damaged=True)


_read_log_state = codec.decoder(LogState)
_read_entry = codec.decoder(LoggedEntry)


class GroupStorage(MemoryStorage):
    """A Storage whose snapshot is the state machine as it is in the store.

    `applied` is the (index, term) up to which the store holds what was applied. The image itself
    is read when it is sent, and may be younger.
    """

    __slots__ = ("applied", "members")

    def __init__(self, members: ConfState) -> None:
        super().__init__()
        self.members = members
        self.applied = (0, 0)

    def snapshot(self) -> Snapshot:
        """See Storage. It names the image; the host puts the real one in its place."""
        index, term = self.applied
        return Snapshot(metadata=SnapshotMetadata(self.members, index, term))


class LogRows:
    """One replica's log, hard state and membership, as rows and in memory.

    base       (index, term) behind which the kept log begins
    members    who belongs to the group as of what is applied, durable or not
    last       index of the newest entry that has a row
    storage    what the core reads
    """

    __slots__ = (
        "_bytes",
        "_config",
        "_fresh",
        "_group",
        "_keys",
        "_overlay",
        "base",
        "members",
        "last",
        "storage",
    )

    def __init__(
        self,
        group: tuple[int, int],
        keys: ReplicaKeys,
        overlay: Overlay,
        store: Store,
        config: GroupConfig,
    ) -> None:
        """Take up the rows; raises StoreDamaged when they contradict each other."""
        self._group = group
        self._keys = keys
        self._overlay = overlay
        self._config = config
        # What is written in this cycle, and not in memory yet.
        self._fresh: Sequence[Entry] = ()
        state_row, row = store.get(keys.hard_state), store.get(keys.members)
        state: LogState = LogState() if state_row is None else _read_log_state(state_row)
        self.base = (state.base_index, state.base_term)
        if row is None and state_row is not None and config.voters != (config.id,):
            # Of a version before: it had one voter, and others know nothing of what it holds.
            raise StoreDamaged(
                f"Vnode {group}: this replica was the only voter of its group, which is to have"
                f" the voters {config.voters}."
            )
        members = ConfState(voters=config.voters) if row is None else read_members(row)
        self.members = members
        if row is None:
            overlay.put(keys.members, members_row(members))
        self.storage = storage = GroupStorage(members)
        metadata = SnapshotMetadata(members, *self.base)
        storage.apply_snapshot(Snapshot(metadata=metadata))
        storage.set_hard_state(HardState(state.term, state.vote, state.commit))
        entries = self._read(store)
        storage.append(entries)
        self.last = storage.last_index()
        self._bytes = sum([len(entry.data) for entry in entries])

    def _read(self, store: Store) -> list[Entry]:
        entries: list[Entry] = []
        base_index = self.base[0]
        start = self._keys.log + u64(base_index + 1)
        at = len(self._keys.log)
        for key, value in store.scan(start, self._keys.log_stop, _ENTRIES_MAX):
            index = int.from_bytes(key[at:], "big")
            logged: LoggedEntry = _read_entry(value)
            if index != base_index + len(entries) + 1:
                raise StoreDamaged(f"Vnode {self._group}: log entry {index} follows a gap.")
            if zlib.crc32(logged.data) != logged.crc:
                raise StoreDamaged(
                    f"Vnode {self._group}: log entry {index} fails its checksum.", key=key
                )
            entries.append(Entry(logged.term, index, EntryType(logged.type), logged.data))
        return entries

    @property
    def hard_state(self) -> HardState:
        """As it was read."""
        return self.storage.initial_state()[0]

    # --- into the overlay ------------------------------------------------------------------

    def put_state(self, state: HardState) -> None:
        """Write the hard state row."""
        row = LogState(state.term, state.vote, state.commit, *self.base)
        self._overlay.put(self._keys.hard_state, codec.encode(row))

    def write(self, entries: Sequence[Entry]) -> None:
        """Write entries, and drop whatever was there at and after the first."""
        log = self._keys.log
        put = self._overlay.put
        for entry in entries:
            data = entry.data
            row = LoggedEntry(entry.term, int(entry.type), zlib.crc32(data), data)
            put(log + u64(entry.index), codec.encode(row))
            self._bytes += len(data)
        self._fresh = entries
        newest = entries[-1].index
        for index in range(newest + 1, self.last + 1):
            self._overlay.delete(log + u64(index))
        self.last = newest

    def begin_behind(self, index: int, term: int) -> None:
        """Let the log begin behind an entry that is applied; nobody needs what was before."""
        log = self._keys.log
        for gone in range(self.base[0] + 1, min(index, self.last) + 1):
            self._overlay.delete(log + u64(gone))
        self.base = (index, term)

    def is_long(self, applied_index: int) -> bool:
        """Whether there is more of a log than is kept for nobody."""
        config = self._config
        return (
            applied_index - self.base[0] > config.log_entries_max
            or self._bytes > config.log_bytes_max
        )

    def drop_older(self, applied_index: int, needed_index: int) -> None:
        """Drop the older half of what is applied, if the log has become too long.

        What follows `needed_index` is kept for somebody: four times the bytes at most, for these
        fill memory, and LOG_NEEDED_FACTOR times the entries. Most are small, and an image that
        takes its time is in vain if the log does not go on from it.
        """
        if not self.is_long(applied_index):
            return
        base_index = self.base[0]
        config = self._config
        fresh = self._fresh
        # Of what is in memory, for that is where the term is known; and only as far as it stays
        # there, for what is written in this cycle may have taken the place of the rest.
        stop = fresh[0].index if fresh else self.storage.last_index() + 1
        index = min(base_index + (applied_index - base_index + 1) // 2, stop - 1)
        if (
            applied_index - base_index <= limits.LOG_NEEDED_FACTOR * config.log_entries_max
            and self._bytes <= 4 * config.log_bytes_max
        ):
            index = min(index, needed_index)
        if index > base_index:
            self._drop_to(index, stop)

    def drop_to(self, index: int) -> bool:
        """Drop the log up to an entry that is applied; False if nothing is dropped."""
        fresh, storage = self._fresh, self.storage
        # As in `drop_older`: what is in memory, and stays there.
        stop = fresh[0].index if fresh else storage.last_index() + 1
        index = min(index, stop - 1)
        if index <= self.base[0] or index < storage.first_index():
            return False
        self._drop_to(index, stop)
        return True

    def _drop_to(self, index: int, stop: int) -> None:
        storage = self.storage
        self.begin_behind(index, storage.term(index))
        kept = storage.entries(index + 1, stop, 1 << 62)
        self._bytes = sum([len(entry.data) for entry in [*kept, *self._fresh]])

    def change_members(self, members: ConfState) -> None:
        """An entry that is applied in this cycle has changed the membership."""
        self.members = members
        self._overlay.put(self._keys.members, members_row(members))

    def drop_first(self) -> None:
        """Let the log begin behind its first entry at least, at once.

        The members that a group begins with stand in no entry. So whoever comes later must not
        begin with the first one: it needs an image, which tells it who belongs to the group.
        """
        if self.base[0]:
            return
        storage, fresh = self.storage, self._fresh
        first = 1
        if storage.last_index() >= first:
            self.begin_behind(first, storage.term(first))
            # Not only when this batch is durable: a leader may be asked before.
            storage.compact(first)
        else:
            self.begin_behind(first, fresh[0].term)

    def switch(self, keys: ReplicaKeys, metadata: SnapshotMetadata) -> None:
        """Go on with other rows: those of a snapshot that is installed, without a log."""
        self._keys = keys
        self.change_members(metadata.conf_state)
        self.base = (metadata.index, metadata.term)
        self.last = metadata.index
        self._bytes = 0

    # --- durable ---------------------------------------------------------------------------

    def written(
        self,
        snapshot: Snapshot | None,
        entries: Sequence[Entry],
        state: HardState,
        applied: tuple[int, int],
    ) -> None:
        """What was put is in the store; `applied` is the newest entry whose effects are."""
        storage = self.storage
        self._fresh = ()
        if snapshot is not None:
            storage.apply_snapshot(snapshot)
        storage.append(entries)
        storage.set_hard_state(state)
        storage.applied = applied
        storage.members = self.members

    def forget(self, applied_index: int) -> None:
        """Let memory begin where the rows begin; what the core has not applied it asks for yet."""
        index = min(self.base[0], applied_index)
        if index >= self.storage.first_index():
            self.storage.compact(index)
