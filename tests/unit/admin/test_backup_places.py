"""Directories as places of backups: a file is there as a whole or not at all."""

from pathlib import Path

import click
import pytest

from admin.backup.places import Directory, place_of


def _write(place: Directory, name: str, data: bytes = b"data") -> None:
    with place.write(name) as file:
        file.write(data)


def _break_off(place: Directory, name: str) -> None:
    with place.write(name) as file:
        file.write(b"half")
        raise ZeroDivisionError


def test_what_was_written_is_read(tmp_path: Path) -> None:
    """By its name, by nobody but its owner, and listed with the others of its folder."""
    place = Directory(tmp_path / "backups")
    _write(place, "b-1/default/carts/0.zst")
    with place.read("b-1/default/carts/0.zst") as file:
        assert b"data" == file.read()
    assert 4 == place.size("b-1/default/carts/0.zst")
    assert ["b-1/default/carts/0.zst"] == place.files("b-1")
    path = tmp_path / "backups" / "b-1" / "default" / "carts" / "0.zst"
    assert 0o600 == path.stat().st_mode & 0o777


def test_what_broke_off_is_not_there(tmp_path: Path) -> None:
    """Neither under its name nor under another one; what was there before stays."""
    place = Directory(tmp_path)
    _write(place, "b-1/x", b"before")
    with pytest.raises(ZeroDivisionError):
        _break_off(place, "b-1/x")
    assert ["b-1/x"] == place.files("b-1")
    with place.read("b-1/x") as file:
        assert b"before" == file.read()


def test_a_backup_is_what_has_a_manifest(tmp_path: Path) -> None:
    """Files alone are none."""
    place = Directory(tmp_path)
    assert [] == place.backups()
    _write(place, "b-1/default/carts/0.zst")
    assert [] == place.backups()
    _write(place, "b-1/manifest.json")
    assert ["b-1"] == place.backups()


def test_folders_go_with_their_last_file(tmp_path: Path) -> None:
    """The place itself stays; to delete what is not there does no harm."""
    place = Directory(tmp_path / "backups")
    _write(place, "b-1/default/carts/0.zst")
    _write(place, "b-1/manifest.json")
    place.delete("b-1/default/carts/0.zst")
    place.delete("b-1/default/carts/0.zst")
    assert ["manifest.json"] == [path.name for path in (tmp_path / "backups" / "b-1").iterdir()]
    place.delete("b-1/manifest.json")
    assert [] == list((tmp_path / "backups").iterdir())
    assert place.size("b-1/manifest.json") is None


@pytest.mark.parametrize("text", ["http://x/y", "s3://", "s3:///x", "s3://b/x?y", "gs://b/x"])
def test_what_is_no_place(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told as wrong usage."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with pytest.raises(click.UsageError):
        place_of(text)


def test_a_directory_may_be_named_as_a_url(tmp_path: Path) -> None:
    """As other tools write it."""
    assert str(tmp_path) == place_of(f"file://{tmp_path}").name == place_of(str(tmp_path)).name
