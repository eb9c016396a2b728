"""A store with a damaged table: what is copied, what is given up, and what a crash leaves."""

from pathlib import Path

import pytest

from timemachine.errors import StoreDamaged, StoreFailed
from timemachine.storage.keys import (
    INCARNATION_KEY,
    ReplicaKeys,
    damaged_key,
    erase_key,
    group_key,
    quarantine_key,
    u32,
    u64,
)
from timemachine.storage.leveldb import FORMAT, Identity, LevelDBStore, is_new, open_store
from timemachine.storage.rewriting import KEPT, MARK, NEW, OLD, STORE

IDENTITY = Identity(FORMAT, "cluster", "node", 1, b"check", 3)
ROWS = 2_000
GROUPS = {1: (0, 0), 2: (7, 0), 3: (7, 1), 4: (7, 2)}
"""Of which group each range is; range 5 is to be erased."""


def _row(incarnation: int, number: int) -> bytes:
    return ReplicaKeys(incarnation).job + b"%06d" % number


def _make(directory: Path, *marks: bytes) -> None:
    store, _ = open_store(directory, create=IDENTITY)
    rows: dict[bytes, bytes | None] = {INCARNATION_KEY: u32(6), erase_key(5): b""}
    rows |= {group_key(*group): u32(number) for number, group in GROUPS.items()}
    rows[group_key(*GROUPS[4])] = u32(4) + u64(1 << 16 | 3)
    rows |= dict.fromkeys(marks, b"")
    for incarnation in (*GROUPS, 5):
        rows |= {_row(incarnation, number): b"%d" % number * 20 for number in range(ROWS)}
    store.write(store.prepare(rows))
    store.compact(b"\0", b"\xff")
    store.close()


def _damage(directory: Path, incarnation: int) -> None:
    """Flip a bit of one row in the middle of a range."""
    needle = b"%d" % (1_000 + incarnation) * 20
    (table,) = [each for each in (directory / STORE).glob("*.ldb") if needle in each.read_bytes()]
    data = bytearray(table.read_bytes())
    # The rows of all ranges are alike: it is that of the range's place.
    place = -1
    for _ in range(sorted([*GROUPS, 5]).index(incarnation) + 1):
        place = data.index(needle, place + 1)
    data[place] ^= 1
    table.write_bytes(data)


def _count(store: LevelDBStore, incarnation: int) -> int:
    keys = ReplicaKeys(incarnation)
    return len(store.scan(keys.prefix, keys.stop, 2 * ROWS))


def _names(directory: Path) -> set[str]:
    return {each.name for each in directory.iterdir()} & {STORE, NEW, OLD, KEPT, MARK}


def test_without_damage_nothing_is_written_anew(tmp_path: Path) -> None:
    """It would take a while."""
    _make(tmp_path)
    before = (tmp_path / STORE).stat().st_ino
    open_store(tmp_path)[0].close()
    assert before == (tmp_path / STORE).stat().st_ino


def test_a_range_that_was_given_up_is_left_out(tmp_path: Path) -> None:
    """And one that is to be erased, at once. The rest is there, and is told nothing."""
    _make(tmp_path, damaged_key(3))
    _damage(tmp_path, 3)
    store, identity = open_store(tmp_path)
    assert IDENTITY == identity
    assert [ROWS, ROWS, 0, ROWS, 0] == [_count(store, each) for each in (1, 2, 3, 4, 5)]
    assert store.get(damaged_key(3)) is None
    assert store.get(erase_key(5)) is None
    assert {STORE} == _names(tmp_path)
    # Compaction goes through all of it again.
    store.compact(b"\0", b"\xff")
    store.write(store.prepare({b"\0\0\0\0z": b"1"}))
    store.close()


@pytest.mark.parametrize(("incarnation", "replica"), [(3, 3), (4, 1 << 16 | 3)])
def test_a_range_that_only_the_copying_found_damaged_is_given_up_and_kept(
    tmp_path: Path, incarnation: int, replica: int
) -> None:
    """Not a row of it is served. The old store is kept, for nobody may have another copy."""
    _make(tmp_path)
    _damage(tmp_path, incarnation)
    (tmp_path / MARK).touch()
    store, _ = open_store(tmp_path)
    assert 0 == _count(store, incarnation)
    assert ROWS == _count(store, 2)
    assert u64(replica) == store.get(quarantine_key(*GROUPS[incarnation]))
    assert store.get(group_key(*GROUPS[incarnation])) is None
    assert {STORE, KEPT} == _names(tmp_path)
    store.close()


def test_a_damaged_meta_group_is_refused_and_all_is_as_it_was(tmp_path: Path) -> None:
    """Every node has it under its own number: another node has to take this one's place."""
    _make(tmp_path)
    _damage(tmp_path, 1)
    (tmp_path / MARK).touch()
    for _ in range(2):
        with pytest.raises(StoreDamaged, match="meta"):
            open_store(tmp_path)
        assert {STORE, MARK} <= _names(tmp_path)


def test_a_compaction_that_meets_damage_leaves_a_mark(tmp_path: Path) -> None:
    """The handle is dead, as after any failed write; the next start writes the store anew."""
    _make(tmp_path)
    _damage(tmp_path, 3)
    store, _ = open_store(tmp_path)
    store.write(store.prepare({_row(3, number): b"new" for number in range(0, ROWS, 2)}))
    store.compact(b"\0", b"\xff")
    with pytest.raises(StoreFailed):
        store.write(store.prepare({b"\0\0\0\0z": b"1"}))
    store.close()
    assert {STORE, MARK} == _names(tmp_path)
    store, _ = open_store(tmp_path)
    assert 0 == _count(store, 3)
    store.compact(b"\0", b"\xff")
    store.write(store.prepare({b"\0\0\0\0z": b"1"}))
    store.close()


@pytest.mark.parametrize("aside", [OLD, KEPT])
def test_a_crash_between_the_names_is_undone(tmp_path: Path, aside: str) -> None:
    """A directory without a store would pass for a new one."""
    _make(tmp_path)
    (tmp_path / STORE).rename(tmp_path / aside)
    (tmp_path / NEW).mkdir()
    assert not is_new(tmp_path)
    store, _ = open_store(tmp_path)
    assert ROWS == _count(store, 2)
    store.close()
    assert {STORE} == _names(tmp_path)


def test_what_only_this_node_has_is_left_as_it_is(tmp_path: Path) -> None:
    """It would be gone, and the node would go on as if it had never been."""
    _make(tmp_path)
    (tmp_path / MARK).touch()
    _damage(tmp_path, 3)
    asked: list[tuple[bytes | None, int]] = []

    def is_only_copy(row: bytes | None, replica: int) -> bool:
        asked.append((row, replica))
        return True

    with pytest.raises(StoreDamaged, match="no other replica"):
        open_store(tmp_path, is_only_copy=is_only_copy)
    assert [(None, IDENTITY.number)] == asked
    assert {STORE, MARK} <= _names(tmp_path)
    assert not {OLD, KEPT} & _names(tmp_path)
