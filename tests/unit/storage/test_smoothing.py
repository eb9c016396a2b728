"""What LevelDB deletes is freed beside it, tables are written out, and nothing is left behind."""

import errno
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.process import wait_until
from timemachine.storage.leveldb import FORMAT, Identity, open_store
from timemachine.storage.smoothing import Smoother

IDENTITY = Identity(FORMAT, "cluster", "node", 1, b"check")


def _inodes(directory: Path, *suffixes: str) -> set[int]:
    """Of the files there with these suffixes, while others come and go."""
    found = set()
    for entry in directory.iterdir():
        with suppress(FileNotFoundError):
            if entry.suffix in suffixes:
                found.add(entry.stat().st_ino)
    return found


def _links_settle(path: Path) -> set[int]:
    """Wait until the second names are those of LevelDB's files, and of no other."""
    wait_until(
        lambda: _inodes(path / "links", ".ldb", ".log") == _inodes(path / "store", ".ldb", ".log"),
        "links that match the store",
    )
    return _inodes(path / "store", ".ldb", ".log")


def test_a_deleted_file_lives_on_until_the_thread_frees_it(tmp_path: Path) -> None:
    """Deleting its name frees nothing; the second name goes soon after."""
    store, links = tmp_path / "store", tmp_path / "links"
    store.mkdir()
    (store / "000005.ldb").write_bytes(b"rows")
    (store / "CURRENT").write_bytes(b"x")
    smoother = Smoother(store, links)
    smoother.start()
    wait_until((links / "000005.ldb").exists, "a second name")
    assert (store / "000005.ldb").stat().st_nlink == 2
    assert not (links / "CURRENT").exists()
    (store / "000005.ldb").unlink()
    wait_until(lambda: not any(links.iterdir()), "that it is freed")
    smoother.stop()


def test_a_table_is_synced_as_long_as_it_grows(tmp_path: Path) -> None:
    """Then no more; and its bytes are as they were. Step by step here, without the thread."""
    store, links = tmp_path / "store", tmp_path / "links"
    store.mkdir()
    links.mkdir()
    smoother, name = Smoother(store, links), "000007.ldb"
    seen = []
    for part in (b"a" * 1000, b"b" * 500, b""):
        with (store / name).open("ab") as file:
            file.write(part)
        smoother._link()
        smoother._write_out(name)
        seen.append(dict(smoother._growing))
    assert seen == [{name: 1000}, {name: 1500}, {}]
    assert (store / name).read_bytes() == b"a" * 1000 + b"b" * 500


def test_tables_that_are_there_at_a_start_are_not_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are complete; a flush of the disk for each would stand in the way of the log's."""
    store, links = tmp_path / "store", tmp_path / "links"
    store.mkdir()
    for number in range(5):
        (store / f"00000{number}.ldb").write_bytes(b"rows")
    synced: list[int] = []
    monkeypatch.setattr("timemachine.storage.smoothing._sync", synced.append)
    smoother = Smoother(store, links)
    smoother.start()
    wait_until(lambda: len(list(links.iterdir())) == 5, "second names")
    (store / "new").write_bytes(b"new")
    (store / "new").rename(store / "000009.ldb")
    wait_until(lambda: bool(synced), "that the new one is synced")
    smoother.stop()
    assert 1 == len(synced)


def test_a_table_that_has_no_bytes_yet_is_not_complete(tmp_path: Path) -> None:
    """LevelDB keeps the first 64 KiB to itself: a look meanwhile must not be the last."""
    store, links = tmp_path / "store", tmp_path / "links"
    store.mkdir()
    links.mkdir()
    smoother, name = Smoother(store, links), "000007.ldb"
    (store / name).touch()
    smoother._link()
    smoother._write_out(name)
    (store / name).write_bytes(b"a" * 1000)
    smoother._write_out(name)
    assert {name: 1000} == smoother._growing


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    """Links of files that are gone would hold their space for ever."""
    store, links = tmp_path / "store", tmp_path / "links"
    store.mkdir()
    links.mkdir()
    (links / "000003.ldb").write_bytes(b"of a compaction long ago")
    smoother = Smoother(store, links)
    smoother.start()
    assert not any(links.iterdir())
    smoother.stop()


def test_space_comes_back_while_rows_stay(tmp_path: Path) -> None:
    """With real compactions the links follow the store, and are gone when it is closed."""
    path = tmp_path / "data"
    store, _ = open_store(path, create=IDENTITY)
    for number in range(100):
        store.write(store.prepare({b"k%05d" % number: b"v" * 1000}))
    before = _links_settle(path)
    store.compact(b"", b"\xff")
    after = _links_settle(path)
    assert after != before
    assert len(store.scan(b"k", b"l")) == 100
    store.close()
    assert not any((path / "links").iterdir())
    again, _ = open_store(path)
    assert len(again.scan(b"k", b"l")) == 100
    again.close()


def test_the_store_works_where_there_can_be_no_links(tmp_path: Path) -> None:
    """Then LevelDB frees its files itself."""
    path = tmp_path / "data"
    store, _ = open_store(path, create=IDENTITY)
    # In one step: the thread makes links all the while, so the directory cannot be emptied first.
    (path / "links").rename(tmp_path / "elsewhere")
    for number in range(100):
        store.write(store.prepare({b"k%05d" % number: b"v" * 1000}))
    store.compact(b"", b"\xff")
    assert len(store.scan(b"k", b"l")) == 100
    store.close()


@pytest.mark.parametrize("fault", ["no room", "a file there", "a directory in it"])
def test_a_store_opens_where_links_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """A node whose disk is full, or holds something odd, must not be kept from its jobs by it."""
    path = tmp_path / "data"
    store, _ = open_store(path, create=IDENTITY)
    store.write(store.prepare({b"k": b"v"}))
    store.close()
    links = path / "links"
    if fault == "a directory in it":
        (links / "odd").mkdir()
    else:
        links.rmdir()
    if fault == "a file there":
        links.touch()
    make = Path.mkdir

    def mkdir(self: Path, *args: Any, **options: Any) -> None:
        if fault == "no room" and self == links:
            raise OSError(errno.ENOSPC, "No space left on device")
        make(self, *args, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    again, _ = open_store(path)
    assert b"v" == again.get(b"k")
    again.write(again.prepare({b"k": b"w"}))
    again.close()


def test_a_store_closes_where_links_cannot_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a disk that has become read-only, say: the directory's lock is given back all the same."""
    path = tmp_path / "data"
    store, _ = open_store(path, create=IDENTITY)
    _links_settle(path)

    def unlink(self: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as during:
        during.setattr(Path, "unlink", unlink)
        store.close()
    assert any((path / "links").iterdir())
    again, _ = open_store(path)
    again.close()
    assert not any((path / "links").iterdir())
