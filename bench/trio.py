"""Three nodes that form one cluster, each a process with its own data directory; more may join."""

import http.client
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.tools import Process, ask

_PATIENCE_S = 120.0
_LOOK_S = 0.1


class Trio:
    """The nodes 1, 2 and 3, from `form` to `stop`, and those that join them.

    nodes     those that run, by number
    ids       the number of each node by its id
    replicas  how many replicas each node had when all was last seen whole, by number
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._addresses: dict[int, tuple[str, str]] = {}
        self.nodes: dict[int, Process] = {}
        self.ids: dict[str, int] = {}
        self.replicas: dict[int, int] = {}

    def form(self) -> None:
        """Start all; the second and third join."""
        self._launch(1)
        for number in (2, 3):
            self.join(number)

    def join(self, number: int) -> None:
        """Let one more node in; returns when the others count on it."""
        token = ask(self.nodes[1], "POST", "/v1/cluster/join-tokens")["token"]
        self._launch(number, "--join", self.nodes[1].rpc, "--join-token", token)
        told = ask(self.nodes[1], "GET", "/v1/cluster")["nodes"]
        self.ids = {each["id"]: each["number"] for each in told}

    def start(self, number: int) -> None:
        """Start a node again, at the same addresses."""
        self._launch(number)

    def _launch(self, number: int, *flags: str) -> None:
        anywhere = (f"127.0.1.{number}:0",) * 2
        http_address, rpc_address = self._addresses.get(number, anywhere)
        node = self.nodes[number] = Process(
            [
                *("-m", "node", "serve", "--data", str(self._folder / f"n{number}")),
                *("--node-name", f"n{number}", "--http", http_address, "--rpc", rpc_address),
                *("--allow-private", "127.0.0.0/8", *flags),
            ],
            self._folder / f"n{number}.log",
        )
        self._addresses[number] = (f"{node.host}:{node.port}", node.rpc)

    def kill(self, number: int) -> None:
        """SIGKILL."""
        self.nodes.pop(number).kill()

    def stop(self, number: int) -> None:
        """SIGTERM, and wait until it has ended."""
        self.nodes.pop(number).stop()

    def urls(self, first: int) -> list[str]:
        """Where the API of all nodes is, this one's first."""
        count = len(self._addresses)
        order = sorted(self._addresses, key=lambda number: (number - first) % count)
        return [f"http://{self._addresses[number][0]}" for number in order]

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """One request to some node that runs."""
        return ask(next(iter(self.nodes.values())), method, path, body)

    def leaders(self) -> dict[tuple[str, int], int]:
        """Which node leads each vnode, by collection and index; those without one are missing."""
        rows = self.ask("GET", "/v1/cluster/vnodes")["items"]
        return {
            (row["collection"], row["index"]): self.ids[row["leader"]]
            for row in rows
            if row["leader"] is not None
        }

    def leads_most(self) -> int:
        """The node that leads most vnodes."""
        led = list(self.leaders().values())
        return max(self.nodes, key=led.count)

    def whole(self) -> bool:
        """Whether every node serves, and every vnode is led and has three voters, none behind."""
        for node in self.nodes.values():
            ask(node, "GET", "/readyz")
        if self.ask("GET", "/v1/cluster")["under_replicated"]:
            return False
        rows = self.ask("GET", "/v1/cluster/vnodes")["items"]
        holders = [self.ids[each["node"]] for row in rows for each in row["replicas"]]
        self.replicas = {number: holders.count(number) for number in self.nodes}
        return all(
            row["leader"] is not None
            and ["voter"] * 3 == [each["role"] for each in row["replicas"]]
            and all(each["lag"] is not None and each["lag"] < 100 for each in row["replicas"])
            for row in rows
        )

    def even(self) -> bool:
        """Whether the nodes lead as many vnodes each, give or take one in ten."""
        led = list(self.leaders().values())
        counts = [led.count(number) for number in self.nodes]
        return max(counts) - min(counts) <= max(1, len(led) // 10)

    def wait(self, holds: Callable[[], bool], *, patience_s: float = _PATIENCE_S) -> bool:
        """Wait until something can be seen; returns whether it was. Fails nowhere."""
        end_s = time.monotonic() + patience_s
        while time.monotonic() < end_s:
            try:
                if holds():
                    return True
            except (OSError, http.client.HTTPException, AssertionError):
                pass  # Somebody is not there yet, or cannot tell.
            time.sleep(_LOOK_S)
        return False

    def settle(self) -> None:
        """Wait until all is whole and evenly led."""
        if not self.wait(self.whole):
            raise TimeoutError(f"not whole: {self.ask('GET', '/v1/cluster/vnodes')}")
        if not self.wait(self.even, patience_s=30.0):
            print(f"  leaders are not even: {sorted(self.leaders().values())}")

    def end(self) -> None:
        """Stop all that run."""
        for number in list(self.nodes):
            self.stop(number)


@contextmanager
def trio() -> Iterator[Trio]:
    """Three nodes on new data directories."""
    with tempfile.TemporaryDirectory(prefix="timemachine-bench-") as folder:
        nodes = Trio(Path(folder))
        try:
            nodes.form()
            yield nodes
        finally:
            nodes.end()
