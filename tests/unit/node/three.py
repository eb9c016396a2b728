"""Three real nodes in one virtual world, over a network that loses nothing."""

from collections.abc import Callable
from functools import partial
from typing import Any

from node.consensus import Consensus
from node.engine import Engine
from node.members import Cluster
from tests.sim.cluster.disk import DamageableStore
from tests.sim.node import KEY
from tests.sim.world import SimDisk, SimSender, SimWorld
from timemachine.frames import Frame, read_frame, write_frame
from timemachine.model import Node, Settings
from timemachine.replica import commands as c
from timemachine.replica import meta as m
from timemachine.vnode import Vnode

MEMBERS = (1, 2, 3)


class _Port:
    """The network as one node sees it. `cut` are the nodes that hear and say nothing."""

    def __init__(self, nodes: "ThreeNodes", number: int) -> None:
        self._nodes = nodes
        self._number = number

    def send(self, node: int, frame: bytes, *, bulk: bool = False) -> None:
        nodes = self._nodes
        nodes.sent.append((self._number, node, frame))
        if nodes.cut.isdisjoint({node, self._number}):
            nodes.world.call_later(0.1, partial(nodes.deliver, node, frame))


class ThreeNodes:
    """Engines with a meta group, and a collection of one vnode once it is asked for.

    `failures` are those that a node reported, and must stop for; `given_up` are (node, group) of
    replicas that were damaged, `stores` what may be damaged; `sent` is what each sent to whom,
    also if it did not arrive. `formats` are those that the programs of the nodes know, `newer`
    what was told of such as may be finalised. `options` are those of `Cluster`.
    """

    def __init__(self, seed: int = 1, **options: int) -> None:
        self.world = SimWorld(seed)
        self._options: dict[str, Any] = dict(options)
        self.cut: set[int] = set()
        self.failures: list[Exception] = []
        self.given_up: list[tuple[int, tuple[int, int]]] = []
        self.sent: list[tuple[int, int, bytes]] = []
        self.engines: dict[int, Engine] = {}
        self.stores: dict[int, DamageableStore] = {}
        self.formats: dict[int, tuple[int, ...]] = dict.fromkeys(MEMBERS, (1,))
        self.newer: list[tuple[int, int]] = []
        for number in MEMBERS:
            self.stores[number] = DamageableStore(tells=True)
            self._make(number)
        for engine in self.engines.values():
            engine.start(Settings(), lambda: None)
        self.world.run_until(lambda: self.leader((0, 0)) != 0 and self._known(), 1_000_000)

    def _make(self, number: int) -> Engine:
        disk = SimDisk(self.world, {})
        disk.store = self.stores[number]
        self.engines[number] = engine = Engine(
            self.world,
            disk.store,
            disk,  # type: ignore[arg-type]
            SimSender(self.world),
            cluster_id="cluster",
            node=Node(
                id=f"n{number}",
                name="",
                http="",
                rpc="",
                zone="",
                version="0",
                formats=self.formats[number],
            ),
            master_keys=[KEY],
            on_failure=self.failures.append,
            on_quarantine=lambda group, _: self.given_up.append((number, group)),
            on_newer_format=lambda *versions: self.newer.append(versions),
            cluster=Cluster(
                number=number, members=MEMBERS, network=_Port(self, number), **self._options
            ),
        )
        return engine

    def stop(self, number: int) -> None:
        """A node is gone without a word; what it had under way still gets to its disk."""
        self.engines[number].runtime.close()
        self.cut.add(number)

    def restart(self, number: int) -> None:
        """A node that was stopped begins anew with what its disk has."""
        engine = self._make(number)
        self.cut.discard(number)
        engine.start(Settings(), lambda: None)

    def _known(self) -> bool:
        return all(engine.meta.databases for engine in self.engines.values())

    def deliver(self, node: int, frame: bytes) -> None:
        """A frame has arrived."""
        if node not in self.cut:
            self.engines[node].receive(frame)

    def say(self, to: int, sender: int, **fields: Any) -> None:
        """Give a node a frame that its sender has not written."""
        self.engines[to].receive(write_frame(Frame(sender, 1, **fields)))

    def frames(self, sender: int) -> list[Frame]:
        """What a node has sent since `sent` was cleared."""
        return [read_frame(frame) for number, _, frame in self.sent if number == sender]

    def consensus(self, number: int) -> Consensus:
        """What feeds the replicas of one node."""
        return self.engines[number].consensus

    def leader(self, group: tuple[int, int]) -> int:
        """The number of the node that serves a group, 0 if there is none."""
        for number in MEMBERS:
            vnode = self.engines[number].runtime.vnodes.get(group)
            if vnode is not None and vnode.serving and number not in self.cut:
                return number
        return 0

    def vnode(self, number: int, group: tuple[int, int]) -> Vnode:
        """One node's replica of a group."""
        return self.engines[number].runtime.vnodes[group]

    def ask_meta(self, command: Callable[[int], m.AnyMetaCommand]) -> m.MetaResult:
        """Have a command of the meta group done, made for the time that it is."""
        answers: list[Any] = []
        leader = self.engines[self.leader((0, 0))]
        leader.propose_meta(command(leader.now_ms()), answers.append)
        self.world.run_until(lambda: bool(answers))
        assert isinstance(answers[0], m.MetaResult), answers
        return answers[0]

    def put_collection(self) -> tuple[int, int]:
        """A collection of one vnode, which is served; its group."""
        result = self.ask_meta(
            lambda now_ms: m.PutCollection(now_ms=now_ms, db="default", name="jobs", num_vnodes=1)
        )
        assert result.collection is not None
        group = (result.collection.uid, 0)
        self.world.run_until(lambda: self.leader(group) != 0)
        return group

    def others(self, number: int) -> list[int]:
        """All nodes but one."""
        return [each for each in MEMBERS if each != number]

    def put(self, number: int, group: tuple[int, int], job_id: str) -> list[Any]:
        """Propose a job to one node's replica; the answer appears in the list."""
        answers: list[Any] = []
        engine = self.engines[number]
        command = c.PutJob(
            now_ms=engine.now_ms(),
            job_id=job_id,
            uid=b"u" * 16,
            trigger_ms=engine.now_ms() + 3_600_000,
            delay_ms=None,
            route="r",
            route_uid=7,
            meta=b"{}",
        )
        engine.runtime.propose(self.vnode(number, group), command, answers.append)
        return answers
