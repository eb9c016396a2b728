"""Whom a node asks for what it lacks, and what it may use."""

from timemachine import limits
from timemachine.delivery.borrowing import Borrower, Credit, Lack
from timemachine.delivery.credits import Answer, Ask, Grant, Kind, Limit, Wish, blocked_ms

ROUTE = Limit(7, Kind.FLIGHT)
TIMEOUT_MS = 15_000
LATER_MS = limits.CREDIT_ROUND_MS + 1.0


def lack(wanted: int, in_use: int = 0, counts_ms: int = TIMEOUT_MS) -> dict[Limit, Lack]:
    """One route that lacks something."""
    return {ROUTE: Lack(in_use, wanted, counts_ms)}


def borrower(*lenders: int) -> Borrower:
    """One that has told these of its life."""
    made = Borrower(5)
    for lender in lenders:
        made.heard(lender, 9, again=False)
    for lender, ask in made.asks(-1_000.0, lenders, {}):
        made.answered(lender, ask.number, Answer(9, True, []), -1_000.0)
    return made


def asked(
    of: Borrower, now_ms: float, wanted: dict[Limit, Lack], lenders: tuple[int, ...] = (2,)
) -> dict[int, Ask]:
    """Its questions."""
    return dict(of.asks(now_ms, lenders, wanted))


def grant(of: Borrower, lender: int, ask: Ask, count: int, now_ms: float) -> None:
    """A lender gives so much."""
    grants = [Grant(ROUTE, count)] if count else []
    of.answered(lender, ask.number, Answer(9, True, grants), now_ms)


def test_every_node_is_told_of_a_life_once() -> None:
    """Also if nothing is lacking; who does not know the other's life asks again."""
    made = Borrower(5)
    assert {2: Ask(1, 5, 0, False, [])} == asked(made, 0.0, {})
    made.answered(2, 1, Answer(9, False, []), 1.0)
    assert {} == asked(made, 2.0, {})
    assert {2: Ask(2, 5, 9, False, [])} == asked(made, LATER_MS, {})
    made.answered(2, 2, Answer(9, True, []), LATER_MS)
    assert {} == asked(made, 10 * LATER_MS, {})


def test_what_is_lacking_is_asked_for_at_once() -> None:
    """It may be used from the answer on, and as long as a credit holds since it was asked for."""
    made = borrower(2)
    ask = asked(made, 0.0, lack(4))[2]
    assert [Wish(ROUTE, 0, 4, TIMEOUT_MS)] == ask.wishes
    assert () == made.credits(ROUTE, 1.0)
    grant(made, 2, ask, 3, 300.0)
    held = (Credit(3, limits.CREDIT_MS, TIMEOUT_MS),)
    assert held == made.credits(ROUTE, limits.CREDIT_MS - 1)
    assert () == made.credits(ROUTE, limits.CREDIT_MS)
    assert {ROUTE} == made.limits()


def test_who_gives_too_little_is_not_asked_again_at_once() -> None:
    """Who has given all that was asked for is."""
    made = borrower(2)
    grant(made, 2, asked(made, 0.0, lack(4))[2], 3, 0.0)
    assert {} == asked(made, LATER_MS, lack(4))
    wish = asked(made, limits.CREDIT_RENEW_MS, lack(4))[2].wishes[0]
    assert (3, 4) == (wish.held, wish.wanted)
    made = borrower(2)
    grant(made, 2, asked(made, 0.0, lack(4))[2], 4, 0.0)
    assert {} == asked(made, LATER_MS, lack(4))
    assert 6 == asked(made, LATER_MS, lack(6))[2].wishes[0].wanted


def test_credits_are_renewed_as_far_as_they_are_needed() -> None:
    """What is too much is given back; what is in use is held."""
    made = borrower(2)
    grant(made, 2, asked(made, 0.0, lack(9))[2], 9, 0.0)
    ask = asked(made, limits.CREDIT_RENEW_MS, lack(2, in_use=1))[2]
    assert [Wish(ROUTE, 2, 2, TIMEOUT_MS)] == ask.wishes
    # What was named is not exceeded from now on, whatever comes.
    assert [2] == [each.slots for each in made.credits(ROUTE, limits.CREDIT_RENEW_MS)]
    grant(made, 2, ask, 0, limits.CREDIT_RENEW_MS)
    assert () == made.credits(ROUTE, limits.CREDIT_RENEW_MS)


def test_what_is_taken_away_is_given_back_when_it_is_free() -> None:
    """At once, and not before: requests are under way by it."""
    made = borrower(2)
    grant(made, 2, asked(made, 0.0, lack(3))[2], 3, 0.0)
    now_ms = float(limits.CREDIT_RENEW_MS)
    ask = asked(made, now_ms, lack(3, in_use=3))[2]
    grant(made, 2, ask, 0, now_ms)
    assert {} == asked(made, now_ms + LATER_MS, lack(3, in_use=3))
    ask = asked(made, now_ms + LATER_MS, lack(2, in_use=2))[2]
    assert 2 == ask.wishes[0].held
    grant(made, 2, ask, 0, now_ms + LATER_MS)
    ask = asked(made, now_ms + 2 * LATER_MS, {})[2]
    assert [] == ask.wishes
    assert set() == made.limits()


def test_an_answer_to_a_question_of_before_is_forgotten() -> None:
    """The lender may have heard the next question first."""
    made = borrower(2)
    first = asked(made, 0.0, lack(3))[2]
    made.answered(2, first.number, None, 1_000.0)
    assert {} == asked(made, 1_001.0, lack(3))
    second = asked(made, 1_000.0 + limits.CREDIT_RENEW_MS, lack(3))[2]
    assert set() == made.answered(2, first.number, Answer(9, True, [Grant(ROUTE, 3)]), 1_600.0)
    assert () == made.credits(ROUTE, 1_600.0)
    assert second.number > first.number
    assert set() == made.answered(8, 1, None, 0.0)


def test_the_lack_is_divided_among_those_that_lend() -> None:
    """As much as each lends already; then each is asked for all of the rest."""
    made = borrower(2, 3)
    asks = asked(made, 0.0, lack(5), (2, 3))
    assert [5, 5] == [ask.wishes[0].wanted for ask in asks.values()]
    grant(made, 2, asks[2], 1, 0.0)
    grant(made, 3, asks[3], 2, 0.0)
    asks = asked(made, limits.CREDIT_RENEW_MS, lack(5), (2, 3))
    assert {2: 3, 3: 4} == {node: ask.wishes[0].wanted for node, ask in asks.items()}
    grant(made, 2, asks[2], 3, limits.CREDIT_RENEW_MS)
    grant(made, 3, asks[3], 4, limits.CREDIT_RENEW_MS)
    asks = asked(made, 2 * limits.CREDIT_RENEW_MS, lack(5), (2, 3))
    assert {2: 1, 3: 4} == {node: ask.wishes[0].wanted for node, ask in asks.items()}


def test_a_longer_time_out_is_told_before_it_is_used() -> None:
    """A lender counts on the one that it was told."""
    made = borrower(2)
    grant(made, 2, asked(made, 0.0, lack(3))[2], 3, 0.0)
    now_ms = float(limits.CREDIT_RENEW_MS)
    ask = asked(made, now_ms, lack(3, counts_ms=60_000))[2]
    assert TIMEOUT_MS == made.credits(ROUTE, now_ms)[0].counts_ms
    grant(made, 2, ask, 3, now_ms)
    assert 60_000 == made.credits(ROUTE, now_ms)[0].counts_ms


def test_a_lender_that_is_gone_is_forgotten_in_the_end() -> None:
    """When all that was begun by its credit has ended."""
    made = borrower(2)
    grant(made, 2, asked(made, 0.0, lack(3))[2], 3, 0.0)
    end_ms = limits.CREDIT_MS + blocked_ms(TIMEOUT_MS)
    assert {} == asked(made, end_ms - 1, {}, ())
    assert {ROUTE} == made.limits()
    assert {} == asked(made, end_ms, {}, ())
    assert set() == made.limits()


def _cut_off() -> tuple[Borrower, float]:
    """Node 2 has not been heard for twenty seconds; five are under way that node 3 lent since."""
    made = borrower(2, 3)
    asks = asked(made, 0.0, lack(10), (2, 3))
    for node, ask in asks.items():
        grant(made, node, ask, 5, 0.0)
    now_ms = 0.0
    while now_ms < 20_000.0:
        now_ms += limits.CREDIT_RENEW_MS
        ask = asked(made, now_ms, lack(10, in_use=5), (3,))[3]
        assert 5 == ask.wishes[0].held
        grant(made, 3, ask, 5 if now_ms < 20_000.0 else 0, now_ms)
    return made, now_ms


def test_what_has_run_out_does_not_cover_what_was_begun_since() -> None:
    """Its lender will use it again before that has ended: nothing is given back for it."""
    made, now_ms = _cut_off()
    assert {} == asked(made, now_ms + LATER_MS, lack(10, in_use=5), (3,))
    now_ms += limits.CREDIT_RENEW_MS
    ask = asked(made, now_ms, lack(10, in_use=5), (3,))[3]
    assert 5 == ask.wishes[0].held
    grant(made, 3, ask, 0, now_ms)
    ask = asked(made, now_ms + LATER_MS, lack(10, in_use=4), (3,))[3]
    assert 4 == ask.wishes[0].held


def test_a_lender_that_is_heard_again_is_told_of_nothing_begun_since() -> None:
    """It may have taken its own back by then, and use it."""
    made, now_ms = _cut_off()
    asks = asked(made, now_ms + limits.CREDIT_RENEW_MS, lack(10, in_use=5), (2, 3))
    assert {2: 0, 3: 5} == {node: ask.wishes[0].held for node, ask in asks.items()}


def test_a_node_that_wants_its_own_back_is_asked_soon() -> None:
    """And a node can be asked to ask."""
    made = borrower(2)
    grant(made, 2, asked(made, 0.0, lack(3))[2], 3, 0.0)
    made.heard(2, 10, again=True)
    ask = asked(made, LATER_MS, lack(3, in_use=3))[2]
    assert (10, False) == (ask.lender_epoch, ask.again)
    made.answered(2, ask.number, Answer(10, False, []), LATER_MS)
    assert {} == asked(made, 2 * LATER_MS, {})
    made = borrower(2)
    assert next(iter(made.asks(0.0, [2], {}, again=[2])))[1].again


def test_one_question_names_so_many_routes_at_most() -> None:
    """Others are asked for another time."""
    made = borrower(2)
    many = {
        Limit(uid, Kind.FLIGHT): Lack(0, 1, 1_000) for uid in range(1, limits.CREDIT_ROUTES_MAX + 9)
    }
    assert limits.CREDIT_ROUTES_MAX == len(asked(made, 0.0, many)[2].wishes)
