"""timemachine/raft/log.py: one view of stored and unstable entries, and how far it is committed."""

import pytest

from tests.unit.raft.host import UNLIMITED
from timemachine.errors import StoreDamaged
from timemachine.raft.log import Log
from timemachine.raft.messages import Entry, Snapshot, SnapshotMetadata
from timemachine.raft.storage import Compacted, EntryUnavailable, MemoryStorage


def log_3_to_8(*, committed_size_per_ready_max: int = UNLIMITED) -> Log:
    """Cut off behind 3 (term 1); stored 4, 5 (term 1), 6 (term 2); unstable 7, 8 (term 3)."""
    storage = MemoryStorage()
    storage.apply_snapshot(Snapshot(metadata=SnapshotMetadata(index=3, term=1)))
    storage.append([Entry(1, 4), Entry(1, 5), Entry(2, 6)])
    log = Log(storage, committed_size_per_ready_max)
    log.append([Entry(3, 7), Entry(3, 8)])
    return log


def test_new_log_has_committed_and_applied_what_the_snapshot_holds() -> None:
    """Everything before the first entry was committed and applied once."""
    log = log_3_to_8()
    assert (3, 3, 3) == (log.committed, log.applying, log.applied)
    assert (4, 8) == (log.first_index(), log.last_index())


def test_term_looks_into_both_parts() -> None:
    """Terms are known from the cut to the last unstable entry."""
    log = log_3_to_8()
    assert [1, 1, 1, 2, 3, 3] == [log.term(index) for index in range(3, 9)]
    assert 3 == log.last_term()
    with pytest.raises(Compacted):
        log.term(2)
    with pytest.raises(EntryUnavailable):
        log.term(9)


def test_term_does_not_look_at_a_stored_end_that_is_replaced() -> None:
    """When the unstable part starts earlier than storage ends, storage's end no longer counts."""
    log = log_3_to_8()
    log.append([Entry(4, 5)])
    assert [1, 4] == [log.term(4), log.term(5)]
    with pytest.raises(EntryUnavailable):
        log.term(6)


@pytest.mark.parametrize(
    ("low", "high", "size_max", "found"),
    [
        (4, 9, UNLIMITED, [4, 5, 6, 7, 8]),
        (4, 7, UNLIMITED, [4, 5, 6]),
        (7, 9, UNLIMITED, [7, 8]),
        (6, 8, UNLIMITED, [6, 7]),
        (5, 5, UNLIMITED, []),
        (9, 9, UNLIMITED, []),
        (4, 9, 0, [4]),
        (7, 9, 0, [7]),
        (4, 9, 3 * 32, [4, 5, 6]),
        (4, 9, 4 * 32, [4, 5, 6, 7]),
        (4, 9, 2 * 32, [4, 5]),
    ],
)
def test_slice_joins_both_parts(low: int, high: int, size_max: int, found: list[int]) -> None:
    """A range crosses from stored to unstable entries, and is cut by size as one."""
    assert found == [entry.index for entry in log_3_to_8().slice(low, high, size_max)]


def test_slice_never_skips_a_large_entry() -> None:
    """When the stored part was cut by size, no smaller unstable entry slips in behind the gap."""
    storage = MemoryStorage()
    storage.append([Entry(1, 1), Entry(1, 2, data=bytes(100))])
    log = Log(storage, UNLIMITED)
    log.append([Entry(1, 3)])
    assert [1] == [entry.index for entry in log.slice(1, 4, 100)]


def test_slice_outside_is_refused() -> None:
    """What is compacted is an error; what is beyond the end is a bug of the caller."""
    with pytest.raises(Compacted):
        log_3_to_8().slice(3, 9, UNLIMITED)
    with pytest.raises(AssertionError):
        log_3_to_8().slice(4, 10, UNLIMITED)


def test_append_never_touches_what_is_committed() -> None:
    """Replacing a committed entry is a bug, whatever its term."""
    log = log_3_to_8()
    log.commit_to(5)
    with pytest.raises(AssertionError, match="committed"):
        log.append([Entry(9, 5)])
    log.append([Entry(9, 6)])
    assert (6, 9) == (log.last_index(), log.last_term())


def test_append_never_lets_the_term_fall() -> None:
    """An entry of an older term than its predecessor is a bug."""
    with pytest.raises(AssertionError, match="term"):
        log_3_to_8().append([Entry(2, 9)])


def test_commit_never_falls() -> None:
    """A smaller commit index is old news."""
    log = log_3_to_8()
    log.commit_to(6)
    log.commit_to(5)
    assert 6 == log.committed


def test_commit_beyond_the_end_is_damage() -> None:
    """A log that lost committed entries is not used."""
    with pytest.raises(StoreDamaged, match="9 is committed"):
        log_3_to_8().commit_to(9)


@pytest.mark.parametrize(
    ("index", "term", "committed"),
    [
        (8, 3, 8),
        (7, 3, 7),
        (6, 3, 3),
        (6, 2, 6),
        (9, 3, 3),
        (3, 1, 3),
        (2, 1, 3),
        (8, 0, 3),
    ],
)
def test_maybe_commit_wants_an_entry_of_the_term(index: int, term: int, committed: int) -> None:
    """Only an index whose entry has the given term moves the commit index."""
    log = log_3_to_8()
    moved = log.maybe_commit(index, term)
    assert (committed != 3, committed) == (moved, log.committed)


def test_committed_entries_are_handed_out_once_and_in_parcels() -> None:
    """Each committed entry is handed out once, in parcels of the given size."""
    log = log_3_to_8(committed_size_per_ready_max=2 * 32)
    log.commit_to(7)
    parcels = []
    while log.has_next_committed_entries():
        entries = log.next_committed_entries()
        parcels.append([entry.index for entry in entries])
        log.accept_applying(entries[-1].index)
    assert [[4, 5], [6, 7]] == parcels
    assert [] == log.next_committed_entries()
    assert (7, 3) == (log.applying, log.applied)


def test_applied_stays_between_its_past_and_the_commit() -> None:
    """The applied index rises, and never beyond what is committed."""
    log = log_3_to_8()
    log.commit_to(6)
    log.applied_to(5)
    assert (5, 5) == (log.applied, log.applying)
    for index in (4, 7):
        with pytest.raises(AssertionError):
            log.applied_to(index)
    with pytest.raises(AssertionError):
        log.accept_applying(7)
