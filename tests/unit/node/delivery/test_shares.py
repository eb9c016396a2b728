"""A node's share of the routes' limits, as other nodes come and go."""

from typing import Any

from node.delivery.shares import Shares
from node.secrets import seal_value
from tests.sim.node import KEY
from tests.sim.world import SimSender, SimWorld
from tests.unit.delivery.made import due, route
from tests.unit.node.three import ThreeNodes
from timemachine import limits
from timemachine.delivery.shares import SOLE_SHARE, Share
from timemachine.delivery.window import Window
from timemachine.model import Rate, Route, SealedKey
from timemachine.replica import commands as c
from timemachine.replica import meta as m
from timemachine.signing import format_secret


def test_shares_follow_the_members() -> None:
    """A new member lessens them at once; one that goes leaves its own to the others later."""
    world = SimWorld(1)
    woken: list[bool] = []
    window = Window(lambda: woken.append(True))
    queue = window.queue(route(max_in_flight=9))
    for number in range(20):
        due(queue, 0, str(number))
    shares = Shares(window, world)
    assert SOLE_SHARE == window.share
    shares.set_members(2, {1, 2, 3})
    assert Share(1, 3) == window.share
    assert [True] == woken
    assert 3 == len(queue.grant(1_000, 1_000, 100))
    shares.set_members(2, {1, 2, 3, 4})
    assert Share(1, 4) == window.share
    shares.set_members(2, {2, 3, 4})
    assert Share(1, 4) == window.share
    world.run_for(limits.SHARE_BLOCKED_MS - 1)
    shares.set_members(2, {2, 3})
    assert Share(1, 4) == window.share
    world.run_for(1)
    assert Share(0, 3) == window.share
    world.run_for(limits.SHARE_BLOCKED_MS)
    assert Share(0, 2) == window.share
    assert 2 == len(queue.grant(1_000, 1_000, 100))
    assert 5 == window.queue(route(uid=8, max_in_flight=9))._in_flight_max


def test_this_node_always_counts() -> None:
    """Also before meta says that it is a member, or when it says that it is none any more."""
    window = Window(lambda: None)
    Shares(window, SimWorld(1)).set_members(4, {1, 2, 3})
    assert Share(3, 4) == window.share


class _Storm:
    """Jobs that are due at once in the vnodes of three nodes, and what their recipient sees."""

    def __init__(self, **fields: Any) -> None:
        self.nodes = ThreeNodes()
        collection = self.nodes.ask_meta(
            lambda now_ms: m.PutCollection(now_ms=now_ms, db="default", name="jobs", num_vnodes=6)
        ).collection
        assert collection is not None
        self.collection = collection
        secret = seal_value(KEY, format_secret(b"s" * 32), nonce=b"n" * 12, db="default", name="r")
        of = route(uid=0, db="default", version=0, secrets=(SealedKey(sealed=secret),), **fields)
        stored = self.nodes.ask_meta(
            lambda now_ms: m.PutRoute(now_ms=now_ms, route=of, expected_version=0)
        ).route
        assert stored is not None
        self.route: Route = stored
        groups = [(collection.uid, index) for index in range(6)]
        world = self.nodes.world
        world.run_until(lambda: all(map(self.nodes.leader, groups)), 2_000_000)
        assert {1, 2, 3} == {self.nodes.leader(group) for group in groups}

    @property
    def senders(self) -> list[SimSender]:
        """Those of all nodes."""
        return [engine._sender for engine in self.nodes.engines.values()]  # type: ignore[misc]

    @property
    def times_ms(self) -> list[int]:
        """When which webhook came."""
        return sorted(at_ms for sender in self.senders for at_ms, _ in sender.received)

    def put(self, count: int) -> None:
        """Create jobs."""
        answers: list[Any] = []
        engine = self.nodes.engines[1]
        for number in range(count):
            command = c.PutJob(
                now_ms=engine.now_ms(),
                job_id=f"job-{number}",
                uid=engine.random_bytes(16),
                trigger_ms=engine.now_ms(),
                delay_ms=None,
                route="r",
                route_uid=self.route.uid,
                meta=b"{}",
            )
            engine.propose_job(self.collection, f"job-{number}", command, answers.append)
        self.nodes.world.run_until(lambda: len(answers) == count)


def test_in_flight_holds_over_three_nodes() -> None:
    """Never more attempts under way than the route allows; all nodes together use all of it."""
    storm = _Storm(max_in_flight=5)
    deliveries = [engine.delivery for engine in storm.nodes.engines.values()]
    storm.put(120)
    most = 0
    for _ in range(100_000):
        most = max(most, sum(delivery.in_flight for delivery in deliveries))
        if len(storm.times_ms) == 120:
            break
        assert storm.nodes.world.step()
    assert 120 == len(storm.times_ms)
    assert 5 == most


def test_a_rate_holds_over_three_nodes() -> None:
    """A small one, too: then in each period some have their turn."""
    for count in (7, 2):
        storm = _Storm(rate=Rate(count=count, period_ms=2_000))
        storm.put(40)
        while len(storm.times_ms) < 40:
            storm.nodes.world.run_for(1_000)
        periods = [at_ms // 2_000 for at_ms in storm.times_ms]
        # Those of one end and those of the next beginning may meet, as on one node.
        assert max(periods.count(each) for each in periods) <= (2 * count if count > 2 else 2)
        assert storm.times_ms[-1] - storm.times_ms[0] >= (40 // count - 3) * 2_000
