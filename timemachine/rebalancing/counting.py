"""How few moves any plan needs: by counting, without looking for one.

Each count is of replicas that have to come somewhere, whoever plans it. What a plan of the same
placements takes beyond the largest of them is the price of what the counts do not see together:
that one replica shares a zone, and another one is too much for its node.
"""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet

from timemachine.model import Node, Placement
from timemachine.rebalancing.shares import quotas
from timemachine.rebalancing.spread import Bounds, Topology
from timemachine.rebalancing.wishes import Wishes, to_rebalance


def lower_bound(
    placements: Iterable[Placement],
    nodes: Iterable[Node],
    lost: AbstractSet[int] = frozenset(),
) -> int:
    """No plan after which nodes have their shares and vnodes are spread best copies fewer."""
    wishes = to_rebalance(placements, nodes, lost)
    loads = wishes.loads()
    due = quotas(wishes.topology, (wish.bounds for wish in wishes.all), wishes.beside)
    lacking = sum(max(0, each.least - load) for each, load in zip(due.nodes, loads, strict=True))
    over = sum(max(0, load - each.most) for each, load in zip(due.nodes, loads, strict=True))
    # What is on nodes that are to have nothing comes to others; and so does whatever goes there.
    leaving = sum(wish.bounds.count - wish.origin.bit_count() for wish in wishes.all)
    return max(lacking, leaving + max(over, _badly_spread(wishes)))


def _badly_spread(wishes: Wishes) -> int:
    """How many replicas have to go because of what else their vnode has where they are."""
    return sum(_to_go(wishes.topology, wish.bounds, wish.origin) for wish in wishes.all)


def _to_go(topology: Topology, bounds: Bounds, origin: int) -> int:
    if bounds.best(origin):
        return 0
    comes = bounds.count - origin.bit_count()
    zones = _off(topology.zones, bounds.zone_low, bounds.zone_high, origin, comes)
    return max(zones, _off(topology.hosts, bounds.host_low, bounds.host_high, origin, comes))


def _off(
    places: Sequence[int], lows: Sequence[int], highs: Sequence[int], origin: int, comes: int
) -> int:
    """Too many in some places, or too few in others, beyond what comes anyhow."""
    over = short = 0
    for place, low, high in zip(places, lows, highs, strict=True):
        count = (place & origin).bit_count()
        over += max(0, count - high)
        short += max(0, low - count)
    return max(over, short - comes)
