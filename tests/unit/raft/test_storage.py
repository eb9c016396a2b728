"""timemachine/raft/storage.py: MemoryStorage keeps the Storage port's promises."""

import pytest

from tests.unit.raft.host import UNLIMITED
from timemachine.raft.messages import ConfState, Entry, HardState, Snapshot, SnapshotMetadata
from timemachine.raft.storage import (
    Compacted,
    EntryUnavailable,
    MemoryStorage,
    SnapshotOutOfDate,
)


def log_from_3_to_6() -> MemoryStorage:
    """Compacted up to index 3 (term 3), entries 4 (term 4), 5 (term 5), 6 (term 6)."""
    storage = MemoryStorage()
    storage.apply_snapshot(snapshot(3))
    storage.append([Entry(term, term) for term in (4, 5, 6)])
    return storage


def snapshot(index: int, *, data: bytes = b"") -> Snapshot:
    """A snapshot whose term is its index."""
    return Snapshot(data, SnapshotMetadata(ConfState(voters=(1,)), index, index))


def terms(storage: MemoryStorage) -> list[tuple[int, int]]:
    """(index, term) of all entries, and of the place where the log was cut off."""
    first = storage.first_index() - 1
    return [(index, storage.term(index)) for index in range(first, storage.last_index() + 1)]


def test_new_storage_is_empty() -> None:
    """A new storage starts at index 1, knows nobody, and has term 0 before its start."""
    storage = MemoryStorage()
    assert (HardState(), ConfState()) == storage.initial_state()
    assert (1, 0) == (storage.first_index(), storage.last_index())
    assert 0 == storage.term(0)
    assert Snapshot() == storage.snapshot()
    assert [] == storage.entries(1, 1, UNLIMITED)


def test_hard_state_is_kept() -> None:
    """The last hard state set is the one to start from."""
    storage = MemoryStorage()
    storage.set_hard_state(HardState(2, 1, 7))
    assert HardState(2, 1, 7) == storage.initial_state()[0]


@pytest.mark.parametrize("index", [3, 4, 5, 6])
def test_term_is_known_from_the_cut_to_the_end(index: int) -> None:
    """The term of each entry is known, and of the one just before the first."""
    assert index == log_from_3_to_6().term(index)


def test_term_outside_the_log_is_refused() -> None:
    """Below the cut an entry is compacted, behind the end it is unavailable."""
    with pytest.raises(Compacted):
        log_from_3_to_6().term(2)
    with pytest.raises(EntryUnavailable):
        log_from_3_to_6().term(7)


@pytest.mark.parametrize(
    ("low", "high", "size_max", "found"),
    [
        (4, 5, UNLIMITED, [4]),
        (4, 7, UNLIMITED, [4, 5, 6]),
        (5, 5, UNLIMITED, []),
        (4, 7, 0, [4]),
        (4, 7, 64, [4, 5]),
        (4, 7, 95, [4, 5]),
        (4, 7, 96, [4, 5, 6]),
    ],
)
def test_entries_are_cut_to_size(low: int, high: int, size_max: int, found: list[int]) -> None:
    """A range gives its entries up to the limit, but at least one."""
    entries = log_from_3_to_6().entries(low, high, size_max)
    assert found == [entry.index for entry in entries]


def test_entries_outside_the_log_are_refused() -> None:
    """A range that touches what is compacted or missing gives an error, not a part."""
    with pytest.raises(Compacted):
        log_from_3_to_6().entries(3, 5, UNLIMITED)
    with pytest.raises(EntryUnavailable):
        log_from_3_to_6().entries(6, 8, UNLIMITED)


def test_entries_belong_to_the_caller() -> None:
    """Changing a list that was handed out does not change the log."""
    storage = log_from_3_to_6()
    storage.entries(4, 7, UNLIMITED).clear()
    assert 6 == storage.last_index()


@pytest.mark.parametrize(
    ("appended", "expected"),
    [
        ([], [(3, 3), (4, 4), (5, 5), (6, 6)]),
        ([(7, 6)], [(3, 3), (4, 4), (5, 5), (6, 6), (7, 6)]),
        ([(4, 4), (5, 5), (6, 6)], [(3, 3), (4, 4), (5, 5), (6, 6)]),
        ([(4, 6), (5, 6)], [(3, 3), (4, 6), (5, 6)]),
        ([(5, 7)], [(3, 3), (4, 4), (5, 7)]),
        ([(2, 3), (3, 3), (4, 7)], [(3, 3), (4, 7)]),
        ([(1, 1), (2, 2), (3, 3)], [(3, 3), (4, 4), (5, 5), (6, 6)]),
    ],
)
def test_append_replaces_from_its_first_entry_on(
    appended: list[tuple[int, int]], expected: list[tuple[int, int]]
) -> None:
    """Appending discards what stood at and after its first index, and skips what is compacted."""
    storage = log_from_3_to_6()
    storage.append([Entry(term, index) for index, term in appended])
    assert expected == terms(storage)


def test_append_may_not_leave_a_gap() -> None:
    """A missing entry between log and append is a bug of the caller."""
    with pytest.raises(AssertionError, match="gap"):
        log_from_3_to_6().append([Entry(8, 8)])


@pytest.mark.parametrize("index", [4, 5, 6])
def test_compact_keeps_the_term_of_the_last_entry_dropped(index: int) -> None:
    """After compacting, the log starts behind the index, whose term is still known."""
    storage = log_from_3_to_6()
    storage.compact(index)
    assert [(each, each) for each in range(index, 7)] == terms(storage)
    with pytest.raises(Compacted):
        storage.entries(index, index + 1, UNLIMITED)


def test_compact_of_what_is_gone_is_refused() -> None:
    """Compacting twice to the same place is an error; beyond the end it is a bug."""
    with pytest.raises(Compacted):
        log_from_3_to_6().compact(3)
    with pytest.raises(AssertionError, match="end"):
        log_from_3_to_6().compact(7)


def test_append_goes_on_after_compacting_everything() -> None:
    """A log that was compacted to its end still knows where it continues."""
    storage = log_from_3_to_6()
    storage.compact(6)
    storage.append([Entry(8, 7)])
    assert [(6, 6), (7, 8)] == terms(storage)


def test_create_snapshot_takes_the_term_of_its_index() -> None:
    """A snapshot names its place in the log and leaves the log as it is."""
    storage = log_from_3_to_6()
    members = ConfState(voters=(1, 2), learners=(3,))
    created = storage.create_snapshot(5, members, b"image")
    assert Snapshot(b"image", SnapshotMetadata(members, 5, 5)) == created
    assert created == storage.snapshot()
    assert [(3, 3), (4, 4), (5, 5), (6, 6)] == terms(storage)


def test_create_snapshot_keeps_the_membership_unless_told() -> None:
    """Without a new membership the last one stays."""
    created = log_from_3_to_6().create_snapshot(4)
    assert ConfState(voters=(1,)) == created.metadata.conf_state


def test_create_snapshot_of_the_past_is_refused() -> None:
    """A snapshot is only replaced by a newer one."""
    with pytest.raises(SnapshotOutOfDate):
        log_from_3_to_6().create_snapshot(3)


def test_apply_snapshot_starts_the_log_over() -> None:
    """After installing a snapshot the log is empty behind it."""
    storage = log_from_3_to_6()
    storage.apply_snapshot(snapshot(9, data=b"image"))
    assert [(9, 9)] == terms(storage)
    assert (10, 9) == (storage.first_index(), storage.last_index())
    assert snapshot(9, data=b"image") == storage.snapshot()


def test_apply_snapshot_of_the_past_is_refused() -> None:
    """An old snapshot never replaces a newer one."""
    with pytest.raises(SnapshotOutOfDate):
        log_from_3_to_6().apply_snapshot(snapshot(3))


def test_apply_snapshot_at_zero_names_the_members() -> None:
    """A new group gets its members from a snapshot of nothing."""
    storage = MemoryStorage()
    storage.apply_snapshot(snapshot(0))
    assert (HardState(), ConfState(voters=(1,))) == storage.initial_state()
    assert (1, 0) == (storage.first_index(), storage.last_index())
