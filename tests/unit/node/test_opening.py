"""The files of a data directory that a crash must not leave half written."""

from pathlib import Path

import pytest

from node.opening import _write_key, _write_new


def test_what_a_crash_left_half_written_is_no_hindrance(tmp_path: Path) -> None:
    """The next start writes it anew; only its owner can read it."""
    path = tmp_path / "secret.key"
    (tmp_path / ".secret.key.new").write_text("hal")
    _write_key(path, "whole")
    assert "whole" == path.read_text()
    assert 0o600 == path.stat().st_mode & 0o777
    assert [path] == list(tmp_path.iterdir())


def test_a_key_that_is_there_stays(tmp_path: Path) -> None:
    """The same may be written again, another one never takes its place."""
    path = tmp_path / "secret.key"
    _write_key(path, "one")
    _write_key(path, "one")
    with pytest.raises(FileExistsError):
        _write_new(path, "two")
    assert "one" == path.read_text()
