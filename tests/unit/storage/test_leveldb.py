"""The LevelDB engine refuses what it must not serve, and keeps what it acknowledged."""

import gc
import shutil
from pathlib import Path

import pytest

from timemachine.errors import StoreDamaged, StoreError, StoreFailed, StoreForeign, StoreInUse
from timemachine.storage.leveldb import FORMAT, Identity, LevelDBStore, is_new, open_store
from timemachine.storage.overlay import Overlay
from timemachine.storage.pacing import pause_ms
from timemachine.storage.walcheck import check_wal

IDENTITY = Identity(FORMAT, "cluster", "node", 1, b"check")


def _make(path: Path, rows: int = 200) -> None:
    store, _ = open_store(path, create=IDENTITY)
    for number in range(rows):
        store.write(store.prepare({b"k%05d" % number: b"v" * 100}))
    store.close()


def _log(path: Path) -> Path:
    return max((path / "store").glob("*.log"), key=lambda file: file.stat().st_size)


def _unclean_copy(path: Path, to: Path) -> LevelDBStore:
    """A copy of a store as a crash would leave it: written, not closed."""
    store, _ = open_store(path, create=IDENTITY)
    for number in range(200):
        store.write(store.prepare({b"k%05d" % number: b"v" * 100}))
    shutil.copytree(path, to)
    return store


def test_identity_is_written_first_and_checked(tmp_path: Path) -> None:
    """A store says whose it is, and says the same at the next start."""
    _make(tmp_path / "data")
    store, identity = open_store(tmp_path / "data")
    assert IDENTITY == identity
    assert [(b"k00000", b"v" * 100)] == store.scan(b"k", b"l", 1)
    assert [(b"k00199", b"v" * 100)] == store.scan(b"k", b"l", 1, reverse=True)
    store.close()


def test_a_store_of_another_format_is_refused(tmp_path: Path) -> None:
    """Its rows would be read as something else."""
    store, _ = open_store(tmp_path / "data", create=Identity(FORMAT - 1, "c", "n", 1, b"check"))
    store.close()
    with pytest.raises(StoreForeign, match=f"format {FORMAT - 1}; this version reads {FORMAT}"):
        open_store(tmp_path / "data")


def test_a_second_opener_is_refused(tmp_path: Path) -> None:
    """One process, one directory."""
    store, _ = open_store(tmp_path / "data", create=IDENTITY)
    with pytest.raises(StoreInUse):
        open_store(tmp_path / "data")
    store.close()


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    """A directory with other files is not taken over."""
    (tmp_path / "letters.txt").write_text("mine")
    with pytest.raises(StoreForeign, match=r"letters\.txt"):
        is_new(tmp_path)


def test_a_lost_current_file_is_never_an_empty_store(tmp_path: Path) -> None:
    """A node must not forget its votes and its jobs because one file is gone."""
    _make(tmp_path / "data")
    (tmp_path / "data" / "store" / "CURRENT").unlink()
    with pytest.raises(StoreDamaged, match="CURRENT"):
        open_store(tmp_path / "data", create=IDENTITY)


def test_a_torn_tail_is_cut(tmp_path: Path) -> None:
    """Garbage behind the last synced write is what a power loss leaves."""
    live = _unclean_copy(tmp_path / "live", tmp_path / "data")
    with _log(tmp_path / "data").open("ab") as file:
        file.write(b"\x07garbage that was never synced")
    store, _ = open_store(tmp_path / "data")
    assert 200 == len(store.scan(b"k", b"l"))
    store.close()
    live.close()


def test_damage_in_the_middle_of_the_log_is_refused(tmp_path: Path) -> None:
    """LevelDB would skip it silently; acknowledged writes are gone."""
    live = _unclean_copy(tmp_path / "live", tmp_path / "data")
    path = _log(tmp_path / "data")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    assert check_wal(bytes(content)).damaged
    with pytest.raises(StoreDamaged, match="middle"):
        open_store(tmp_path / "data")
    live.close()


def test_a_zeroed_block_is_an_error_not_a_missing_row(tmp_path: Path) -> None:
    """A row that cannot be read is damage; None would mean that it never was."""
    store, _ = open_store(tmp_path / "data", create=IDENTITY)
    store.write(store.prepare({b"k%06d" % number: b"v" * 100 for number in range(20_000)}))
    store.compact(b"k", b"l")
    store.close()
    table = max((tmp_path / "data" / "store").glob("*.ldb"), key=lambda file: file.stat().st_size)
    content = bytearray(table.read_bytes())
    content[400_000:404_096] = bytes(4_096)
    table.write_bytes(content)
    with pytest.raises(StoreDamaged):  # noqa: PT012 - whichever reads it first
        store, _ = open_store(tmp_path / "data")
        try:
            for number in range(20_000):
                assert store.get(b"k%06d" % number) is not None
        finally:
            store.close()


def test_after_a_failed_write_the_handle_is_dead(tmp_path: Path) -> None:
    """Not one more write is taken: LevelDB would lose it."""
    store, _ = open_store(tmp_path / "data", create=IDENTITY)
    good = store.prepare({b"a": b"1"})
    with pytest.raises(StoreFailed):
        store.write(object())
    with pytest.raises(StoreFailed, match="dead"):
        store.write(good)
    store.close()


def test_the_overlay_shows_what_is_on_its_way(tmp_path: Path) -> None:
    """During a sync the store still answers the old row, the overlay the new one."""
    store, _ = open_store(tmp_path / "data", create=IDENTITY)
    overlay = Overlay(store)
    overlay.put(b"a", b"1")
    batch = overlay.seal()
    overlay.delete(b"b")
    overlay.put(b"c", b"3")
    assert (b"1", None, b"3") == (overlay.get(b"a"), overlay.get(b"b"), overlay.get(b"c"))
    assert store.get(b"a") is None
    store.write(store.prepare(batch))
    overlay.settled()
    assert b"1" == overlay.get(b"a")
    overlay.discard()
    assert overlay.get(b"c") is None
    store.close()


def test_rows_that_stand_together_are_read_in_one_walk(tmp_path: Path) -> None:
    """Those that lie apart, few ones and damaged ones are left to `get`."""
    store, _ = open_store(tmp_path / "data", create=IDENTITY)
    rows: dict[bytes, bytes | None] = {b"k%05d" % number: b"%d" % number for number in range(5000)}
    store.write(store.prepare(rows))
    keys = [b"k%05d" % number for number in range(100, 164)]
    assert {key: rows[key] for key in keys} == store.near(keys)
    assert {} == store.near(keys[:4])
    assert {} == store.near([])
    apart = [b"k%05d" % number for number in range(0, 5000, 50)]
    assert len(store.near(apart)) <= 8
    absent = [key + b"x" for key in keys]
    assert not store.near(absent).keys() & set(absent)
    store.close()


def test_the_overlay_knows_better_than_what_was_read_near(tmp_path: Path) -> None:
    """Rows on their way count, also those that are deleted, and a row that was not met is read."""
    store, _ = open_store(tmp_path / "data", create=IDENTITY)
    keys = [b"k%02d" % number for number in range(32)]
    store.write(store.prepare(dict.fromkeys(keys, b"old")))
    overlay = Overlay(store)
    overlay.delete(keys[0])
    overlay.seal()
    overlay.put(keys[1], b"new")
    near = overlay.near(keys[::-1])
    assert (None, b"new", b"old") == tuple(overlay.get(key, near) for key in keys[:3])
    assert b"old" == overlay.get(keys[4], {})
    assert overlay.get(b"kx", near) is None
    store.close()


def test_a_view_shows_what_was_there(tmp_path: Path) -> None:
    """Whatever is written, deleted and compacted meanwhile."""
    store, _ = open_store(tmp_path / "data", create=IDENTITY)
    store.write(store.prepare({b"k%03d" % number: b"old" for number in range(100)}))
    view = store.view()
    store.write(store.prepare({b"k%03d" % number: None for number in range(0, 100, 2)}))
    store.write(store.prepare({b"k%03d" % number: b"new" for number in range(51, 150)}))
    store.compact(b"k", b"l")
    assert 100 == len(view.scan(b"k", b"l"))
    assert {b"old"} == {value for _, value in view.scan(b"k", b"l")}
    assert (b"old", None) == (view.get(b"k050"), view.get(b"k149"))
    assert (None, b"new") == (store.get(b"k050"), store.get(b"k149"))
    view.close()
    store.close()


def test_a_view_that_outlives_its_store_is_closed(tmp_path: Path) -> None:
    """Also in the middle of a transfer: an error, not the end of the process."""
    store, _ = open_store(tmp_path / "data", create=IDENTITY)
    store.write(store.prepare({b"k": b"v"}))
    view = store.view()
    assert b"v" == view.get(b"k")
    store.close()
    with pytest.raises(StoreError):
        view.get(b"k")
    with pytest.raises(StoreError):
        view.scan(b"k", b"l")
    with pytest.raises(StoreError):
        store.view()
    view.close()
    del view, store
    gc.collect()


def test_a_view_sees_damage(tmp_path: Path) -> None:
    """An image is not made of what happens to be readable."""
    store, _ = open_store(tmp_path / "data", create=IDENTITY)
    store.write(store.prepare({b"k%06d" % number: b"v" * 100 for number in range(20_000)}))
    store.compact(b"k", b"l")
    store.close()
    table = max((tmp_path / "data" / "store").glob("*.ldb"), key=lambda file: file.stat().st_size)
    content = bytearray(table.read_bytes())
    content[400_000:404_096] = bytes(4_096)
    table.write_bytes(content)
    store, _ = open_store(tmp_path / "data")
    view = store.view()
    with pytest.raises(StoreDamaged):
        view.scan(b"k", b"l", 20_000)
    with pytest.raises(StoreDamaged):
        [view.get(b"k%06d" % number) for number in range(20_000)]
    store.close()


def test_writers_slow_down_before_the_engine_would_stop_them() -> None:
    """Calm costs nothing; users wait before the node does, and nobody longer than 300 ms."""
    assert 0.0 == pause_ms(5, user=True) == pause_ms(5, user=False)
    for files in range(6, 40):
        assert 0.0 < pause_ms(files, user=False) <= pause_ms(files, user=True) <= 300.0


def test_backwards_the_row_at_the_start_is_there(tmp_path: Path) -> None:
    """Also where it is the only one in the range."""
    store, _ = open_store(tmp_path / "data", create=IDENTITY)
    store.write(store.prepare({b"j": b"1", b"k": b"2", b"k0": b"3", b"l": b"4"}))
    assert [(b"k", b"2")] == store.scan(b"k", b"k0", reverse=True)
    assert [(b"k0", b"3"), (b"k", b"2")] == store.scan(b"k", b"l", reverse=True)
    assert [(b"k0", b"3")] == store.scan(b"k", b"l", 1, reverse=True)
    assert [] == store.scan(b"k1", b"l", reverse=True)
    store.close()
