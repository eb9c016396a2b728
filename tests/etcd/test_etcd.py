"""etcd's test files through our core: every block of every file is answered as etcd answers it."""

import os
from collections import Counter
from pathlib import Path

import pytest

from tests.etcd.__main__ import main
from tests.etcd.blocks import read_blocks
from tests.etcd.judge import files, run_file, without_log
from tests.etcd.place import DEFAULT_FOLDER, ETCD_FILES, ETCD_FILES_REQUIRED, FOLDER

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


def test_all_of_them_are_there() -> None:
    """A file that got lost, or a block that is not read, would agree with everything."""
    require_files()
    if FOLDER.resolve() != DEFAULT_FOLDER.resolve():
        pytest.skip(f"{ETCD_FILES} names other files, nobody knows how many")
    blocks = Counter(path.parent.name for path in PATHS for _ in read_blocks(path))
    assert 36 == len(PATHS)
    assert {"confchange": 58, "interaction": 455, "quorum": 127} == blocks
    assert (640, 185) == (blocks.total(), blocks["quorum"] + blocks["confchange"])


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


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("stay\n----\n\ngo\n", "line 4: no answer"),
        ("go\n----\n----\nanswer\n", "line 1: the answer does not end"),
        ("go (1)\n----\n", "line 1: cannot read 'go (1)'"),
    ],
)
def test_the_program_goes_on_behind_a_malformed_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], script: str, reason: str
) -> None:
    """It names the file and counts it as not equal, though no block differs."""
    good = "vote cfg=(1) votes=(y)\n----\nVoteWon\n"
    (tmp_path / "a.txt").write_text(good)
    (tmp_path / "b.txt").write_text(script)
    (tmp_path / "c.txt").write_text(good)
    assert 1 == main([str(tmp_path)])
    said = f"b.txt: malformed, {reason}\nfiles 2/3 blocks 2/2\n"
    assert said == capsys.readouterr().out
    # Also if there is no other file.
    (tmp_path / "a.txt").unlink()
    (tmp_path / "c.txt").unlink()
    assert 1 == main([str(tmp_path)])
    assert "files 0/1 blocks 0/0\n" in capsys.readouterr().out


def test_the_program_fails_without_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No files are no proof."""
    assert 2 == main([str(tmp_path)])
    assert f"There are no files in {tmp_path}.\n" == capsys.readouterr().err
