"""The command line as somebody types it: in this process, as a program, and at a terminal."""

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from click.testing import CliRunner

from node.__main__ import main
from tests.unit.project import ROOT

PATIENCE_S = 60.0


class Done(NamedTuple):
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which is one JSON document."""
        return msgspec.json.decode(self.out)


class Terminal:
    """Types commands of `timemachine` for one server and one database."""

    def __init__(self, address: str, db: str = "default") -> None:
        self.environment = {"TIMEMACHINE_SERVER": f"http://{address}", "TIMEMACHINE_DB": db}

    def __call__(self, *words: str, text: str | bytes | None = None, code: int = 0) -> Done:
        """Run a command in this process, as if no terminal was there; it ends with `code`."""
        done = self.any(*words, text=text)
        assert code == done.code, f"{words}: {done.code}\n{done.out}{done.err}"
        return done

    def any(self, *words: str, text: str | bytes | None = None) -> Done:
        """The same, whatever its exit code."""
        done = CliRunner().invoke(main, words, input=text, env=self.environment)
        unforeseen = done.exception
        if unforeseen is not None and not isinstance(unforeseen, SystemExit):
            raise unforeseen
        return Done(done.exit_code, done.stdout, done.stderr)

    def planned(self, *words: str) -> Done:
        """Run a command that tells under `--dry-run` what its plan is, with that plan."""
        return self(*words, "--plan", self(*words, "--dry-run", "--json").json["plan"])

    def program(
        self, *words: str, folder: Path, environment: Mapping[str, str] | None = None
    ) -> Done:
        """Run it as a program of its own."""
        done = subprocess.run(
            [sys.executable, "-m", "node", *words],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **self.environment, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def at_terminal(
        self, *words: str, types: str = "", environment: Mapping[str, str] | None = None
    ) -> Done:
        """Run it at a terminal, and type an answer; `out` is all that was seen."""
        upper, lower = pty.openpty()
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "node", *words],
                stdin=lower,
                stdout=lower,
                stderr=lower,
                env={
                    **{name: value for name, value in os.environ.items() if name != "NO_COLOR"},
                    "PYTHONPATH": str(ROOT),
                    **self.environment,
                    "TERM": "xterm",
                    **(environment or {}),
                },
            )
            os.close(lower)
            lower = -1
            if types:
                os.write(upper, types.encode())
            seen = _read_all(upper)
            return Done(process.wait(PATIENCE_S), seen, "")
        finally:
            os.close(upper)
            if lower >= 0:
                os.close(lower)


def _read_all(descriptor: int) -> str:
    """What is seen until the program at the other end has gone."""
    seen = b""
    end = time.monotonic() + PATIENCE_S
    while True:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, end - time.monotonic()))
        assert ready, f"it does not end: {seen!r}"
        try:
            part = os.read(descriptor, 65_536)
        except OSError:  # EIO: nobody holds the other end any more
            return seen.decode()
        if not part:
            return seen.decode()
        seen += part
