"""The invariants beside real nodes: nothing is found in right ones, whatever happens to them."""

import random
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec
import pytest

from node.delivery.claiming import Claims
from node.delivery.sending import Sends
from node.engine import Engine
from node.members import Cluster, Rhythm
from node.secrets import seal_value
from tests.checks.invariants import Invariants
from tests.checks.violation import Violation
from tests.checks.watching import NodeWatch, leaves
from tests.sim.cluster.clockwork import START_MS, Clockwork, Owner
from tests.sim.cluster.disk import FaultyDisk
from tests.sim.cluster.network import SimNetwork
from tests.sim.cluster.nodeworld import NodeWorld
from tests.sim.cluster.recipients import SimRecipients
from timemachine.delivery.item import CLAIMED, Item
from timemachine.delivery.vnodehead import VnodeHead
from timemachine.errors import TimeMachineError
from timemachine.model import ClaimMark, Node, Retry, Route, SealedKey, Settings
from timemachine.raft import Message
from timemachine.replica import commands as c
from timemachine.replica import meta as m
from timemachine.replica.records import read_job
from timemachine.sealing import MasterKey
from timemachine.signing import format_secret
from timemachine.storage.memory import MemoryStore
from timemachine.vnode import Vnode

KEY = MasterKey(b"k" * 32)
SECRET = seal_value(KEY, format_secret(b"s" * 32), nonce=b"n" * 12, db="default", name="hook")
ROUTE = Route(
    uid=0,
    db="default",
    name="hook",
    version=0,
    webhook_url="http://recipient.test/hook",
    created_ms=0,
    updated_ms=0,
    secrets=(SealedKey(sealed=SECRET),),
    retry=Retry(schedule_ms=(50, 100, 200), max_attempts=50),
)


class Group:
    """Some nodes and their invariants, and clients that put and delete jobs."""

    def __init__(self, seed: int, *, nodes: int = 3) -> None:
        self.rng = random.Random(seed)
        self.clock = Clockwork(seed)
        self.clock.on_error = self._failed
        self.network = SimNetwork(self.clock)
        self.recipients = SimRecipients(self.clock)
        self.invariants = Invariants()
        self.recipients.on_leave = lambda sending: leaves(self.invariants.firing, sending.request)
        self.numbers = tuple(range(1, nodes + 1))
        self.worlds = {number: NodeWorld(self.clock, number) for number in self.numbers}
        self.disks = {number: FaultyDisk(world) for number, world in self.worlds.items()}
        for world in self.worlds.values():
            self.network.attach(world)
        self.engines: dict[int, Engine] = {}
        self.watches: dict[int, NodeWatch] = {}
        for number in self.numbers:
            self.start(number)

    def _failed(self, owner: Owner, error: Exception) -> bool:
        return False

    def start(self, number: int) -> None:
        """A node starts on what its disk has kept."""
        world, disk = self.worlds[number], self.disks[number]
        world.start()
        store = disk.open()
        watch = self.watches[number] = NodeWatch(
            self.invariants,
            number,
            world,
            partial(MemoryStore.get, store),
            lambda: START_MS + self.clock.now_ms,
        )
        cluster = Cluster(
            number=number,
            members=self.numbers,
            network=watch.network(self.network.ports[number]),
            rhythm=Rhythm(tick_ms=20.0),
            log_entries_max=20,
        )
        engine = self.engines[number] = Engine(
            world,
            store,
            disk,  # type: ignore[arg-type]
            watch.sender(self.recipients.sender(world)),
            cluster_id="cluster",
            node=Node(id=f"n{number}", name="", http="", rpc="", zone="", version="0"),
            master_keys=[KEY],
            on_failure=self._stopped,
            cluster=cluster,
        )
        watch.engine(engine)
        self.network.ports[number].receive = engine.receive
        engine.start(Settings(), lambda: None)

    def _stopped(self, error: TimeMachineError) -> None:
        raise AssertionError(f"a node has stopped: {error!r}")

    def crash(self, number: int) -> None:
        """Power off."""
        self.worlds[number].crash()
        self.watches[number].ended()

    def leader(self, group: tuple[int, int] = (0, 0)) -> Engine | None:
        """The node that serves a group, if there is one that is up."""
        for number, engine in self.engines.items():
            vnode = engine.runtime.vnodes.get(group)
            if self.worlds[number].up and vnode is not None and vnode.serving:
                return engine
        return None

    def meta(self, command: Any) -> m.MetaResult:
        """Have a command of the meta group done."""
        for _ in range(50):
            answers: list[Any] = []
            leader = self.leader()
            if leader is not None and leader.meta.databases:
                leader.propose_meta(command, answers.append)
                end_ms = self.clock.now_ms + 1_000
                self.clock.run_until(end_ms, lambda: bool(answers))  # noqa: B023
                if answers and isinstance(answers[0], m.MetaResult):
                    return answers[0]
            self.clock.run_for(100)
        raise AssertionError("the meta group does not answer")

    def set_up(self) -> None:
        """A collection and a route."""
        now_ms = START_MS + int(self.clock.now_ms)
        self.meta(m.PutCollection(now_ms=now_ms, db="default", name="jobs", num_vnodes=2))
        self.meta(m.PutRoute(now_ms=now_ms, route=ROUTE, expected_version=0))

    def ask(self) -> None:
        """A client writes or deletes a job, through the node that leads its vnode."""
        rng = self.rng
        number = rng.choice(self.numbers)
        engine = self.engines[number]
        collection = engine.meta.collections.get(("default", "jobs"))
        route = engine.meta.routes.get(("default", "hook"))
        if not self.worlds[number].up or collection is None or route is None:
            return
        job_id = f"job-{rng.randrange(8)}"
        now_ms = self.worlds[number].wall_ms()
        revoked = engine.revoke(collection, job_id)
        command: Any
        if rng.random() < 0.2:
            command = c.DeleteJob(now_ms=now_ms, job_id=job_id, revoked=revoked)
        else:
            command = c.PutJob(
                now_ms=now_ms,
                job_id=job_id,
                uid=engine.random_bytes(16),
                trigger_ms=now_ms + rng.choice([0, 30, 300]),
                delay_ms=None,
                route=route.name,
                route_uid=route.uid,
                meta=b"%d" % rng.randrange(100),
                revoked=revoked,
            )
        engine.propose_job(collection, job_id, command, lambda _: None)

    def happen(self) -> None:
        """Some calls, and perhaps a fault."""
        rng = self.rng
        for _ in range(rng.randrange(6)):
            self.ask()
        self.clock.run_for(rng.choice([1, 5, 30, 200]))
        number = rng.choice(self.numbers)
        world = self.worlds[number]
        chance = rng.random()
        if chance < 0.08 and world.up:
            self.crash(number)
        elif chance < 0.16 and world.up:
            world.pause(rng.choice([30, 300, 900]))
        elif chance < 0.26:
            self.network.isolate(number)
        elif chance < 0.30:
            self.network.cut(number, rng.choice([each for each in self.numbers if each != number]))
        elif chance < 0.50:
            self.network.heal()
        elif chance < 0.60:
            vnodes = self.engines[number].runtime.vnodes
            if world.up and vnodes:
                rng.choice(list(vnodes.values())).transfer(rng.choice(self.numbers))
        elif chance < 0.8:
            for each, other in self.worlds.items():
                if not other.up:
                    self.start(each)


@pytest.mark.parametrize("seed", range(6))
def test_finds_nothing_in_right_nodes(seed: int) -> None:
    """Crashes, pauses, cuts, transfers; and jobs are sent all the while."""
    group = Group(seed)
    group.set_up()
    for _ in range(60):
        group.happen()
    assert group.invariants.committed_index((0, 0)) > 2
    assert group.recipients.arrivals


def test_send_that_stood_still_does_not_leave() -> None:
    """Its process slept while it waited for its connection, and another leader has sent it since.

    (Named: it left all the same, after the attempt that succeeded.)
    """
    group = Group(1)
    group.recipients.connect_rate = 1.0
    group.set_up()
    group.clock.run_for(500)
    while not group.recipients.sendings:
        group.ask()
        until_ms = group.clock.now_ms + 1
        group.clock.run_until(until_ms, lambda: bool(group.recipients.sendings))
    first = group.recipients.sendings[0]
    assert first.left_ms is None
    group.worlds[first.node].pause(3_000)
    group.clock.run_for(2_000)
    assert group.recipients.arrivals
    group.clock.run_for(2_000)
    assert first.left_ms is None
    assert first.ended_ms is not None


# --- planted faults ------------------------------------------------------------------------------


def _says_at_once(self: Vnode, messages: Sequence[Message], mono_ms: float) -> None:
    """Nothing waits for the batch."""
    self.early += messages


def _believes_in_itself(self: Vnode, mono_ms: float) -> bool:
    """Who leads fires."""
    return self.serving


def _sends_when_claimed(self: Sends, items: list[Item]) -> None:
    """Whatever the time."""
    for item in items:
        self._send(item, max(self._world.wall_ms(), item.due_ms))


def _claims_nothing(self: Claims, head: VnodeHead, items: list[Item], now_ms: int) -> None:
    """It takes its intent for committed."""
    store = self._sends._store
    for item in items:
        row = store.get(head.vnode.keys.job + item.job_id.encode())
        assert row is not None
        mark = ClaimMark(head.vnode.term, 1, item.attempts + 1, 1, now_ms, now_ms, 0)
        item.record = msgspec.structs.replace(read_job(row), claim=mark)
        head.machine.firing[item.job_id] = item.record
        item.stage = CLAIMED
    self._sends.hold(items)


@pytest.mark.parametrize(
    ("owner", "name", "planted", "rule"),
    [
        (Vnode, "_sort_messages", _says_at_once, "S5"),
        (Vnode, "may_fire", _believes_in_itself, "S9"),
        (Sends, "hold", _sends_when_claimed, "S9"),
        (Claims, "_claim", _claims_nothing, "S9"),
    ],
)
def test_finds_what_is_planted(
    owner: type, name: str, planted: Any, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one of the first seeds, at the moment when it happens."""
    monkeypatch.setattr(owner, name, planted)
    found = (_violation(seed) for seed in range(20))
    violation = next((each for each in found if each is not None), None)
    assert violation is not None
    assert rule == violation.rule


def _violation(seed: int) -> Violation | None:
    group = Group(seed)
    try:
        group.set_up()
        for _ in range(60):
            group.happen()
    except Violation as violation:
        return violation
    return None
