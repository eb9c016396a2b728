"""Vnodes brought to where they may be, one by one, with the fewest moves each.

A replica moves for no quota here, but because its node is to have none any more, because there are
to be more or fewer of them, or because it shares a zone or a host though it need not. Among equally
few moves those are taken that go from nodes which have most beyond their shares, to such as lack
most: so little is left to do for the exchange that follows.
"""

from collections.abc import Sequence
from itertools import combinations

from timemachine.placement import Group, draw
from timemachine.rebalancing.shares import Quotas
from timemachine.rebalancing.spread import Bounds, each_of


def mend(group: Group, bounds: Bounds, origin: int, loads: list[int], quotas: Quotas) -> int:
    """The nodes that are to have a vnode which those of `origin` have; `loads` count it so."""
    chosen = _kept(group, bounds, origin, loads, quotas)
    for node in each_of(origin & ~chosen):
        loads[node] -= 1
    while chosen.bit_count() < bounds.count:
        node = next(
            node
            for node in _emptiest(group, bounds.allowed & ~chosen, loads, quotas)
            if bounds.best(chosen | 1 << node)
        )
        chosen |= 1 << node
        loads[node] += 1
    return chosen


def _kept(group: Group, bounds: Bounds, origin: int, loads: Sequence[int], quotas: Quotas) -> int:
    """Those that stay: as many as can. A vnode has few replicas, so that all ways are tried."""
    if origin.bit_count() <= bounds.count and bounds.best(origin):
        return origin
    may_go = _emptiest(group, origin & ~bounds.fixed, loads, quotas)[::-1]
    for gone in range(1, len(may_go) + 1):
        # The first of those that go are the fullest.
        for chosen in combinations(may_go, gone):
            kept = origin & ~sum(1 << node for node in chosen)
            if kept.bit_count() <= bounds.count and bounds.best(kept):
                return kept
    raise AssertionError("what is fixed can always stay")


def _emptiest(group: Group, nodes: int, loads: Sequence[int], quotas: Quotas) -> list[int]:
    """Nodes, those first that lack most; a hash decides where that is the same."""

    def key(node: int) -> tuple[float, int, int]:
        lack = quotas.nodes[node].share - loads[node]
        return -round(lack, 6), draw(group, node), node

    return sorted(each_of(nodes), key=key)
