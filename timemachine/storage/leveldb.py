"""The LevelDB engine: every rule that its sharp edges ask for. See `docs/design/storage.md`.

* A failed write kills the handle. After a failed append LevelDB's log has wrong block offsets,
  and later "successful" synced writes vanish at the next start.
* Every read verifies checksums: a zeroed block must be an error, not a missing job.
* Only `create` makes a database. A directory that lost its CURRENT file would otherwise open as an
  empty database, and the node would forget its votes and its jobs.
* Before opening, each log is checked: a torn tail is cut, damage in the middle is refused.
* No repair, ever: it drops rows silently. What has a damaged table is written anew from the ranges
  that can be read through (`rewriting.py`).
"""

import fcntl
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any
from weakref import WeakSet

import msgspec
import plyvel

from timemachine import codec
from timemachine.errors import (
    StoreDamaged,
    StoreError,
    StoreFailed,
    StoreForeign,
    StoreInUse,
)
from timemachine.storage.api import Batch, Row
from timemachine.storage.keys import NODE_PREFIX
from timemachine.storage.rewriting import (
    KEPT,
    MARK,
    NEW,
    OLD,
    STORE,
    IsOnlyCopy,
    is_due,
    others_have_all,
    recover,
    rewrite,
)
from timemachine.storage.smoothing import Smoother
from timemachine.storage.walcheck import check_wal

IDENTITY_KEY = NODE_PREFIX + b"I"
FORMAT = 2
_BUFFER_BYTES = 64 * 1024 * 1024
_CACHE_BYTES = 64 * 1024 * 1024
_OPTIONS: dict[str, Any] = {
    "compression": None,
    "write_buffer_size": _BUFFER_BYTES,
    "max_file_size": _BUFFER_BYTES,
    "lru_cache_size": _CACHE_BYTES,
    "bloom_filter_bits": 10,
    "paranoid_checks": True,
}
_ROWS_AT_ONCE = 64
_BEHIND_ALL = b"\xff" * 8
_STATS = 6
_MIB = 1024 * 1024
# Beginning a walk costs as much as several reads, and where keys lie apart it is in vain.
_WALK_FROM_KEYS = 16
_WALK_TRIAL_ROWS = 8
LOCK_FILE = "node.lock"
"""Held by who uses a data directory; it says whose that is."""
_OWNER_BYTES_MAX = 256
_BALLAST_FILE = "ballast"
_LINKS_DIRECTORY = "links"
_OUR_FILES = frozenset(
    {
        STORE,
        NEW,
        OLD,
        KEPT,
        MARK,
        _LINKS_DIRECTORY,
        LOCK_FILE,
        _BALLAST_FILE,
        "secret.key",
        "lost+found",
    }
)


class Identity(msgspec.Struct, frozen=True, array_like=True):
    """What a data directory says about whose it is. Written first, checked at every start.

    `key_check` proves that the secrets in the directory can be opened with the key at hand.
    `number` is the node's in its cluster, `members` who the others were when it joined, as (number,
    id, HOST:PORT of its RPC): that is known before the meta group is.
    """

    format: int
    cluster_id: str
    node_id: str
    created_ms: int
    key_check: bytes
    number: int = 1
    members: tuple[tuple[int, str, str], ...] = ()


_read_identity = codec.decoder(Identity)


def _damage(error: Exception, key: bytes, told: Callable[[StoreDamaged], None]) -> StoreDamaged:
    """What to raise for rows from `key` on that cannot be read; `told` hears of it first."""
    damage = StoreDamaged(f"Rows cannot be read: {error}", key=key)
    told(damage)
    return damage


class LevelDBView:
    """A `View`: a snapshot of LevelDB's. What it reads does not push others out of the cache."""

    def __init__(self, snapshot: Any, damaged: Callable[[StoreDamaged], None]) -> None:
        self._snapshot = snapshot
        self._damaged = damaged

    def _open(self) -> Any:
        if self._snapshot is None:
            raise StoreError("The view is closed.")
        return self._snapshot

    def get(self, key: bytes) -> bytes | None:
        """See View."""
        snapshot = self._open()
        try:
            value: bytes | None = snapshot.get(key, verify_checksums=True, fill_cache=False)
        except plyvel.Error as error:
            raise _damage(error, key, self._damaged) from error
        return value

    def scan(
        self,
        start: bytes,
        stop: bytes,
        limit: int = 1000,
        *,
        reverse: bool = False,
        bytes_max: int | None = None,
    ) -> list[Row]:
        """See View."""
        snapshot = self._open()
        rows: list[Row] = []
        if start >= stop or limit <= 0:
            return rows
        room = bytes_max
        try:
            # Backwards as in LevelDBStore.scan.
            with snapshot.iterator(
                start=None if reverse else start,
                stop=stop,
                reverse=reverse,
                verify_checksums=True,
                fill_cache=False,
            ) as iterator:
                # Some at a time: a turn of a loop for each row costs as much as the row.
                while some := list(islice(iterator, min(_ROWS_AT_ONCE, limit - len(rows)))):
                    if some[-1][0] < start:
                        some = [row for row in some if row[0] >= start]
                        rows += some if room is None else _fitting(some, room)
                        break
                    if room is not None:
                        size = sum([len(key) + len(value) for key, value in some])
                        if size >= room:
                            rows += _fitting(some, room)
                            break
                        room -= size
                    rows += some
        except plyvel.Error as error:
            raise _damage(error, start, self._damaged) from error
        return rows

    def close(self) -> None:
        """See View."""
        snapshot, self._snapshot = self._snapshot, None
        if snapshot is not None:
            snapshot.close()


class LevelDBStore:
    """A `Store` in one LevelDB database. Made by `open_store`, which holds its directory's lock.

    `rewritten` says that it had a damaged table, and was written anew when it was opened.
    """

    def __init__(self, database: Any, lock: int, smoother: Smoother, mark: Path) -> None:
        self._database = database
        self._mark = mark
        self._lock: int | None = lock
        self._smoother = smoother
        self._dead: str | None = None
        self._views: WeakSet[LevelDBView] = WeakSet()
        self.on_damage: Callable[[StoreDamaged], None] = lambda _: None
        self.rewritten = False

    def _found(self, error: StoreDamaged) -> None:
        self.on_damage(error)

    def get(self, key: bytes) -> bytes | None:
        """See Store."""
        try:
            value: bytes | None = self._database.get(key, verify_checksums=True)
        except plyvel.Error as error:
            raise _damage(error, key, self.on_damage) from error
        return value

    def scan(
        self, start: bytes, stop: bytes, limit: int = 1000, *, reverse: bool = False
    ) -> list[Row]:
        """See Store."""
        rows: list[Row] = []
        if start >= stop or limit <= 0:
            return rows
        try:
            # Backwards plyvel forgets a row right at `start`, if no other is in the range.
            with self._database.iterator(
                start=None if reverse else start, stop=stop, reverse=reverse, verify_checksums=True
            ) as iterator:
                for row in iterator:
                    if row[0] < start:
                        break
                    rows.append(row)
                    if len(rows) >= limit or (reverse and row[0] == start):
                        break
        except plyvel.Error as error:
            raise _damage(error, start, self.on_damage) from error
        return rows

    def keys_in(self, ranges: Sequence[tuple[bytes, bytes, int]]) -> list[bytes]:
        """See Store."""
        keys: list[bytes] = []
        if not ranges:
            return keys
        start = ranges[0][0]
        try:
            with self._database.iterator(
                start=ranges[0][0],
                stop=ranges[-1][1],
                include_value=False,
                verify_checksums=True,
            ) as iterator:
                for start, stop, at_most in ranges:
                    iterator.seek(start)
                    for key in islice(iterator, at_most):
                        if key >= stop:
                            break
                        keys.append(key)
        except plyvel.Error as error:
            raise _damage(error, start, self.on_damage) from error
        return keys

    def near(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """See Store."""
        if len(keys) < _WALK_FROM_KEYS:
            return {}
        try:
            with self._database.iterator(
                start=keys[0], stop=keys[-1] + b"\0", verify_checksums=True
            ) as iterator:
                rows = dict(islice(iterator, _WALK_TRIAL_ROWS))
                if keys[1] in rows or keys[2] in rows:
                    rows.update(islice(iterator, 2 * len(keys)))
        except plyvel.Error:
            return {}  # maybe of a row that nobody asks for
        return rows

    def view(self) -> LevelDBView:
        """See Store."""
        try:
            view = LevelDBView(self._database.snapshot(), self._found)
        except RuntimeError as error:
            raise StoreError("The store is closed.") from error
        self._views.add(view)
        return view

    def prepare(self, batch: Batch) -> Any:
        """See Store."""
        prepared = self._database.write_batch(sync=True)
        put, delete = prepared.put, prepared.delete
        for key, value in batch.items():
            if value is None:
                delete(key)
            else:
                put(key, value)
        return prepared

    def write(self, prepared: Any) -> None:
        """See Store."""
        if self._dead is not None:
            raise StoreFailed(f"An earlier write failed ({self._dead}); the handle is dead.")
        try:
            prepared.write()
        except Exception as error:
            self._dead = str(error) or type(error).__name__
            if isinstance(error, plyvel.CorruptionError):
                # A compaction has met a damaged table, and always will: the next start knows.
                with suppress(OSError):
                    self._mark.touch()
            raise StoreFailed(f"A write failed: {self._dead}") from error

    def pressure(self) -> int:
        """See Store."""
        value = self._database.get_property(b"leveldb.num-files-at-level0")
        return int(value or 0)

    def approximate_bytes(self, start: bytes, stop: bytes) -> int:
        """See Store."""
        size: int = self._database.approximate_size(start, stop)
        return size

    def compact(self, start: bytes, stop: bytes) -> None:
        """See Store."""
        self._database.compact_range(start=start, stop=stop)

    def flush(self) -> None:
        """See Store."""
        # Of a range behind all keys there is nothing to compact.
        self._database.compact_range(start=_BEHIND_ALL, stop=_BEHIND_ALL)

    def compacted_bytes(self) -> int:
        """See Store."""
        stats = self._database.get_property(b"leveldb.stats") or b""
        levels = [line.split() for line in stats.splitlines()]
        # Level, files, size, time, read, written: in MiB.
        rows = [row for row in levels if len(row) == _STATS and row[0].isdigit()]
        return sum(int(row[4]) + int(row[5]) for row in rows) * _MIB

    def disk_bytes(self) -> int:
        """See Store."""
        return self._smoother.disk_bytes()

    def close(self) -> None:
        """See Store."""
        # Before the database: a snapshot belongs to it and cannot be released later.
        for view in list(self._views):
            view.close()
        self._database.close()
        self._smoother.stop()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def is_new(directory: Path) -> bool:
    """Whether a data directory has never held a node.

    Raises StoreForeign when it holds something else, StoreDamaged when a store was there and its
    CURRENT file is gone.
    """
    if not directory.exists():
        return True
    if not directory.is_dir():
        raise StoreForeign(f"{directory} is not a directory.")
    names = {entry.name for entry in directory.iterdir()}
    foreign = sorted(name for name in names - _OUR_FILES if not name.startswith("."))
    if foreign:
        raise StoreForeign(
            f"The data directory holds files that are not TimeMachine's ({', '.join(foreign[:3])})."
            " Name an empty directory, or one that a node made."
        )
    store = directory / STORE
    if not store.exists():
        return not ((directory / OLD).exists() or (directory / KEPT).exists())
    if not (store / "CURRENT").exists():
        if any(entry.suffix in (".ldb", ".sst") for entry in store.iterdir()) or any(
            entry.suffix == ".log" and entry.stat().st_size for entry in store.iterdir()
        ):
            raise StoreDamaged(
                "The store has lost its CURRENT file. It is neither repaired nor emptied:"
                " restore it from a backup, or let the node join anew with an empty directory."
            )
        return True
    return False


def _lock(directory: Path) -> int:
    handle = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise StoreInUse("Another process uses this data directory.") from None
    return handle


def _check_logs(store: Path) -> None:
    """Cut torn tails of LevelDB's logs; refuse damage in their middle."""
    for path in sorted(store.glob("*.log")):
        state = check_wal(path.read_bytes())
        if state.damaged:
            raise StoreDamaged(
                f"The store's log {path.name} is damaged in its middle: acknowledged writes are"
                " lost. It is not served: restore a backup, or let the node join anew."
            )
        if state.good_end_bytes < state.size_bytes:
            with path.open("r+b") as file:
                file.truncate(state.good_end_bytes)
                os.fsync(file.fileno())


def _fitting(rows: list[Row], room: int) -> list[Row]:
    """Rows up to the one that brings them to as many bytes, or all."""
    for number, (key, value) in enumerate(rows, 1):
        room -= len(key) + len(value)
        if room <= 0:
            return rows[:number]
    return rows


def open_store(
    directory: Path,
    *,
    create: Identity | None = None,
    is_only_copy: IsOnlyCopy = others_have_all,
) -> tuple[LevelDBStore, Identity]:
    """Open a node's store, or make it with the identity `create`, and check whose it is.

    Where it has to be written anew for damage, `is_only_copy` keeps that from replicas that nobody
    else could rebuild.

    Raises StoreInUse, StoreForeign, StoreDamaged, or StoreError when the directory cannot be
    read or written.
    """
    new = is_new(directory)
    if new and create is None:
        raise StoreForeign("The data directory holds no store, and none may be made here.")
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = _lock(directory)
    except OSError as error:
        raise StoreError(f"The data directory cannot be used: {error.strerror}.") from error
    try:
        return _open_locked(directory, lock, create if new else None, is_only_copy)
    except BaseException:
        os.close(lock)
        raise


def _open_locked(
    directory: Path, lock: int, create: Identity | None, is_only_copy: IsOnlyCopy
) -> tuple[LevelDBStore, Identity]:
    path = directory / STORE
    if create is None:
        recover(directory)
        _check_logs(path)
    try:
        database = plyvel.DB(os.fspath(path), create_if_missing=create is not None, **_OPTIONS)
    except plyvel.CorruptionError as error:
        raise StoreDamaged(f"The store is damaged and is not served: {error}") from error
    except plyvel.IOError as error:
        if "lock" in str(error).lower():
            raise StoreInUse("Another process uses this data directory.") from error
        raise StoreError(f"The store cannot be opened: {error}") from error
    except plyvel.Error as error:
        raise StoreDamaged(f"The store cannot be opened: {error}") from error
    smoother = Smoother(path, directory / _LINKS_DIRECTORY)
    store = LevelDBStore(database, lock, smoother, directory / MARK)
    try:
        identity = _check_identity(store, create)
        if create is None and is_due(directory, database):
            rewrite(directory, database, identity.number, _OPTIONS, is_only_copy)
            store, identity = _open_locked(directory, lock, None, is_only_copy)
            store.rewritten = True
            return store, identity
    except BaseException:
        database.close()
        raise
    _say_owner(lock, identity.node_id)
    smoother.start()
    return store, identity


def _check_identity(store: LevelDBStore, create: Identity | None) -> Identity:
    """Whose the store is; `create` is written to a new one."""
    row = store.get(IDENTITY_KEY)
    if row is None:
        if create is None and store.scan(b"", b"\xff" * 8, 1):
            raise StoreForeign("The store does not say whose it is; it is not TimeMachine's.")
        if create is None:
            raise StoreDamaged(
                "The store is empty although its directory was used before: its content is"
                " lost. Restore a backup, or remove the directory to begin anew."
            )
        store.write(store.prepare({IDENTITY_KEY: codec.encode(create)}))
        return create
    return read_identity(row)


def read_identity(row: bytes) -> Identity:
    """Whose a store is, from its row. Raises CodecError; StoreForeign for another format."""
    identity: Identity = _read_identity(row)
    if identity.format != FORMAT:
        raise StoreForeign(f"The store has format {identity.format}; this version reads {FORMAT}.")
    return identity


def _say_owner(lock: int, node_id: str) -> None:
    """Write whose the directory is where it can be read when the store cannot."""
    owner = node_id.encode()
    if os.pread(lock, _OWNER_BYTES_MAX, 0) != owner:
        os.ftruncate(lock, 0)
        os.pwrite(lock, owner, 0)


def last_owner(directory: Path) -> str | None:
    """The id of the node that used the directory last, also if its store is damaged."""
    try:
        return (directory / LOCK_FILE).read_text() or None
    except (OSError, UnicodeDecodeError):
        return None


def give_up_ballast(directory: Path) -> bool:
    """Delete the ballast file, so that a full disk takes more writes. True if it was there."""
    try:
        (directory / _BALLAST_FILE).unlink()
    except OSError:
        return False
    return True


def keep_ballast(directory: Path, size_bytes: int) -> None:
    """Set `size_bytes` of disk aside, unless that is done already or there is no room for it."""
    path = directory / _BALLAST_FILE
    if path.exists():
        return
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(handle, 0, size_bytes)
        finally:
            os.close(handle)
    except OSError:
        path.unlink(missing_ok=True)
