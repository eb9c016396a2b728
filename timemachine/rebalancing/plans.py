"""The plans: which replicas are to come and to go, so that nodes have what is due to them."""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from timemachine import limits
from timemachine.group import node_of
from timemachine.model import Collection, Node, Placement
from timemachine.placement import Move
from timemachine.rebalancing.exchange import Exchange, Vnode
from timemachine.rebalancing.mending import mend
from timemachine.rebalancing.shares import quotas
from timemachine.rebalancing.spread import each_of
from timemachine.rebalancing.wishes import Wish, Wishes, to_drain, to_rebalance, to_replicate


def rebalance(
    placements: Iterable[Placement],
    nodes: Iterable[Node],
    lost: AbstractSet[int] = frozenset(),
) -> list[Move]:
    """The fewest moves after which all nodes have their shares and all vnodes are spread best.

    `placements` are those of all vnodes, `lost` the numbers of nodes that are dead for good. These,
    nodes that leave and nodes of weight 0 are to have nothing. A vnode keeps its count of replicas,
    or gets as many as there are nodes for them.
    """
    return _planned(to_rebalance(placements, nodes, lost))


def drain(
    placements: Iterable[Placement],
    nodes: Iterable[Node],
    numbers: AbstractSet[int] = frozenset(),
    lost: AbstractSet[int] = frozenset(),
) -> list[Move]:
    """The moves after which the nodes of these numbers have nothing, nor those that leave.

    What is on other nodes stays, and what goes comes to those that then have least by weight. Of
    `lost` nodes nothing is copied: the replicas that are left are the sources.
    """
    return _planned(to_drain(placements, nodes, numbers, lost))


def replicate(
    collection: Collection,
    replicas: int,
    placements: Iterable[Placement],
    nodes: Iterable[Node],
) -> list[Move]:
    """The moves after which each vnode of a collection has so many replicas, if nodes allow it.

    Replicas come to where is least, or go from where is most, by weight; none moves.
    """
    assert 0 < replicas <= limits.REPLICAS_MAX
    return _planned(to_replicate(collection.uid, replicas, placements, nodes))


def copies(moves: Iterable[Move]) -> int:
    """How many replicas come, which is what a plan costs: each is the image of a vnode."""
    return sum(len(move.add) for move in moves)


def _planned(wishes: Wishes) -> list[Move]:
    topology = wishes.topology
    due = quotas(topology, (wish.bounds for wish in wishes.all), wishes.beside)
    loads = wishes.loads()
    vnodes = []
    for wish in wishes.all:
        group = wish.placement.uid, wish.placement.index
        chosen = mend(group, wish.bounds, wish.origin, loads, due)
        vnodes.append(Vnode(group, wish.bounds, wish.origin, chosen))
    Exchange(topology, due, vnodes, wishes.beside).run()
    moves = [
        _move(wish, topology.numbers, vnode.chosen)
        for wish, vnode in zip(wishes.all, vnodes, strict=True)
    ]
    return [move for move in moves if move.add or move.remove]


def _move(wish: Wish, numbers: tuple[int, ...], chosen: int) -> Move:
    placement = wish.placement
    stay = {numbers[node] for node in each_of(chosen)}
    return Move(
        placement.uid,
        placement.index,
        placement.version,
        tuple(numbers[node] for node in each_of(chosen & ~wish.origin)),
        tuple(
            each
            for each in placement.replicas
            if node_of(each) not in stay and each not in wish.keeps
        ),
    )
