"""The command line where it differs at a terminal: questions, colours, bars; and completion."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.process import NodeProcess
from tests.cluster.terminal import PATIENCE_S, Terminal
from tests.unit.project import ROOT

FAR_MS = 1_896_076_800_000
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A node with a collection and a route."""
    with NodeProcess(tmp_path_factory.mktemp("cli") / "data") as node:
        node.start()
        tm = Terminal(node.address)
        tm("collection", "put", "carts", "--num-vnodes", "2")
        tm("collection", "put", "cards", "--num-vnodes", "1")
        tm("route", "put", "hello", "--url", "http://127.0.0.1:1024/")
        yield node


@pytest.fixture
def tm(node: NodeProcess) -> Terminal:
    """A terminal."""
    return Terminal(node.address)


def test_what_cannot_be_undone_is_asked(tm: Terminal) -> None:
    """No, or just Enter, does nothing and ends with 1; yes does it."""
    tm("db", "put", "asked")
    words = ("db", "delete", "asked", "--force")
    for answer in ("n\n", "\n"):
        done = tm.at_terminal(*words, types=answer)
        assert 1 == done.code
        assert "Delete database `asked` with all its collections" in done.out
        tm("db", "get", "asked")
    done = tm.at_terminal(*words, types="y\n")
    assert 0 == done.code, done.out
    tm("db", "get", "asked", code=4)


def test_bulk_commands_say_how_many_first(tm: Terminal) -> None:
    """The question holds the number; after a no all jobs are as they were."""
    tm("collection", "put", "many", "--num-vnodes", "1")
    for number in range(3):
        words = ("job", "create", "many", "--route", "hello", "--at", str(FAR_MS))
        tm(*words, "--id", f"j{number}")
    done = tm.at_terminal("job", "cancel", "many", types="n\n")
    assert "Cancel 3 jobs?" in done.out
    assert 3 == len(tm("job", "list", "many", "--state", "scheduled", "--json").json)
    done = tm.at_terminal("job", "cancel", "many", types="y\n")
    assert 0 == done.code, done.out
    assert 3 == len(tm("job", "list", "many", "--state", "cancelled", "--json").json)


def test_colours_are_for_terminals(tm: Terminal, tmp_path: Path) -> None:
    """On a terminal there are some; not with NO_COLOR, and not in a file."""
    words = ("route", "list")
    assert COLOUR.search(tm.at_terminal(*words).out)
    plain = tm.at_terminal(*words, environment={"NO_COLOR": "1"}).out
    assert "\x1b[3" not in plain
    piped = tm.program(*words, folder=tmp_path)
    assert (0, None) == (piped.code, COLOUR.search(piped.out))


def test_a_pipe_gets_whole_lines(tm: Terminal, tmp_path: Path) -> None:
    """A job is a line, however long its id: no pipe and no narrow terminal tears it apart."""
    tm("job", "put", "cards", "x" * 128, "--route", "hello", "--at", str(FAR_MS))
    piped = tm.program("job", "list", "cards", folder=tmp_path)
    assert 2 == piped.out.count("\n")
    assert f"\n{'x' * 128}  scheduled  2030-01-31T08:00:00Z  hello" in piped.out
    narrow = tm.at_terminal("job", "list", "cards", environment={"COLUMNS": "40"}).out
    assert f"\n{'x' * 128}  scheduled  2030-01-31T08:00:00Z  hello         0\r\n" in narrow


def test_output_that_cannot_be_had(tm: Terminal, tmp_path: Path) -> None:
    """A terminal without a character gets its number, and a full disk one sentence."""
    tm("job", "put", "cards", "a→b", "--route", "hello", "--at", str(FAR_MS))
    words = ("job", "get", "cards", "a→b")
    latin = tm.program(*words, folder=tmp_path, environment={"PYTHONIOENCODING": "latin-1"})
    assert (0, "") == (latin.code, latin.err)
    assert "a\\u2192b" in latin.out
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "node", *words],
            env={**os.environ, "PYTHONPATH": str(ROOT), **tm.environment},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (1, "Error: No space left on device.\n") == (done.returncode, done.stderr)
    tm("job", "delete", "cards", "a→b", "--purge", "--yes")


def test_a_batch_shows_how_far_it_is(tm: Terminal, tmp_path: Path) -> None:
    """A bar at a terminal, none in a file; the outcome in both."""
    file = tmp_path / "jobs"
    file.write_text(f'{{"trigger_time": {FAR_MS}}}\n' * 100)
    words = ("job", "batch", "carts", str(file), "--route", "hello", "--batch-size", "10")
    seen = tm.at_terminal(*words)
    assert "100 created, 0 refused" in seen.out
    assert "%" in seen.out
    piped = tm.program(*words, folder=tmp_path)
    assert (0, "100 created, 0 refused\n", "") == piped


def test_a_terminal_is_told_of_the_first_refused_jobs(tm: Terminal, tmp_path: Path) -> None:
    """A sentence a job, whole and not many; a file, a pipe and programs get every record."""
    file, failed = tmp_path / "jobs", tmp_path / "failed"
    file.write_text(f'{{"trigger_time": {FAR_MS}, "route": "nope"}}\n' * 25 + "no job\n")
    words = ("job", "batch", "carts", str(file), "--batch-size", "10")
    seen = tm.at_terminal(*words, environment={"COLUMNS": "40"})
    assert 8 == seen.code
    told = re.findall(r"line ([0-9]+): There is no route 'nope' in database 'default'", seen.out)
    assert [str(number + 1) for number in range(20)] == told
    assert "add --allow-missing-route." in seen.out
    assert "6 more refused; --failed FILE keeps them all." in seen.out
    assert '{"line"' not in seen.out

    kept = tm.at_terminal(*words, "--failed", str(failed))
    assert (8, 26) == (kept.code, failed.read_text().count("\n"))
    assert "line 1:" not in kept.out
    assert "more refused" not in kept.out

    json_seen = tm.at_terminal(*words, "--json", environment={"COLUMNS": "40"})
    assert failed.read_text().splitlines()[-1] in json_seen.out.splitlines()
    assert 26 == json_seen.out.count('{"line"')
    piped = tm.program(*words, folder=tmp_path)
    assert 26 == piped.err.count('{"line"')


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("timemachine jo", ["job"]),
        ("timemachine route get he", ["hello"]),
        ("timemachine job list ca", ["cards", "carts"]),
        ("timemachine job list carts --state dead,re", ["dead,retrying"]),
        ("timemachine job create carts --route ", ["hello"]),
        ("timemachine job list --db def", ["default"]),
        ("timemachine job --db nothing list ca", []),
        ("timemachine job list --server http://127.0.0.1:1 ca", []),
        ("timemachine job list --server not-a-url:x ca", []),
        ("timemachine job list --al", ["--all"]),
    ],
)
def test_bash_completes(tm: Terminal, tmp_path: Path, line: str, expected: list[str]) -> None:
    """In a real bash, with the line of the manual; silent where nobody answers."""
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    program = tmp_path / "timemachine"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m node "$@"\n')
    program.chmod(0o755)
    words = line.split(" ")
    script = f"""
        eval "$(timemachine completion bash)"
        COMP_WORDS=({" ".join(repr(word) for word in words)}) COMP_CWORD={len(words) - 1}
        _timemachine_completion timemachine
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "-c", script],
        env={
            **tm.environment,
            "PATH": f"{tmp_path}:/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert "" == done.stderr
    assert expected == done.stdout.split()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_name_the_program(tm: Terminal, shell: str) -> None:
    """Each shell has a script, which calls the program back."""
    script = tm("completion", shell).out
    assert "_TIMEMACHINE_COMPLETE" in script
    assert f"{shell}_complete" in script
