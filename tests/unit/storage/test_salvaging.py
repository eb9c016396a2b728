"""A store that is read without a byte being written to it."""

import shutil
from pathlib import Path

import pytest

from timemachine.errors import StoreDamaged, StoreError, StoreForeign, StoreInUse
from timemachine.storage import salvaging
from timemachine.storage.leveldb import FORMAT, Identity, open_store
from timemachine.storage.salvaging import open_stopped

IDENTITY = Identity(FORMAT, "cluster", "node", 1, b"check", 3)
ROWS = {b"key%05d" % number: b"%06d" % number * 50 for number in range(3_000)}
LATER = {b"later%05d" % number: b"l" for number in range(300)}

Files = dict[str, tuple[bytes, int]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """What a node has left: tables, and a log with the newest rows."""
    directory = tmp_path / "data"
    store, _ = open_store(directory, create=IDENTITY)
    store.write(store.prepare(dict(ROWS)))
    store.compact(b"\0", b"\xff")
    store.close()
    store, _ = open_store(directory)
    for key, value in LATER.items():
        store.write(store.prepare({key: value}))
    store.close()
    return directory


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Where the working copy is."""
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def _files(directory: Path) -> Files:
    return {
        str(path.relative_to(directory)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def _only(directory: Path, pattern: str) -> Path:
    (path,) = [each for each in (directory / "store").glob(pattern) if each.stat().st_size > 9]
    return path


def _flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_everything_is_read_and_nothing_is_written(data: Path, work: Path) -> None:
    """Also what is in the log only; the working copy goes when it is closed."""
    before = _files(data)
    opened = open_stopped(data, work)
    assert (IDENTITY, False, False) == (opened.identity, opened.log_damaged, opened.rebuilt)
    store = opened.store
    assert list(ROWS.items()) == store.scan(b"key", b"kez", 9_999)
    assert list(LATER.items()) == store.scan(b"later", b"latfr", 9_999)
    store.write(store.prepare({b"new": b"row"}))
    store.compact(b"\0", b"\xff")
    assert before == _files(data)
    store.close()
    assert before == _files(data)
    assert [] == list(work.iterdir())
    # The node itself goes on with it.
    again, _ = open_store(data)
    assert again.get(b"new") is None
    again.close()


def test_a_directory_that_nothing_can_be_written_to(data: Path, work: Path) -> None:
    """Such as a disk that was mounted for reading only."""
    for path in (data, data / "store"):
        path.chmod(0o500)
    try:
        opened = open_stopped(data, work)
        assert ROWS[b"key00000"] == opened.store.get(b"key00000")
        opened.store.close()
    finally:
        for path in (data, data / "store"):
            path.chmod(0o700)


def test_a_node_that_runs_is_left_alone(data: Path, work: Path) -> None:
    """Its lock tells; afterwards nothing is left of the try."""
    store, _ = open_store(data)
    with pytest.raises(StoreInUse, match="stop it first"):
        open_stopped(data, work)
    store.close()
    open_stopped(data, work).store.close()
    assert [] == list(work.iterdir())


def test_nobody_starts_the_node_meanwhile(data: Path, work: Path) -> None:
    """It would compact away the tables that are read."""
    opened = open_stopped(data, work)
    with pytest.raises(StoreInUse):
        open_store(data)
    opened.store.close()


def test_a_damaged_table_is_read_but_for_the_damage(data: Path, work: Path) -> None:
    """A block that fails its checksum is never given out; the others are."""
    table = _only(data, "*.ldb")
    _flip(table, table.read_bytes().index(b"001500" * 50))
    before = _files(data)
    opened = open_stopped(data, work)
    with pytest.raises(StoreDamaged):
        opened.store.get(b"key01500")
    for key in (b"key00000", b"key02999"):
        assert ROWS[key] == opened.store.get(key)
    opened.store.close()
    assert before == _files(data)


def test_a_damaged_log_is_read_as_far_as_it_verifies(data: Path, work: Path) -> None:
    """A node refuses it; here it is told that writes are missing."""
    log = _only(data, "*.log")
    _flip(log, log.stat().st_size // 2)
    with pytest.raises(StoreDamaged):
        open_store(data)
    before = _files(data)
    opened = open_stopped(data, work)
    assert opened.log_damaged
    found = dict(opened.store.scan(b"later", b"latfr", 9_999))
    assert found.items() < LATER.items()
    assert b"later00000" in found
    assert len(ROWS) == len(opened.store.scan(b"key", b"kez", 9_999))
    opened.store.close()
    assert before == _files(data)


@pytest.mark.parametrize("lost", ["CURRENT", "MANIFEST-*"])
def test_a_lost_list_of_tables_is_made_anew(lost: str, data: Path, work: Path) -> None:
    """From the tables that are there, in the working copy."""
    for path in (data / "store").glob(lost):
        path.unlink()
    before = _files(data)
    opened = open_stopped(data, work)
    assert opened.rebuilt
    assert IDENTITY == opened.identity
    assert list(ROWS.items()) == opened.store.scan(b"key", b"kez", 9_999)
    assert list(LATER.items()) == opened.store.scan(b"later", b"latfr", 9_999)
    opened.store.close()
    assert before == _files(data)


def test_a_table_whose_number_is_given_once_more_is_not_written_to(data: Path, work: Path) -> None:
    """Where the list of tables has lost its end, LevelDB counts on from before that."""
    tables = {each.name for each in (data / "store").glob("*.ldb")}
    for name in {f"{number:06}.ldb" for number in range(1, 60)} - tables:
        (data / "store" / name).write_bytes(b"the only copy of something")
    before = _files(data)
    opened = open_stopped(data, work)
    assert len(LATER) == len(opened.store.scan(b"later", b"latfr", 9_999))
    opened.store.compact(b"\0", b"\xff")
    assert before == _files(data)
    opened.store.close()
    assert before == _files(data)


def test_a_file_that_the_disk_does_not_give_back(
    data: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What of it can be read is; the rest fails its checksum."""
    log = _only(data, "*.log")
    whole = log.read_bytes()
    real = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path == log:
            raise OSError(5, "Input/output error")
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    assert (whole, True) == salvaging._read(log)
    opened = open_stopped(data, work)
    assert len(LATER) == len(opened.store.scan(b"later", b"latfr", 9_999))
    opened.store.close()


@pytest.mark.parametrize("lost", ["*.log", "MANIFEST-*"])
def test_the_end_of_a_file_that_the_disk_does_not_give_back(
    lost: str, data: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is zeros in the copy, which LevelDB takes for the end: that something is missing is told.

    Of the tables those count that are there, and not only those that are still listed.
    """
    path = _only(data, lost)
    real = salvaging._read

    def read(each: Path) -> tuple[bytes, bool]:
        content, whole = real(each)
        cut = content[: len(content) // 2].ljust(len(content), b"\0")
        return (cut, False) if each == path else (content, whole)

    monkeypatch.setattr(salvaging, "_read", read)
    opened = open_stopped(data, work)
    is_log = path.suffix == ".log"
    assert (is_log, not is_log) == (opened.log_damaged, opened.rebuilt)
    assert len(ROWS) == len(opened.store.scan(b"key", b"kez", 9_999))
    later = len(opened.store.scan(b"later", b"latfr", 9_999))
    assert later < len(LATER) if is_log else later == len(LATER)
    opened.store.close()


def test_a_store_alone_and_what_is_none(data: Path, work: Path, tmp_path: Path) -> None:
    """A copy of the LevelDB directory will do; a directory of something else will not."""
    alone = tmp_path / "alone"
    shutil.copytree(data / "store", alone)
    opened = open_stopped(alone, work)
    assert len(ROWS) == len(opened.store.scan(b"key", b"kez", 9_999))
    opened.store.close()
    (tmp_path / "other").mkdir()
    with pytest.raises(StoreForeign, match="holds no store"):
        open_stopped(tmp_path / "other", work)
    with pytest.raises(StoreError, match="working copy cannot be made"):
        open_stopped(data, work / "not-there")
    assert [] == list(work.iterdir())


def test_a_store_of_another_format(tmp_path: Path, work: Path) -> None:
    """Its rows would be taken for something else."""
    directory = tmp_path / "newer"
    newer = Identity(FORMAT + 1, "cluster", "node", 1, b"check")
    store, _ = open_store(directory, create=newer)
    store.close()
    with pytest.raises(StoreForeign, match="this version reads"):
        open_stopped(directory, work)
    assert [] == list(work.iterdir())
