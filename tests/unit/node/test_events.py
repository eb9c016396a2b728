"""Events on three nodes: whoever leads a group tells, until it is known to be told."""

import json
from functools import partial
from typing import Any

import pytest
from msgspec.structs import replace

from node.secrets import seal_value
from tests.sim.node import KEY, headers_of
from tests.unit.node.gathering.made import Spread
from timemachine import limits
from timemachine.errors import Overloaded
from timemachine.events import EVENTS_COLLECTION
from timemachine.model import Retry, Route, SealedKey
from timemachine.outbound import Outcome, Request
from timemachine.replica import meta as m
from timemachine.ring import vnode_of
from timemachine.signing import format_secret

NAMES = [f"job-{number}" for number in range(12)]


class _Alerting(Spread):
    """Three nodes and a route whose recipient answers 500, which alerts `ops`."""

    def __init__(self) -> None:
        super().__init__()
        made = self.put_route()
        secret = seal_value(
            KEY, format_secret(b"s" * 32), nonce=b"n" * 12, db="default", name="ops"
        )
        self.store(
            replace(
                made,
                name="ops",
                version=0,
                webhook_url="http://ops.test/",
                body="meta",
                secrets=(SealedKey(sealed=secret),),
            )
        )
        once = Retry(schedule_ms=(), max_attempts=1)
        self.route = self.store(replace(made, retry=once, alert_route="ops"))
        for engine in self.engines:
            engine._sender.answer = self._answer

    @property
    def engines(self) -> list[Any]:
        """Those of all nodes."""
        return list(self.nodes.engines.values())

    def store(self, route: Route) -> Route:
        """Write a route."""
        result = self.nodes.ask_meta(
            lambda now_ms: m.PutRoute(now_ms=now_ms, route=route, expected_version=route.version)
        )
        assert result.route is not None
        return result.route

    def _answer(self, request: Request) -> Outcome:
        status = 200 if request.target.host == "ops.test" else 500
        return Outcome(status=status, bytes_sent=True)

    def kill(self, *names: str) -> None:
        """Jobs that die at once."""
        now_ms = self.world.wall_ms()
        self.put([(name, now_ms) for name in names], route=self.route)

    def webhooks(self) -> list[tuple[str, str]]:
        """(webhook-id, job) of what the alert route got, of any node."""
        return [
            (headers_of(request)["webhook-id"], json.loads(request.body)["data"]["job"])
            for engine in self.engines
            for _, request in engine._sender.received
            if request.target.host == "ops.test"
        ]

    def told(self) -> set[str]:
        """The jobs that were told as dead."""
        return {job for _, job in self.webhooks()}

    def waiting(self) -> int:
        """What leaders have still to tell."""
        return sum(engine.events.waiting for engine in self.engines)

    def once(self, *names: str) -> bool:
        """Whether these jobs were told, each by one webhook that came once, and no other was."""
        return sorted(names) == sorted(job for _, job in self.webhooks())


def test_every_leader_tells_wherever_the_jobs_of_events_belong() -> None:
    """The collection of events is made once, by whoever comes first, and has its own leaders."""
    cluster = _Alerting()
    cluster.kill(*NAMES)
    cluster.world.run_for(8_000)
    assert cluster.once(*NAMES)
    assert 0 == cluster.waiting()
    assert len(NAMES) == sum(engine.events.told.get("job.dead", 0) for engine in cluster.engines)
    collections = cluster.engines[0].meta.collections
    assert limits.EVENT_VNODES == collections["default", EVENTS_COLLECTION].num_vnodes


def _swallow(cluster: _Alerting, *, after: bool) -> list[int]:
    """Have nobody hear of the next creates of each node, whether they are done or not."""
    swallowed = []

    def instead(engine: Any) -> None:
        create = engine.events._propose_creates

        def propose(collection: Any, creates: Any, done: Any) -> None:
            del done
            engine.events._propose_creates = create
            swallowed.append(engine.number)
            if after:
                create(collection, creates, lambda _: None)

        engine.events._propose_creates = propose

    for engine in cluster.engines:
        instead(engine)
    return swallowed


@pytest.mark.parametrize("after", [False, True])
def test_what_is_never_answered_is_asked_again(after: bool) -> None:
    """And is the same job, where it was done."""
    cluster = _Alerting()
    swallowed = _swallow(cluster, after=after)
    cluster.kill("job-1")
    cluster.world.run_for(limits.EVENT_AGAIN_MS / 2)
    assert (1, 1) == (len(swallowed), cluster.waiting())
    cluster.world.run_for(limits.EVENT_AGAIN_MS)
    assert cluster.once("job-1")
    assert 0 == cluster.waiting()


@pytest.mark.parametrize("after", [False, True])
def test_the_next_leader_tells_what_the_one_before_did_not_hear_of(after: bool) -> None:
    """Without waiting for anything; what was told already is the same webhook."""
    cluster = _Alerting()
    swallowed = _swallow(cluster, after=after)
    cluster.kill("job-1")
    cluster.world.run_until(lambda: bool(swallowed))
    for engine in cluster.engines:
        engine.events._propose_creates = engine.propose_creates
    group = (cluster.collection.uid, vnode_of("job-1", cluster.collection.num_vnodes))
    cluster.move(group, cluster.nodes.others(cluster.nodes.leader(group))[0])
    cluster.world.run_for(5_000)
    assert cluster.once("job-1")
    assert 0 == cluster.waiting()


def test_events_wait_where_nothing_can_be_created(monkeypatch: pytest.MonkeyPatch) -> None:
    """For room on the disks, and for room for their collection."""
    cluster = _Alerting()
    monkeypatch.setattr(limits, "COLLECTIONS_MAX", 1)
    cluster.kill("job-1")
    cluster.world.run_for(4_000)
    assert (1, set()) == (cluster.waiting(), cluster.told())
    for engine in cluster.engines:
        engine.space_low = True
    monkeypatch.undo()
    cluster.world.run_for(4_000)
    assert (1, set()) == (cluster.waiting(), cluster.told())
    for engine in cluster.engines:
        engine.space_low = False
    cluster.world.run_for(15_000)
    assert cluster.once("job-1")


def test_a_stopped_route_is_told_by_whoever_leads_meta() -> None:
    """Also by the next, where the first one died before."""
    cluster = _Alerting()
    for engine in cluster.engines:
        engine._sender.answer = lambda request: Outcome(
            status=200 if request.target.host == "ops.test" else 410, bytes_sent=True
        )
    leader = cluster.nodes.leader((0, 0))
    cluster.nodes.engines[leader].events.look_at_meta = lambda: None  # type: ignore[method-assign]
    cluster.kill("job-1")
    cluster.world.run_until(lambda: bool(cluster.engines[0].meta.events))
    cluster.nodes.stop(leader)
    cluster.world.run_for(60_000)
    kinds = [
        json.loads(request.body)["type"]
        for engine in cluster.engines
        for _, request in engine._sender.received
        if request.target.host == "ops.test"
    ]
    assert 1 == kinds.count("route.disabled")


def _as_it_is(command: m.DisableRoute, _: int) -> m.DisableRoute:
    return command


def test_a_database_without_room_keeps_no_other_waiting() -> None:
    """Routes of two were stopped; the events of the first one have nowhere to go."""
    cluster = _Alerting()
    nodes = cluster.nodes
    nodes.ask_meta(lambda now_ms: m.PutDatabase(now_ms=now_ms, name="a"))
    stuck = cluster.store(replace(cluster.route, db="a", version=0))
    for route in (stuck, cluster.route):
        command = m.DisableRoute(now_ms=1, uid=route.uid, version=route.version, reason="gone")
        nodes.ask_meta(partial(_as_it_is, command))
    # Before anything is told: no node may make the collection of database `a`.
    for engine in cluster.engines:
        propose = engine.events._propose_meta

        def refusing(command: Any, done: Any, propose: Any = propose) -> None:
            if command.db == "a":
                done(m.MetaResult(kind="refused", code="limit_reached"))
            else:
                propose(command, done)

        engine.events._propose_meta = refusing
    cluster.world.run_for(20_000)
    assert ["a"] == [each.db for each in cluster.engines[0].meta.events.values()]


def test_what_is_refused_is_not_asked_for_again_at_every_commit() -> None:
    """Named regression: a vnode with events that had nowhere to go asked with each of its cycles.

    So a cluster that refused for load got a hundred creates more from each commit.
    """
    cluster = _Alerting()
    asked: list[int] = []

    def refuse(_: Any, creates: Any, done: Any) -> None:
        asked.append(len(creates))
        cluster.world.call_later(1, partial(done, [Overloaded("No room.")] * len(creates)))

    creating = [engine.events._propose_creates for engine in cluster.engines]
    for engine in cluster.engines:
        engine.events._propose_creates = refuse
    for number in range(100):
        cluster.kill(f"job-{number}")
        cluster.world.run_for(100)
    seconds, vnodes = 10, cluster.collection.num_vnodes
    assert 0 < len(asked) <= (seconds + 5) * vnodes
    for engine, create in zip(cluster.engines, creating, strict=True):
        engine.events._propose_creates = create
    cluster.world.run_for(10_000)
    assert 0 == cluster.waiting()
    assert len(cluster.told()) > 0
