"""A route that was closed is closed on whichever node comes to lead."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from node.gathering.questions import Group
from node.replicas import job_machine
from tests.sim.node import SimNode
from tests.unit.node.gathering.made import VNODES, Spread, put_command
from timemachine import limits
from timemachine.errors import StoreDamaged
from timemachine.frames import read_frame, write_frame
from timemachine.replica import meta as m
from timemachine.ring import vnode_of


class _Closing(Spread):
    """Three nodes, jobs of one route, and what its recipient got of them."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__(seed)
        self.route = self.put_route()
        self.jobs = 0

    def store(self, **fields: Any) -> m.MetaResult:
        """Change the route."""
        self.route = replace(self.route, **fields)
        result = self.nodes.ask_meta(
            lambda now_ms: m.PutRoute(
                now_ms=now_ms, route=self.route, expected_version=self.route.version
            )
        )
        stored = result.route
        assert stored is not None
        self.route = stored
        return result

    def begin_seal(self) -> list[Any]:
        """The node leader asks for seals; the answer appears in the list."""
        answers: list[Any] = []
        self.nodes.engines[self.nodes.leader((0, 0))].seal("default", answers.append)
        return answers

    def seal(self) -> list[Group]:
        """Those vnodes that could not be sealed."""
        answers = self.begin_seal()
        self.world.run_until(lambda: bool(answers), 2_000_000)
        assert isinstance(answers[0], list)
        return answers[0]

    def put_due(self, count: int) -> None:
        """Jobs that are due in a moment."""
        now_ms = self.world.wall_ms()
        names = [f"job-{self.jobs + number}" for number in range(count)]
        self.jobs += count
        self.put([(name, now_ms + 5) for name in names], route=self.route)

    def put_some(self, count: int) -> None:
        """The same, where somebody leads their vnodes; nobody waits for the answers."""
        for number in range(self.jobs, self.jobs + count):
            group = (self.collection.uid, vnode_of(f"job-{number}", VNODES))
            leader = self.nodes.leader(group)
            if leader:
                command = put_command(f"job-{number}", 0, self.world.wall_ms(), b"null")
                command = replace(command, route=self.route.name, route_uid=self.route.uid)
                self.nodes.engines[leader].runtime.propose(self.nodes.vnode(leader, group), command)
        self.jobs += count

    def sent(self) -> int:
        """How many requests have reached the recipient; a node may begin some and withdraw them."""
        senders: list[Any] = [engine._sender for engine in self.nodes.engines.values()]
        return sum(len(sender.received) for sender in senders)

    def sealed(self, group: Group) -> list[int]:
        """The seals of all replicas."""
        return [
            job_machine(engine.runtime.vnodes[group]).state.sealed
            for engine in self.nodes.engines.values()
        ]

    def hold_meta(self, number: int) -> Callable[[], None]:
        """Cut a node off from meta alone; gives what ends it."""
        engine = self.nodes.engines[number]
        receive = engine.consensus.receive

        def filtered(data: bytes, sender: int = 0) -> None:
            frame = read_frame(data)
            left = [each for each in frame.messages if (each.uid, each.index) != (0, 0)]
            receive(write_frame(replace(frame, messages=left)), sender)

        engine.consensus.receive = filtered  # type: ignore[method-assign]

        def end() -> None:
            engine.consensus.receive = receive  # type: ignore[method-assign]

        return end


def test_all_vnodes_are_sealed_where_all_nodes_answer() -> None:
    """Within a few steps, on a majority of the replicas of each; then no send starts."""
    closing = _Closing()
    closing.put_due(30)
    closing.world.run_for(4)
    closing.store(paused=True)
    began_ms = closing.world.now_ms
    assert [] == closing.seal()
    assert closing.world.now_ms - began_ms < 200
    for group in closing.groups:
        assert 2 <= sum(seal > 0 for seal in closing.sealed(group))
    sent = closing.sent()
    closing.put_due(10)
    closing.world.run_for(3_000)
    assert sent == closing.sent()
    closing.store(paused=False)
    closing.world.run_for(3_000)
    assert 40 == closing.sent()


def test_a_vnode_that_nobody_leads_is_pending() -> None:
    """Until it has a leader; whoever asks again then is told that all are sealed."""
    closing = _Closing()
    leader = closing.nodes.leader((0, 0))
    cut = closing.nodes.others(leader)[0]
    led = [group for group in closing.groups if closing.nodes.leader(group) == cut]
    assert led
    closing.store(paused=True)
    closing.nodes.cut.add(cut)
    answers = closing.begin_seal()
    closing.world.run_for(100)
    assert [] == answers
    closing.world.run_until(lambda: bool(answers), 2_000_000)
    closing.world.run_until(lambda: all(map(closing.nodes.leader, closing.groups)), 2_000_000)
    assert [] == closing.seal()


def test_a_replica_that_was_given_up_leaves_no_seal_behind() -> None:
    """Its node may never have another one of the vnode, to let go of it."""
    closing = _Closing()
    group = closing.groups[0]
    leader = closing.nodes.leader(group)
    assert [] == closing.seal()
    engine = closing.nodes.engines[leader]
    assert group in engine._seals._sealed
    vnode = closing.nodes.vnode(leader, group)
    engine.quarantine.stop(vnode, StoreDamaged("A row is damaged.", key=vnode.keys.state))
    assert group not in engine.runtime.vnodes
    assert group not in engine._seals._sealed


def test_pending_are_named_when_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that takes no part keeps its vnodes from being sealed."""
    monkeypatch.setattr(limits, "SEAL_WAIT_MS", 400)
    closing = _Closing()
    leader = closing.nodes.leader((0, 0))
    behind = closing.nodes.others(leader)[0]
    end = closing.hold_meta(behind)
    closing.store(paused=True)
    led = [group for group in closing.groups if closing.nodes.leader(group) == behind]
    assert led
    assert led == closing.seal()
    end()
    closing.world.run_for(1_000)
    assert [] == closing.seal()


def test_a_new_leader_that_does_not_know_yet_fires_nothing() -> None:
    """It has the seal, and waits until it has heard what it is about."""
    closing = _Closing()
    leader = closing.nodes.leader((0, 0))
    behind = closing.nodes.others(leader)[0]
    for group in closing.groups:
        closing.move(group, leader)
    end = closing.hold_meta(behind)
    closing.store(paused=True)
    assert [] == closing.seal()
    closing.put_due(12)
    for group in closing.groups:
        closing.move(group, behind)
    assert closing.nodes.engines[behind].meta.routes_by_uid[closing.route.uid].open
    closing.world.run_for(2_000)
    assert 0 == closing.sent()
    end()
    closing.world.run_for(2_000)
    assert not closing.nodes.engines[behind].meta.routes_by_uid[closing.route.uid].open
    assert 0 == closing.sent()
    closing.store(paused=False)
    closing.world.run_for(2_000)
    assert 12 == closing.sent()


def test_a_deleted_route_is_closed_too() -> None:
    """Nothing is sent by it after the seals."""
    closing = _Closing()
    closing.put_due(20)
    closing.world.run_for(3)
    closing.nodes.ask_meta(lambda now_ms: m.DeleteRoute(now_ms=now_ms, db="default", name="hook"))
    assert [] == closing.seal()
    sent = closing.sent()
    closing.world.run_for(3_000)
    assert sent == closing.sent()


def test_a_single_node_commits_nothing_for_it() -> None:
    """Nobody else can lead: what it has let go of is enough."""
    node = SimNode(1)
    assert node.start()
    collection = node.put_collection()
    assert collection is not None
    assert node.put_route()
    assert node.put_route(paused=True)
    vnodes = [node.engine.runtime.vnodes[collection.uid, index] for index in range(3)]
    before = [vnode.machine.applied_index for vnode in vnodes]
    answers: list[Any] = []
    node.engine.seal("default", answers.append)
    assert [[]] == answers
    assert before == [vnode.machine.applied_index for vnode in vnodes]


@pytest.mark.parametrize("seed", range(12))
def test_nothing_starts_after_all_are_sealed(seed: int) -> None:
    """Whoever leads, and whoever is cut off from meta or from all, in whatever order."""
    closing = _Closing(seed)
    rng, nodes = closing.world.rng, closing.nodes
    closing.store(max_in_flight=rng.choice([3, 64]))
    for _ in range(4):
        closing.put_due(rng.randrange(1, 25))
        closing.world.run_for(rng.choice([0, 2, 5, 20]))
        leader = nodes.leader((0, 0))
        odd = rng.choice(nodes.others(leader))
        end = closing.hold_meta(odd) if rng.random() < 0.7 else None
        closing.store(paused=True)
        answers = closing.begin_seal()
        if rng.random() < 0.5:
            closing.world.run_for(rng.choice([1, 5, 30]))
            nodes.cut.add(odd)
        while not answers:
            closing.world.run_for(1)
        pending = answers[0]
        sent = closing.sent()
        closing.put_some(8)
        for group in closing.groups:
            now = nodes.leader(group)
            if rng.random() < 0.6 and now and now not in nodes.cut:
                to = rng.choice(nodes.others(now))
                nodes.engines[now].hand_over(nodes.vnode(now, group), to, lambda _: None)
        closing.world.run_for(rng.choice([50, 1_500]))
        if rng.random() < 0.5:
            nodes.cut.clear()
            closing.world.run_for(1_500)
        if not pending:
            assert sent == closing.sent()
        if end is not None:
            end()
        nodes.cut.clear()
        closing.world.run_for(1_500)
        assert [] == closing.seal()
        sent = closing.sent()
        closing.world.run_for(500)
        assert sent == closing.sent()
        closing.world.run_until(lambda: bool(nodes.leader((0, 0))), 2_000_000)
        closing.store(paused=False)
    closing.world.run_for(6_000)
    assert closing.sent()
    assert VNODES == len(closing.groups)
