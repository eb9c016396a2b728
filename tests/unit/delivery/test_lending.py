"""What a node lends, and when it has it back."""

from typing import Any

import pytest

from timemachine import limits
from timemachine.delivery.credits import Ask, Grant, Kind, Limit, Wish, blocked_ms
from timemachine.delivery.lending import NOTHING_OWNED, Lender, Own, divide

ROUTE = Limit(7, Kind.FLIGHT)
TIMEOUT_MS = 15_000


def ask(number: int, wanted: int, held: int = 0, **fields: Any) -> Ask:
    """A question of a first life, about one route."""
    counts_ms = fields.pop("counts_ms", TIMEOUT_MS)
    wishes = [Wish(ROUTE, held, wanted, counts_ms)] if wanted or held else []
    return Ask(number, fields.pop("epoch", 1), 1, False, wishes)


def granted(lender: Lender, node: int, asked: Ask, own: Own, now_ms: float = 0.0) -> int | None:
    """What it grants; None if it does not take the question."""
    grants = lender.take(node, asked, now_ms, lambda _: own)
    return None if grants is None else sum(grant.count for grant in grants)


def test_all_but_one_is_lent_where_nothing_is_needed() -> None:
    """And only once, whoever asks."""
    lender = Lender()
    assert 20 == granted(lender, 2, ask(1, 64), Own(21))
    assert 0 == granted(lender, 3, ask(1, 0, 0), Own(21))
    assert (20, 20, {2}) == (lender.lent(ROUTE), lender.totals[Kind.FLIGHT], lender.debtors(ROUTE))
    assert {2} == lender.debtors()
    assert set() == lender.debtors(Limit(8, Kind.FLIGHT))


def test_nothing_is_lent_that_is_needed_or_under_way() -> None:
    """Neither what jobs are due for, nor what requests of before still hold."""
    assert 6 == granted(Lender(), 2, ask(1, 64), Own(21, 3, 15))
    assert 6 == granted(Lender(), 2, ask(1, 64), Own(21, 15, 3))
    assert 0 == granted(Lender(), 2, ask(1, 64), Own(21, 0, 30))
    assert 0 == granted(Lender(), 2, ask(1, 64), Own(1))
    assert 0 == granted(Lender(), 2, ask(1, 64), NOTHING_OWNED)


def test_who_needs_its_own_gets_it_as_it_is_given_back() -> None:
    """The borrower keeps what is in use, and no more."""
    lender = Lender()
    assert 20 == granted(lender, 2, ask(1, 20), Own(21))
    assert 0 == granted(lender, 2, ask(2, 20, 20), Own(21, 1, 21))
    assert 20 == lender.lent(ROUTE)
    assert 0 == granted(lender, 2, ask(3, 20, 12), Own(21, 1, 21))
    assert 12 == lender.lent(ROUTE)
    assert 0 == granted(lender, 2, ask(4, 0), Own(21, 1, 21))
    assert 0 == lender.lent(ROUTE)


def test_what_comes_late_or_twice_is_not_taken() -> None:
    """It may say that less is held than is."""
    lender = Lender()
    first = ask(1, 5)
    assert 5 == granted(lender, 2, first, Own(9))
    assert 8 == granted(lender, 2, ask(3, 8, 5), Own(9))
    assert granted(lender, 2, ask(2, 0), Own(9)) is None
    assert granted(lender, 2, ask(3, 0), Own(9)) is None
    assert 8 == lender.lent(ROUTE)


def test_a_new_life_of_a_borrower_has_nothing() -> None:
    """Its requests ended with the process; what that one asked for comes too late."""
    lender = Lender()
    assert 8 == granted(lender, 2, ask(9, 8), Own(9))
    assert 0 == granted(lender, 2, ask(1, 0, epoch=2), Own(9))
    assert 0 == lender.lent(ROUTE)
    assert granted(lender, 2, ask(10, 8), Own(9)) is None


def test_what_a_silent_borrower_has_comes_back_after_its_deadlines() -> None:
    """Of the longest time-out that it has named."""
    lender = Lender()
    granted(lender, 2, ask(1, 8), Own(9), 1_000.0)
    granted(lender, 2, ask(2, 8, 8, counts_ms=1_000), Own(9), 1_500.0)
    end_ms = 1_000 + blocked_ms(TIMEOUT_MS)
    assert (set(), 8) == (lender.expire(end_ms - 1), lender.lent(ROUTE))
    assert ({ROUTE}, 0) == (lender.expire(end_ms), lender.lent(ROUTE))


def test_several_borrowers_get_even_parts() -> None:
    """Who came first gives back what is more than that."""
    lender = Lender()
    assert 10 == granted(lender, 2, ask(1, 10), Own(11))
    assert 0 == granted(lender, 3, ask(1, 10), Own(11))
    assert 5 == granted(lender, 2, ask(2, 10, 10), Own(11), 10.0)
    assert 0 == granted(lender, 3, ask(2, 10), Own(11), 20.0)
    assert 5 == granted(lender, 2, ask(3, 10, 5), Own(11), 30.0)
    assert 5 == granted(lender, 3, ask(3, 10), Own(11), 40.0)
    # Who has not asked for long wants nothing any more.
    later_ms = 50.0 + limits.CREDIT_MS
    assert 5 == granted(lender, 3, ask(4, 10, 5), Own(11), later_ms)
    granted(lender, 2, ask(4, 0), Own(11), later_ms)
    assert 10 == granted(lender, 3, ask(5, 10, 5), Own(11), later_ms)


def test_a_lender_that_begins_anew_lends_nothing_until_it_knows() -> None:
    """From those that the disk names, or until nobody can hold anything any more."""
    lender = Lender({2, 3}, 1_000.0)
    assert 0 == granted(lender, 2, ask(1, 4, 3), Own(9), 1_000.0)
    assert ({3}, 3) == (lender.unsettled, lender.lent(ROUTE))
    assert 0 == granted(lender, 4, ask(1, 4), Own(9), 1_000.0)
    assert 0 == granted(lender, 3, ask(1, 0), Own(9), 1_000.0)
    assert not lender.unsettled
    assert 4 == granted(lender, 4, ask(2, 4), Own(9), 1_000.0)
    lender = Lender({2}, 1_000.0)
    end_ms = 1_000.0 + blocked_ms(limits.ROUTE_TIMEOUT_MS_MAX)
    lender.expire(end_ms - 1)
    assert lender.unsettled
    lender.expire(end_ms)
    assert not lender.unsettled


def test_one_that_does_not_lend_takes_back() -> None:
    """It may not know yet whether its disk names the borrower."""
    lender = Lender()
    assert [] == lender.take(2, ask(1, 4, 2), 0.0, lambda _: Own(9), lends=False)
    assert (2, {ROUTE}) == (lender.lent(ROUTE), lender.limits(2))
    assert lender.knows(2)
    assert [Grant(ROUTE, 4)] == lender.take(2, ask(2, 4, 2), 0.0, lambda _: Own(9))
    assert set() == lender.limits(3)


@pytest.mark.parametrize(
    ("spare", "wants", "part"),
    [
        (10, [(3, True)], 3),
        (10, [(30, True)], 10),
        (10, [(30, True), (30, False)], 5),
        (10, [(30, True), (2, False)], 8),
        (10, [(2, True), (30, False)], 2),
        (-1, [(2, True)], 0),
        (3, [(0, True), (9, False)], 0),
    ],
)
def test_what_is_spare_is_divided(spare: int, wants: list[tuple[int, bool]], part: int) -> None:
    """Evenly, as far as each wants so much."""
    assert part == divide(spare, wants)
    assert 0 == divide(spare, [])


def test_what_a_life_of_a_borrower_began_of_a_rate_counts_on() -> None:
    """Its process has ended, and the period has not."""
    rate = Limit(7, Kind.RATE)
    lender = Lender()
    for number, wanted in ((1, 8), (2, 0)):
        wishes = [Wish(limit, 0, wanted, 1_000) for limit in (ROUTE, rate) if wanted]
        lender.take(2, Ask(1, number, 1, False, wishes), 0.0, lambda _: Own(9))
    assert (0, 8) == (lender.lent(ROUTE), lender.lent(rate))
    assert {Kind.FLIGHT: 0, Kind.RATE: 8} == lender.totals
    # Of what is left the new life may have some, and the one after that.
    wish = Wish(rate, 0, 8, 1_000)
    assert [] == lender.take(2, Ask(2, 2, 1, False, [wish]), 0.0, lambda _: Own(9))
    assert [Grant(rate, 3)] == lender.take(2, Ask(3, 2, 1, False, [wish]), 9.0, lambda _: Own(12))
    lender.take(2, Ask(1, 3, 1, False, []), 9.0, lambda _: Own(12))
    assert 11 == lender.lent(rate)
    end_ms = blocked_ms(1_000)
    assert (set(), 11) == (lender.expire(end_ms - 1), lender.lent(rate))
    assert ({rate}, 3) == (lender.expire(end_ms), lender.lent(rate))
    assert ({rate}, 0) == (lender.expire(end_ms + 9), lender.lent(rate))
    assert {Kind.FLIGHT: 0, Kind.RATE: 0} == lender.totals
