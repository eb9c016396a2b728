"""In which order the jobs of a route go, and how many at a time."""

from tests.unit.delivery.made import due, route
from timemachine import limits
from timemachine.delivery.item import CLAIMING, GONE
from timemachine.delivery.routequeue import TURN_JOBS, RouteQueue
from timemachine.model import Rate


def _granted(queue: RouteQueue, now_ms: int, room: int = 1_000) -> list[str]:
    return [item.job_id for item in queue.grant(now_ms, room)]


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
    assert 5 == queue.opens_in_ms(1_000)
    due(queue, 1_010, "soon")
    assert ["soon", "later"] == _granted(queue, 1_000)


def test_at_most_once_is_claimed_at_its_time() -> None:
    """An attempt that cannot be repeated is not begun ahead."""
    queue = RouteQueue(route(delivery="at_most_once"))
    due(queue, 1_001, "a")
    assert [] == _granted(queue, 1_000)
    assert 1 == queue.opens_in_ms(1_000)
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
    assert queue.opens_in_ms(1_000) is None
    queue.in_flight -= 1
    assert 1 == len(_granted(queue, 1_000))


def test_a_rate_opens_again_after_its_period() -> None:
    """Also when the clock went back: then a new period begins."""
    queue = RouteQueue(route(rate=Rate(count=2, period_ms=1_000)))
    for number in range(8):
        due(queue, 0, str(number))
    assert ["0", "1"] == _granted(queue, 5_000)
    assert [] == _granted(queue, 5_999)
    assert 1 == queue.opens_in_ms(5_999)
    assert ["2", "3"] == _granted(queue, 6_000)
    assert ["4", "5"] == _granted(queue, 3_000)


def test_what_was_dropped_is_passed_over() -> None:
    """Its place in the heap is cleaned when it comes up."""
    queue = RouteQueue(route())
    first, second = due(queue, 1, "a"), due(queue, 2, "b")
    queue.drop(first)
    queue.drop(first)
    assert 1 == queue.size
    assert 2 - limits.CLAIM_LEAD_MS // 2 == queue.opens_in_ms(0)
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
