"""What nodes say of themselves comes to all, however long that takes."""

import msgspec

from tests.unit.node.three import ThreeNodes
from timemachine import limits


def test_a_node_says_who_it_is_until_the_cluster_knows() -> None:
    """It may have started elsewhere long before the others: what is forwarded is kept for less."""
    nodes = ThreeNodes()
    number = nodes.others(nodes.leader((0, 0)))[0]
    nodes.world.run_for(1_000)
    engine = nodes.engines[number]
    own = engine.meta.nodes[f"n{number}"]
    nodes.cut = set(nodes.others(number))
    engine.say_node(msgspec.structs.replace(own, rpc="elsewhere:9001"))
    nodes.world.run_for(1.5 * limits.FORWARDS_KEPT_MS)
    nodes.cut = set()
    nodes.world.run_for(limits.FORWARDS_KEPT_MS)
    for each in nodes.engines.values():
        assert "elsewhere:9001" == each.meta.nodes[own.id].rpc
    assert [] == nodes.failures
