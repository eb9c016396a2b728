"""What a plan is to reach, vnode by vnode: how many replicas, which of them may move, and where to.

Some vnodes are left alone, and what they have counts beside the others: those of which replicas
are on their way (a plan is made again when they have come), and those that have no majority of
living replicas: such a group could not change its members, and a sole copy on a lost node is no
copy. What a vnode lacks comes by itself (`timemachine.placement.additions`), so it counts as wanted
only as many as it has.
"""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet

import msgspec

from timemachine.group import node_of
from timemachine.model import Node, NodeState, Placement
from timemachine.placement import present, successors
from timemachine.rebalancing.spread import Bounds, Topology, each_of


class Wish(msgspec.Struct, frozen=True):
    """A vnode that may change: where it is, of the nodes that may have it, and within what bounds.

    `keeps` are the ids of replicas on other nodes that stay.
    """

    placement: Placement
    origin: int
    bounds: Bounds
    keeps: tuple[int, ...] = ()


class Wishes:
    """All of them, and the replicas that each node has `beside`, by position."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.all: list[Wish] = []
        self.beside = [0] * len(topology.numbers)
        self._bounds: dict[tuple[int, int, int], Bounds] = {}

    def leave(self, placement: Placement) -> None:
        """Leave a vnode as it is."""
        for node in each_of(self.origin(placement)):
            self.beside[node] += 1

    def loads(self) -> list[int]:
        """The replicas that each node has before the plan, by position."""
        loads = list(self.beside)
        for wish in self.all:
            for node in each_of(wish.origin):
                loads[node] += 1
        return loads

    def add(
        self,
        placement: Placement,
        count: int,
        *,
        fixed: int = 0,
        allowed: int | None = None,
        keeps: Sequence[int] = (),
    ) -> None:
        """Have a vnode get `count` replicas on nodes `allowed`, those on `fixed` among them.

        Fewer, where these are too few: none comes to a node from which one is still to go. See
        `timemachine.replica.meta.placing`.
        """
        allowed = self.topology.everywhere if allowed is None else allowed
        allowed &= self.origin(placement) | ~self._on(placement.removing)
        count = min(count, allowed.bit_count())
        if not count + len(keeps):
            self.leave(placement)
            return
        key = count, fixed, allowed
        bounds = self._bounds.get(key)
        if bounds is None:
            bounds = self._bounds[key] = Bounds(self.topology, *key)
        self.all.append(Wish(placement, self.origin(placement), bounds, tuple(keeps)))

    def origin(self, placement: Placement) -> int:
        """The nodes that have a vnode, of those that may."""
        return self._on(placement.replicas)

    def _on(self, replicas: Iterable[int]) -> int:
        positions = self.topology.positions
        found = 0
        for each in replicas:
            position = positions.get(node_of(each))
            if position is not None:
                found |= 1 << position
        return found


def to_rebalance(
    placements: Iterable[Placement], nodes: Iterable[Node], lost: AbstractSet[int]
) -> Wishes:
    """Everything may move, and has to where a node is not to have any."""
    nodes = list(nodes)
    lost = lost | _gone(placements := _ordered(placements), nodes)
    topology = Topology(nodes, lost)
    wishes = Wishes(topology)
    for placement in placements:
        count = min(len(placement.replicas), len(topology.numbers))
        if count and changeable(placement, lost):
            wishes.add(placement, count)
        else:
            wishes.leave(placement)
    return wishes


def to_drain(
    placements: Iterable[Placement],
    nodes: Iterable[Node],
    numbers: AbstractSet[int],
    lost: AbstractSet[int],
) -> Wishes:
    """What is on some nodes goes, and nothing else."""
    nodes = list(nodes)
    lost = lost | _gone(placements := _ordered(placements), nodes)
    going = numbers | lost | {node.number for node in nodes if node.state is NodeState.LEAVING}
    topology = Topology(nodes, going)
    wishes = Wishes(topology)
    for placement in placements:
        stay = [each for each in placement.replicas if node_of(each) not in going]
        keeps = [each for each in stay if node_of(each) not in topology.positions]
        count = min(len(placement.replicas) - len(keeps), len(topology.numbers))
        if (
            len(stay) < len(placement.replicas)
            and count + len(keeps)
            and changeable(placement, lost)
        ):
            wishes.add(placement, count, fixed=wishes.origin(placement), keeps=keeps)
        else:
            wishes.leave(placement)
    return wishes


def to_replicate(
    uid: int, replicas: int, placements: Iterable[Placement], nodes: Iterable[Node]
) -> Wishes:
    """The vnodes of one collection get another count of replicas."""
    nodes = list(nodes)
    lost = _gone(placements := _ordered(placements), nodes)
    topology = Topology(nodes)
    wishes = Wishes(topology)
    for placement in placements:
        origin = wishes.origin(placement)
        others = [
            each
            for each in placement.replicas
            if node_of(each) not in topology.positions and node_of(each) not in lost
        ]
        # Those on nodes that get nothing new are the first to go.
        keeps = sorted(others)[: max(0, replicas - origin.bit_count())]
        count = min(replicas - len(keeps), len(topology.numbers))
        if placement.uid != uid or not count + len(keeps) or not changeable(placement, lost):
            wishes.leave(placement)
        elif count < origin.bit_count():
            wishes.add(placement, count, allowed=origin, keeps=keeps)
        else:
            wishes.add(placement, count, fixed=origin, keeps=keeps)
    return wishes


def changeable(placement: Placement, lost: AbstractSet[int]) -> bool:
    """Whether the members of a vnode can be changed now, and are not being changed already.

    A change that waits for a lost node would never end, so it may be changed itself: where a
    majority lives of those that are to vote, or of those that voted before.
    """
    replicas = placement.replicas
    changes = bool(placement.removing) and lost.isdisjoint(map(node_of, replicas))
    return not changes and any(
        2 * sum(node_of(each) not in lost for each in group) > len(group)
        for group in (replicas, _before(placement))
    )


def _before(placement: Placement) -> tuple[int, ...]:
    """Who voted before the change that a vnode is in, as far as its placement tells.

    One that is to go and whose node has another by now is damaged, and counts for nothing.
    """
    wanted = {node_of(each) for each in placement.replicas}
    leaving = tuple(each for each in placement.removing if node_of(each) not in wanted)
    coming = successors(placement, leaving)
    return leaving + tuple(each for each in placement.replicas if each not in coming)


def _ordered(placements: Iterable[Placement]) -> list[Placement]:
    return sorted(placements, key=lambda each: (each.uid, each.index))


def _gone(placements: Iterable[Placement], nodes: Iterable[Node]) -> frozenset[int]:
    """The numbers of nodes that have replicas, or had, and do not belong to the cluster."""
    there = present(nodes)
    return frozenset(
        number
        for placement in placements
        for each in (*placement.replicas, *placement.removing)
        if (number := node_of(each)) not in there
    )
