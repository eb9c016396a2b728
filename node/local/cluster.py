"""The nodes of a local cluster together: formed, resumed, stopped."""

import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from node.config import split_address
from node.local.folder import Folder
from node.local.process import NodeProcess
from timemachine.client import SyncClient
from timemachine.errors import TimeMachineError

LOOPBACK = ("--allow-private", "127.0.0.0/8", "--allow-private", "::1/128")
"""Webhooks of a new cluster may go to this machine."""

_HOST = "127.0.0.1"
_HTTP_PORT = 8001
_RPC_PORT = 9001


class NodeRefused(TimeMachineError):
    """A node of the cluster ended before it could serve."""

    def __init__(self, node: NodeProcess) -> None:
        code, reason = node.said
        detail = reason or f"it ended with exit code {node.exit_code}"
        super().__init__(f"{node.name}: {detail}", code=code or None)
        self.node = node


def free_addresses(count: int) -> list[str]:
    """So many addresses on this machine that nobody has at the moment."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((_HOST, 0))
        return [f"{_HOST}:{each.getsockname()[1]}" for each in sockets]


def rpc_address(http: str) -> str:
    """Where a single node listens to others: 9001 beside 8001, else where there is room."""
    _, port = split_address(http, "http", default_port=_HTTP_PORT)
    return f"{_HOST}:{_RPC_PORT if port == _HTTP_PORT else 0}"


def _http_addresses(http: str, count: int) -> list[str]:
    """The address of the first node, and those of the others, on the ports that follow."""
    host, port = split_address(http, "http", default_port=_HTTP_PORT)
    shown = f"[{host}]" if ":" in host else host
    if not port:
        return [f"{shown}:0"] * count
    return [f"{shown}:{port + number}" for number in range(count)]


def _rpc_addresses(http: str, known: list[str], count: int) -> list[str]:
    """Those that the nodes know each other by, and new ones for the others."""
    _, port = split_address(http, "http", default_port=_HTTP_PORT)
    if port == _HTTP_PORT:
        wanted = [f"{_HOST}:{_RPC_PORT + number}" for number in range(count)]
    else:
        wanted = free_addresses(count)
    return known + [each for each in wanted if each not in known][: count - len(known)]


class LocalCluster:
    """Several nodes on this machine; `folder` has to be locked.

    `log` and `ended` are for NodeProcess; `told` is given sentences for people.
    """

    def __init__(
        self,
        folder: Folder,
        count: int,
        *,
        http: str,
        log: Callable[[NodeProcess, dict[str, Any]], None],
        ended: Callable[[NodeProcess], None] = lambda _: None,
        told: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._folder = folder
        self._told = told
        rpc = _rpc_addresses(http, folder.addresses(), count)
        folder.keep(rpc)
        self.nodes = [
            NodeProcess(
                f"node-{number}",
                folder.directory(number),
                http=_http_addresses(http, count)[number - 1],
                rpc=rpc[number - 1],
                log=log,
                ended=ended,
            )
            for number in range(1, count + 1)
        ]

    def start(self, ready: Callable[[NodeProcess], None] = lambda _: None) -> None:
        """Start all nodes; each joins whose directory is new. `ready` is told of each that serves.

        Raises NodeRefused and, where the cluster does not take a node in, ClientError.
        """
        made = [node for number, node in enumerate(self.nodes, 1) if self._folder.is_made(number)]
        if made:
            for node in made:
                node.launch()
        else:
            made = self.nodes[:1]
            self.nodes[0].launch(*LOOPBACK)
        for node in made:
            _wait_ready(node, ready)
        for number, node in enumerate(self.nodes, 1):
            if node not in made:
                self._join(number, node, made)
                _wait_ready(node, ready)
                made.append(node)

    def stop(self) -> bool:
        """Stop what runs, the last node first; whether all of it stopped as asked."""
        codes = [node.stop() for node in reversed(self.nodes) if node.running]
        return not any(codes)

    def kill(self) -> None:
        """End at once what runs."""
        for node in self.nodes:
            if node.running:
                node.kill()

    def _join(self, number: int, node: NodeProcess, made: list[NodeProcess]) -> None:
        with SyncClient(*(each.url for each in made)) as client:
            token = client.issue_join_token().token
            known = client.cluster().nodes
        flags = ["--join", ",".join(each.rpc for each in made)]
        # One of this name was there, and its data is not: its disk is lost, or it was taken in
        # and did not live to hear of it.
        for each in known:
            if each.name == node.name and each.state != "removed":
                self._folder.forget_joining(number)
                flags += ["--replace", each.id]
                self._told(f"{node.name} has no data: it joins in place of {each.id}.")
        node.launch(*flags, token=token)


def _wait_ready(node: NodeProcess, ready: Callable[[NodeProcess], None]) -> None:
    if not node.wait_ready():
        raise NodeRefused(node)
    ready(node)
