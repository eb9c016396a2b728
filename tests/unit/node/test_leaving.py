"""A node that is asked to stop: others lead at once, and know what it knew."""

from typing import Any

from tests.unit.node.three import MEMBERS, ThreeNodes
from timemachine.replica import commands as c


def test_others_lead_before_it_stops() -> None:
    """No election time-out passes: the leadership is given, and not found to be gone."""
    nodes = ThreeNodes()
    group = nodes.put_collection()
    leader = nodes.leader(group)
    engine = nodes.engines[leader]
    stopped: list[float] = []
    began_ms = nodes.world.mono_ms()
    engine.stop(lambda: stopped.append(nodes.world.mono_ms()))
    nodes.world.run_until(lambda: bool(stopped))
    assert not engine.runtime.working
    rest = [number for number in MEMBERS if number != leader]
    for each in (group, (0, 0)):
        assert [nodes.vnode(number, each).serving for number in rest].count(True) == 1
    # An election begins after an election time-out at the earliest.
    assert stopped[0] - began_ms < 1_000


def test_it_stops_where_nobody_can_take_over() -> None:
    """Alone among nodes that do not answer it keeps what it has, and ends all the same."""
    nodes = ThreeNodes()
    group = nodes.put_collection()
    leader = nodes.leader(group)
    nodes.cut = set(nodes.others(leader))
    nodes.world.run_for(300)
    stopped: list[Any] = []
    nodes.engines[leader].stop(lambda: stopped.append(True))
    nodes.world.run_until(lambda: bool(stopped))


def test_it_waits_until_others_know_what_it_has_for_them() -> None:
    """What became of a send is committed by its successor before the process ends."""
    nodes = ThreeNodes()
    group = nodes.put_collection()
    leader = nodes.leader(group)
    other = nodes.others(leader)[0]
    engine = nodes.engines[other]
    consensus = engine.consensus
    assert consensus is not None
    nodes.cut = {leader}
    consensus.forwarding.add(group, c.Settle(now_ms=1, items=[]))
    stopped: list[Any] = []
    engine.stop(lambda: stopped.append(consensus.forwarding.waiting))
    nodes.world.run_for(500)
    assert not stopped
    nodes.cut = set()
    nodes.world.run_until(lambda: bool(stopped))
    assert [0] == stopped


def _collection(nodes: ThreeNodes) -> tuple[tuple[int, int], int]:
    group = nodes.put_collection()
    nodes.world.run_for(2_000)
    return group, nodes.leader(group)


def test_who_is_nearly_full_has_a_node_with_room_lead() -> None:
    """Creators go on: they get 507 from no leader that has others."""
    nodes = ThreeNodes()
    group, leader = _collection(nodes)
    full = nodes.others(leader)[0]
    (roomy,) = [each for each in nodes.others(leader) if each != full]
    nodes.engines[full].space_low = True
    nodes.world.run_for(1_500)
    nodes.engines[leader].space_low = True
    nodes.world.run_until(lambda: nodes.leader(group) == roomy, 1_000_000)
    assert nodes.vnode(roomy, group).term <= 3
    # And it stays there, whoever balances.
    nodes.world.run_for(20_000)
    assert roomy == nodes.leader(group)


def test_where_all_are_nearly_full_nobody_hands_over() -> None:
    """Each refuses creators, and fires."""
    nodes = ThreeNodes()
    group, leader = _collection(nodes)
    for engine in nodes.engines.values():
        engine.space_low = True
    nodes.world.run_for(1_500)
    term, leader = nodes.vnode(leader, group).term, nodes.leader(group)
    nodes.world.run_for(20_000)
    assert (term, leader) == (nodes.vnode(leader, group).term, nodes.leader(group))


def test_a_node_that_is_nearly_full_leads_when_those_with_room_are_gone() -> None:
    """A leader that refuses creators is better than none."""
    nodes = ThreeNodes()
    group, leader = _collection(nodes)
    for number in nodes.others(leader):
        nodes.engines[number].space_low = True
    nodes.world.run_for(1_500)
    nodes.stop(leader)
    nodes.world.run_until(lambda: nodes.leader(group) not in (0, leader), 1_000_000)
