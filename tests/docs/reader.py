"""Somebody who reads a page, types what it says, and compares what is printed."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.cluster.process import wait_until
from tests.docs.expected import json_is, text_after, text_is
from tests.docs.page import Block
from tests.unit.project import ROOT

PROGRAMS: Final = ("bash", "curl", "make")
"""What the pages take for granted, beside Python and a compiler."""

_DONE: Final = "--- that was it:"
_PATIENCE_S: Final = 120.0
_NODES: Final = 3


class Terminal:
    """A terminal of its own, with one program running in it."""

    def __init__(self, command: str, folder: Path, name: str, environment: dict[str, str]) -> None:
        self._screen = folder / f".{name}.screen"
        self._seen = 0
        self._name = name
        with self._screen.open("wb") as screen:
            self.process = subprocess.Popen(
                ["bash", "-c", command],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=screen,
                stderr=screen,
                start_new_session=True,
            )

    def shown(self) -> str:
        """All that was printed so far, errors too."""
        return self._screen.read_text(encoding="utf-8")

    def wait_for(self, lines: str) -> None:
        """Wait for lines that look so, after those that were waited for before."""

        def there() -> bool:
            ended = self.process.poll() is not None
            end = text_after(lines, self.shown(), self._seen)
            if end is not None:
                self._seen = end
            assert end is not None or not ended, f"{self._name} has ended:\n{self.shown()}"
            return end is not None

        wait_until(there, f"{self._name} does not print\n{lines}", _PATIENCE_S)

    def interrupt(self) -> None:
        """Press Ctrl-C, and wait for the end."""
        os.killpg(self.process.pid, signal.SIGINT)
        self.process.wait(_PATIENCE_S)

    def close(self) -> None:
        """Close the window, whatever runs in it."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Shell:
    """The first terminal: a shell that commands are typed into, and that keeps its variables."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._out, self._err = folder / ".shell.out", folder / ".shell.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                ["bash", "--noprofile", "--norc"],
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        self._write("trap 'failed=1' ERR\n")

    def type_in(self, commands: str) -> tuple[str, list[int]]:
        """What the commands printed, and the statuses that curl got. All have to succeed."""
        out, err = self._out.stat().st_size, self._err.stat().st_size
        end = f"printf '%s %s\\n' {shlex.quote(_DONE)} $failed"
        self._write(f"failed=0\n{{\n{commands}\n}} < /dev/null\n{end}\n")

        def done() -> bool:
            return _DONE in _from(self._out, out) or self._process.poll() is not None

        wait_until(done, f"this does not end:\n{commands}", _PATIENCE_S)
        printed, _, failed = _from(self._out, out).partition(_DONE)
        errors = _from(self._err, err)
        assert failed.strip() == "0", f"{commands}\n{printed}\n{errors}"
        return printed, [int(line) for line in re.findall(r"^[0-9]{3}$", errors, re.MULTILINE)]

    def close(self) -> None:
        """End the shell, and whatever it still runs."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        stdin = self._process.stdin
        assert stdin is not None
        stdin.close()

    def _write(self, text: str) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        stdin.write(text.encode())
        stdin.flush()


class Reader:
    """Plays pages in a folder. What it starts ends with it.

    All that differs from the text is done by `instead`:

    * the ports 8001 to 8003, 9001 to 9003 and 4000 are free ones;
    * `make X` is what the Makefile would run for X, without setting up an environment before.

    The folder stands for a checkout: `.venv` in it leads to the environment that runs the tests.
    curl tells statuses on standard error, and never asks a proxy: its settings are here, not on
    the line.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recipient_port, *ports = _free_ports(1 + 2 * _NODES)
        self.node_port = ports[0]
        places = [first + number for first in (8001, 9001) for number in range(_NODES)]
        self._ports = dict(zip(places, ports, strict=True))
        (folder / ".curlrc").write_text(
            'silent\nshow-error\nnoproxy = "*"\nwrite-out = "%{stderr}%{http_code}\\n"\n'
        )
        _make_environment(folder / ".venv" / "bin")
        # Of the make that may run the tests.
        inherited = {name: value for name, value in os.environ.items() if "MAKE" not in name}
        self._environment = inherited | {
            "CURL_HOME": str(folder),
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
        }
        self._terminals: dict[str, Terminal] = {}
        self._begun: dict[str, str] = {}
        self._shell: Shell | None = None

    def instead(self, text: str) -> str:
        """What is typed instead of the text."""
        text = re.sub(
            r"^make (\w+).*", lambda found: self._recipe(found[1]), text, flags=re.MULTILINE
        )
        for said, played in (
            ("node dev --data .run", "node dev --data .run --http 127.0.0.1:8001"),
            ("timemachine dev --nodes 3", "timemachine dev --nodes 3 --http 127.0.0.1:0"),
            ("timemachine dev", "timemachine dev --http 127.0.0.1:8001"),
            *((f"127.0.0.1:{said}", f"127.0.0.1:{port}") for said, port in self._ports.items()),
            ("127.0.0.1:4000", f"127.0.0.1:{self.recipient_port}"),
            ('"127.0.0.1", 4000', f'"127.0.0.1", {self.recipient_port}'),
        ):
            # Not where it is the beginning of a longer number: a free port may be 40001.
            text = re.sub(rf"{re.escape(said)}(?![0-9])", played, text)
        return text

    def _recipe(self, target: str) -> str:
        """What make runs for a target; nothing for `setup`, which is done."""
        if target == "setup":
            return ":"
        command = ["make", "--no-print-directory", "--dry-run", "--old-file=setup", target]
        return subprocess.run(
            command, cwd=ROOT, env=self._environment, check=True, capture_output=True, text=True
        ).stdout.strip()

    def type_in(self, commands: str) -> tuple[str, list[int]]:
        """Type commands into the first terminal; returns what they printed, and curl's statuses."""
        if self._shell is None:
            self._shell = Shell(self.folder, self._environment)
        return self._shell.type_in(self.instead(commands))

    def start(self, name: str, command: str) -> Terminal:
        """Type commands into a terminal of its own; the last of them stays.

        After a Ctrl-C if something runs there: then what came before it still holds, the folder
        and the variables.
        """
        before = self._terminals.get(name)
        if before is None:
            self._begun[name] = "".join(command.splitlines(keepends=True)[:-1])
        else:
            before.interrupt()
            command = self._begun[name] + command
        terminal = Terminal(self.instead(command), self.folder, name, self._environment)
        self._terminals[name] = terminal
        return terminal

    def play(self, blocks: list[Block]) -> None:
        """Do all that a page says, in order."""
        for number, block in enumerate(blocks):
            following = blocks[number + 1] if number + 1 < len(blocks) else None
            match block.act:
                case "save":
                    here = Path(self.type_in("pwd")[0].rstrip("\n"))
                    (here / block.name).write_text(self.instead(block.text))
                case "start":
                    self.start(block.name, block.text)
                case "shown":
                    self._terminals[block.name].wait_for(self.instead(block.text))
                case "type":
                    printed = self._typed(block, following)
                    assert self._fits(following, printed), _differs(block, following, printed)
                case "again":
                    self._type_again(block, following)

    def _typed(self, block: Block, following: Block | None) -> str:
        """Type a block. Every request is answered 2xx, or the last as the page shows."""
        printed, statuses = self.type_in(block.text)
        wanted = _status(following)
        if wanted is not None and wanted >= 400 and statuses:
            assert wanted == statuses.pop(), _differs(block, following, printed)
        refused = [status for status in statuses if status >= 300]
        assert not refused, f"line {block.line}: {refused}\n{block.text}\n{printed}"
        return printed

    def _type_again(self, block: Block, following: Block | None) -> None:
        printed = ""

        def fits() -> bool:
            nonlocal printed
            printed = self._typed(block, following)
            return self._fits(following, printed)

        try:
            wait_until(fits, "it stays so")
        except AssertionError as error:
            raise AssertionError(_differs(block, following, printed)) from error

    def _fits(self, following: Block | None, printed: str) -> bool:
        """Whether what was printed is what the next block shows, if it shows any."""
        if following is None or following.act not in {"printed", "answer"}:
            return True
        compare = json_is if following.act == "answer" else text_is
        return compare(self.instead(following.text), printed)

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
        for terminal in self._terminals.values():
            terminal.close()
        if self._shell is not None:
            self._shell.close()


def _status(following: Block | None) -> int | None:
    """The HTTP status that the next block shows, if it shows a problem."""
    if following is None or following.act != "answer":
        return None
    shown = json.loads(following.text)
    if not isinstance(shown, dict) or "code" not in shown:
        return None
    # The original's failures, which have no more than these two, are all 400.
    status = 400 if shown.keys() == {"error", "code"} else shown.get("status")
    assert isinstance(status, int), f"line {following.line}: a problem is shown with its status"
    return status


def _differs(block: Block, following: Block | None, printed: str) -> str:
    shown = "" if following is None else following.text
    return f"line {block.line}:\n{block.text}\nprinted\n{printed}\nand not\n{shown}"


def _from(path: Path, start: int) -> str:
    with path.open("rb") as file:
        file.seek(start)
        return file.read().decode()


def _make_environment(bin_folder: Path) -> None:
    """A `.venv` as `make setup` makes it, but leading to the environment of the tests."""
    bin_folder.mkdir(parents=True)
    for name, command in (("python", ""), ("timemachine", "-m node ")):
        script = bin_folder / name
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {command}"$@"\n')
        script.chmod(0o755)
    activate = f"PATH={shlex.quote(str(bin_folder))}:$PATH\n"
    (bin_folder / "activate").write_text(activate)


def _free_ports(count: int) -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(listener.getsockname()[1]) for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports
