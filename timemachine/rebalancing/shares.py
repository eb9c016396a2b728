"""How many replicas each node is to have: shares by weight, as even as spread allows.

Were it not for zones, the share of a node would be the part of all replicas that its weight is of
all weights. But a zone of one node has a replica of every vnode that has one in each zone, and a
node cannot have more replicas than there are vnodes. So there are bounds for nodes, hosts and
zones, summed over all vnodes, and within them the shares are to be level: every node has `level`
times its weight, but where a bound makes a zone, a host or a node have less or more. What is inside
of that is level in itself. These are the shares with the least sum of squares, divided by weights,
that keep the bounds: a resource allocation problem with nested bounds (Ibaraki and Katoh, 1988),
solved from the whole down to the nodes.

A share is a fraction, and whether a node gets what is below or above it is nobody's due: both are
right. So each node has a least and a most (`Quota`), and those of one level have a sum that is
whole; a plan rounds as it needs the fewest moves. For equal weights that is: no two nodes that can
have parts of the same differ by more than one.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from fractions import Fraction
from math import ceil, floor
from typing import Final

import msgspec

from timemachine.rebalancing.spread import Bounds, Topology, each_of

_ROUNDS: Final = 100
"""Halvings of an interval: then a float has no more digits."""


class Quota(msgspec.Struct, frozen=True, gc=False):
    """What a node is to have: its share, and the whole numbers on both sides of it.

    `pool` numbers the nodes of the same level: `sums` of `Quotas` says how many they have.
    """

    share: float
    least: int
    most: int
    pool: int


class Quotas(msgspec.Struct, frozen=True):
    """Quotas of all nodes, by position, and how many replicas the nodes of each pool have."""

    nodes: list[Quota]
    sums: list[int]


def quotas(topology: Topology, vnodes: Iterable[Bounds], beside: Sequence[int]) -> Quotas:
    """What each node is to have of these vnodes, with what it has `beside` and keeps."""
    root = _tree(topology, Counter(vnodes), beside)
    if not root.parts:
        return Quotas([], [])
    root.settle(root.low)
    leaves = {leaf.node: leaf for leaf in root.leaves()}
    levels: dict[Fraction, int] = {}
    sums: list[Fraction] = []
    found = []
    for node in range(len(topology.numbers)):
        share, level = leaves[node].share, leaves[node].level
        pool = levels.setdefault(level, len(levels))
        if pool == len(sums):
            sums.append(Fraction(0))
        sums[pool] += share
        found.append(Quota(float(share), floor(share), ceil(share), pool))
    assert all(each.denominator == 1 for each in sums)
    return Quotas(found, [int(each) for each in sums])


def _tree(topology: Topology, vnodes: Counter[Bounds], beside: Sequence[int]) -> "_Part":
    """Nodes in hosts in zones in the whole, with the sums of all bounds."""
    nodes = [[count, count] for count in beside]
    hosts = [_both(sum(beside[node] for node in each_of(mask))) for mask in topology.hosts]
    zones = [_both(sum(beside[node] for node in each_of(mask))) for mask in topology.zones]
    total = sum(beside)
    for bounds, times in vnodes.items():
        total += times * bounds.count
        for node, pair in enumerate(nodes):
            low, high = bounds.node_bounds(node)
            pair[0] += times * low
            pair[1] += times * high
        for pairs, lows, highs in (
            (hosts, bounds.host_low, bounds.host_high),
            (zones, bounds.zone_low, bounds.zone_high),
        ):
            for pair, low, high in zip(pairs, lows, highs, strict=True):
                pair[0] += times * low
                pair[1] += times * high
    leaves = [
        _Part(low, high, node=node, weight=topology.weights[node])
        for node, (low, high) in enumerate(nodes)
    ]
    in_hosts = [
        _Part(low, high, [leaves[node] for node in each_of(mask)])
        for (low, high), mask in zip(hosts, topology.hosts, strict=True)
    ]
    in_zones = [
        _Part(low, high, [in_hosts[host] for host in members])
        for (low, high), members in zip(zones, topology.hosts_of, strict=True)
    ]
    return _Part(total, total, in_zones)


def _both(count: int) -> list[int]:
    return [count, count]


class _Part:
    """A node, or what holds nodes, with its bounds; and its share, once that is settled."""

    def __init__(
        self,
        low: int,
        high: int,
        parts: "Sequence[_Part]" = (),
        *,
        node: int = -1,
        weight: int = 0,
    ) -> None:
        self.low = low
        self.high = high
        self.parts = parts
        self.node = node
        self.share = Fraction(low)
        self.level = Fraction(0)
        self.weight = weight

    def leaves(self) -> "Iterable[_Part]":
        if self.node >= 0:
            yield self
        for part in self.parts:
            yield from part.leaves()

    def settle(self, share: int) -> None:
        """Give it its share, and its parts theirs."""
        top = max((leaf.high + 1) / leaf.weight for leaf in self.leaves())
        below, above = 0.0, top
        for _ in range(_ROUNDS):
            middle = (below + above) / 2
            constant, weight = self._inside(middle)
            if constant + weight * middle < share:
                below = middle
            else:
                above = middle
        constant, weight = self._inside(above)
        # The float has told which bounds hold; what they leave is level, exactly.
        self._level(Fraction(share - constant, weight) if weight else Fraction(above))

    def _level(self, level: Fraction) -> None:
        for part in self.parts:
            constant, weight = part._at(float(level))
            if part.node >= 0:
                part.level = level
                part.share = constant + weight * level
            elif weight:
                part._level(level)
            else:
                part.settle(constant)

    def _at(self, level: float) -> tuple[int, int]:
        """What it has at a level, within its bounds: constant + weight * level."""
        constant, weight = self._inside(level)
        value = constant + weight * level
        if value < self.low - _NEAR:
            return self.low, 0
        if value > self.high + _NEAR:
            return self.high, 0
        return constant, weight

    def _inside(self, level: float) -> tuple[int, int]:
        if self.node >= 0:
            return 0, self.weight
        constant = weight = 0
        for part in self.parts:
            more, slope = part._at(level)
            constant += more
            weight += slope
        return constant, weight


_NEAR: Final = 1e-7
"""Less than what two shares can differ by: they are fractions of sums of weights (2,560,000)."""
