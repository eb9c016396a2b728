"""The rows of a log: where it begins, and what is found again at the next start."""

import pytest
from msgspec.structs import replace

from timemachine import codec, limits
from timemachine.errors import CodecError, StoreDamaged
from timemachine.group import GroupConfig
from timemachine.logrows import LoggedEntry, LogRows, LogState
from timemachine.members import read_members
from timemachine.raft import (
    ConfState,
    Entry,
    EntryType,
    HardState,
    Snapshot,
    SnapshotMetadata,
)
from timemachine.storage.keys import ReplicaKeys, u64
from timemachine.storage.memory import MemoryStore
from timemachine.storage.overlay import Overlay

GROUP = (7, 0)
KEYS = ReplicaKeys(1)
NEW_KEYS = ReplicaKeys(2)
THREE = GroupConfig(id=1, voters=(1, 2, 3), log_entries_max=0)
LONG = GroupConfig(id=1, voters=(1, 2, 3))
UNLIMITED = 1 << 62


class Rows:
    """A log over a store, cycle by cycle."""

    def __init__(self, config: GroupConfig = THREE) -> None:
        self.config = config
        self.store = MemoryStore()
        self.overlay = Overlay(self.store)
        self.log = self.read()

    def read(self, keys: ReplicaKeys = KEYS, *, voters: tuple[int, ...] = (1, 2, 3)) -> LogRows:
        """The log as the next start finds it."""
        config = replace(self.config, voters=voters)
        return LogRows(GROUP, keys, self.overlay, self.store, config)

    def cycle(self, entries: list[Entry], applied: int, needed: int | None = None) -> None:
        """One cycle: write entries, apply up to some index, cut the log, make it durable."""
        log = self.log
        if entries:
            log.write(entries)
        log.drop_older(applied, applied if needed is None else needed)
        state = HardState(9, 2, applied)
        log.put_state(state)
        self.sync()
        log.written(None, entries, state, (applied, 0))
        log.forget(log.base[0])

    def sync(self) -> None:
        """Everything in the overlay becomes durable."""
        self.store.write(self.store.prepare(self.overlay.seal()))
        self.overlay.settled()

    def indexes(self, keys: ReplicaKeys = KEYS) -> list[int]:
        """Of the rows that there are."""
        at = len(keys.log)
        rows = self.store.scan(keys.log, keys.log_stop, 10_000)
        return [int.from_bytes(key[at:], "big") for key, _ in rows]

    def kept(self) -> list[int]:
        """The rows, after a look whether memory and the next start show the same."""
        found = self.read()
        indexes = self.indexes()
        for log in (self.log, found):
            storage = log.storage
            entries = storage.entries(storage.first_index(), storage.last_index() + 1, UNLIMITED)
            assert indexes == [entry.index for entry in entries]
            assert (log.base[0], log.last) == (storage.first_index() - 1, storage.last_index())
        return indexes


def _entries(first: int, *terms: int) -> list[Entry]:
    return [Entry(term, first + place, data=b"x") for place, term in enumerate(terms)]


def _large(first: int, last: int) -> list[Entry]:
    return [Entry(1, index, data=bytes(100)) for index in range(first, last + 1)]


@pytest.mark.parametrize("applied", [2, 3, 4])
def test_a_log_begins_with_the_term_that_its_entry_has_now(applied: int) -> None:
    """Also where what it begins behind was replaced in the batch that cuts it.

    (Named: it began with the term of the entry that was replaced. After a restart the replica
    could not agree with any leader about where its log begins.)
    """
    rows = Rows()
    rows.cycle(_entries(1, 1), 0)
    rows.cycle(_entries(2, 1, 1), 1)
    terms = {0: 0, 1: 1, 2: 2, 3: 3, 4: 4}
    rows.cycle(_entries(2, 2, 3, 4), applied)
    rows.cycle([], applied)
    row = rows.store.get(KEYS.hard_state)
    assert row is not None
    state = codec.decoder(LogState)(row)
    assert state.base_index > 0
    assert terms[state.base_index] == state.base_term
    found = rows.read()
    assert 4 == found.last
    kept = range(state.base_index, 5)
    assert [terms[index] for index in kept] == [found.storage.term(index) for index in kept]


def test_a_log_is_read_as_it_was_written() -> None:
    """Entries of every type, hard state, and who belongs to the group."""
    rows = Rows(LONG)
    entries = [
        Entry(1, 1),
        Entry(1, 2, EntryType.CONF_CHANGE, b"change"),
        Entry(3, 3, EntryType.CONF_CHANGE_V2, b""),
        Entry(3, 4, data=bytes(range(256))),
    ]
    rows.cycle(entries[:2], 0)
    rows.cycle(entries[2:], 1)
    # Its own rows count, and not what the host would begin a new replica with.
    found = rows.read(voters=(1, 9))
    assert HardState(9, 2, 1) == found.hard_state
    assert entries == found.storage.entries(1, 5, UNLIMITED)
    assert ConfState((1, 2, 3)) == found.storage.initial_state()[1] == found.storage.members
    assert ((0, 0), 4) == (found.base, found.last)


def test_a_new_replica_begins_with_the_members_that_it_is_given() -> None:
    """They are a row from its first batch on."""
    store = MemoryStore()
    overlay = Overlay(store)
    log = LogRows(GROUP, KEYS, overlay, store, LONG)
    assert (HardState(), (0, 0), 0) == (log.hard_state, log.base, log.last)
    row = overlay.get(KEYS.members)
    assert row is not None
    assert ConfState((1, 2, 3)) == read_members(row) == log.storage.members


def test_replaced_entries_leave_no_row_behind() -> None:
    """A shorter log of a newer term takes the place of a longer one."""
    rows = Rows(LONG)
    rows.cycle(_entries(1, 1, 1, 1, 1, 1), 0)
    rows.cycle(_entries(3, 2), 0)
    assert [1, 2, 3] == rows.kept()
    assert [1, 1, 2] == [rows.read().storage.term(index) for index in (1, 2, 3)]
    rows.cycle(_entries(4, 2, 2), 0)
    assert [1, 2, 3, 4, 5] == rows.kept()


def test_entries_that_are_in_memory_only_once_they_are_durable() -> None:
    """The core must not read from storage what a crash could still take."""
    rows = Rows(LONG)
    rows.log.write(_entries(1, 1))
    assert (1, 0) == (rows.log.last, rows.log.storage.last_index())


def test_a_log_is_cut_in_the_middle_of_what_is_applied() -> None:
    """When it has more entries than it may, and not before; what is not applied stays."""
    rows = Rows(GroupConfig(id=1, voters=(1, 2, 3), log_entries_max=10))
    rows.cycle(_entries(1, *[1] * 15), 0)
    rows.cycle([], 10)
    assert list(range(1, 16)) == rows.kept()
    rows.cycle([], 11)
    assert list(range(7, 16)) == rows.kept()
    rows.cycle([], 15)
    assert list(range(7, 16)) == rows.kept()


def test_a_log_is_cut_by_its_bytes() -> None:
    """Those of entries that are gone do not count any more, those of new ones do."""
    rows = Rows(GroupConfig(id=1, voters=(1, 2, 3), log_bytes_max=1_000))
    rows.cycle(_large(1, 10), 0)
    rows.cycle([], 10)
    assert list(range(1, 11)) == rows.kept()
    rows.cycle(_large(11, 11), 10)
    assert list(range(6, 12)) == rows.kept()
    rows.cycle(_large(12, 15), 15)
    rows.cycle([], 15)
    assert list(range(6, 16)) == rows.kept()
    rows.cycle(_entries(16, 1), 15)
    assert list(range(11, 17)) == rows.kept()


def test_bytes_are_counted_anew_at_the_next_start() -> None:
    """Otherwise a log could grow by its bound with each of them."""
    rows = Rows(LONG)
    rows.cycle(_large(1, 10), 10)
    config = GroupConfig(id=1, voters=(1, 2, 3), log_bytes_max=1_000)
    rows.log = LogRows(GROUP, KEYS, rows.overlay, rows.store, config)
    rows.cycle(_entries(11, 1), 10)
    assert list(range(6, 12)) == rows.kept()


def test_what_somebody_needs_is_kept_up_to_many_times_as_much() -> None:
    """A follower that is a little behind is spared an image; one that is away for long is not."""
    rows = Rows(GroupConfig(id=1, voters=(1, 2, 3), log_entries_max=10))
    most = limits.LOG_NEEDED_FACTOR * 10
    rows.cycle(_entries(1, *[1] * (most + 1)), 0)
    rows.cycle([], most, needed=3)
    assert list(range(4, most + 2)) == rows.kept()
    rows.cycle(_entries(most + 2, 1, 1, 1), most + 3, needed=3)
    assert list(range(4, most + 5)) == rows.kept()
    rows.cycle([], most + 4, needed=3)
    assert list(range(most // 2 + 5, most + 5)) == rows.kept()


def test_what_somebody_needs_is_kept_up_to_four_times_as_many_bytes() -> None:
    """Few entries can be large."""
    rows = Rows(GroupConfig(id=1, voters=(1, 2, 3), log_bytes_max=1_000))
    rows.cycle(_large(1, 40), 0)
    rows.cycle([], 40, needed=0)
    assert list(range(1, 41)) == rows.kept()
    rows.cycle(_entries(41, 1), 40, needed=0)
    assert list(range(21, 42)) == rows.kept()


def test_a_log_may_begin_behind_an_entry_that_has_no_row() -> None:
    """What a sole voter applies in the batch that would write it is not written."""
    rows = Rows(LONG)
    rows.cycle(_entries(1, 1, 1), 2)
    log = rows.log
    log.begin_behind(7, 3)
    log.put_state(HardState(9, 0, 7))
    rows.sync()
    found = rows.read()
    assert [] == rows.indexes()
    assert ((7, 3), 7, 3) == (found.base, found.last, found.storage.term(7))


def test_a_switch_goes_on_with_other_rows() -> None:
    """Those of the image: no log, its members, and a hard state of its own; the old ones stay."""
    rows = Rows(LONG)
    rows.cycle(_entries(1, 1, 1, 1), 2)
    log = rows.log
    metadata = SnapshotMetadata(ConfState((1, 2), (3,)), 50, 4)
    state = HardState(5, 0, 50)
    log.switch(NEW_KEYS, metadata)
    log.put_state(state)
    rows.sync()
    log.written(Snapshot(metadata=metadata), (), state, (50, 4))
    log.forget(log.base[0])
    found = rows.read(NEW_KEYS)
    for each in (log, found):
        assert ((50, 4), 50) == (each.base, each.last)
        assert metadata.conf_state == each.storage.members == each.storage.initial_state()[1]
        assert (50, 4) == (each.storage.last_index(), each.storage.term(50))
    assert state == found.hard_state
    assert [1, 2, 3] == rows.indexes()
    assert HardState(9, 2, 2) == rows.read().hard_state
    entry = _entries(51, 5)
    log.write(entry)
    rows.sync()
    assert [51] == rows.indexes(NEW_KEYS)


def test_a_switch_lets_the_new_log_grow_as_far_as_the_old_one() -> None:
    """Bytes of the log before the image do not count against what comes behind it."""
    rows = Rows(GroupConfig(id=1, voters=(1, 2, 3), log_bytes_max=1_000))
    rows.cycle([Entry(1, 1, data=bytes(900))], 0)
    metadata = SnapshotMetadata(ConfState((1, 2, 3)), 50, 4)
    rows.log.switch(NEW_KEYS, metadata)
    rows.sync()
    rows.log.written(Snapshot(metadata=metadata), (), HardState(5, 0, 50), (50, 4))
    rows.cycle([Entry(5, 51, data=bytes(50)), Entry(5, 52, data=bytes(100))], 52)
    rows.cycle([], 52)
    assert [51, 52] == rows.indexes(NEW_KEYS)


def test_a_snapshot_names_what_is_applied() -> None:
    """The image itself is read when it is sent."""
    rows = Rows(LONG)
    rows.cycle(_entries(1, 1, 1), 1)
    rows.log.written(None, (), HardState(9, 0, 2), (2, 1))
    expected = Snapshot(metadata=SnapshotMetadata(ConfState((1, 2, 3)), 2, 1))
    assert expected == rows.log.storage.snapshot()


def test_a_gap_is_found() -> None:
    """A row is gone, in the middle or at the beginning of the log."""
    for lost in (1, 2):
        rows = Rows(LONG)
        rows.cycle(_entries(1, 1, 1, 1), 0)
        rows.store.write(rows.store.prepare({KEYS.log + u64(lost): None}))
        with pytest.raises(StoreDamaged, match=f"log entry {lost + 1} follows a gap"):
            rows.read()


def test_an_entry_that_was_changed_is_found() -> None:
    """Its data does not fit its checksum, or the row is none."""
    rows = Rows(LONG)
    rows.cycle(_entries(1, 1, 1, 1), 0)
    key = KEYS.log + u64(2)
    logged: LoggedEntry = codec.decoder(LoggedEntry)(rows.store._rows[key])
    changed = LoggedEntry(logged.term, logged.type, logged.crc, b"y")
    rows.store.write({key: codec.encode(changed)})
    with pytest.raises(StoreDamaged, match="log entry 2 fails its checksum"):
        rows.read()
    rows.store.write({key: b"\x01\x90"})
    with pytest.raises(CodecError):
        rows.read()


@pytest.mark.parametrize("voters", [(1,), (1, 2, 3)])
def test_a_replica_of_a_version_before_stays_the_only_voter(voters: tuple[int, ...]) -> None:
    """It has no members row. Others who voted without its log would lose what it holds."""
    store = MemoryStore({KEYS.hard_state: codec.encode([3, 1, 40, 40, 3])})
    overlay = Overlay(store)
    if voters == (1,):
        log = LogRows(GROUP, KEYS, overlay, store, GroupConfig(id=1, voters=voters))
        assert log.storage.members == ConfState(voters=(1,))
        return
    with pytest.raises(StoreDamaged, match="only voter"):
        LogRows(GROUP, KEYS, overlay, store, GroupConfig(id=1, voters=voters))


def test_what_all_members_have_may_go_at_once() -> None:
    """However short the log is; memory and the next start begin where the rows begin."""
    rows = Rows(LONG)
    rows.cycle(_entries(1, 9, 9, 9, 9, 9, 9), 6)
    assert rows.log.drop_to(4)
    assert not rows.log.drop_to(4)
    assert not rows.log.drop_to(3)
    rows.log.put_state(HardState(9, 2, 6))
    rows.cycle([], 6)
    assert [5, 6] == rows.kept()
    assert (4, 9) == rows.log.base


def test_entries_on_their_way_stay() -> None:
    """What is written in the cycle under way may take the place of what memory has."""
    rows = Rows(LONG)
    rows.cycle(_entries(1, 8, 8, 8), 2)
    replaced = _entries(3, 9, 9)
    rows.log.write(replaced)
    assert rows.log.drop_to(4)
    assert 2 == rows.log.base[0]
    state = HardState(9, 2, 4)
    rows.log.put_state(state)
    rows.sync()
    rows.log.written(None, replaced, state, (4, 9))
    rows.log.forget(2)
    assert [3, 4] == rows.kept()
