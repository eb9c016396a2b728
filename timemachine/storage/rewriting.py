"""A store with a damaged table, written anew from what can be read of it.

LevelDB fails the compaction that meets a damaged block, and from then on every write: a node whose
replica was given up for damage goes on until that table's turn comes, and no further. No row can be
taken out of a table but by compacting it. So at the next start everything else is copied, each row
with its checksum, and the copy takes the place of the store.

Nothing is repaired: of a range that cannot be read through no row is copied. The replica that it
belonged to is given up, if it was not before (see `node/quarantine.py`). Not the only voter of a
group: nobody else has what it has, so the store stays as it is.
"""

import os
import shutil
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

import plyvel

from timemachine.errors import StoreDamaged, StoreError
from timemachine.storage.keys import (
    DAMAGED_START,
    DAMAGED_STOP,
    ERASE_START,
    ERASE_STOP,
    GROUPS_START,
    GROUPS_STOP,
    INCARNATION_KEY,
    ReplicaKeys,
    group_key,
    group_of_key,
    incarnation_in,
    quarantine_key,
    replica_prefix,
    u64,
)

STORE = "store"
NEW = "store.new"
OLD = "store.old"
KEPT = "store.damaged"
"""What a damaged store is kept as, where replicas were found to be damaged by the copying only."""

MARK = "damaged"
"""A file that says that a write has failed because of damage."""

IsOnlyCopy = Callable[[bytes | None, int], bool]
"""By the members row of a replica and its id: whether nobody else has what it has."""

_BATCH_BYTES = 4 * 1024 * 1024
_ROOM_BYTES = 256 * 1024 * 1024
_META_KEY = group_key(0, 0)


def others_have_all(_: bytes | None, __: int) -> bool:
    """Whatever a replica is, it can be rebuilt."""
    return False


def recover(directory: Path) -> None:
    """Undo or finish what a crash has left of a rewriting."""
    for name in (OLD, KEPT):
        if not (directory / STORE).exists() and (directory / name).exists():
            (directory / name).rename(directory / STORE)
    shutil.rmtree(directory / NEW, ignore_errors=True)
    if (directory / STORE).exists():
        shutil.rmtree(directory / OLD, ignore_errors=True)


def is_due(directory: Path, database: Any) -> bool:
    """Whether there is a range that cannot be read, and room for a copy of the others."""
    try:
        with database.iterator(
            start=DAMAGED_START, stop=DAMAGED_STOP, verify_checksums=True
        ) as rows:
            marked = (directory / MARK).exists() or next(rows, None) is not None
    except plyvel.Error as error:
        raise StoreDamaged(f"The rows of the node cannot be read: {error}") from error
    if not marked:
        return False
    size = sum(each.stat().st_size for each in (directory / STORE).iterdir())
    return shutil.disk_usage(directory).free > size + _ROOM_BYTES


def rewrite(
    directory: Path,
    database: Any,
    number: int,
    options: dict[str, Any],
    is_only_copy: IsOnlyCopy = others_have_all,
) -> None:
    """Put a copy in the place of a store, and close that. `number` is the node's.

    Raises StoreDamaged where what every node needs cannot be read (its own rows, or its replica of
    the meta group), or what nobody else has; StoreError where the copy cannot be written. Then all
    is as it was.
    """
    new = directory / NEW
    copy = plyvel.DB(os.fspath(new), create_if_missing=True, error_if_exists=True, **options)
    try:
        gone = {int.from_bytes(key[-4:], "big") for key in _marks(database)}
        damaged = _copy(database, copy, gone)
        _check_others_have(database, damaged, number, is_only_copy)
        _give_up(copy, damaged, number)
    except plyvel.Error as error:
        raise StoreDamaged(f"The store is damaged and cannot be written anew: {error}") from error
    finally:
        copy.close()
    database.close()
    # What was given up before, others have again, or will have. Of the rest nobody knows yet.
    aside = directory / (KEPT if damaged else OLD)
    shutil.rmtree(aside, ignore_errors=True)
    (directory / STORE).rename(aside)
    new.rename(directory / STORE)
    (directory / MARK).unlink(missing_ok=True)
    _sync(directory)
    shutil.rmtree(directory / OLD, ignore_errors=True)


def _marks(database: Any) -> list[bytes]:
    """The rows that name ranges which nobody needs."""
    keys: list[bytes] = []
    for start, stop in ((DAMAGED_START, DAMAGED_STOP), (ERASE_START, ERASE_STOP)):
        with database.iterator(
            start=start, stop=stop, include_value=False, verify_checksums=True
        ) as rows:
            keys += rows
    return keys


def _copy(database: Any, copy: Any, gone: Container[int]) -> set[int]:
    """Copy range after range, but for those that are gone; which ones cannot be read."""
    damaged = set()
    row = database.get(INCARNATION_KEY, verify_checksums=True)
    count = 1 if row is None else int.from_bytes(row, "big")
    for incarnation in range(count):
        if incarnation in gone:
            continue
        try:
            _copy_range(database, copy, incarnation)
        except plyvel.Error:
            if not incarnation:
                raise
            damaged.add(incarnation)
            _remove_range(copy, incarnation)
    return damaged


def _check_others_have(
    database: Any, damaged: Container[int], number: int, is_only_copy: IsOnlyCopy
) -> None:
    """Raise StoreDamaged where one of these ranges is all that there is of its group."""
    with database.iterator(start=GROUPS_START, stop=GROUPS_STOP, verify_checksums=True) as rows:
        groups = list(rows)
    for key, value in groups:
        incarnation = incarnation_in(value)
        if incarnation not in damaged:
            continue
        try:
            row = database.get(ReplicaKeys(incarnation).members, verify_checksums=True)
        except plyvel.Error:
            continue  # meta tells whether others have it
        if is_only_copy(row, int.from_bytes(value[4:], "big") or number):
            uid, index = group_of_key(key)
            raise StoreDamaged(
                f"Vnode {index} of collection {uid} is damaged, and there is no other replica."
            )


def _copy_range(database: Any, copy: Any, incarnation: int) -> None:
    start, stop = replica_prefix(incarnation), replica_prefix(incarnation + 1)
    batch, size = copy.write_batch(sync=True), 0
    with database.iterator(start=start, stop=stop, verify_checksums=True, fill_cache=False) as rows:
        for key, value in rows:
            batch.put(key, value)
            size += len(key) + len(value)
            if size >= _BATCH_BYTES:
                _write(batch)
                batch, size = copy.write_batch(sync=True), 0
    _write(batch)


def _write(batch: Any) -> None:
    """It is not the range's fault if the copy cannot be written."""
    try:
        batch.write()
    except plyvel.Error as error:
        raise StoreError(f"The damaged store cannot be written anew: {error}") from error


def _remove_range(copy: Any, incarnation: int) -> None:
    start, stop = replica_prefix(incarnation), replica_prefix(incarnation + 1)
    with (
        copy.iterator(start=start, stop=stop, include_value=False) as keys,
        copy.write_batch(sync=True) as batch,
    ):
        for key in keys:
            batch.delete(key)


def _give_up(copy: Any, damaged: Container[int], number: int) -> None:
    """Have the rows of the node say which replicas are damaged, and forget ranges that are gone."""
    with copy.write_batch(sync=True) as batch:
        for key in _marks(copy):
            batch.delete(key)
        with copy.iterator(start=GROUPS_START, stop=GROUPS_STOP) as rows:
            for key, value in rows:
                if incarnation_in(value) not in damaged:
                    continue
                if key == _META_KEY:
                    raise StoreDamaged("The replica of the meta group is damaged.")
                # As in node/replicas.py: where nothing is said it is that of generation 0.
                batch.put(quarantine_key(*group_of_key(key)), value[4:] or u64(number))
                batch.delete(key)


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
