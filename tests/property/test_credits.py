"""Nodes that lend and borrow, beside one counter of all that counts.

Of flight an attempt counts while it is under way, of a rate for a period since it was begun.
Messages are lost, doubled and late, nodes die and come back, clocks drift, and time-outs change.
"""

from collections.abc import Callable
from functools import partial
from random import Random
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from timemachine import limits
from timemachine.delivery.borrowing import Borrower, Lack
from timemachine.delivery.credits import DRIFT, Answer, Ask, Kind, Limit
from timemachine.delivery.lending import Lender, Own
from timemachine.delivery.ratelimit import RateLimit
from timemachine.delivery.shares import Share
from timemachine.model import Rate

ROUTE = 7
KINDS = st.sampled_from(Kind)


class _Node:
    """What a node does with both sides, for one limit of a route whose time-out it knows.

    `ends_ms` tells when what this life has begun ceases to count; `before_ms` that of what the
    lives before it have begun of a rate by credit.
    """

    def __init__(self, world: "_World", number: int) -> None:
        self.world = world
        self.number = number
        self.rate = 1 + world.dice.uniform(-DRIFT / 2, DRIFT / 2)
        self.origin_ms = world.dice.uniform(0, 1e6)
        self.recorded: set[int] = set()
        self.epoch = 0
        self.need = 0
        self.cut = False
        self.timeout_ms = world.period_ms
        self.before_ms: list[float] = []
        self.ends_ms: list[float] = []
        self.place = Share(number - 1, world.count)
        self.share = self.place.of(world.limit)
        self.begin()

    def begin(self) -> None:
        """A process starts; what the one before had under way ended with it.

        Of a rate it has forgotten what it has begun of its own share. What it has begun by others'
        counts on, unless they have begun anew as well.
        """
        if self.epoch and self.world.limit_of.kind == Kind.RATE:
            self.before_ms += sorted(self.ends_ms)[self.owned :]
            for node in self.world.nodes.values():
                if node is not self:
                    node.before_ms.clear()
        self.up = True
        self.epoch += 1
        self.rate_limit = RateLimit()
        self.rate_limit.set_limit(
            Rate(count=self.world.limit, period_ms=self.world.period_ms), self.place
        )
        self.ends_ms = []
        self.lender = Lender(self.recorded, self.mono_ms)
        self.borrower = Borrower(self.epoch)

    @property
    def mono_ms(self) -> float:
        return self.origin_ms + self.world.now_ms * self.rate

    @property
    def used(self) -> int:
        if self.world.limit_of.kind == Kind.RATE:
            return self.rate_limit.used(self.mono_ms)
        return len(self.ends_ms)

    @property
    def owned(self) -> int:
        lent = self.share if self.lender.unsettled else self.lender.lent(self.world.limit_of)
        return max(1, self.share - lent)

    def allowed(self) -> tuple[int, int]:
        """How many may be under way, and how long one more may take."""
        lent = self.borrower.credits(self.world.limit_of, self.mono_ms)
        most = self.owned + sum(credit.slots for credit in lent)
        if self.used < self.owned:
            return most, self.timeout_ms
        return most, min([self.timeout_ms, *[credit.counts_ms for credit in lent]])

    def send(self) -> None:
        """As much as it may, each until some moment before its deadline."""
        while True:
            most, timeout_ms = self.allowed()
            if self.used >= min(most, self.need):
                break
            took = self.world.dice.choice([0.01, 0.5, 0.999, 0.999])
            if self.world.limit_of.kind == Kind.RATE:
                took = 1.0
                self.rate_limit.begin(1, 0, self.mono_ms)
            self.ends_ms.append(self.world.now_ms + took * timeout_ms / self.rate)
            self.world.check()

    def round(self) -> None:
        """Ask those that are to be asked."""
        self.lender.expire(self.mono_ms)
        lack = Lack(max(0, self.used - self.owned), max(0, self.need - self.owned), self.timeout_ms)
        lenders = [each for each in self.world.nodes if each != self.number]
        again = sorted(self.lender.unsettled)
        if self.need > self.owned:
            again = sorted(self.lender.unsettled | self.lender.debtors(self.world.limit_of))
        lacks = {self.world.limit_of: lack} if lack.wanted or lack.in_use else {}
        for node, ask in self.borrower.asks(self.mono_ms, lenders, lacks, again):
            self.world.carry(self, node, partial(self.world.nodes[node].take, self, ask))
            self.world.later(limits.CREDIT_CALL_MS / self.rate, self._overdue(node, ask))

    def _overdue(self, node: int, ask: Ask) -> Callable[[], None]:
        epoch = self.epoch

        def overdue() -> None:
            if self.epoch == epoch:
                self.borrower.answered(node, ask.number, None, self.mono_ms)

        return overdue

    def take(self, sender: "_Node", ask: Ask) -> None:
        """A question arrives."""
        if not self.up:
            return
        self.borrower.heard(sender.number, ask.epoch, again=ask.again)
        grants = None
        if ask.lender_epoch == self.epoch:
            own = Own(self.share, self.used, self.need)
            self.recorded.add(sender.number)
            grants = self.lender.take(sender.number, ask, self.mono_ms, lambda _: own)
        answer = Answer(self.epoch, grants is not None, grants or [])

        def told() -> None:
            if sender.up and sender.epoch == ask.epoch:
                sender.borrower.answered(self.number, ask.number, answer, sender.mono_ms)

        self.world.carry(self, sender.number, told)


class _World:
    """True time, a bad network, and the one counter."""

    def __init__(self, seed: int, kind: Kind) -> None:
        self.limit_of = Limit(ROUTE, kind)
        self.dice = Random(seed)
        self.period_ms = self.dice.choice([200, 1_000, 20_000]) if kind else 1_000
        self.now_ms = 0.0
        self.count = self.dice.choice([2, 3, 3, 5])
        self.limit = self.dice.choice([self.count, 2 * self.count, 10, 64])
        self.limit = max(self.limit, self.count)
        self.foul = self.dice.choice([0.0, 0.0, 0.1, 0.5])
        self.late_ms = self.dice.choice([1.0, 300.0, 5_000.0])
        self.waiting: list[tuple[float, int, Callable[[], None]]] = []
        self.sequence = 0
        self.most = 0
        self.nodes: dict[int, _Node] = {}
        for number in range(1, self.count + 1):
            self.nodes[number] = _Node(self, number)

    def later(self, delay_ms: float, function: Callable[[], None]) -> None:
        self.sequence += 1
        self.waiting.append((self.now_ms + delay_ms, self.sequence, function))

    def carry(self, sender: _Node, receiver: int, function: Callable[[], None]) -> None:
        """It arrives once, twice or never."""
        while not sender.cut and not self.nodes[receiver].cut:
            if self.dice.random() >= self.foul:
                self.later(self.dice.uniform(0.1, self.late_ms), function)
            if self.dice.random() >= self.foul / 2:
                break

    def check(self) -> None:
        """What the counter says."""
        total = sum(
            len([end_ms for end_ms in node.ends_ms + node.before_ms if end_ms > self.now_ms])
            for node in self.nodes.values()
        )
        self.most = max(self.most, total)
        assert total <= self.limit

    def run(self, steps: int) -> None:
        """Let time pass."""
        for _ in range(steps):
            self.now_ms += self.dice.choice([1.0, 20.0, 60.0, 200.0])
            for entry in sorted(each for each in self.waiting if each[0] <= self.now_ms):
                self.waiting.remove(entry)
                entry[2]()
            for node in self.nodes.values():
                node.ends_ms = [end_ms for end_ms in node.ends_ms if end_ms > self.now_ms]
                if node.up:
                    node.send()
                    node.round()
            self.change()

    def settle(self) -> None:
        """Let time pass until what has begun counts no more."""
        self.run(200)
        while self.period_ms > 1_000 and self.now_ms < 3 * self.period_ms:
            self.run(1)

    def change(self) -> None:
        """Something else happens."""
        node = self.nodes[self.dice.randint(1, self.count)]
        drawn = self.dice.random()
        if drawn < 0.2:
            node.need = self.dice.choice([0, 0, 1, self.limit // 2, self.limit])
        elif drawn < 0.23:
            # Its requests are under way until their deadlines, or until it is back.
            node.up = False
        elif drawn < 0.3 and not node.up:
            node.begin()
        elif drawn < 0.35:
            node.cut = not node.cut
        elif drawn < 0.4 and self.limit_of.kind == Kind.FLIGHT:
            node.timeout_ms = self.dice.choice([1_000, 5_000, 20_000])


@given(st.integers(0, 1 << 32), KINDS)
def test_all_together_never_have_more_that_counts_than_the_limit(seed: int, kind: Kind) -> None:
    """Whatever gets lost, and whoever dies. Also with nothing to spare for what is late."""
    with patch("timemachine.delivery.credits.MARGIN_MS", 0):
        _World(seed, kind).run(400)


@given(st.integers(0, 1 << 32), KINDS)
def test_one_that_needs_all_gets_all_but_one_of_each(seed: int, kind: Kind) -> None:
    """Over a network that works, and when it is over each has its own share again."""
    world = _World(seed, kind)
    world.foul, world.late_ms = 0.0, 1.0
    world.change = lambda: None  # type: ignore[method-assign]
    first = world.nodes[1]
    first.need = world.limit
    world.run(60)
    assert world.limit - (world.count - 1) == first.allowed()[0]
    first.need = 0
    world.settle()
    for node in world.nodes.values():
        assert (node.share, ()) == (node.owned, node.borrower.credits(world.limit_of, node.mono_ms))
        assert not node.borrower.limits()


@given(st.integers(0, 1 << 32), KINDS)
def test_all_that_need_much_have_their_own_shares(seed: int, kind: Kind) -> None:
    """What was lent while it was not needed comes back."""
    world = _World(seed, kind)
    world.foul, world.late_ms = 0.0, 1.0
    world.change = lambda: None  # type: ignore[method-assign]
    world.nodes[1].need = world.limit
    world.run(60)
    for node in world.nodes.values():
        node.need = world.limit
    world.settle()
    for node in world.nodes.values():
        assert node.share == node.allowed()[0]
