"""The slots of a node, and what is forgotten with a vnode."""

from tests.unit.delivery.made import due, head, route
from timemachine import limits
from timemachine.delivery.item import CLAIMED, GONE, SENDING
from timemachine.delivery.window import Window


def test_a_job_is_forgotten_once_and_gives_its_slots_back_once() -> None:
    """At whatever stage it is."""
    window = Window(lambda: None)
    queue = window.queue(route())
    item = due(queue, 1, "a")
    window.forget(item)
    assert (0, 0, GONE) == (queue.size, window.in_flight, item.stage)
    item = due(queue, 1, "b")
    window.in_flight += len(queue.grant(10, 10, 1))
    item.stage = CLAIMED
    window.forget(item)
    window.forget(item)
    assert (0, 0, GONE) == (queue.in_flight, window.in_flight, item.stage)
    assert {} == item.head.known


def test_a_slot_of_a_full_node_is_told_of() -> None:
    """Another route may wait for it, and nothing else would wake it."""
    woken: list[bool] = []
    window = Window(lambda: woken.append(True))
    item = due(window.queue(route()), 1, "a")
    item.queue.in_flight = 2
    window.in_flight = limits.SENDS_PER_NODE_MAX
    window.free(item)
    assert [True] == woken
    window.free(item)
    assert [True] == woken


def test_requests_of_a_vnode_that_is_left_go_on() -> None:
    """They are among those under way, and hold their slots, until they end."""
    window = Window(lambda: None)
    item, ended = (due(window.queue(route()), 1, name) for name in "ab")
    of = item.head
    window.heads[of.vnode] = of
    item.stage = ended.stage = SENDING
    assert window.take_out(of.vnode) is of
    assert not of.fires
    assert window.take_out(of.vnode) is None
    window.leave_open((1, 0), of.sending())
    window.leave_open((1, 0), [ended])
    assert [item, ended] == window.sending()
    ended.stage = GONE
    window.leave_open((1, 0), [])
    assert [item] == window.sending()
    item.stage = GONE
    window.leave_open((1, 0), [])
    assert {} == window.left


def test_nothing_is_left_of_a_vnode_that_is_gone() -> None:
    """Neither its jobs nor where they stayed behind."""
    window = Window(lambda: None)
    queue = window.queue(route())
    of = due(queue, 1, "a").head
    window.heads[of.vnode] = of
    queue.lagging[of] = None
    queue.waiting[of] = b""
    window.forget_vnode(of.vnode)
    window.forget_vnode(head().vnode)
    assert ({}, {}, {}, 0) == (window.heads, queue.lagging, queue.waiting, window.queued())
