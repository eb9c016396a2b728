"""In which order the jobs of a route go, and how many at a time."""

from tests.unit.delivery.made import due, route
from timemachine import limits
from timemachine.delivery.borrowing import Credit
from timemachine.delivery.credits import Kind
from timemachine.delivery.item import CLAIMING, GONE
from timemachine.delivery.routequeue import TURN_JOBS, RouteQueue
from timemachine.delivery.shares import SOLE_SHARE, Share
from timemachine.model import HeldUp, Rate


def _granted(queue: RouteQueue, now_ms: int, room: int = 1_000) -> list[str]:
    return [item.job_id for item in queue.grant(now_ms, now_ms, room)]


def test_jobs_go_in_due_order() -> None:
    """Not in the order of their coming; those of one moment are."""
    queue = RouteQueue(route())
    for due_ms, name in ((30, "c"), (10, "a"), (20, "b"), (10, "a2")):
        due(queue, due_ms, name)
    assert ["a", "a2", "b", "c"] == _granted(queue, 100)
    assert 0 == queue.size
    assert 4 == queue.in_flight


def test_a_retry_goes_at_every_fourth_place_at_most() -> None:
    """First attempts never wait behind a backlog of failures, and failures do not wait for ever."""
    queue = RouteQueue(route())
    for number in range(6):
        due(queue, 50 + number, f"first-{number}")
        due(queue, number, f"retry-{number}", attempts=1)
    names = _granted(queue, 100)
    assert ["first", "first", "first", "retry"] == [name.split("-")[0] for name in names[:4]]
    assert ["first", "first", "first", "retry"] == [name.split("-")[0] for name in names[4:8]]
    assert 12 == len(names)


def test_claims_of_the_same_moments_are_made_together() -> None:
    """Nothing is claimed for what is due a little later; with what is due it goes along."""
    queue = RouteQueue(route())
    due(queue, 1_015, "later")
    assert [] == _granted(queue, 1_000)
    assert 5 == queue.opens_in_ms(1_000, 1_000)
    due(queue, 1_010, "soon")
    assert ["soon", "later"] == _granted(queue, 1_000)


def test_at_most_once_is_claimed_at_its_time() -> None:
    """An attempt that cannot be repeated is not begun ahead."""
    queue = RouteQueue(route(delivery="at_most_once"))
    due(queue, 1_001, "a")
    assert [] == _granted(queue, 1_000)
    assert 1 == queue.opens_in_ms(1_000, 1_000)
    assert ["a"] == _granted(queue, 1_001)


def test_no_more_than_the_route_the_node_and_its_turn_allow() -> None:
    """The least of the three; what is granted holds its slot."""
    queue = RouteQueue(route(max_in_flight=200))
    for number in range(300):
        due(queue, number, str(number))
    assert 3 == len(_granted(queue, 1_000, room=3))
    assert [] == _granted(queue, 1_000, room=0)
    assert TURN_JOBS == len(_granted(queue, 1_000))
    while _granted(queue, 1_000):
        pass
    assert 200 == queue.in_flight
    assert queue.opens_in_ms(1_000, 1_000) is None
    queue.in_flight -= 1
    assert 1 == len(_granted(queue, 1_000))


def test_a_rate_opens_again_after_its_period() -> None:
    """Whatever the wall clock does meanwhile."""
    queue = RouteQueue(route(rate=Rate(count=2, period_ms=1_000)))
    for number in range(8):
        due(queue, 0, str(number))
    assert ["0", "1"] == _granted(queue, 5_000)
    assert [] == _granted(queue, 5_999)
    assert 1 == queue.opens_in_ms(5_999, 5_999)
    assert ["2", "3"] == _granted(queue, 6_000)
    assert [] == queue.grant(3_000, 6_100, 9)
    assert [] == queue.grant(99_000, 6_999, 9)
    assert ["4", "5"] == [item.job_id for item in queue.grant(3_000, 7_000, 9)]


def test_in_no_period_more_begin_than_the_rate_allows() -> None:
    """Also in one that begins in the middle of a burst."""
    queue = RouteQueue(route(rate=Rate(count=4, period_ms=1_000)))
    for number in range(20):
        due(queue, 0, str(number))
    assert 1 == len(_granted(queue, 5_000, room=1))
    assert 3 == len(_granted(queue, 5_900))
    assert 1 == len(_granted(queue, 6_000))
    assert 900 == queue.opens_in_ms(6_000, 6_000)
    assert 3 == len(_granted(queue, 6_900))


def test_what_was_dropped_is_passed_over() -> None:
    """Its place in the heap is cleaned when it comes up."""
    queue = RouteQueue(route())
    first, second = due(queue, 1, "a"), due(queue, 2, "b")
    queue.drop(first)
    queue.drop(first)
    assert 1 == queue.size
    assert 2 - limits.CLAIM_LEAD_MS // 2 == queue.opens_in_ms(0, 0)
    assert ["b"] == _granted(queue, 10)
    assert GONE == first.stage
    assert CLAIMING == second.stage


def test_take_all_empties_it_in_due_order() -> None:
    """First attempts and retries alike."""
    queue = RouteQueue(route())
    due(queue, 3, "c")
    due(queue, 1, "a", attempts=2)
    queue.drop(due(queue, 2, "b"))
    taken = queue.take_all()
    assert ["a", "c"] == [item.job_id for item in taken]
    assert {GONE} == {item.stage for item in taken}
    assert 0 == queue.size
    assert [] == _granted(queue, 100)


def test_a_node_of_several_keeps_to_its_share() -> None:
    """Of flight and rate; what was granted by a greater share before counts."""
    queue = RouteQueue(route(max_in_flight=10, rate=Rate(count=7, period_ms=1_000)))
    for number in range(30):
        due(queue, number, str(number))
    queue.set_limits(queue.route, Share(1, 3))
    assert 2 == len(_granted(queue, 5_000))
    assert 1_000 == queue.opens_in_ms(5_000, 5_000)
    assert 1 == len(_granted(queue, 6_000))
    assert queue.opens_in_ms(6_000, 6_000) is None
    queue.set_limits(queue.route, SOLE_SHARE)
    assert 6 == len(_granted(queue, 6_000))
    queue.set_limits(queue.route, Share(0, 3))
    assert [] == _granted(queue, 7_000)
    assert queue.opens_in_ms(7_000, 7_000) is None


def test_what_begins_on_time_each_day_is_not_held_up_by_what_begins_later() -> None:
    """Two a day, twenty minutes apart: regression, the first waited for the other one's place."""
    day_ms, later_ms = 86_400_000, 1_200_000
    queue = RouteQueue(route(rate=Rate(count=2, period_ms=day_ms)))
    for now_ms in (0, later_ms, day_ms, day_ms + later_ms):
        due(queue, now_ms, str(now_ms))
        assert [str(now_ms)] == _granted(queue, now_ms)


def test_nodes_take_turns_where_a_rate_is_too_small_for_all() -> None:
    """A period of the wall clock belongs to no more nodes than the rate allows attempts."""
    of = route(rate=Rate(count=2, period_ms=1_000))
    queues = [RouteQueue(of, Share(place, 5)) for place in range(5)]
    for queue in queues:
        for number in range(20):
            due(queue, number, str(number))
    started: list[tuple[int, int]] = []
    for now_ms in range(60_000, 72_000, 50):
        for place, queue in enumerate(queues):
            opens_ms = queue.opens_in_ms(now_ms, now_ms)
            granted = _granted(queue, now_ms)
            assert bool(granted) == (opens_ms is not None and opens_ms <= 0)
            started += [(now_ms // 1_000, place) for _ in granted]
            after_ms = queue.opens_in_ms(now_ms, now_ms)
            assert after_ms is not None
            assert after_ms > 0
    seconds = [second for second, _ in started]
    assert [2, 2, 1] * 4 == [seconds.count(second) for second in range(60, 72)]
    assert [4] * 5 == [[place for _, place in started].count(place) for place in range(5)]


def test_a_rate_goes_over_to_turns_and_back() -> None:
    """When nodes come and go; the next turn is known at once."""
    queue = RouteQueue(route(rate=Rate(count=1, period_ms=1_000)))
    for number in range(9):
        due(queue, 0, str(number))
    assert ["0"] == _granted(queue, 6_500)
    queue.set_limits(queue.route, Share(1, 3))
    assert [] == _granted(queue, 6_600)
    assert 400 == queue.opens_in_ms(6_600, 6_600)
    assert ["1"] == _granted(queue, 7_000)
    assert 2_900 == queue.opens_in_ms(7_100, 7_100)
    queue.set_limits(queue.route, SOLE_SHARE)
    assert [] == _granted(queue, 7_900)
    assert ["2"] == _granted(queue, 8_000)


def test_what_is_lent_is_not_used_and_one_is_never_lent() -> None:
    """Whatever the limit becomes meanwhile."""
    queue = RouteQueue(route(max_in_flight=12), Share(0, 3))
    assert (4, 4) == (queue.owned, queue._in_flight_max)
    queue.set_lent(Kind.FLIGHT, 3)
    assert 1 == queue.owned
    queue.set_limits(route(max_in_flight=6), Share(0, 3))
    assert 1 == queue.owned
    queue.set_lent(Kind.FLIGHT, 0)
    assert 2 == queue.owned


def test_credits_come_on_top_until_they_run_out() -> None:
    """What is over then must not begin, and what begins by them ends in time."""
    queue = RouteQueue(route(max_in_flight=6, timeout_ms=15_000), Share(0, 3))
    for number in range(9):
        due(queue, 0, str(number))
    lent = (Credit(1, 5_000.0, 9_000), Credit(1, 6_000.0, 15_000))
    queue.set_credits(Kind.FLIGHT, lent)
    assert 2 == len(queue.grant(0, 0, 2))
    assert (False, 15_000) == (queue.is_full, queue.timeout_ms(9_999.0))
    assert 2 == len(_granted(queue, 0))
    assert (True, 9_000) == (queue.is_full, queue.timeout_ms(4_999.0))
    assert 0 == queue.timeout_ms(5_000.0)
    queue.in_flight -= 1
    assert 15_000 == queue.timeout_ms(5_000.0)
    assert 0 == queue.timeout_ms(6_000.0)


def test_what_a_queue_needs_are_the_jobs_that_are_due() -> None:
    """As far as the route allows them, by flight and by rate."""
    queue = RouteQueue(route(max_in_flight=6))
    assert 0 == queue.need(0, 0)
    for number in range(4):
        due(queue, 1_000, str(number))
    assert 0 == queue.need(1_000 - limits.CLAIM_LEAD_MS - 1, 1_000)
    assert 4 == queue.need(1_000 - limits.CLAIM_LEAD_MS, 1_000)
    assert 2 == len(queue.grant(1_000, 1_000, 2))
    assert 4 == queue.need(1_000, 1_000)
    for number in range(9):
        due(queue, 1_000, f"more {number}")
    assert 6 == queue.need(1_000, 1_000)
    queue.set_limits(route(max_in_flight=6, paused=True), SOLE_SHARE)
    assert 2 == queue.need(1_000, 1_000)
    slow = RouteQueue(route(max_in_flight=6, rate=Rate(count=1, period_ms=1_000)))
    due(slow, 0, "first")
    due(slow, 0, "second")
    assert 1 == len(_granted(slow, 1_000))
    assert (1, 2) == (slow.need(1_000, 1_000), slow.need(2_000, 2_000))


def test_what_is_lent_of_a_rate_does_not_begin() -> None:
    """And what others lend does, until it runs out."""
    queue = RouteQueue(route(rate=Rate(count=12, period_ms=1_000)), Share(0, 3))
    for number in range(40):
        due(queue, 0, str(number))
    queue.set_lent(Kind.RATE, 3)
    assert 1 == len(_granted(queue, 5_000))
    queue.set_lent(Kind.RATE, 20)
    assert [] == _granted(queue, 5_100)
    queue.set_lent(Kind.RATE, 0)
    assert 3 == len(_granted(queue, 5_200))
    queue.set_credits(Kind.RATE, (Credit(5, 9_000.0, 1_000), Credit(2, 9_000.0, 1_000)))
    assert 7 == len(_granted(queue, 5_300))
    assert (4, 11, 12, 1_000) == queue.standing(Kind.RATE, 5_300, 5_300)
    # They run out, and what was begun by them counts on.
    queue.set_credits(Kind.RATE, ())
    assert (4, 10, 12, 1_000) == queue.standing(Kind.RATE, 6_000, 6_000)
    assert [] == _granted(queue, 6_200)
    assert 100 == queue.opens_in_ms(6_200, 6_200)
    assert 4 == len(_granted(queue, 6_300))


def test_a_credit_for_a_shorter_period_is_not_used() -> None:
    """Its lender takes it back before a longer period is over."""
    of = route(rate=Rate(count=12, period_ms=1_000))
    queue = RouteQueue(of, Share(0, 3))
    for number in range(40):
        due(queue, 0, str(number))
    queue.set_credits(Kind.RATE, (Credit(8, 9_000.0, 1_000),))
    assert 12 == queue.rate.free(5_000, 5_000)
    queue.set_limits(route(rate=Rate(count=12, period_ms=2_000)), Share(0, 3))
    assert 4 == queue.rate.free(5_000, 5_000)


def test_a_rate_needs_what_is_due_and_what_it_has_begun() -> None:
    """It borrows if it is full; not for jobs that something else holds up."""
    queue = RouteQueue(route(max_in_flight=9, rate=Rate(count=12, period_ms=1_000)), Share(0, 3))
    assert (4, 0, 0, 1_000) == queue.standing(Kind.RATE, 0, 0)
    for number in range(5):
        due(queue, 5_000, str(number))
    assert (4, 0, 0, 1_000) == queue.standing(Kind.RATE, 4_000, 4_000)
    assert (4, 0, 5, 1_000) == queue.standing(Kind.RATE, 5_000, 5_000)
    assert 3 == len(_granted(queue, 5_000))
    # No more may be in flight: that has to be lent first.
    assert (4, 3, 3, 1_000) == queue.standing(Kind.RATE, 5_000, 5_000)
    assert not queue.rate.is_full(5_000)
    queue.in_flight = 0
    assert 1 == len(_granted(queue, 5_000))
    assert queue.rate.is_full(5_000)
    assert (4, 4, 5, 1_000) == queue.standing(Kind.RATE, 5_000, 5_000)
    assert (3, 1, 1, 15_000) == queue.standing(Kind.FLIGHT, 5_000, 5_000)
    assert (4, 0, 1, 1_000) == queue.standing(Kind.RATE, 6_000, 6_000)
    queue.set_limits(route(rate=Rate()), Share(0, 3))
    assert (0, 0) == queue.standing(Kind.RATE, 5_000, 5_000)[1:3]


def test_nothing_is_borrowed_of_a_long_rate_or_one_with_turns() -> None:
    """Its owner would wait too long for it; the other one has nothing to lend."""
    longest_ms = limits.CREDIT_RATE_PERIOD_MS_MAX
    for count, period_ms, lent in (
        (6, longest_ms, True),
        (6, longest_ms + 1, False),
        (2, 1, False),
    ):
        queue = RouteQueue(route(rate=Rate(count=count, period_ms=period_ms)), Share(0, 3))
        for number in range(9):
            due(queue, 0, str(number))
        assert _granted(queue, 6 * period_ms)
        assert lent == queue.rate.is_full(6 * period_ms)


def test_what_a_job_waited_for_is_told() -> None:
    """Of those that were due while nothing could begin; by what held them up then."""
    queue = RouteQueue(route(max_in_flight=2))
    for number in range(5):
        due(queue, 1_000, f"j{number}")
    assert [0, 0] == [item.held_up for item in queue.grant(1_000, 0.0, 9)]
    queue.in_flight -= 1
    due(queue, 1_060, "later")
    assert [HeldUp.NOTHING] == [item.held_up for item in queue.grant(1_000, 0.0, 9)], "no time"
    queue.in_flight -= 1
    assert [HeldUp.IN_FLIGHT] == [item.held_up for item in queue.grant(1_040, 0.0, 9)]
    queue.in_flight = 0
    queue.waits = True
    assert [] == queue.grant(1_045, 0.0, 9)
    queue.waits = False
    assert [HeldUp.RECIPIENT, HeldUp.NOTHING] == [
        item.held_up for item in queue.grant(1_060, 0.0, 9)
    ]


def test_the_rate_and_the_node_hold_up_too() -> None:
    """Each is named."""
    queue = RouteQueue(route(rate=Rate(count=1, period_ms=1_000)))
    for number in range(3):
        due(queue, 1_000, f"j{number}")
    assert [HeldUp.NOTHING] == [item.held_up for item in queue.grant(1_000, 0.0, 9)]
    assert [] == queue.grant(1_500, 500.0, 9)
    assert [HeldUp.RATE] == [item.held_up for item in queue.grant(2_100, 1_100.0, 9)]
    queue = RouteQueue(route())
    due(queue, 1_000, "j")
    assert [] == queue.grant(1_001, 0.0, 0)
    assert [HeldUp.NODE] == [item.held_up for item in queue.grant(1_002, 0.0, 9)]
