"""The store of a stopped node, opened so that nothing is written to it, however damaged it is.

LevelDB cannot open a store without writing: it replays its log into a table and begins a new
MANIFEST. So it gets a directory of its own, in which the tables are symbolic links to those of the
store, which LevelDB never changes, and everything else is a copy. What it writes it writes there,
under names that none of the links has.
Whatever of a file cannot be read from the disk is zeros in the copy, and fails its checksum.
"""

import fcntl
import os
import shutil
from pathlib import Path
from typing import Any, Final, NamedTuple

import plyvel

from timemachine.errors import CodecError, StoreDamaged, StoreError, StoreForeign, StoreInUse
from timemachine.storage.leveldb import (
    IDENTITY_KEY,
    LOCK_FILE,
    Identity,
    LevelDBStore,
    read_identity,
)
from timemachine.storage.rewriting import KEPT, OLD, STORE
from timemachine.storage.smoothing import Smoother
from timemachine.storage.walcheck import check_wal

_LINKED: Final = ".sst"
_TABLES: Final = (".ldb", _LINKED)
_LEFT_OUT: Final = frozenset({"LOCK", "LOG", "LOG.old"})
_BLOCK_BYTES: Final = 4096
_WORK: Final = "working-copy"
_OPTIONS: Final[dict[str, Any]] = {
    "compression": None,
    "max_open_files": 500,
    # A log with damage in its middle is read as far as it verifies, instead of not at all.
    "paranoid_checks": False,
}


class Opened(NamedTuple):
    """A store that can be read. Closing it removes the working copy.

    identity     whose it is, None if that cannot be read
    log_damaged  whether LevelDB's log is damaged in its middle, or could not be read from the disk:
                 writes are missing, of any replica
    rebuilt      whether the list of its tables was lost, and made anew from the tables that are
                 there: what was deleted lately may be there again
    """

    store: "WorkingCopy"
    identity: Identity | None
    log_damaged: bool
    rebuilt: bool


class WorkingCopy(LevelDBStore):
    """A store over the working copy, which goes with it."""

    def __init__(self, database: Any, lock: int, directory: Path) -> None:
        # Its thread is not started: there is nothing to smooth.
        super().__init__(database, lock, Smoother(directory, directory), directory / "damaged")
        self._directory = directory

    def close(self) -> None:
        """See Store."""
        super().close()
        shutil.rmtree(self._directory, ignore_errors=True)


def open_stopped(data: Path, work: Path) -> Opened:
    """Open what a node has left in its data directory, with a working copy in `work`.

    `data` is the directory that `timemachine serve` was given, or a LevelDB database in it. Raises
    StoreInUse while a node runs there, StoreForeign where there is no store, StoreDamaged where
    nothing of it can be read, StoreError where `work` cannot be written.
    """
    source = _store_of(data)
    lock = _lock(source)
    copy = work / _WORK
    try:
        copy.mkdir(mode=0o700)
        log_damaged = _copy(source, copy)
        database, rebuilt = _open(copy)
    except OSError as error:
        _let_go(lock, copy)
        raise StoreError(f"The working copy cannot be made: {error.strerror}.") from error
    except BaseException:
        _let_go(lock, copy)
        raise
    store = WorkingCopy(database, lock, copy)
    try:
        identity = _identity(store)
    except BaseException:
        store.close()
        raise
    return Opened(store, identity, log_damaged, rebuilt)


def _store_of(data: Path) -> Path:
    for source in (data / STORE, data / OLD, data / KEPT, data):
        if (source / "CURRENT").exists() or any(
            each.suffix in (*_TABLES, ".log") for each in source.glob("*")
        ):
            return source
    raise StoreForeign(f"{data} holds no store of a node.")


def _lock(source: Path) -> int:
    """Hold the lock of the node's directory, if it has one, without writing there."""
    path = source.parent / LOCK_FILE
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        # A copy of the store alone. LevelDB's own lock is not asked: to ask is to write.
        return os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise StoreInUse("A node runs on this data directory: stop it first.") from None
    return handle


def _let_go(lock: int, copy: Path) -> None:
    shutil.rmtree(copy, ignore_errors=True)
    os.close(lock)


def _copy(source: Path, copy: Path) -> bool:
    """Link the tables, copy the rest; whether a log is damaged in its middle."""
    damaged = False
    for path in sorted(source.iterdir()):
        if path.name in _LEFT_OUT or not path.is_file():
            continue
        if path.suffix in _TABLES:
            # LevelDB gives what it writes the newer suffix, and reads both. Where the list of
            # tables has lost its end it gives a number once more: never through such a link.
            (copy / path.with_suffix(_LINKED).name).symlink_to(path.resolve())
            continue
        data, whole = _read(path)
        if path.name.startswith("MANIFEST") and not whole:
            # LevelDB takes zeros for its end, and what the rest lists for all that there is.
            continue
        (copy / path.name).write_bytes(data)
        if path.suffix == ".log":
            damaged = damaged or not whole or check_wal(data).damaged
    return damaged


def _read(path: Path) -> tuple[bytes, bool]:
    """A file, with zeros for the blocks that the disk does not give back; if it gave back all."""
    try:
        return path.read_bytes(), True
    except OSError:
        pass
    size = path.stat().st_size
    blocks = []
    whole = True
    with path.open("rb", buffering=0) as file:
        for at in range(0, size, _BLOCK_BYTES):
            wanted = min(_BLOCK_BYTES, size - at)
            try:
                file.seek(at)
                block = file.read(wanted) or b""
            except OSError:
                block = b""
            whole = whole and len(block) == wanted
            blocks.append(block.ljust(wanted, b"\0"))
    return b"".join(blocks), whole


def _open(copy: Path) -> tuple[Any, bool]:
    """The database of a working copy, and whether its list of tables had to be made anew."""
    name = os.fspath(copy)
    try:
        return plyvel.DB(name, create_if_missing=False, **_OPTIONS), False
    except plyvel.Error:
        pass
    try:
        plyvel.repair_db(name, **_OPTIONS)
        return plyvel.DB(name, create_if_missing=False, **_OPTIONS), True
    except plyvel.Error as error:
        raise StoreDamaged(f"Nothing of the store can be read: {error}") from error


def _identity(store: LevelDBStore) -> Identity | None:
    try:
        row = store.get(IDENTITY_KEY)
        return None if row is None else read_identity(row)
    except (StoreDamaged, CodecError):
        return None
