"""What the meta group is told of routes whose attempts only fail."""

from typing import Any

import msgspec

from tests.unit.node.cluster import ERROR, OK, ROUTE, Cluster
from tests.unit.node.delivery.test_credits import Lending
from timemachine import limits
from timemachine.failing import failed, succeeded
from timemachine.model import Failing, JobState, Retry
from timemachine.outbound import Outcome
from timemachine.replica.meta import DisableRoute, RouteFailed, RouteSucceeded

GONE = Outcome(status=410, bytes_sent=True)
AFTER_MS = 600_000
"""The clock begins with failures a minute apart, and a row is told after five seconds."""


class _Told:
    """One node, and a meta group that takes up what it is told while it `hears`."""

    def __init__(self) -> None:
        self.cluster = cluster = Cluster()
        cluster.elect(1)
        cluster.set_route(
            msgspec.structs.replace(
                ROUTE,
                breaker=None,
                disable_after_ms=AFTER_MS,
                retry=Retry(schedule_ms=(1_000,), max_attempts=1_000, jitter=0.0),
            )
        )
        self.commands: list[Any] = []
        self.hears = True
        self.disabled = False
        cluster.nodes[1].delivery._settles._failures._tell = self.tell
        cluster.put("a")
        self._answered = 0

    def tell(self, command: DisableRoute | RouteFailed | RouteSucceeded) -> None:
        self.commands.append(command)
        if not self.hears or isinstance(command, DisableRoute):
            return
        route = self.cluster.meta.routes_by_uid[ROUTE.uid]
        if isinstance(command, RouteFailed):
            known, self.disabled = failed(route.failing, command.since_ms, command.at_ms, AFTER_MS)
        else:
            known = succeeded(route.failing, command.at_ms)
        changed = msgspec.structs.replace(route, failing=known)
        self.cluster.meta.routes_by_uid[ROUTE.uid] = changed

    def live(self, seconds: int, outcome: Outcome = ERROR) -> None:
        """Everything that is sent is answered so."""
        sender = self.cluster.nodes[1].sender
        for _ in range(seconds * 10):
            self.cluster.run(100)
            for number in range(self._answered, len(sender.requests)):
                sender.answer(number, outcome)
            self._answered = len(sender.requests)


def test_a_row_of_failures_is_told_a_few_times() -> None:
    """When it has lasted, when the clock begins, when it is to be disabled; no more."""
    told = _Told()
    told.live(4)
    assert [] == told.commands
    told.live(3)
    assert 1 == len(told.commands)
    told.live(50)
    assert 1 == len(told.commands)
    told.live(10)
    assert (2, False) == (len(told.commands), told.disabled)
    told.live(590)
    assert (2, False) == (len(told.commands), told.disabled)
    told.live(10)
    assert told.disabled


def test_a_success_is_told_once_and_only_if_failures_were() -> None:
    """Most recipients are never spoken of."""
    told = _Told()
    told.live(3)
    told.live(2, OK)
    assert [] == told.commands
    told.cluster.put("b")
    told.live(8)
    told.live(2, OK)
    for number in range(5):
        told.cluster.put(f"c{number}")
    told.live(2, OK)
    assert [RouteFailed, RouteSucceeded] == [type(each) for each in told.commands]
    assert 0 == told.cluster.meta.routes_by_uid[ROUTE.uid].failing.first_ms


def test_who_is_not_heard_tells_it_again_after_a_while() -> None:
    """And not with every attempt."""
    told = _Told()
    told.hears = False
    told.live(7)
    assert 1 == len(told.commands)
    told.live(limits.FAILING_TOLD_MS // 1_000 + 2)
    assert 2 == len(told.commands)


def test_who_is_not_heard_does_not_tell_each_change() -> None:
    """What it tells has to wait, where outcomes for leaders do: a flood would push these out."""
    told = _Told()
    told.live(58)
    assert 1 == len(told.commands)
    told.hears = False
    for number in range(10):
        told.cluster.put(f"b{number}")
        told.live(1, OK)
        told.cluster.put(f"c{number}")
        told.live(1)
    assert {RouteFailed, RouteSucceeded} == {type(each) for each in told.commands[1:]}
    assert len(told.commands) <= 1 + 2 * 3


def test_that_a_recipient_wants_no_more_is_told_once() -> None:
    """And again after a while, or of another version: what is told waits with outcomes."""
    told = _Told()
    told.hears = False
    for number in range(30):
        told.cluster.put(f"b{number}")
    told.live(1, GONE)
    (command,) = told.commands
    assert DisableRoute(now_ms=command.now_ms, uid=1, version=1, reason="gone") == command
    told.cluster.put("c")
    told.live(limits.FAILING_TOLD_MS // 1_000 + 1, OK)
    told.cluster.put("d")
    told.live(1, GONE)
    before = told.cluster.meta.routes_by_uid[ROUTE.uid]
    told.cluster.set_route(msgspec.structs.replace(before, version=2))
    told.cluster.put("e")
    told.live(1, GONE)
    assert [1, 1, 2] == [each.version for each in told.commands]


def test_what_was_sent_by_a_version_before_says_nothing_of_this_one() -> None:
    """Its owner has changed something; what this node has seen itself is forgotten with it."""
    told = _Told()
    told.live(4)
    before = told.cluster.meta.routes_by_uid[ROUTE.uid]
    told.cluster.set_route(
        msgspec.structs.replace(before, version=2, failing=Failing(cleared_ms=1))
    )
    told.live(4)
    assert [] == told.commands


def test_a_cluster_disables_a_route_that_only_fails() -> None:
    """Over real nodes: its jobs are held then, and enabling it again sends them."""
    storm = Lending(
        max_in_flight=6,
        breaker=None,
        disable_after_ms=20_000,
        retry=Retry(schedule_ms=(500,), max_attempts=1_000, max_age_ms=10**9),
    )
    recipient: Any = storm.recipient

    def fail(request: Any, done: Any, may_leave: Any = None) -> Any:
        return send(request, lambda _: done(ERROR), may_leave)

    send = recipient.send
    recipient.send = fail
    storm.put(3)
    meta = storm.nodes.engines[storm.leader].meta
    storm.world.run_until(
        lambda: meta.routes_by_uid[storm.route.uid].disabled is not None, 10_000_000
    )
    closed = meta.routes_by_uid[storm.route.uid]
    assert ("failing", False) == (closed.disabled, closed.open)
    storm.world.run_for(2_000)
    for engine in storm.nodes.engines.values():
        assert ("disabled", "failing") == engine.delivery.condition(
            engine.meta.routes_by_uid[storm.route.uid]
        )[:2]
    counts = storm.nodes.engines[storm.leader].counts(storm.collection)
    assert 3 == counts[JobState.HELD.name.lower()]
    recipient.send = send
    storm.put_route(msgspec.structs.replace(closed, disabled=None))
    storm.world.run_for(5_000)
    counts = storm.nodes.engines[storm.leader].counts(storm.collection)
    assert 3 == counts["delivered"]
