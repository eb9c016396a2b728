"""Nodes that do next to nothing: what the parts of the virtual world are tested and timed with.

Each tells the others a number at every tick; who hears one writes it down, and asks a recipient
for a request when that is durable. Run it as a program to see what an event of the world itself
costs: `python -m tests.sim.cluster.toy [SEED]`.
"""

import sys
import time
from collections.abc import Sequence
from functools import partial

from tests.sim.cluster.clockwork import Clockwork, Owner
from tests.sim.cluster.disk import FaultyDisk
from tests.sim.cluster.knobs import Knobs, draw
from tests.sim.cluster.nemesis import Group, Nemesis
from tests.sim.cluster.network import Port, SimNetwork, Weather
from tests.sim.cluster.nodeworld import NodeWorld
from tests.sim.cluster.recipients import NodeSender, SimRecipients
from timemachine.errors import StoreError
from timemachine.outbound import Outcome, Request, Target

_TARGET = Target("http", "recipient.test", 80, b"/hook", b"recipient.test")
_TICK_MS = 20.0


class ToyNode:
    """One life of a node: it counts what it hears."""

    def __init__(self, world: NodeWorld, disk: FaultyDisk, port: Port, sender: NodeSender) -> None:
        self.world = world
        self.heard: list[bytes] = []
        self.answers: list[Outcome] = []
        self._disk = disk
        self._port = port
        self._sender = sender
        self._said = 0
        port.receive = self._receive
        world.call_later(_TICK_MS * world.random(), self._tick)

    def _tick(self) -> None:
        self._said += 1
        for node in self._port.links:
            self._port.send(node, b"%d says %d" % (self.world.number, self._said))
        self.world.call_later(_TICK_MS, self._tick)

    def _receive(self, frame: bytes) -> None:
        self.heard.append(frame)
        if not self._disk.busy:
            self._disk.write({b"heard": frame, b"by %d" % self.world.number: b""}, self._written)

    def _written(self, error: StoreError | None) -> None:
        if error is not None:
            raise error
        if len(self.heard) % 4 == 0:
            head = b"POST /hook HTTP/1.1\r\nwebhook-id: %d\r\n\r\n" % len(self.heard)
            self._sender.send(Request(_TARGET, head, b"null", 10_000), self.answers.append)


class ToyCluster:
    """Toy nodes in a whole virtual world. See `ClusterControl`."""

    def __init__(self, knobs: Knobs) -> None:
        self.clock = Clockwork(knobs.seed)
        self.clock.on_error = self._failed
        weather = Weather(knobs.net_base_ms, knobs.net_jitter_ms, ordered=knobs.net_ordered)
        self.network = SimNetwork(self.clock, weather)
        self.recipients = SimRecipients(self.clock)
        self.numbers: Sequence[int] = range(1, knobs.nodes + 1)
        self._worlds = {number: NodeWorld(self.clock, number) for number in self.numbers}
        self._disks = {number: FaultyDisk(world) for number, world in self._worlds.items()}
        self.nodes: dict[int, ToyNode] = {}
        for world in self._worlds.values():
            world.ticks = frozenset(["ToyNode._tick"])
            world.wall_offset_ms = knobs.wall_offset_ms_max
            self.network.attach(world)
        self._senders = {n: self.recipients.sender(world) for n, world in self._worlds.items()}
        self.nemesis = Nemesis(self.clock, self.network, self.recipients, self, knobs)

    def _failed(self, owner: Owner, error: Exception) -> bool:
        if isinstance(error, StoreError):
            self._worlds[owner.number].crash()
            return True
        return False

    def world(self, node: int) -> NodeWorld:
        """See ClusterControl."""
        return self._worlds[node]

    def disk(self, node: int) -> FaultyDisk:
        """See ClusterControl."""
        return self._disks[node]

    def crash(self, node: int) -> None:
        """See ClusterControl."""
        self._worlds[node].crash()

    def start(self, node: int, *, rebooted: bool = False) -> bool:
        """See ClusterControl."""
        try:
            self._disks[node].open()
        except StoreError:
            return False
        world = self._worlds[node]
        world.start(rebooted=rebooted)
        port = self.network.ports[node]
        self.nodes[node] = ToyNode(world, self._disks[node], port, self._senders[node])
        return True

    def can_lose(self, node: int) -> bool:
        """See ClusterControl."""
        return True

    def pause(self, node: int, duration_ms: float) -> None:
        """See ClusterControl."""
        self._worlds[node].pause(duration_ms)

    def groups(self) -> Sequence[Group]:
        """See ClusterControl."""
        return [(0, 0)]

    def leader_of(self, group: Group) -> int:
        """See ClusterControl: the first that is up."""
        return next((number for number, world in self._worlds.items() if world.up), 0)

    def transfer(self, group: Group, to: int) -> None:
        """See ClusterControl."""

    def live(self, safety_ms: float, liveness_ms: float) -> None:
        """Start every node, then run both phases."""
        for number in self.numbers:
            self.clock.later(0.0, partial(self.start, number))
        self.clock.run_for(1.0)
        self.nemesis.start()
        self.clock.run_for(safety_ms)
        self.nemesis.heal()
        self.clock.run_for(liveness_ms)


def main() -> None:
    """Run one seed, and print its trace and what it cost."""
    knobs = draw(int(sys.argv[1]) if len(sys.argv) > 1 else 1, nodes=3)
    cluster = ToyCluster(knobs)
    began = time.perf_counter()
    cluster.live(knobs.safety_ms, knobs.liveness_ms)
    took = time.perf_counter() - began
    events = cluster.clock.events
    print(cluster.clock.trace, events)
    print(
        f"{took / max(1, events) * 1e6:.1f} us an event: {cluster.clock.summary()}", file=sys.stderr
    )


if __name__ == "__main__":
    main()
