"""`timemachine dev` with several nodes: started, watched, stopped."""

import signal
import sys
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NoReturn

import click
import structlog

from node.local.cluster import LocalCluster, NodeRefused
from node.local.folder import Folder
from node.local.process import NodeProcess, Said
from node.local.telling import (
    about_several,
    exit_code_of,
    what_happened,
    what_helps,
    what_to_try,
)
from timemachine.errors import TimeMachineError

_EXIT_FAILED = 1


def say(text: str) -> None:
    """Tell people, on standard error."""
    click.echo(text, err=True)


def count_nodes(data: str, asked: int | None) -> int:
    """How many nodes `dev` runs in a folder. Ends the program where it cannot be used."""
    try:
        return Folder(Path(data)).count(asked)
    except TimeMachineError as error:
        _give_up(error, data, asked)


def run_nodes(data: str, http: str, count: int) -> int:
    """Run several nodes until Ctrl+C; returns the exit code.

    0 when all that ran stopped as asked; as `serve` where a node could not start; 1 when one had
    ended before, or all had.
    """
    folder = Folder(Path(data))
    events: SimpleQueue[NodeProcess] = SimpleQueue()
    try:
        folder.lock()
        cluster = LocalCluster(
            folder, count, http=http, log=_Logs().write, ended=events.put, told=say
        )
    except TimeMachineError as error:
        _give_up(error, data, count)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    lost = False
    try:
        try:
            cluster.start(_say_ready)
            say("\n" + what_to_try(cluster.nodes[0].url))
            say(about_several(cluster.nodes, data))
            while any(node.running for node in cluster.nodes):
                node = events.get()
                lost = True
                say("\n" + what_happened(node, cluster.nodes, data))
            say("All nodes have ended.")
        except NodeRefused as error:
            say("\n" + _explained(error, data, count))
            lost = True
            cluster.stop()
            return max(error.node.exit_code, _EXIT_FAILED)
        except TimeMachineError as error:
            say(
                f"\nThe cluster did not take a node in: {error.detail}\n"
                "If most of its nodes have lost their data, it cannot go on: delete"
                f" {data} to begin anew."
            )
            cluster.stop()
            return _EXIT_FAILED
        except KeyboardInterrupt:
            say("\nStopping. Ctrl+C once more kills the nodes.")
            lost |= not cluster.stop()
    except KeyboardInterrupt:
        cluster.kill()
        lost = True
    return _EXIT_FAILED if lost else 0


def _say_ready(node: NodeProcess) -> None:
    click.echo(node.ready_line)
    sys.stdout.flush()


def _command(asked: int | None) -> str:
    return "timemachine dev" if asked in (None, 1) else f"timemachine dev --nodes {asked}"


def _explained(error: NodeRefused, data: str, count: int) -> str:
    said = error.node.said
    if not said.reason:
        return error.detail
    return f"{error.node.name} cannot start.\n{what_helps(said, data, _command(count))}"


def _give_up(error: TimeMachineError, data: str, asked: int | None) -> NoReturn:
    said = Said(error.specific_code, error.detail)
    say("\n" + what_helps(said, data, _command(asked)))
    sys.exit(exit_code_of(error))


class _Logs:
    """Writes the logs of all nodes to standard error, each line with the name of its node."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._render: Any = structlog.processors.JSONRenderer()
        if sys.stderr.isatty():
            self._render = structlog.dev.ConsoleRenderer()

    def write(self, node: NodeProcess, line: dict[str, Any]) -> None:
        """One line, which is changed."""
        line["name"] = node.name
        text = self._render(None, "", line)
        with self._lock:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()
