"""timemachine/raft/unstable.py: entries that storage does not show yet."""

import pytest

from timemachine.raft.messages import Entry, Snapshot, SnapshotMetadata
from timemachine.raft.unstable import Unstable


def unstable_5_and_6(*, in_progress: bool = False) -> Unstable:
    """Entries 5 (term 1) and 6 (term 1)."""
    unstable = Unstable(5)
    unstable.truncate_and_append([Entry(1, 5), Entry(1, 6)])
    if in_progress:
        unstable.accept_in_progress()
    return unstable


def pairs(entries: list[Entry]) -> list[tuple[int, int]]:
    """(index, term) of each entry."""
    return [(entry.index, entry.term) for entry in entries]


def test_new_unstable_ends_where_storage_ends() -> None:
    """Without entries, the last index is the one before the offset."""
    unstable = Unstable(5)
    assert 4 == unstable.last_index()
    assert not unstable.has_next_entries()
    assert [] == unstable.next_entries()
    assert unstable.maybe_term(4) is None


def test_maybe_term_knows_only_its_own_entries() -> None:
    """Terms are known from the offset to the last index."""
    unstable = unstable_5_and_6()
    assert [None, 1, 1, None] == [unstable.maybe_term(index) for index in (4, 5, 6, 7)]


def test_entries_are_handed_out_once() -> None:
    """What is in progress is not handed out again; what comes after it is."""
    unstable = unstable_5_and_6()
    assert [(5, 1), (6, 1)] == pairs(unstable.next_entries())
    unstable.accept_in_progress()
    assert not unstable.has_next_entries()
    unstable.truncate_and_append([Entry(1, 7)])
    assert unstable.has_next_entries()
    assert [(7, 1)] == pairs(unstable.next_entries())


def test_what_was_handed_out_never_changes() -> None:
    """A list that the host holds is not touched by later appends and truncations."""
    unstable = unstable_5_and_6()
    handed_out = unstable.next_entries()
    unstable.accept_in_progress()
    unstable.truncate_and_append([Entry(2, 6), Entry(2, 7)])
    unstable.stable_to(5, 1)
    assert [(5, 1), (6, 1)] == pairs(handed_out)


@pytest.mark.parametrize(
    ("index", "term", "left"),
    [
        (4, 1, [5, 6]),
        (5, 1, [6]),
        (6, 1, []),
        (6, 2, [5, 6]),
        (7, 1, [5, 6]),
    ],
)
def test_stable_to_lets_go_only_of_what_it_names(index: int, term: int, left: list[int]) -> None:
    """An answer about an entry that is not here, or was replaced, changes nothing."""
    unstable = unstable_5_and_6(in_progress=True)
    unstable.stable_to(index, term)
    assert left == [entry.index for entry in unstable.entries]
    assert (left[0] if left else 7) == unstable.offset
    assert 6 == unstable.last_index()
    assert not unstable.has_next_entries()


def test_stable_to_before_the_hand_out_moves_what_is_in_progress() -> None:
    """Entries that are stable are not handed out, and all that follow still are."""
    unstable = unstable_5_and_6()
    unstable.truncate_and_append([Entry(1, 7)])
    unstable.stable_to(5, 1)
    assert [(6, 1), (7, 1)] == pairs(unstable.next_entries())


@pytest.mark.parametrize(
    ("appended", "expected", "next_up"),
    [
        ([(7, 1)], [(5, 1), (6, 1), (7, 1)], [(7, 1)]),
        ([(6, 2)], [(5, 1), (6, 2)], [(6, 2)]),
        ([(5, 2), (6, 2)], [(5, 2), (6, 2)], [(5, 2), (6, 2)]),
        ([(3, 2)], [(3, 2)], [(3, 2)]),
    ],
)
def test_what_is_replaced_is_written_again(
    appended: list[tuple[int, int]],
    expected: list[tuple[int, int]],
    next_up: list[tuple[int, int]],
) -> None:
    """An append drops what it replaces, and hands out all it brings, even if in progress before."""
    unstable = unstable_5_and_6(in_progress=True)
    unstable.truncate_and_append([Entry(term, index) for index, term in appended])
    assert expected == pairs(unstable.entries)
    assert next_up == pairs(unstable.next_entries())


def test_append_may_not_leave_a_gap() -> None:
    """A missing entry is a bug of the caller."""
    with pytest.raises(AssertionError, match="gap"):
        unstable_5_and_6().truncate_and_append([Entry(1, 8)])


@pytest.mark.parametrize(("low", "high"), [(4, 6), (5, 8), (6, 5)])
def test_slice_outside_is_refused(low: int, high: int) -> None:
    """A slice must lie within what is here."""
    with pytest.raises(AssertionError):
        unstable_5_and_6().slice(low, high)


def test_slice_gives_its_range() -> None:
    """A slice holds the entries from low up to, but not including, high."""
    assert [(6, 1)] == pairs(unstable_5_and_6().slice(6, 7))


def test_a_snapshot_is_handed_out_once_and_kept_until_it_is_stable() -> None:
    """Like entries; its end is where the log continues."""
    unstable = unstable_5_and_6()
    snapshot = Snapshot(metadata=SnapshotMetadata(index=9, term=2))
    unstable.restore(snapshot)
    assert ([], 9, 2) == (unstable.entries, unstable.last_index(), unstable.maybe_term(9))
    assert unstable.next_snapshot() is snapshot
    unstable.accept_in_progress()
    assert unstable.next_snapshot() is None
    unstable.stable_snapshot_to(8)
    assert unstable.snapshot is snapshot
    unstable.stable_snapshot_to(9)
    assert unstable.snapshot is None
    assert unstable.maybe_term(9) is None


def test_a_newer_snapshot_is_handed_out_though_an_older_one_is_being_written() -> None:
    """The older one's end does not make the newer one stable."""
    unstable = Unstable(5)
    unstable.restore(Snapshot(metadata=SnapshotMetadata(index=9, term=2)))
    unstable.accept_in_progress()
    newer = Snapshot(metadata=SnapshotMetadata(index=12, term=2))
    unstable.restore(newer)
    unstable.stable_snapshot_to(9)
    assert unstable.next_snapshot() is newer
