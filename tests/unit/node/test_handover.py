"""A planned change of leader ends, whatever becomes of the vnode meanwhile."""

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
