"""A node as its users run it: a process of its own, here a child of this one."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import msgspec

from node.config import ENVIRONMENT_PREFIX

_STOP_LIMIT_S = 60.0
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class Said(NamedTuple):
    """Why a node ended, as far as it said so: a stable code, and a sentence."""

    code: str
    reason: str


def _follow_parent() -> None:
    """In the child: a node must not go on alone when the command that shows it was killed."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _never(_: "NodeProcess") -> None:
    """Nobody wants to know."""


class NodeProcess:
    """`serve` on one directory; may be launched again after it ended.

    `log` is told each line of the node's log, decoded, and `ended` that the process is gone; both
    are called on threads. Launch it from the main thread: the child ends with the thread that
    launched it.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        *,
        http: str,
        rpc: str,
        log: Callable[["NodeProcess", dict[str, Any]], None],
        ended: Callable[["NodeProcess"], None] = _never,
    ) -> None:
        self.name = name
        self.directory = directory
        self.http = http
        self.rpc = rpc
        self.ready_line = ""
        """What it printed when it could serve; empty until then."""
        self.said = Said("", "")
        """The last error in its log."""
        self._log = log
        self._ended = ended
        self._process: subprocess.Popen[str] | None = None
        self._known = threading.Event()
        self._gone = threading.Event()

    @property
    def url(self) -> str:
        """Where its API is."""
        return f"http://{self.http}"

    @property
    def pid(self) -> int:
        """The id of the process that was launched last."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it was launched, and did not end."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int:
        """How it ended; below 0 by that signal."""
        assert self._process is not None
        assert self._process.returncode is not None
        return self._process.returncode

    def launch(self, *flags: str, token: str = "") -> None:
        """Start the process, and do not wait; `token` lets a new node join."""
        # What is meant for one node must not hold for all of them, as an address or a key file.
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(ENVIRONMENT_PREFIX)
        }
        if token:
            environment[f"{ENVIRONMENT_PREFIX}JOIN_TOKEN"] = token
        self.ready_line = ""
        self.said = Said("", "")
        self._known = threading.Event()
        self._gone = threading.Event()
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "node", "serve", "--data", str(self.directory)),
                *("--http", self.http, "--rpc", self.rpc, "--node-name", self.name, *flags),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment,
            # Ctrl+C on a terminal is for the whole group: the nodes are stopped in order instead.
            process_group=0,
            preexec_fn=_follow_parent,  # noqa: PLW1509 - it makes one system call and no more
        )
        threading.Thread(
            target=self._watch, args=(self._process, self._known, self._gone), daemon=True
        ).start()

    def wait_ready(self) -> bool:
        """Wait until it can serve; False if it ended instead, and then `said` may tell why."""
        self._known.wait()
        if not self.ready_line:
            self._gone.wait()
        return bool(self.ready_line)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """SIGSTOP: it stands still, and keeps its connections."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT, after a pause."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> int:
        """Ask it to stop, and wait; returns its exit code. What takes too long is killed."""
        assert self._process is not None
        self._process.terminate()
        # Somebody may have paused it.
        self._process.send_signal(signal.SIGCONT)
        try:
            return self._process.wait(_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.exit_code

    def _watch(
        self, process: subprocess.Popen[str], known: threading.Event, gone: threading.Event
    ) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        reader = threading.Thread(target=self._read_log, args=(process.stderr,), daemon=True)
        reader.start()
        with process.stdout as stdout:
            for line in stdout:
                if line.startswith("ready "):
                    words = dict(word.partition("=")[::2] for word in line.split()[1:])
                    self.http, self.rpc = words["http"], words["rpc"]
                    self.ready_line = line.rstrip("\n")
                    known.set()
        reader.join()
        process.wait()
        # In this order: who waits for the one finds the other as it was.
        gone.set()
        known.set()
        self._ended(self)

    def _read_log(self, stderr: TextIO) -> None:
        with stderr:
            for text in stderr:
                try:
                    line = msgspec.json.decode(text, type=dict[str, Any])
                except msgspec.DecodeError:
                    line = {"event": text.rstrip("\n"), "level": "error"}
                # What follows the reason may be advice.
                wrong = line.get("level") in ("error", "critical")
                if wrong and ("reason" in line or not self.said.code):
                    self.said = Said(line.get("code", ""), line.get("reason") or line["event"])
                self._log(self, line)
