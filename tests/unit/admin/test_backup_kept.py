"""What a place keeps: one backup that cannot be used is in nobody's way, and foreign files stay."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from msgspec.structs import replace

from admin.backup import calls
from admin.backup.kept import base_of, files_of, kept_in
from admin.backup.places import Directory
from admin.backup.reading import Damaged
from admin.backup.taking import Taking
from tests.unit.backup.test_manifest import MANIFEST
from timemachine.backup.manifest import Manifest, written_manifest
from timemachine.backup.pages import PartHead, Position, unchanged_page


def _backup(place: Directory, created_ms: int, files_from: str | None = None) -> Manifest:
    """A backup with two files, or with those of an earlier one."""
    backup_id = str(uuid4())
    (collection,) = MANIFEST.collections
    parts = [
        replace(part, file=f"{files_from or backup_id}/default/carts/{part.index}.zst")
        for part in collection.parts
    ]
    made = replace(
        MANIFEST,
        id=backup_id,
        created_ms=created_ms,
        collections=[replace(collection, parts=parts)],
    )
    files = {f"{backup_id}/manifest.json": written_manifest(made)}
    if files_from is None:
        files |= dict.fromkeys(made.files, b"0123456789")
    for name, data in files.items():
        with place.write(name) as file:
            file.write(data)
    return made


def test_a_backup_that_cannot_be_used_keeps_nobody_from_taking_another(tmp_path: Path) -> None:
    """Named regression: one damaged manifest, and no nightly backup was taken any more."""
    place = Directory(tmp_path)
    older, newer = _backup(place, 1), _backup(place, 2)
    (tmp_path / newer.id / "manifest.json").write_bytes(b"{")
    kept = kept_in(place)
    assert ([older], [], 1) == (kept.sound, kept.partial, len(kept.damaged))
    assert newer.id in kept.damaged[0].message
    assert older == base_of(place, MANIFEST.cluster_id)
    assert base_of(place, "other") is None


def test_a_damaged_one_can_be_deleted_and_hinders_the_deletion_of_others(tmp_path: Path) -> None:
    """Nobody knows whose files it uses."""
    place = Directory(tmp_path)
    older, newer = _backup(place, 1), _backup(place, 2)
    (tmp_path / newer.id / "manifest.json").write_bytes(b"{")
    with pytest.raises(Damaged):
        files_of(place, older.id, older)
    assert place.files(newer.id) == files_of(place, newer.id, None)


def test_files_go_with_the_last_backup_that_uses_them(tmp_path: Path) -> None:
    """Those that an earlier one has left to it, too."""
    place = Directory(tmp_path)
    base = _backup(place, 1)
    second = _backup(place, 2, base.id)
    assert [f"{base.id}/manifest.json"] == files_of(place, base.id, base)
    place.delete(f"{base.id}/manifest.json")
    assert [] == kept_in(place).partial
    assert {*second.files, f"{second.id}/manifest.json"} == set(files_of(place, second.id, second))


def test_files_of_others_are_not_touched(tmp_path: Path) -> None:
    """Named regression: any folder beside the backups was taken for one that broke off.

    And a manifest that somebody made up could name one, whose files went with it.
    """
    place = Directory(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").write_bytes(b"x")
    made_up = _backup(place, 1, "photos")
    assert [] == kept_in(place).partial
    assert [f"{made_up.id}/manifest.json"] == files_of(place, made_up.id, made_up)


class _Deleting:
    """A session with a cluster whose vnodes have not changed; at the end somebody deletes files."""

    def __init__(self, described: calls.Described, delete: Callable[[], None]) -> None:
        self._described = described
        self._delete = delete
        self._read = False

    def carry(self, call: Any) -> Any:
        if call.answer is not calls.Described:
            self._read = True
            return unchanged_page(PartHead(Position(3, 0, 9, 1, 9), 0, []))
        if self._read:
            self._delete()
        return self._described


def test_a_backup_does_not_count_on_files_that_were_deleted_meanwhile(tmp_path: Path) -> None:
    """Named regression: it ended well, and could not be restored."""
    place = Directory(tmp_path)
    base = _backup(place, 1)
    (each,) = base.collections
    described = calls.Described(
        id=str(uuid4()),
        format=1,
        created_time=5,
        cluster_id=base.cluster_id,
        version="0",
        restore_epoch=1,
        databases=["default"],
        collections=[calls.DescribedCollection("default", "carts", each.uid, 2, 3, 5)],
        routes=[],
        allowed_private_cidrs=[],
    )

    def delete() -> None:
        place.delete(f"{base.id}/default/carts/1.zst")

    session: Any = _Deleting(described, delete)
    with pytest.raises(Damaged):
        Taking(session, place, base, None, lambda _: None).take()
    assert [base.id] == place.backups()
