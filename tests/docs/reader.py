"""Somebody who reads a page, types what it says, and compares what is printed."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from markdown_it import MarkdownIt

from tests.cluster.process import wait_until
from tests.unit.project import ROOT

PROGRAMS: Final = ("bash", "curl", "make")
"""What the pages take for granted, beside Python and a compiler."""


def blocks(page: str) -> list[str]:
    """The code blocks of a page, in order."""
    tokens = MarkdownIt().parse((ROOT / page).read_text())
    return [token.content for token in tokens if token.type == "fence"]


def quoted(page: str, pattern: str) -> str:
    """What a page says in the only place that fits this pattern with one group."""
    (found,) = re.findall(pattern, (ROOT / page).read_text())
    return str(found)


class Answer(NamedTuple):
    """What curl got: the status and the decoded body."""

    status: int
    body: Any


class Program:
    """Something that was started in a terminal of its own."""

    def __init__(self, process: subprocess.Popen[bytes], printed: Path, logged: Path) -> None:
        self.process = process
        self._printed = printed
        self._logged = logged

    def logged(self) -> list[str]:
        """The lines of its standard error so far."""
        return self._logged.read_text().splitlines()

    def wait_for_line(self, number: int = 0) -> str:
        """Wait for the line with this number, from 0 on."""
        wait_until(
            lambda: self._printed.read_text().count("\n") > number or self._ended(),
            f"it does not print {number + 1} lines",
        )
        assert not self._ended(), self._logged.read_text()
        return self._printed.read_text().splitlines()[number]

    def _ended(self) -> bool:
        return self.process.poll() is not None


class Reader:
    """Types commands in an empty folder. What it starts ends with it.

    All that differs from the text is done by `instead`:

    * the ports 8001 and 4000 are free ones, and `.run` is a folder of the test;
    * `make X` is what the Makefile would run for X, without setting up an environment before:
      the environment is the one that runs the tests, and so is `.venv/bin/python`;
    * `make run` is told its port, which the Makefile leaves at 8001.

    curl says the status too, and never asks a proxy: its settings are here, not on the line.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.node_port, self.recipient_port = _free_ports(2)
        self._programs: list[Program] = []
        (folder / ".curlrc").write_text(
            'silent\nshow-error\nnoproxy = "*"\nwrite-out = "\\n%{http_code}"\n'
        )
        # Of the make that may run the tests.
        inherited = {name: value for name, value in os.environ.items() if "MAKE" not in name}
        self._environment = inherited | {
            "CURL_HOME": str(folder),
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
        }

    def instead(self, text: str) -> str:
        """What is typed instead of the text."""
        if text.startswith("make "):
            text = self._recipe(text.partition("#")[0].split()[1])
        for said, played in (
            ("dev --data .run", "dev --data run --http 127.0.0.1:8001"),
            ("127.0.0.1:8001", f"127.0.0.1:{self.node_port}"),
            ("127.0.0.1:4000", f"127.0.0.1:{self.recipient_port}"),
            ('"127.0.0.1", 4000', f'"127.0.0.1", {self.recipient_port}'),
            (".venv/bin/python", sys.executable),
        ):
            text = text.replace(said, played)
        return text

    def _recipe(self, target: str) -> str:
        command = ["make", "--no-print-directory", "--dry-run", "--old-file=setup", target]
        return subprocess.run(
            command, cwd=ROOT, env=self._environment, check=True, capture_output=True, text=True
        ).stdout.strip()

    def save(self, name: str, text: str) -> None:
        """Write a file that the text shows."""
        (self.folder / name).write_text(self.instead(text))

    def run(self, command: str) -> str:
        """Run a command as it stands; returns what it printed. It has to succeed."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert 0 == done.returncode, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def curl(self, block: str) -> list[Answer]:
        """Run commands that call curl as they stand, one a line; returns what they got."""
        answers = []
        for line in block.splitlines():
            assert line.startswith("curl "), line
            body, _, status = self.run(line).rpartition("\n")
            answers.append(Answer(int(status), json.loads(body)))
        return answers

    def start(self, command: str) -> Program:
        """Start a command as it stands, in a terminal of its own."""
        number = len(self._programs)
        printed, logged = self.folder / f"{number}.out", self.folder / f"{number}.err"
        with printed.open("wb") as out, logged.open("wb") as err:
            process = subprocess.Popen(
                ["bash", "-c", command],
                cwd=self.folder,
                env=self._environment,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        program = Program(process, printed, logged)
        self._programs.append(program)
        return program

    def __enter__(self) -> Self:
        """Nothing is started yet."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close all terminals."""
        for program in self._programs:
            if program.process.poll() is None:
                os.killpg(program.process.pid, signal.SIGKILL)
            program.process.wait()


def _free_ports(count: int) -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(listener.getsockname()[1]) for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports
