"""Several nodes as processes that form one cluster, and what a test does to them."""

import http.client
import os
import shutil
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.checks.history import Fault
from tests.cluster.network import OwnNetwork, Pair, host
from tests.cluster.process import COLLECTION, JOBS, ROUTES, NodeProcess, wait_until
from tests.cluster.recorder import wall_ms
from tests.cluster.switch import Sky
from tests.cluster.weather import Weather
from tests.faults.disks import PoweredDisk

PATIENCE_S: Final = 60.0
"""For what must happen: long enough for a machine that has much else to do."""

_BATCH: Final = 500

LASTING_MS: Final = 5_000.0
"""How long after its end a fault may still move leaders."""


class Cluster:
    """Nodes 1 to `count`, each at an address of its own on loopback; not started yet.

    Use it as a context manager: no process outlives it. With a `network` the nodes can be cut off
    from each other, and in a `weather` their packets suffer. `environments` are of single nodes,
    by number.

    faults  what was done to them, for the history
    """

    def __init__(
        self,
        directory: Path,
        count: int = 3,
        *flags: str,
        network: OwnNetwork | None = None,
        weather: Weather | None = None,
        environments: Mapping[int, Mapping[str, str]] | None = None,
    ) -> None:
        self.directory = directory
        self.network = network
        self.weather = weather
        self.flags = flags
        self.faults: list[Fault] = []
        self.nodes: dict[int, NodeProcess] = {}
        self.ids: dict[str, int] = {}
        self._paused: dict[int, float] = {}
        self._cut_ms = 0.0
        self._environments = environments or {}
        self._count = count

    # --- forming ---------------------------------------------------------------------------

    def form(self) -> Self:
        """Start all: the first begins a cluster, the others join it, all at once."""
        self.start_first()
        for number in range(2, self._count + 1):
            self.begin_join(number)
        for number in range(2, self._count + 1):
            self.end_join(number)
        return self

    def start_first(self) -> None:
        """Let node 1 begin a cluster."""
        self._add(1).start()
        self._know(1)

    def join(self, number: int, *flags: str) -> NodeProcess:
        """Let one more node in, at the address of this number."""
        self.begin_join(number, *flags)
        return self.end_join(number)

    def begin_join(self, number: int, *flags: str) -> None:
        """Start one more node, and do not wait for it."""
        status, answer = self.ask("POST", "/v1/cluster/join-tokens")
        assert 201 == status, answer
        seeds = ",".join(node.rpc for node in self.nodes.values() if node.running and node.rpc)
        node = self._add(number)
        flags_after = node.flags
        node.flags = (*node.flags, "--join", seeds, "--join-token", answer["token"], *flags)
        node.launch()
        node.flags = flags_after

    def end_join(self, number: int) -> NodeProcess:
        """Wait until a node that was started to join is ready."""
        node = self.nodes[number]
        assert node.becomes_ready(), f"it did not join:\n{node.log_tail()}"
        self._know(number)
        return node

    def _add(self, number: int) -> NodeProcess:
        node = NodeProcess(
            self.directory / f"node{number}",
            *self.flags,
            environment=self._environments.get(number),
        )
        node.flags = (
            *node.flags,
            *("--node-name", f"n{number}"),
            *("--http", f"{host(number)}:0", "--rpc", f"{host(number)}:0"),
        )
        self.nodes[number] = node
        return node

    def _know(self, number: int) -> None:
        """A node has chosen its ports and knows its id: from now on it keeps them."""
        node = self.nodes[number]
        node.flags = (*node.flags, "--http", node.address, "--rpc", node.rpc)
        status, answer = node.ask("GET", "/v1/cluster")
        assert 200 == status, answer
        self.ids[answer["node_id"]] = number

    def set_up(self, url: str, *, num_vnodes: int = 6, **route: Any) -> None:
        """Make the collection `jobs`, three copies of each vnode, and the route `hook`.

        Where there are fewer nodes there are as many copies, until more nodes join.
        """
        body = {"num_vnodes": num_vnodes, "replicas": 3}
        status, answer = self.ask("PUT", COLLECTION, body)
        assert 201 == status, answer
        self.route("hook", url, **route)
        self.wait_whole(min(3, self._count))

    def route(self, name: str, url: str, **fields: Any) -> None:
        """Make a route."""
        status, answer = self.ask("PUT", f"{ROUTES}/{name}", {"webhook_url": url, **fields})
        assert 201 == status, answer

    def create(self, jobs: Iterable[Mapping[str, Any]]) -> None:
        """Create jobs of the route `hook`, in batches; who is told to come again does."""
        left = {job["id"]: {"route": "hook", **job} for job in jobs}
        end = time.monotonic() + PATIENCE_S + len(left) / 200
        while left:
            batch = list(left.values())[:_BATCH]
            status, answer = self.ask("POST", f"{JOBS}/batch", batch)
            assert 200 == status, answer
            for job, item in zip(batch, answer["items"], strict=True):
                # What was taken without an answer exists when it is asked for again.
                if item["status"] in (201, 409):
                    del left[job["id"]]
                else:
                    assert item["status"] in (429, 503), item
            assert time.monotonic() < end, f"{len(left)} are not taken\n{self.logs()}"

    # --- looking ---------------------------------------------------------------------------

    def running(self) -> list[int]:
        """The nodes whose processes run and are not paused."""
        return [
            number
            for number, node in self.nodes.items()
            if node.running and node.address and number not in self._paused
        ]

    def urls(self, first: int = 0) -> list[str]:
        """Where the API of each node is, beginning with some node."""
        addresses = [f"http://{node.address}" for node in self.nodes.values() if node.address]
        place = first % len(addresses)
        return addresses[place:] + addresses[:place]

    def ask(
        self, method: str, path: str, body: Any = None, *, patience_s: float = PATIENCE_S
    ) -> tuple[int, Any]:
        """Ask nodes in turn until one answers other than with 503; for what may be repeated."""
        end = time.monotonic() + patience_s
        last: object = None
        while time.monotonic() < end:
            for number in self.running():
                try:
                    status, answer = self.nodes[number].ask(method, path, body)
                except (OSError, http.client.HTTPException) as error:
                    last = error
                    continue
                if status != 503:
                    return status, answer
                last = answer
            time.sleep(0.05)
        raise AssertionError(f"nobody answers {method} {path}: {last}\n{self.logs()}")

    def vnodes(self, asked: Iterable[int] = ()) -> list[dict[str, Any]]:
        """What /v1/cluster/vnodes shows at some nodes, or all: of each vnode the newest term."""
        newest: dict[int, dict[str, Any]] = {}
        for number in asked or self.running():
            try:
                status, answer = self.nodes[number].ask("GET", "/v1/cluster/vnodes")
            except (OSError, http.client.HTTPException):
                continue
            for row in answer["items"] if status == 200 else ():
                known = newest.setdefault(row["index"], row)
                if row["leader"] is not None and row["term"] > known["term"]:
                    newest[row["index"]] = row
        return [row for _, row in sorted(newest.items())]

    def leaders(self) -> dict[int, int]:
        """Which node leads each vnode that is led."""
        return {
            row["index"]: self.ids[row["leader"]]
            for row in self.vnodes()
            if row["leader"] is not None
        }

    def id_of(self, number: int) -> str:
        """The id of a node."""
        return next(each for each, known in self.ids.items() if known == number)

    def leads_most(self) -> int:
        """The node that leads most vnodes."""
        led = list(self.leaders().values())
        return max(self.running(), key=led.count)

    def node_leader(self) -> int:
        """The leader of the meta group."""
        found: list[int] = []

        def known() -> bool:
            leader = self.ask("GET", "/v1/cluster")[1]["node_leader"]
            found.extend([] if leader is None else [self.ids[leader]])
            return bool(found)

        wait_until(known, "nobody leads the meta group", PATIENCE_S)
        return found[0]

    def is_whole(self, voters: int) -> bool:
        """Whether every vnode is led and has that many voters, none of them far behind."""
        rows = self.vnodes()
        return bool(rows) and all(
            row["leader"] is not None
            and ["voter"] * voters == [each["role"] for each in row["replicas"]]
            and all(each["lag"] is not None and each["lag"] < 100 for each in row["replicas"])
            for row in rows
        )

    def wait_whole(self, voters: int = 3) -> None:
        """Wait until every vnode is led and has all its replicas."""
        end = time.monotonic() + PATIENCE_S
        while not self.is_whole(voters):
            assert time.monotonic() < end, f"not whole: {self.vnodes()}\n{self.logs()}"
            time.sleep(0.1)

    def wait_led(self, *, without: int = 0, asked: Iterable[int] = ()) -> dict[int, int]:
        """Wait until every vnode is led, and not by the node `without`; returns the leaders.

        Only the nodes that are `asked` tell.
        """
        end = time.monotonic() + PATIENCE_S
        while True:
            rows = self.vnodes(asked)
            led = [row["leader"] and self.ids[row["leader"]] for row in rows]
            if rows and None not in led and without not in led:
                return {row["index"]: leader for row, leader in zip(rows, led, strict=True)}
            assert time.monotonic() < end, f"not all are led: {rows}\n{self.logs()}"
            time.sleep(0.1)

    def logs(self) -> str:
        """The ends of all logs."""
        return "\n".join(
            f"--- node {number}\n{node.log_tail()[-1_500:]}" for number, node in self.nodes.items()
        )

    # --- faults ----------------------------------------------------------------------------

    def kill(self, number: int) -> None:
        """SIGKILL; what it had in flight is lost track of."""
        begin_ms = wall_ms()
        self.nodes[number].kill()
        self._paused.pop(number, None)
        self.faults.append(Fault(begin_ms, wall_ms(), "kill -9", frozenset({number})))

    def died(self, number: int, begin_ms: float, what: str) -> None:
        """A node has ended by itself, since `begin_ms`."""
        self.faults.append(Fault(begin_ms, wall_ms(), what, frozenset({number})))

    def restart(self, *numbers: int) -> None:
        """Start nodes again that have ended, all at once."""
        for number in numbers:
            self.nodes[number].launch()
        for number in numbers:
            assert self.nodes[number].becomes_ready(), f"{number} does not start\n{self.logs()}"

    def stop(self, number: int) -> None:
        """SIGTERM: it hands over what it leads, and ends with exit code 0."""
        begin_ms = wall_ms()
        assert 0 == self.nodes[number].stop(), self.nodes[number].log_tail()
        self.faults.append(Fault(begin_ms, wall_ms(), "stop", frozenset({number}), planned=True))

    def pause(self, number: int) -> None:
        """SIGSTOP."""
        self._paused[number] = wall_ms()
        self.nodes[number].process.send_signal(signal.SIGSTOP)

    def resume(self, number: int) -> None:
        """SIGCONT."""
        self.nodes[number].process.send_signal(signal.SIGCONT)
        begin_ms = self._paused.pop(number)
        self.faults.append(Fault(begin_ms, wall_ms() + LASTING_MS, "paused", frozenset({number})))

    def cut(self, pairs: list[Pair]) -> None:
        """Cut links, each one way."""
        assert self.network is not None
        self._cut_ms = self._cut_ms or wall_ms()
        self.network.cut(pairs)

    def lose(self, pairs: list[Pair]) -> None:
        """Let links lose a fifth of their packets."""
        assert self.network is not None
        self._cut_ms = self._cut_ms or wall_ms()
        self.network.lose(pairs)

    def endure(self, sky: Sky) -> None:
        """Let all links between nodes be like this."""
        assert self.weather is not None
        self._cut_ms = self._cut_ms or wall_ms()
        self.weather.become(sky)

    def heal(self) -> None:
        """Mend all links."""
        assert self.network is not None
        self.network.heal()
        if self.weather is not None:
            self.weather.become(Sky())
        self.faults.append(Fault(self._cut_ms, wall_ms() + LASTING_MS, "cut"))
        self._cut_ms = 0.0

    def lose_power(self, disks: Mapping[int, PoweredDisk]) -> None:
        """The nodes on these disks lose their power, one right after the other; it comes back."""
        begin_ms = wall_ms()
        for disk in disks.values():
            disk.lose_power()
        for number, disk in disks.items():
            self.nodes[number].kill()
            disk.unmount()
            disk.mount()
        nodes = frozenset(disks)
        self.faults.append(Fault(begin_ms, wall_ms() + LASTING_MS, "power", nodes))

    def lose_disk(self, number: int) -> None:
        """Remove the data directory of a node that has ended."""
        shutil.rmtree(self.nodes[number].directory)

    @contextmanager
    def frozen_copies(self, directory: Path) -> Iterator[dict[int, Path]]:
        """Copies of all data directories, taken while no node runs on."""
        running = self.running()
        for number in running:
            os.kill(self.nodes[number].process.pid, signal.SIGSTOP)
        try:
            for number in running:
                shutil.copytree(self.nodes[number].directory, directory / str(number))
        finally:
            for number in running:
                os.kill(self.nodes[number].process.pid, signal.SIGCONT)
        yield {number: directory / str(number) for number in running}
        shutil.rmtree(directory)

    def __enter__(self) -> Self:
        """Nothing is started yet."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave no process behind."""
        for node in self.nodes.values():
            node.__exit__(kind, error, trace)
