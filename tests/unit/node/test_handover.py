"""A planned change of leader ends, whatever becomes of the vnode meanwhile."""

from typing import Any

from tests.unit.node.three import MEMBERS, ThreeNodes
from timemachine.replica import meta as m


def test_a_vnode_is_handed_over() -> None:
    """The other one leads, and whoever asked hears of it."""
    nodes = ThreeNodes()
    group = nodes.put_collection()
    leader = nodes.leader(group)
    to = next(number for number in MEMBERS if number != leader)
    heard: list[bool] = []
    engine = nodes.engines[leader]
    engine.hand_over(nodes.vnode(leader, group), to, heard.append)
    nodes.world.run_until(lambda: bool(heard))
    nodes.world.run_for(500)
    assert [True] == heard
    assert to == nodes.leader(group)


def test_a_handover_ends_with_its_vnode() -> None:
    """Nobody ticks a replica that is gone, so its core would hand over for ever."""
    nodes = ThreeNodes()
    group = nodes.put_collection()
    leader = nodes.leader(group)
    meta_leader = nodes.leader((0, 0))
    to = next(number for number in MEMBERS if number not in {leader, meta_leader})
    engine = nodes.engines[leader]
    vnode = nodes.vnode(leader, group)
    nodes.cut = {to}
    heard: list[bool] = []
    engine.hand_over(vnode, to, heard.append)
    nodes.world.run_until(lambda: vnode.core.hands_over)
    nodes.ask_meta(lambda now_ms: m.DeleteCollection(now_ms=now_ms, db="default", name="jobs"))
    nodes.world.run_for(10_000)
    assert group not in engine.runtime.vnodes
    assert [False] == heard


def _fires(nodes: ThreeNodes, number: int, group: tuple[int, int]) -> bool:
    """Whether the delivery of a node looks after a group."""
    delivery = nodes.engines[number].delivery
    return nodes.vnode(number, group) in delivery._window.heads


def test_nothing_is_handed_over_before_its_successor_knows_what_is_open() -> None:
    """Firing stops at once; the leadership goes when the log says so, on a majority of disks."""
    nodes = ThreeNodes()
    group = nodes.put_collection()
    leader = nodes.leader(group)
    vnode = nodes.vnode(leader, group)
    nodes.world.run_until(lambda: _fires(nodes, leader, group))
    last = vnode.last_index
    nodes.cut = set(nodes.others(leader))
    nodes.engines[leader].hand_over(vnode, nodes.others(leader)[0], lambda _: None)
    nodes.world.run_for(300)
    assert not _fires(nodes, leader, group)
    assert vnode.last_index == last + 1
    assert not vnode.core.hands_over
    nodes.cut = set()
    nodes.world.run_until(lambda: vnode.core.hands_over or not vnode.is_leader())
    assert vnode.machine.applied_index == last + 2


def test_a_transfer_that_failed_is_as_if_it_had_not_been() -> None:
    """The other one never had the whole log, so it was not asked: this one leads and fires on."""
    nodes = ThreeNodes()
    group = nodes.put_collection()
    leader = nodes.leader(group)
    vnode = nodes.vnode(leader, group)
    nodes.world.run_until(lambda: _fires(nodes, leader, group))
    term, to = vnode.term, nodes.others(leader)[0]
    nodes.cut = {to}
    heard: list[bool] = []
    nodes.engines[leader].hand_over(vnode, to, heard.append)
    nodes.world.run_until(lambda: vnode.core.hands_over)
    refused = nodes.put(leader, group, "early")
    assert ["not_leader"] == [error.code for error in refused]
    nodes.world.run_until(lambda: bool(heard))
    assert [False] == heard
    assert (leader, term) == (nodes.leader(group), vnode.term)
    assert _fires(nodes, leader, group)
    assert vnode.may_fire(nodes.world.mono_ms())
    answers = nodes.put(leader, group, "late")
    nodes.world.run_until(lambda: bool(answers))
    assert "created" == answers[0].kind


def test_a_leader_that_may_not_fire_any_more_resigns() -> None:
    """The other one was asked to campaign and did not: nobody knows whether it still will."""
    nodes = ThreeNodes()
    group = nodes.put_collection()
    leader = nodes.leader(group)
    vnode = nodes.vnode(leader, group)
    term, to = vnode.term, nodes.others(leader)[0]
    heard: list[tuple[bool, bool]] = []
    nodes.engines[leader].hand_over(
        vnode, to, lambda moved: heard.append((moved, vnode.is_leader()))
    )
    # It has all that its successor must know, and then it is gone.
    nodes.world.run_until(lambda: vnode.core.lease_given_up)
    nodes.cut = {to}
    assert not vnode.may_fire(nodes.world.mono_ms())
    nodes.world.run_until(lambda: bool(heard))
    assert [(False, False)] == heard
    nodes.world.run_until(lambda: nodes.leader(group) != 0)
    next_leader = nodes.leader(group)
    assert nodes.vnode(next_leader, group).term > term
    nodes.world.run_until(lambda: _fires(nodes, next_leader, group))


def test_one_attempt_at_a_time() -> None:
    """The second is told that nothing moved, later and not from within; the first goes on."""
    nodes = ThreeNodes()
    group = nodes.put_collection()
    leader = nodes.leader(group)
    vnode = nodes.vnode(leader, group)
    one, other = nodes.others(leader)
    heard: list[Any] = []
    engine = nodes.engines[leader]
    engine.hand_over(vnode, one, lambda moved: heard.append(("first", moved)))
    engine.hand_over(vnode, other, lambda moved: heard.append(("second", moved)))
    assert [] == heard
    nodes.world.run_until(lambda: len(heard) == 2)
    nodes.world.run_until(lambda: nodes.leader(group) != 0)
    assert [("second", False), ("first", True)] == heard
    assert one == nodes.leader(group)


def test_what_this_node_does_not_lead_is_not_its_to_hand_over() -> None:
    """Whoever asked hears that nothing moved, later and not from within."""
    nodes = ThreeNodes()
    group = nodes.put_collection()
    leader = nodes.leader(group)
    one, other = nodes.others(leader)
    heard: list[bool] = []
    nodes.engines[one].hand_over(nodes.vnode(one, group), other, heard.append)
    assert [] == heard
    nodes.world.run_for(3_000)
    assert [False] == heard
    assert leader == nodes.leader(group)


def test_a_vnode_can_be_handed_over_again_after_an_attempt() -> None:
    """Whether it failed or not."""
    nodes = ThreeNodes()
    group = nodes.put_collection()
    heard: list[bool] = []
    for to in (1, 2, 3, 1):
        leader = nodes.leader(group)
        nodes.cut = {to} if to == 3 else set()
        if to != leader:
            nodes.engines[leader].hand_over(nodes.vnode(leader, group), to, heard.append)
            nodes.world.run_for(4_000)
            nodes.world.run_until(lambda: nodes.leader(group) != 0)
    assert 1 == nodes.leader(group)
    assert heard.count(False) == 1
