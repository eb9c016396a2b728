"""What keeps the offset of a vnode down."""

from tests.unit.delivery.made import due, head, route
from timemachine.delivery.item import Item
from timemachine.delivery.routequeue import RouteQueue
from timemachine.storage.keys import u64


def test_the_low_mark_is_the_lowest_row_that_is_not_settled() -> None:
    """Whether it is queued or under way, stayed behind, or moves; a waiting row does not count."""
    of = head()
    of.cursor = of.vnode.keys.due + u64(9_000)
    assert u64(9_000) == of.low_mark()
    of.lag[7] = of.vnode.keys.due + u64(8_000) + b"lagging"
    assert u64(8_000) + b"lagging" == of.low_mark()
    of.moving["moving"] = 7_000
    assert u64(7_000) + b"moving" == of.low_mark()
    queue = RouteQueue(route())
    of.known["known"] = Item(of, queue, 6_000, "known", 1, 0, b"", waiting=False)
    of.known["parked"] = Item(of, queue, 5_000, "parked", 1, 0, b"", waiting=True)
    assert u64(6_000) + b"known" == of.low_mark()


def test_the_offset_rises_where_it_is_worth_it() -> None:
    """By a second at least, and only while something is pending that a new leader would find."""
    of = due(RouteQueue(route()), 1_500, "job").head
    of.cursor = of.vnode.keys.due + u64(9_000)
    assert of.higher_offset() is None, "nothing was ever applied"
    of.machine.state.applied_index = 1
    assert (1_500, "job") == of.higher_offset()
    of.machine.state.offset_due_ms = 501
    assert of.higher_offset() is None
    of.machine.state.offset_due_ms = 0
    del of.known["job"]
    assert of.higher_offset() is None
    of.machine.state.counts[0] = 1
    assert (9_000, "") == of.higher_offset()
