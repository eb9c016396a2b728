"""Restoring as the command does it: a backup that makes no sense is told as damaged."""

from pathlib import Path
from typing import Any

import pytest
import zstandard
from msgspec.structs import replace

from admin.backup import calls
from admin.backup.places import Directory
from admin.backup.reading import Damaged
from admin.backup.restoring import Restoring
from tests.unit.backup.test_fates import ROUTE
from tests.unit.backup.test_files import HEAD
from tests.unit.backup.test_manifest import MANIFEST
from timemachine import codec
from timemachine.backup.files import frame
from timemachine.backup.manifest import BackupRoute, Manifest
from timemachine.backup.pages import Page, written_page


def _restoring(place: Directory, manifest: Manifest) -> Restoring:
    session: Any = None
    return Restoring(session, place, manifest, only=(), num_vnodes=None, past_due="hold")


@pytest.mark.parametrize("record", [b"", b"none", codec.encode(replace(ROUTE, basic_auth=b"x"))])
def test_routes_that_cannot_be_read(tmp_path: Path, record: bytes) -> None:
    """Named regression: it ended in a traceback."""
    route = BackupRoute(db="default", name="hello", uid=2, record=record)
    with pytest.raises(Damaged):
        _restoring(Directory(tmp_path), replace(MANIFEST, routes=[route])).begin(dry_run=True)


@pytest.mark.parametrize("row", [(b"a", b"none"), (b"\xff", b"none")])
def test_jobs_that_cannot_be_read(tmp_path: Path, row: tuple[bytes, bytes]) -> None:
    """Named regression: sound checksums over what is no job ended in a traceback."""
    place = Directory(tmp_path)
    (collection,) = MANIFEST.collections
    page = Page(0, HEAD, [row], [], [], last=True)
    for part in collection.parts:
        with place.write(part.file) as file:
            file.write(zstandard.compress(frame(written_page(page))))
    begun = calls.Begun("r", "b-1", 1, 2, "hold")
    restoring = _restoring(place, replace(MANIFEST, routes=[]))
    with pytest.raises(Damaged, match="no vnode can have held"):
        restoring.restore(begun, lambda _: None)
