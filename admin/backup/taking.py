"""Taking a backup: pages of all vnodes become files, and at last a manifest."""

import hashlib
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Lock
from typing import IO, Any, Final, cast

import zstandard

from admin.backup import calls
from admin.backup.places import Place
from admin.backup.reading import THREADS, Damaged, Told
from admin.session import Session
from timemachine.backup.files import frame
from timemachine.backup.manifest import (
    MANIFEST,
    BackupCollection,
    BackupRoute,
    Manifest,
    Part,
    written_manifest,
)
from timemachine.backup.pages import PartHead, read_in_turn
from timemachine.byterate import ByteRate
from timemachine.client import ApiError
from timemachine.model import JobState

_TRIES: Final = 10
_LEVEL: Final = 3
_GONE: Final = frozenset({"collection_not_found", "database_not_found"})


class _Pace:
    """All threads together read no more than so many bytes a second."""

    def __init__(self, bytes_per_s: int | None) -> None:
        self._rate = None if bytes_per_s is None else ByteRate(bytes_per_s, bytes_per_s // 4)
        self._lock = Lock()

    def wait(self, size_bytes: int) -> None:
        """Have read so much."""
        if self._rate is None:
            return
        with self._lock:
            wait_ms = self._rate.book(size_bytes, time.monotonic() * 1_000)
        time.sleep(wait_ms / 1_000)


class Taking:
    """One backup on its way.

    `base` is an earlier one of the same cluster: vnodes that have not changed since are not read.
    """

    def __init__(
        self,
        session: Session,
        place: Place,
        base: Manifest | None,
        bytes_per_s: int | None,
        told: Told,
    ) -> None:
        self._session = session
        self._place = place
        self._base = base
        self._pace = _Pace(bytes_per_s)
        self._told = told
        self._known: dict[str, Part] = {}
        self.read = self.kept = 0

    def take(self) -> Manifest:
        """Take it. Raises ClientError, OSError."""
        begun = self._session.carry(calls.describe())
        try:
            return self._take(begun)
        except BaseException:
            # Without a manifest nobody would ever use them.
            with suppress(OSError):
                for name in self._place.files(begun.id):
                    self._place.delete(name)
            raise

    def _take(self, begun: calls.Described) -> Manifest:
        if self._base is not None:
            self._known = self._base.unchanged(begun.cluster_id)
        with ThreadPoolExecutor(THREADS) as pool:
            futures = [
                [pool.submit(self._part, begun.id, each, index) for index in range(each.num_vnodes)]
                for each in begun.collections
            ]
            try:
                parts = [[future.result() for future in each] for each in futures]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        # Jobs may be bound to routes that came meanwhile, and must find them.
        ended = self._session.carry(calls.describe())
        collections = [
            BackupCollection(
                db=each.db,
                name=each.name,
                uid=each.uid,
                num_vnodes=each.num_vnodes,
                replicas=each.replicas,
                history_retention_ms=each.history_retention_ms,
                content_retention_ms=each.content_retention_ms,
                parts=[part for part in found if part is not None],
            )
            for each, found in zip(begun.collections, parts, strict=True)
            if None not in found
        ]
        files = [part.file for each in collections for part in each.parts]
        uses = not all(file.startswith(f"{begun.id}/") for file in files)
        manifest = Manifest(
            format=begun.format,
            id=begun.id,
            created_ms=begun.created_time,
            finished_ms=ended.created_time,
            cluster_id=begun.cluster_id,
            version=begun.version,
            restore_epoch=ended.restore_epoch,
            databases=ended.databases,
            collections=collections,
            routes=[
                BackupRoute(db=each.db, name=each.name, uid=each.uid, record=each.record)
                for each in ended.routes
            ],
            allowed_private_cidrs=ended.allowed_private_cidrs,
            allowed_ports=ended.allowed_ports,
            base=None if self._base is None or not uses else self._base.id,
        )
        self._still_there([part for each in collections for part in each.parts])
        with self._place.write(f"{begun.id}/{MANIFEST}") as file:
            file.write(written_manifest(manifest))
        return manifest

    def _still_there(self, parts: Sequence[Part]) -> None:
        """Look for the files of the earlier backup: it may have been deleted meanwhile."""
        for part in parts:
            if part is self._known.get(part.content) and self._lacks(part):
                raise Damaged(f"Somebody has deleted {part.file} meanwhile; take it again.")

    def _lacks(self, part: Part) -> bool:
        return self._place.size(part.file) != part.size_bytes

    def _part(self, view: str, collection: calls.DescribedCollection, index: int) -> Part | None:
        """One vnode; None where its collection is gone."""
        known = self._known
        unless = _position(known, collection.uid, index)
        if unless is not None and self._lacks(known[unless]):
            unless = None
        file = f"{view}/{collection.db}/{collection.name}/{index}.zst"
        for left in reversed(range(_TRIES)):
            try:
                with self._place.write(file) as out:
                    part = self._read(view, collection, index, unless, file, out)
                    if part is None:
                        raise _Unchanged
            except _Unchanged:
                assert unless is not None
                self.kept += 1
                self._told(known[unless].jobs)
                return known[unless]
            except ApiError as error:
                if error.code in _GONE:
                    return None
                # Another node leads it now, or nobody was asked for long: the view is lost.
                if error.code != "backup_view_gone" or not left:
                    raise
            else:
                self.read += 1
                return part
        raise AssertionError("the last try has raised")

    def _read(
        self,
        view: str,
        collection: calls.DescribedCollection,
        index: int,
        unless: str | None,
        file: str,
        out: Any,
    ) -> Part | None:
        """Read a vnode into a file; None if it is where it was."""
        counting = _Counting(out)
        head: PartHead | None = None
        jobs = number = 0
        with zstandard.ZstdCompressor(level=_LEVEL).stream_writer(
            cast("IO[bytes]", counting), closefd=False
        ) as compressed:
            while True:
                names = (view, collection.db, collection.name, index)
                call = calls.page(*names, number, unless=unless, head=head)
                data = self._session.carry(call)
                page = read_in_turn(data, number)
                if page.unchanged:
                    return None
                head = head or page.head
                compressed.write(frame(data))
                jobs += len(page.jobs)
                self._told(len(page.jobs))
                self._pace.wait(len(data))
                if page.last:
                    break
                number += 1
        assert head is not None
        return Part(
            index=index,
            file=file,
            size_bytes=counting.size,
            sha256=counting.hash.hexdigest(),
            position=head.position.text,
            content=head.position.content,
            jobs=jobs,
            states={
                JobState(state).text: count for state, count in enumerate(head.counts) if count
            },
        )


class _Unchanged(Exception):
    """A vnode is where it was: what was begun of a file is not kept."""


class _Counting:
    """A file that is hashed as it is written."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self.hash.update(data)
        self.size += len(data)
        self._file.write(data)
        return len(data)


def _position(known: dict[str, Part], uid: int, index: int) -> str | None:
    start = f"{uid}.{index}."
    return next((position for position in known if position.startswith(start)), None)
