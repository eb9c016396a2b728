"""Commands for groups that another node leads: offered until they are taken, and not for ever."""

from typing import Any

import pytest

from node.forwarding import Forwarding
from tests.unit.node.cluster import GROUP, Cluster, FiringNode
from timemachine import limits
from timemachine.errors import NotLeader
from timemachine.replica import commands as c
from timemachine.replica.commands import SettleItem


def _settles(count: int = 1) -> c.Settle:
    items = [SettleItem(f"job-{n}", b"u" * 16, 1, 1, 1, 0, b"") for n in range(count)]
    return c.Settle(now_ms=1, items=items)


class _Told:
    """A forwarding whose forwards are noted, and go nowhere."""

    def __init__(self) -> None:
        self.cluster = Cluster()
        self.node: FiringNode = self.cluster.nodes[1]
        self.forwarded: list[tuple[Any, int, int]] = []
        self.dropped: list[int] = []
        self.forwarding = Forwarding(
            self.cluster.world,
            self.node.delivery._runtime,
            forward=lambda group, number, settle: self.forwarded.append(
                (group, number, len(settle.items))
            ),
            on_dropped=self.dropped.append,
        )


def test_they_are_offered_until_they_are_acknowledged() -> None:
    """At once, and again at every interval, under the same number."""
    told = _Told()
    told.forwarding.add(GROUP, _settles(2))
    assert 1 == len(told.forwarded)
    told.cluster.run(limits.FORWARDS_RETRY_MS * 2 + 1)
    assert 3 == len(told.forwarded)
    [(group, number, count)] = set(told.forwarded)
    assert (GROUP, 2, 2) == (group, count, told.forwarding.waiting)
    told.forwarding.acknowledged(number + 1)
    assert 2 == told.forwarding.waiting
    told.forwarding.acknowledged(number)
    told.forwarding.acknowledged(number)
    told.cluster.run(1_000)
    assert (3, 0, 0) == (len(told.forwarded), told.forwarding.waiting, told.forwarding.dropped)


def test_they_are_offered_when_the_leader_becomes_known() -> None:
    """Without waiting for the next interval, and no other group's."""
    told = _Told()
    told.forwarding.add(GROUP, _settles())
    told.forwarding.add((9, 9), _settles())
    told.forwarding.wake(GROUP)
    assert [GROUP, (9, 9), GROUP] == [group for group, _, _ in told.forwarded]


def test_a_group_that_moves_costs_what_waits_for_it_and_no_more() -> None:
    """Thousands may move at once, while thousands of settles wait for others."""
    told = _Told()
    groups = [(5, index) for index in range(limits.FORWARDS_MAX)]
    for group in groups:
        told.forwarding.add(group, _settles())
    looked_at: list[int] = []
    forwarding: Any = told.forwarding
    forwarding._offer = lambda number, _: looked_at.append(number)
    forwarding._open = None
    for group in groups:
        forwarding.wake(group)
    assert len(groups) == len(set(looked_at)) == len(looked_at)


def test_nothing_is_kept_of_what_was_acknowledged() -> None:
    """Neither by its number nor by its group."""
    told = _Told()
    for index in range(3):
        told.forwarding.add((5, index % 2), _settles())
    for number in list(told.forwarding._open):
        told.forwarding.acknowledged(number)
    assert (0, {}, {}) == (
        told.forwarding.waiting,
        told.forwarding._open,
        told.forwarding._of_group,
    )


def test_a_node_that_leads_by_now_commits_them_itself() -> None:
    """Once, however often they would be offered meanwhile."""
    told = _Told()
    told.forwarding.add(GROUP, _settles())
    told.cluster.elect(1)
    told.forwarding.wake(GROUP)
    told.forwarding.wake(GROUP)
    told.cluster.run(5)
    assert [c.Settle] == [type(command) for command in told.cluster.committed]
    assert (0, 1) == (told.forwarding.waiting, len(told.forwarded))


def test_they_are_kept_where_the_leadership_ends_before_they_are_committed() -> None:
    """And offered to the next leader."""
    told = _Told()
    told.cluster.elect(1)
    told.forwarding.add(GROUP, _settles())
    told.cluster.elect(2)
    told.cluster.run(limits.FORWARDS_RETRY_MS + 10)
    assert [] == told.cluster.committed
    assert (1, 1) == (told.forwarding.waiting, len(told.forwarded))


def test_they_are_offered_again_to_a_leader_that_was_about_to_go() -> None:
    """It is this node, which refused them at once, and leads on after all."""
    told = _Told()
    told.cluster.elect(1)
    told.cluster.moving = True
    told.forwarding.add(GROUP, _settles())
    told.cluster.moving = False
    told.cluster.run(limits.FORWARDS_RETRY_MS + 10)
    assert (0, 1) == (told.forwarding.waiting, len(told.cluster.committed))


@pytest.mark.parametrize("leader", [0, 1, 2])
def test_received_ones_are_taken_where_the_group_is_served(leader: int) -> None:
    """Whoever forwards them hears whether they are committed."""
    told = _Told()
    told.cluster.elect(leader)
    heard: list[Any] = []
    taken = told.forwarding.receive(GROUP, _settles(), heard.append)
    assert taken == (leader == 1)
    assert not told.forwarding.receive((9, 9), _settles(), heard.append)
    told.cluster.run(5)
    assert ([None] if taken else []) == heard


def test_received_ones_that_are_not_committed_are_not_acknowledged() -> None:
    """The leadership went while they were on their way."""
    told = _Told()
    told.cluster.elect(1)
    heard: list[Any] = []
    assert told.forwarding.receive(GROUP, _settles(), heard.append)
    told.cluster.elect(2)
    told.cluster.run(5)
    assert [NotLeader] == [type(error) for error in heard]


def test_they_are_dropped_in_time_and_counted() -> None:
    """The oldest first, and nothing is asked any more when none is left."""
    told = _Told()
    told.forwarding.add(GROUP, _settles(3))
    told.cluster.run(60_000)
    told.forwarding.add(GROUP, _settles(2))
    told.cluster.run(limits.FORWARDS_KEPT_MS - 59_000)
    assert ([3], 3, 2) == (told.dropped, told.forwarding.dropped, told.forwarding.waiting)
    told.cluster.run(limits.FORWARDS_KEPT_MS)
    assert ([3, 2], 5, 0) == (told.dropped, told.forwarding.dropped, told.forwarding.waiting)
    count = len(told.forwarded)
    told.cluster.run(10_000)
    assert count == len(told.forwarded)


def test_they_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes later takes the place of the oldest."""
    monkeypatch.setattr(limits, "FORWARDS_MAX", 5)
    told = _Told()
    for _ in range(4):
        told.forwarding.add(GROUP, _settles(2))
    assert ([2, 2], 4) == (told.dropped, told.forwarding.waiting)


def test_numbers_of_two_lives_differ() -> None:
    """An answer to a forward of the process before takes nothing away."""
    cluster = Cluster()
    numbers: list[int] = []
    for _ in range(2):
        forwarding = Forwarding(
            cluster.world,
            cluster.nodes[1].delivery._runtime,
            forward=lambda _group, number, _command: numbers.append(number),
            on_dropped=lambda _: None,
        )
        forwarding.add(GROUP, _settles())
    assert abs(numbers[0] - numbers[1]) > 1_000_000


def test_nothing_is_offered_by_a_node_that_has_stopped() -> None:
    """Its store is closed."""
    told = _Told()
    told.forwarding.add(GROUP, _settles())
    runtime: Any = told.node.delivery._runtime
    runtime.working = False
    told.cluster.run(10_000)
    assert 1 == len(told.forwarded)


def test_who_adds_may_look_when_they_must_have_been_committed() -> None:
    """Once for all that were added meanwhile; what is added then is looked after again."""
    told = _Told()
    looks: list[float] = []

    def look() -> None:
        looks.append(told.cluster.world.mono_ms())

    began_ms = told.cluster.world.mono_ms()
    told.forwarding.add(GROUP, _settles(), look)
    told.cluster.run(1_000)
    told.forwarding.add(GROUP, _settles(), look)
    told.cluster.run(2 * limits.FORWARDS_KEPT_MS)
    assert [began_ms + limits.FORWARDS_KEPT_MS] == looks
    told.forwarding.add(GROUP, _settles(), look)
    told.cluster.run(limits.FORWARDS_KEPT_MS + 1)
    assert 2 == len(looks)


def test_nobody_looks_once_the_node_has_stopped() -> None:
    """Its store may be closed."""
    told = _Told()
    looks: list[None] = []
    told.forwarding.add(GROUP, _settles(), lambda: looks.append(None))
    runtime: Any = told.forwarding._runtime
    runtime.working = False
    told.cluster.run(2 * limits.FORWARDS_KEPT_MS)
    assert [] == looks
