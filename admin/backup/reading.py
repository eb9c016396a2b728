"""Backups of a place: their manifests, and their files as pages that were checked."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import IO, Any, Final, cast

import click
import zstandard

from admin.backup.places import Place
from timemachine.backup.files import pages_in
from timemachine.backup.manifest import (
    MANIFEST,
    BackupCollection,
    Manifest,
    Part,
    read_manifest,
)
from timemachine.backup.pages import Page
from timemachine.errors import CodecError

THREADS: Final = 4
_READ_BYTES: Final = 1 << 18
_MANIFEST_BYTES_MAX: Final = 1 << 29
"""Of all vnodes and routes that a cluster may have, with room to spare."""

Told = Callable[[int], None]
"""Hears of jobs that are done, for a progress bar."""


class Damaged(click.ClickException):
    """A backup cannot be used."""


def manifest_of(place: Place, name: str) -> Manifest:
    """The manifest of a backup. Raises Damaged."""
    try:
        with place.read(f"{name}/{MANIFEST}") as file:
            data = file.read(_MANIFEST_BYTES_MAX + 1)
        if len(data) > _MANIFEST_BYTES_MAX:
            raise CodecError("Its manifest is larger than any.")
        manifest = read_manifest(data)
    except FileNotFoundError:
        raise Damaged(f"There is no backup {name} in {place.name}.") from None
    except CodecError as error:
        raise Damaged(f"The backup {name} cannot be used: {error.detail}") from None
    if manifest.id != name:
        raise Damaged(f"The backup {name} cannot be used: it is another one, {manifest.id}.")
    return manifest


def newest(place: Place, name: str | None) -> Manifest:
    """The manifest of a backup that was named, or else of the newest. Raises Damaged."""
    if name is not None:
        return manifest_of(place, name)
    found = [manifest_of(place, each) for each in place.backups()]
    if not found:
        raise Damaged(f"There is no complete backup in {place.name}.")
    return max(found, key=lambda each: (each.created_ms, each.id))


class _Hashing:
    """A file that is hashed as it is read."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.hash = hashlib.sha256()
        self.size = 0

    def read(self, count: int = -1) -> bytes:
        data: bytes = self._file.read(count)
        self.hash.update(data)
        self.size += len(data)
        return data


def pages(place: Place, part: Part) -> Iterator[Page]:
    """The pages of a part; a fault of its file shows at its end at the latest. Raises Damaged."""
    try:
        with closing(place.read(part.file)) as file:
            hashing = _Hashing(file)
            reader = zstandard.ZstdDecompressor().stream_reader(
                cast("IO[bytes]", hashing), read_size=_READ_BYTES, closefd=False
            )
            jobs = 0
            for page in pages_in(_exactly(reader)):
                jobs += len(page.jobs)
                yield page
            while hashing.read(_READ_BYTES):
                pass
    except FileNotFoundError:
        raise Damaged(f"The backup lacks {part.file}.") from None
    except (zstandard.ZstdError, CodecError) as error:
        reason = error.detail if isinstance(error, CodecError) else str(error)
        raise Damaged(f"The backup is damaged in {part.file}: {reason}") from None
    if (hashing.hash.hexdigest(), hashing.size, jobs) != (part.sha256, part.size_bytes, part.jobs):
        raise Damaged(f"The backup is damaged in {part.file}: it is not what was written.")


def _exactly(reader: Any) -> Callable[[int], bytes]:
    """Reads so many bytes, fewer only at the end."""

    def read(count: int) -> bytes:
        found: bytes = reader.read(count)
        while len(found) < count:
            more = reader.read(count - len(found))
            if not more:
                break
            found += more
        return found

    return read


def parts_of(collections: Iterable[BackupCollection]) -> Iterator[tuple[BackupCollection, Part]]:
    """All parts of collections."""
    for collection in collections:
        for part in collection.parts:
            yield collection, part


def check(place: Place, collections: Iterable[BackupCollection], told: Told) -> None:
    """Read every file of a backup. Raises Damaged."""

    def one(part: Part) -> None:
        for page in pages(place, part):
            told(len(page.jobs))

    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(one, [part for _, part in parts_of(collections)]):
            pass
