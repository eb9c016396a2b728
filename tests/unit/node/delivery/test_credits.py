"""Shares that are lent among three nodes, and what a recipient sees of it."""

from collections.abc import Callable
from typing import Any

import msgspec

from node.calls import UNKNOWN_KIND
from node.delivery.credits import KIND
from node.secrets import seal_value
from tests.sim.node import KEY
from tests.sim.world import SimWorld
from tests.unit.delivery.made import route
from tests.unit.node.three import ThreeNodes
from timemachine import codec, limits
from timemachine.delivery.credits import Ask, Kind, Limit, Wish, read_answer
from timemachine.errors import TimeMachineError, Unavailable
from timemachine.model import Collection, Rate, Route, SealedKey
from timemachine.outbound import Outcome, Request
from timemachine.replica import commands as c
from timemachine.replica import meta as m
from timemachine.signing import format_secret
from timemachine.storage.keys import DEBTORS_KEY


class _Recipient:
    """Holds each answer for so long, and counts what it holds; `most` at the same time."""

    def __init__(self, world: SimWorld) -> None:
        self._world = world
        self.hold_ms = 1_000.0
        self.open = 0
        self.most = 0
        self.seen = 0
        self.seen_ms: list[float] = []

    def send(self, request: Request, done: Callable[[Outcome], None], _: Any = None) -> Any:
        """See Sender."""
        self.open += 1
        self.seen += 1
        self.seen_ms.append(self._world.mono_ms())
        self.most = max(self.most, self.open)
        self._world.call_later(min(self.hold_ms, request.timeout_ms), lambda: self._answer(done))
        return None

    def _answer(self, done: Callable[[Outcome], None]) -> None:
        self.open -= 1
        done(Outcome(status=200, bytes_sent=True))


class Lending:
    """A route over three nodes, one of which leads the only vnode."""

    def __init__(self, *, num_vnodes: int = 1, **fields: Any) -> None:
        self.nodes = nodes = ThreeNodes()
        self.world = nodes.world
        self.created = 0
        self.recipient = _Recipient(nodes.world)
        for engine in nodes.engines.values():
            engine.delivery._sends._sender = self.recipient
        made = nodes.ask_meta(
            lambda now_ms: m.PutCollection(
                now_ms=now_ms, db="default", name="jobs", num_vnodes=num_vnodes
            )
        ).collection
        assert made is not None
        self.collection: Collection = made
        secret = seal_value(KEY, format_secret(b"s" * 32), nonce=b"n" * 12, db="default", name="r")
        self.route = self.put_route(
            route(uid=0, db="default", version=0, secrets=(SealedKey(sealed=secret),), **fields)
        )
        groups = [(made.uid, index) for index in range(num_vnodes)]
        self.world.run_until(lambda: all(map(nodes.leader, groups)), 2_000_000)
        self.leader = nodes.leader(groups[0])

    def put_route(self, of: Route) -> Route:
        """The route is this one from now on."""
        made = self.nodes.ask_meta(
            lambda now_ms: m.PutRoute(now_ms=now_ms, route=of, expected_version=of.version)
        ).route
        assert made is not None
        return made

    def put(self, count: int) -> None:
        """Create jobs that are due."""
        answers: list[Any] = []
        engine = self.nodes.engines[self.leader]
        first, self.created = self.created, self.created + count
        for number in range(first, self.created):
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
        self.world.run_until(lambda: len(answers) == count)

    def owned(self, number: int) -> int:
        """What a node may have in flight of its own."""
        window = self.nodes.engines[number].delivery._window
        return window.share.of(self.route.max_in_flight) - window.lent(
            Limit(self.route.uid, Kind.FLIGHT)
        )

    def ask(self, to: int, sender: int, ask: Ask) -> bytes | TimeMachineError:
        """Have a node answer a question that another one has not asked."""
        answers: list[bytes | TimeMachineError] = []
        calls = self.nodes.engines[to].calls
        try:
            calls._handlers[KIND](sender, codec.encode(ask), answers.append)
        except TimeMachineError as error:
            return error
        return answers[0]


def test_a_node_that_leads_all_of_it_uses_what_others_do_not() -> None:
    """All but the one that each of them keeps, and never more than the limit."""
    storm = Lending(max_in_flight=12)
    storm.put(100)
    storm.world.run_until(lambda: storm.recipient.seen == 100)
    assert 10 == storm.recipient.most
    storm.world.run_for(3_000)
    assert [4, 4, 4] == [storm.owned(number) for number in (1, 2, 3)]


def test_what_is_lent_comes_back_when_it_is_needed() -> None:
    """Others begin to need theirs while one uses nearly all."""
    storm = Lending(num_vnodes=6, max_in_flight=12)
    storm.put(1)
    window = storm.nodes.engines[storm.leader].delivery._window
    storm.put(300)
    storm.world.run_until(lambda: storm.recipient.seen == 301)
    assert 12 == storm.recipient.most
    assert storm.route.uid in window.queues


def test_what_is_given_back_is_used_no_more() -> None:
    """Also by a queue that has nothing to do at that moment (found by the simulator: S13)."""
    storm = Lending(max_in_flight=12)
    storm.recipient.hold_ms = 100.0
    storm.put(40)
    storm.world.run_until(lambda: storm.recipient.seen == 40)
    queue = storm.nodes.engines[storm.leader].delivery._window.queues[storm.route.uid]
    assert queue._credits
    lending = storm.nodes.engines[storm.leader].delivery._credits
    assert lending is not None
    storm.world.run_until(lambda: not lending._borrower.limits())
    assert not queue._credits
    assert 4 == queue._in_flight_max


def test_a_lender_that_begins_anew_knows_nobody_has_more_than_it_says() -> None:
    """Its disk names the borrower; it uses no more than 1 until that one has asked."""
    storm = Lending(max_in_flight=12)
    storm.recipient.hold_ms = 14_000.0
    storm.put(100)
    storm.world.run_until(lambda: storm.recipient.open == 10)
    lender = next(number for number in (1, 2, 3) if number != storm.leader)
    assert [storm.leader] == codec.decoder(list[int])(
        storm.nodes.stores[lender].get(DEBTORS_KEY) or b""
    )
    storm.nodes.stop(lender)
    storm.world.run_for(100)
    storm.nodes.restart(lender)
    assert 1 == max(1, storm.owned(lender))
    storm.world.run_for(1_000)
    assert 1 == storm.owned(lender)
    assert 10 >= storm.recipient.most


def test_a_node_that_is_cut_off_goes_on_with_its_own() -> None:
    """Its credits run out, and it gets no others."""
    storm = Lending(max_in_flight=12)
    storm.put(300)
    storm.world.run_until(lambda: storm.recipient.open == 10)
    others = [number for number in (1, 2, 3) if number != storm.leader]
    for number in others:
        # Only credits get lost: it still has its lease.
        storm.nodes.engines[number].calls._handlers.pop(KIND)
    storm.world.run_for(limits.CREDIT_MS + 1_500)
    assert 4 == storm.recipient.open
    # Nobody uses what may still be in use, and then all have theirs.
    assert [1, 1] == [storm.owned(number) for number in others]
    storm.world.run_for(30_000)
    assert [4, 4] == [storm.owned(number) for number in others]


def test_a_program_from_before_lends_nothing_and_holds_nothing_up() -> None:
    """It says that it does not know what it is asked."""
    storm = Lending(max_in_flight=12)
    for engine in storm.nodes.engines.values():
        if engine.number != storm.leader:
            engine.calls._handlers.pop(KIND)
    storm.put(40)
    storm.world.run_until(lambda: storm.recipient.seen == 40)
    assert 4 == storm.recipient.most
    lending = storm.nodes.engines[storm.leader].delivery._credits
    assert lending is not None
    lending._lender.unsettled = {2}
    lending._answered(2, Ask(1, 1, 1, True, []), Unavailable(UNKNOWN_KIND))
    assert not lending._lender.unsettled


def test_a_rate_is_lent_like_what_is_under_way() -> None:
    """All but the one that each of the others keeps, in any second; then each has its own again."""
    storm = Lending(rate=Rate(count=30, period_ms=1_000))
    storm.recipient.hold_ms = 1.0
    storm.world.run_for(2_000)
    storm.put(300)
    storm.world.run_until(lambda: storm.recipient.seen == 300)
    seen_ms = storm.recipient.seen_ms
    # 10 at once, the rest of 28 as soon as it is lent; and never more in a second than 30.
    assert 28 == len([each for each in seen_ms if each < seen_ms[0] + 200.0])
    assert all(after - before > 980.0 for before, after in zip(seen_ms, seen_ms[30:], strict=False))
    assert seen_ms[-1] - seen_ms[0] < 11_000.0
    limit = Limit(storm.route.uid, Kind.RATE)
    windows = [engine.delivery._window for engine in storm.nodes.engines.values()]
    assert 18 == sum(window.lent(limit) for window in windows)
    lent = [engine.delivery.credits_lent for engine in storm.nodes.engines.values()]
    assert 18 == sum(each[Kind.RATE] for each in lent)
    leader = storm.nodes.engines[storm.leader].delivery
    assert {Kind.FLIGHT: 0, Kind.RATE: 18} == leader.credits_borrowed
    storm.world.run_for(4_000)
    assert 0 == sum(window.lent(limit) for window in windows)


def test_a_rate_comes_back_when_it_is_needed() -> None:
    """Others begin to need theirs while one uses nearly all; in no second there are more."""
    storm = Lending(num_vnodes=6, rate=Rate(count=30, period_ms=1_000))
    storm.recipient.hold_ms = 1.0
    storm.world.run_for(2_000)
    storm.put(1)
    storm.put(300)
    storm.world.run_until(lambda: storm.recipient.seen == 301)
    seen_ms = storm.recipient.seen_ms
    assert all(after - before > 980.0 for before, after in zip(seen_ms, seen_ms[30:], strict=False))
    assert seen_ms[-1] - seen_ms[0] < 12_000.0


def test_a_node_keeps_twice_what_it_has_used_of_a_rate_lately() -> None:
    """What it lent it would have back a period later: it would be late in each."""
    storm = Lending(rate=Rate(count=30, period_ms=10_000))
    storm.world.run_for(2_000)
    other = next(number for number in (1, 2, 3) if number != storm.leader)
    queue = storm.nodes.engines[other].delivery._window.queue(storm.route)
    queue.rate.begin(4, 0, storm.world.mono_ms())
    wish = Wish(Limit(storm.route.uid, Kind.RATE), 0, 10, 10_000)
    storm.ask(other, storm.leader, Ask(900, 1, 1, False, [wish]))
    storm.world.run_for(50)
    assert [2] == _grants(storm.ask(other, storm.leader, Ask(901, 1, 1, False, [wish])))
    storm.world.run_for(10_000)
    assert 0 == queue.rate.used(storm.world.mono_ms())
    assert [2] == _grants(storm.ask(other, storm.leader, Ask(902, 1, 1, False, [wish])))
    storm.world.run_for(10_000)
    assert [9] == _grants(storm.ask(other, storm.leader, Ask(903, 1, 1, False, [wish])))


def test_what_was_begun_by_credit_is_not_given_back_when_the_period_becomes_too_long() -> None:
    """It counts on: 30 have begun in that period."""
    rate = Rate(count=30, period_ms=limits.CREDIT_RATE_PERIOD_MS_MAX)
    storm = Lending(rate=rate)
    storm.recipient.hold_ms = 1.0
    storm.world.run_for(2_000)
    storm.put(40)
    storm.world.run_until(lambda: storm.recipient.seen == 28)
    longer = msgspec.structs.replace(rate, period_ms=rate.period_ms + 1)
    storm.put_route(msgspec.structs.replace(storm.route, rate=longer))
    storm.world.run_for(20_000)
    limit = Limit(storm.route.uid, Kind.RATE)
    windows = [engine.delivery._window for engine in storm.nodes.engines.values()]
    assert 18 == sum(window.lent(limit) for window in windows)
    assert 28 == storm.recipient.seen


def test_a_long_rate_stays_as_it_is() -> None:
    """Nothing of it is lent, and a node that begins anew has no less of it."""
    storm = Lending(rate=Rate(count=9, period_ms=limits.CREDIT_RATE_PERIOD_MS_MAX + 1))
    storm.world.run_for(2_000)
    storm.put(9)
    storm.world.run_for(9_000)
    assert 3 == storm.recipient.seen
    lending = storm.nodes.engines[storm.leader].delivery._credits
    assert lending is not None
    assert 0 == sum(lending._lender.totals.values())
    lending._lender.unsettled = {2}
    assert 0 == lending._lent(Limit(storm.route.uid, Kind.RATE))
    assert limits.ROUTE_IN_FLIGHT_MAX == lending._lent(Limit(storm.route.uid, Kind.FLIGHT))
    wish = Wish(Limit(storm.route.uid, Kind.RATE), 0, 3, 15_000)
    other = next(number for number in (1, 2, 3) if number != storm.leader)
    assert [] == _grants(storm.ask(other, storm.leader, Ask(900, 1, 1, False, [wish])))


def test_nothing_is_lent_before_all_members_know_the_lender() -> None:
    """Who does not know it yet may take its share for others'."""
    storm = Lending(max_in_flight=12)
    storm.world.run_for(2_000)
    lending = storm.nodes.engines[1].delivery._credits
    assert lending is not None
    assert storm.nodes.stores[1].get(DEBTORS_KEY) is None
    lending.set_others(frozenset({2, 3, 4}))
    wish = Wish(Limit(storm.route.uid, Kind.FLIGHT), 0, 3, 15_000)
    assert [] == _grants(storm.ask(1, 2, Ask(91, 99, 1, False, [wish])))
    storm.world.run_for(50)
    assert storm.nodes.stores[1].get(DEBTORS_KEY) is None
    assert [] == _grants(storm.ask(1, 4, Ask(1, 1, 1, False, [])))
    assert [] == _grants(storm.ask(1, 2, Ask(92, 99, 1, False, [wish])))
    storm.world.run_for(50)
    assert storm.nodes.stores[1].get(DEBTORS_KEY) is not None
    assert [3] == _grants(storm.ask(1, 2, Ask(93, 99, 1, False, [wish])))


def test_strangers_and_other_lives_get_nothing() -> None:
    """Nor is a route lent that is not known."""
    storm = Lending(max_in_flight=12)
    wish = Wish(Limit(storm.route.uid, Kind.FLIGHT), 0, 3, 15_000)
    refused = storm.ask(1, 9, Ask(90, 99, 1, False, [wish]))
    assert isinstance(refused, Unavailable)
    answer = storm.ask(1, 2, Ask(90, 99, 7, False, [wish]))
    assert isinstance(answer, bytes)
    assert (1, False) == (read_answer(answer).epoch, read_answer(answer).taken)
    unknown = Wish(Limit(storm.route.uid + 50, Kind.FLIGHT), 0, 3, 15_000)
    assert [] == _grants(storm.ask(1, 2, Ask(91, 99, 1, False, [unknown])))
    answer = storm.ask(1, 2, Ask(91, 99, 1, False, []))
    assert isinstance(answer, bytes)
    assert not read_answer(answer).taken


def _grants(answer: bytes | TimeMachineError) -> list[int]:
    assert isinstance(answer, bytes)
    told = read_answer(answer)
    assert told.taken
    return [grant.count for grant in told.grants]
