"""What is done to the nodes while jobs fire, and when."""

import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from node.local.cluster import LocalCluster
from node.local.process import NodeProcess
from timemachine.client import SyncClient
from timemachine.errors import TimeMachineError

DB = "default"
COLLECTION = "demo"


def now_ms() -> int:
    """The wall clock, in milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


class Fault(msgspec.Struct):
    """Something that was done to a node; `vnodes` are those that it led, by their indexes.

    `end_ms` is when the node could be had again: ready after a restart, or let go on; a killed one
    was started again at `restart_ms`.
    """

    what: str
    node: str
    vnodes: frozenset[int]
    begin_ms: int
    restart_ms: int = 0
    end_ms: int = 0


class Step(NamedTuple):
    """What comes next: how long after the first job is due, and what it is."""

    after_ms: int
    act: Callable[[], None]


class Faults:
    """Kills one node, starts it again, pauses another one; tells what it did."""

    def __init__(self, cluster: LocalCluster, tell: Callable[[str], None]) -> None:
        self._cluster = cluster
        self._tell = tell
        self._names = {node_id(node): node for node in cluster.nodes}
        self.killed: Fault | None = None
        self.paused: Fault | None = None
        self._restarting = False

    def steps(self, span_ms: int) -> list[Step]:
        """Spread over the time in which jobs are due."""
        return [
            Step(span_ms * 2 // 10, self.kill),
            Step(span_ms * 5 // 10, self.restart),
            Step(span_ms * 7 // 10, self.pause),
            Step(span_ms * 9 // 10, self.go_on),
        ]

    def leaders(self) -> dict[int, str]:
        """Who leads each vnode of the demo, by its index; only those that have a leader."""
        urls = [node.url for node in self._cluster.nodes if node.running]
        with SyncClient(*urls, timeout_ms=5_000) as client:
            return {
                vnode.index: vnode.leader
                for vnode in client.vnodes()
                if vnode.collection == COLLECTION and vnode.leader
            }

    def kill(self) -> None:
        """kill -9 of the node that leads most vnodes."""
        node, led = self._strongest(self._cluster.nodes)
        self.killed = Fault("killed", node.name, led, now_ms())
        node.kill()
        self._tell(f"kill -9 of {node.name}, which led {len(led)} vnodes")

    def restart(self) -> None:
        """Start it again, on what its disk holds."""
        assert self.killed is not None
        node = self._node(self.killed)
        self.killed.restart_ms = now_ms()
        node.launch()
        self._restarting = True
        self._tell(f"{node.name} is started again")

    def pause(self) -> None:
        """SIGSTOP of another one, which leads most of the vnodes by then."""
        killed = None if self.killed is None else self.killed.node
        node, led = self._strongest([node for node in self._cluster.nodes if node.name != killed])
        self.paused = Fault("paused", node.name, led, now_ms())
        node.pause()
        self._tell(f"SIGSTOP of {node.name}, which led {len(led)} vnodes")

    def go_on(self) -> None:
        """SIGCONT: it wakes up, and thinks that no time has passed."""
        assert self.paused is not None
        self._node(self.paused).go_on()
        self.paused.end_ms = now_ms()
        self._tell(f"SIGCONT: {self.paused.node} goes on")

    def look(self) -> None:
        """Note when the killed node is back."""
        if self._restarting and self.killed is not None and self._node(self.killed).ready_line:
            self._restarting = False
            self.killed.end_ms = now_ms()
            took_ms = self.killed.end_ms - self.killed.restart_ms
            self._tell(f"{self.killed.node} is back after {took_ms} ms")

    def made(self) -> list[Fault]:
        """What was done, in order."""
        return [fault for fault in (self.killed, self.paused) if fault is not None]

    def done(self) -> bool:
        """Whether all was done and is over."""
        return all(fault is not None and fault.end_ms for fault in (self.killed, self.paused))

    def _node(self, fault: Fault) -> NodeProcess:
        return next(node for node in self._cluster.nodes if node.name == fault.node)

    def _strongest(self, among: list[NodeProcess]) -> tuple[NodeProcess, frozenset[int]]:
        leaders = self.leaders()
        counts = Counter(leaders.values())
        chosen = max(among, key=lambda node: counts[node_id(node)])
        led = (index for index, leader in leaders.items() if leader == node_id(chosen))
        return chosen, frozenset(led)


def node_id(node: NodeProcess) -> str:
    """The id that a node said when it was ready."""
    return node.ready_line.rpartition("node=")[2]


def wait_for_leaders(faults: Faults, count: int, patience_s: float = 30.0) -> None:
    """Wait until each vnode has a leader. Raises TimeMachineError."""
    end_s = time.monotonic() + patience_s
    while len(faults.leaders()) < count:
        if time.monotonic() > end_s:
            raise TimeMachineError(f"Of {count} vnodes some have no leader.")
        time.sleep(0.1)
