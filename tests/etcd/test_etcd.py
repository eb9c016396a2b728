"""etcd's test files through our core: every block of every file is answered as etcd answers it."""

import os
from pathlib import Path

import pytest

from tests.etcd.__main__ import main
from tests.etcd.judge import files, run_file, without_log
from tests.etcd.place import ETCD_FILES, ETCD_FILES_REQUIRED, FOLDER

PATHS = list(files(FOLDER))


def require_files() -> None:
    """Without them nothing is judged: that is said, and where it has to be judged it fails."""
    if PATHS:
        return
    absent = f"etcd's test files are not in {FOLDER}; {ETCD_FILES} can name another folder"
    if os.environ.get(ETCD_FILES_REQUIRED) == "1":
        pytest.fail(absent)
    pytest.skip(absent)


def test_the_files_are_there() -> None:
    """Of all three kinds."""
    require_files()
    assert {"confchange", "interaction", "quorum"} <= {path.parent.name for path in PATHS}


@pytest.mark.parametrize("path", PATHS or [FOLDER], ids=lambda path: str(path.relative_to(FOLDER)))
def test_answers_like_etcd(path: Path) -> None:
    """Each block's text, in its order, without what etcd's logger says."""
    require_files()
    outcomes = run_file(path)
    assert outcomes
    for outcome in outcomes:
        block = outcome.block
        expected, found = without_log(block.expected), without_log(outcome.found)
        assert expected == found, f"{path}:{block.line}"


def test_the_program_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says which blocks differ and how many do not; its exit code says whether all are equal."""
    good = "committed cfg=(1) idx=(3)\n----\n     idx\n>      3    (id=1)\n3\n"
    (tmp_path / "good.txt").write_text(good)
    assert 0 == main([str(tmp_path)])
    assert "files 1/1 blocks 1/1\n" == capsys.readouterr().out
    (tmp_path / "bad.txt").write_text(f"{good}\nvote cfg=(1) votes=(y)\n----\nVoteLost\n")
    assert 1 == main([str(tmp_path)])
    said = capsys.readouterr().out
    assert said.startswith("bad.txt:7: vote cfg=(1) votes=(y)\n")
    assert "-VoteLost\n    +VoteWon\n" in said
    assert said.endswith("files 1/2 blocks 2/3\n")


def test_the_program_fails_without_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No files are no proof."""
    assert 2 == main([str(tmp_path)])
    assert f"There are no files in {tmp_path}.\n" == capsys.readouterr().err
