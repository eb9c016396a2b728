"""Exchanges between nodes, by example: the direct way, others, and none."""

from collections import Counter

from tests.unit.rebalancing.made import node
from timemachine.model import Node
from timemachine.rebalancing.exchange import Exchange, Vnode
from timemachine.rebalancing.shares import quotas
from timemachine.rebalancing.spread import Bounds, Topology, each_of


def _exchanged(
    nodes: list[Node],
    *vnodes: tuple[int, int],
    fixed: int = 0,
    uids: tuple[int, ...] = (),
    beside: list[int] | None = None,
) -> list[list[int]]:
    """Positions of the nodes of each vnode after all; before, (in truth, to begin with) as bits."""
    topology = Topology(nodes)
    uids = uids or (1,) * len(vnodes)
    beside = beside or [0] * len(nodes)
    made = [
        Vnode(
            (uid, index),
            Bounds(topology, chosen.bit_count(), fixed & chosen, topology.everywhere),
            origin,
            chosen,
        )
        for index, (uid, (origin, chosen)) in enumerate(zip(uids, vnodes, strict=True))
    ]
    due = quotas(topology, [each.bounds for each in made], beside)
    Exchange(topology, due, made, beside).run()
    return [list(each_of(vnode.chosen)) for vnode in made]


def test_a_node_gives_what_it_has_too_much() -> None:
    """And no more: three of four on one of two nodes are one too many, two of three are not."""
    nodes = [node(1), node(2)]
    found = _exchanged(nodes, (1, 1), (1, 1), (1, 1), (2, 2))
    assert Counter({0: 2, 1: 2}) == Counter(each for has in found for each in has)
    assert [[0], [0], [1]] == _exchanged(nodes, (1, 1), (1, 1), (2, 2))


def test_of_a_collection_goes_what_is_uneven() -> None:
    """Two nodes have one each of a collection, and the one has two of another: of that it gives."""
    nodes = [node(1), node(2)]
    for uids in ((1, 1, 2, 2), (2, 2, 1, 1)):
        found = _exchanged(nodes, (1, 1), (1, 1), (1, 1), (2, 2), uids=uids)
        assert [[0], [1]] == found[2:]


def test_zones_that_must_have_one_of_each_are_level_in_themselves() -> None:
    """Nothing goes from the zone of two nodes, which have more, to that of three."""
    nodes = [node(1, "a"), node(2, "a"), node(3, "b"), node(4, "b"), node(5, "b")]
    full, other = 0b00101, 0b10010
    found = _exchanged(nodes, (full, full), (full, full), (full, full), (other, other))
    loads = Counter(each for has in found for each in has)
    assert [2, 2] == [loads[0], loads[1]]
    assert [1, 1, 2] == sorted(loads[each] for each in (2, 3, 4))


def test_a_path_leads_through_a_third_node_where_no_vnode_goes_straight() -> None:
    """All that the full node has to give is on the empty one already."""
    nodes = [node(1), node(2), node(3)]
    found = _exchanged(nodes, (0b101, 0b101), (0b101, 0b101), (0b010, 0b010), beside=[2, 2, 0])
    assert [[0, 2], [1, 2]] == sorted(found[:2])
    assert [2] == found[2]


def test_a_move_that_was_begun_is_taken_back_if_that_helps() -> None:
    """A vnode was to go from node 1 to node 2; now that has too much, and the vnode stays."""
    nodes = [node(1), node(2)]
    assert [[0], [1]] == _exchanged(nodes, (0b01, 0b10), (0b10, 0b10))


def test_what_moves_anyhow_moves_elsewhere_at_no_cost() -> None:
    """Node 2 has too much; what was to come to it from a node that is gone comes to node 1."""
    nodes = [node(1), node(2)]
    found = _exchanged(nodes, (0b10, 0b10), (0b10, 0b10), (0, 0b10), beside=[1, 0])
    assert [[1], [1], [0]] == found


def test_what_is_fixed_stays() -> None:
    """Also if that leaves one node with more than is due to it by weight."""
    nodes = [node(1), node(2)]
    assert [[0], [0], [0]] == _exchanged(nodes, (1, 1), (1, 1), (1, 1), fixed=1)


def test_what_no_quota_can_have_is_level_all_the_same() -> None:
    """Three vnodes may be on the third node only: the other two have one each, of one pool."""
    topology = Topology([node(1), node(2), node(3)])
    made = [
        Vnode((1, 0), Bounds(topology, 1, 0, 0b011), 0, 0b001),
        Vnode((1, 1), Bounds(topology, 1, 0, 0b011), 0, 0b001),
        Vnode((1, 2), Bounds(topology, 1, 0, 0b100), 0, 0b100),
        Vnode((1, 3), Bounds(topology, 1, 0, 0b100), 0, 0b100),
        Vnode((1, 4), Bounds(topology, 1, 0, 0b100), 0, 0b100),
    ]
    due = quotas(topology, [each.bounds for each in made], [0, 0, 0])
    Exchange(topology, due, made, [0, 0, 0]).run()
    assert [1, 1, 3] == [sum(each.chosen >> number & 1 for each in made) for number in range(3)]
