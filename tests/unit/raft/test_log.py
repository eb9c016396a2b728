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


@pytest.mark.parametrize(
    ("index", "term", "expected"),
    [
        (8, 3, (8, 3)),
        (8, 2, (6, 2)),
        (8, 1, (5, 1)),
        (6, 1, (5, 1)),
        (8, 0, (2, 0)),
        (9, 1, (9, 0)),
        (2, 1, (2, 0)),
        (0, 1, (0, 0)),
    ],
)
def test_the_guess_where_logs_agree_jumps_over_newer_terms(
    index: int, term: int, expected: tuple[int, int]
) -> None:
    """The newest entry that is not newer than `term`; where nothing is known, it may well match."""
    assert expected == log_3_to_8().find_conflict_by_term(index, term)


@pytest.mark.parametrize(
    ("index", "term", "expected"),
    [(8, 3, True), (7, 3, False), (1, 4, True), (99, 2, False), (9, 3, True)],
)
def test_a_log_is_compared_by_its_last_term_and_then_its_length(
    index: int, term: int, expected: bool
) -> None:
    """The later last term wins; with the same one, the longer log (dissertation 3.6.1)."""
    assert expected is log_3_to_8().is_up_to_date(index, term)


def test_entries_of_a_leader_replace_what_differs() -> None:
    """From the first difference on; what agrees before it is not written again."""
    log = log_3_to_8()
    log.unstable.accept_in_progress()
    assert log.maybe_append(6, 2, [Entry(3, 7), Entry(4, 8)], commit=7) == 8
    assert [Entry(4, 8)] == log.unstable.next_entries()
    assert 7 == log.committed


def test_a_leader_commits_no_more_than_it_has_compared() -> None:
    """Behind the entries of the message the two logs may differ."""
    log = log_3_to_8()
    assert log.maybe_append(5, 1, [], commit=8) == 5
    assert (5, 8) == (log.committed, log.last_index())


def test_entries_that_do_not_follow_are_not_taken() -> None:
    """Neither behind another entry, nor behind the end, nor behind what is compacted."""
    log = log_3_to_8()
    for index, term in ((6, 1), (9, 3), (2, 1)):
        assert log.maybe_append(index, term, [Entry(9, index + 1)], commit=0) is None
    assert [Entry(3, 7), Entry(3, 8)] == log.unstable.next_entries()


def test_a_leader_that_contradicts_what_is_committed_is_refused() -> None:
    """One of the two has lost what it had."""
    log = log_3_to_8()
    log.commit_to(6)
    with pytest.raises(StoreDamaged, match="Entry 6 is committed in term 2"):
        log.maybe_append(5, 1, [Entry(9, 6)], commit=0)


def test_a_snapshot_stands_in_front_of_what_storage_shows() -> None:
    """Until it is installed, nothing before it can be read, and nothing is applied."""
    log = log_3_to_8()
    snapshot = Snapshot(metadata=SnapshotMetadata(index=20, term=4))
    log.restore(snapshot)
    assert (21, 20, 20) == (log.first_index(), log.last_index(), log.committed)
    assert log.snapshot() is snapshot
    assert 4 == log.term(20)
    for index in (4, 8, 19):
        assert 0 == log.term_or_zero(index)
    with pytest.raises(Compacted):
        log.entries_from(5, UNLIMITED)
    log.append([Entry(4, 21)])
    assert not log.has_next_committed_entries()
    log.unstable.stable_snapshot_to(20)
    log.applied_to(20)
    log.commit_to(21)
    assert [Entry(4, 21)] == log.next_committed_entries()


def overlapping_log() -> Log:
    """Stored 1 to 4, of 40 bytes each with all that counts; unstable 5; all committed."""
    storage = MemoryStorage()
    storage.append([Entry(1, index, data=bytes(8)) for index in range(1, 5)])
    log = Log(storage, committed_size_per_ready_max=100, overlapping=True)
    log.append([Entry(1, 5, data=bytes(8))])
    log.commit_to(5)
    return log


def test_overlapping_parcels_are_bounded_together() -> None:
    """What is under way and what is handed out next are one limit."""
    log = overlapping_log()
    assert [1, 2] == [entry.index for entry in log.next_committed_entries()]
    log.accept_applying(2, size=80)
    assert [] == log.next_committed_entries()
    log.applied_to(1, size=40)
    assert [3] == [entry.index for entry in log.next_committed_entries()]


def test_overlapping_parcels_hold_only_what_is_stored() -> None:
    """Otherwise an entry could be applied before it is durable here."""
    log = overlapping_log()
    log.accept_applying(4, size=40)
    assert not log.has_next_committed_entries()
    log.unstable.stable_to(5, 1)
    log.storage.append([Entry(1, 5)])  # type: ignore[attr-defined]
    assert [5] == [entry.index for entry in log.next_committed_entries()]
