"""How the replicas of one vnode may stand: how many in each zone, on each host, so which nodes.

The best spread has as few pairs of replicas as possible in one zone, and of those that have that,
as few as possible on one host: what `timemachine.placement` chooses for a new vnode. Pairs are
fewest when counts are level, as water is: every zone has `level` replicas, or as many as it has
nodes if these are fewer, and those that are left over stand in some of the others, one in each. So
which sets of nodes are spread best is said by two numbers for each zone and each host, the least
and the most replicas there, that differ by one at most (`Bounds`). And whether one node may stand
in for another asks only whether what the two are in has one to give and has room for one
(`Bounds.substitutes`). That is what makes fewest moves a problem of flows.

Zones hold hosts and hosts hold nodes. A host with nodes in two zones counts as two hosts.

Sets of nodes are bits of an integer: there are at most 256 nodes, and one `&` asks about all.
"""

from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet

from timemachine.model import Node
from timemachine.placement import weight_of, zone_of


class Topology:
    """The nodes that may have replicas, by their positions: by number, from 0 on.

    weights       of each node
    zones, hosts  their nodes, as bits
    zone, host    position of what each node is in
    hosts_of      positions of the hosts in each zone
    """

    def __init__(self, nodes: Iterable[Node], without: AbstractSet[int] = frozenset()) -> None:
        kept = [
            node
            for node in sorted(nodes, key=lambda node: node.number)
            if weight_of(node) and node.number not in without
        ]
        self.numbers = tuple(node.number for node in kept)
        self.positions = {number: position for position, number in enumerate(self.numbers)}
        self.weights = [weight_of(node) for node in kept]
        self.everywhere = (1 << len(kept)) - 1
        zones = [zone_of(node) for node in kept]
        hosts = [(zone_of(node), node.host or node.id) for node in kept]
        self.zone, self.zones = _numbered(zones)
        self.host, self.hosts = _numbered(hosts)
        self.hosts_of: list[list[int]] = [[] for _ in self.zones]
        for host, members in enumerate(self.hosts):
            self.hosts_of[self.zone[_lowest(members)]].append(host)


def _numbered(names: Sequence[object]) -> tuple[list[int], list[int]]:
    order = {name: position for position, name in enumerate(dict.fromkeys(names))}
    masks = [0] * len(order)
    for node, name in enumerate(names):
        masks[order[name]] |= 1 << node
    return [order[name] for name in names], masks


def each_of(mask: int) -> Iterator[int]:
    """The positions of the bits that are set, from the lowest on."""
    while mask:
        yield _lowest(mask)
        mask &= mask - 1


def _lowest(mask: int) -> int:
    return (mask & -mask).bit_length() - 1


class Bounds:
    """How few and how many replicas of a vnode may be in each zone, on each host and node.

    `count` replicas in all, some of which are `fixed` on nodes; all are on nodes `allowed`. With
    `fixed` ones that are not spread well, these are the bounds of what is best with them.
    """

    def __init__(self, topology: Topology, count: int, fixed: int, allowed: int) -> None:
        assert fixed & ~allowed == 0
        assert fixed.bit_count() <= count <= allowed.bit_count()
        self.topology = topology
        self.count = count
        self.fixed = fixed
        self.allowed = allowed
        zones = _Water(topology.zones, fixed, allowed)
        zones.fill(count)
        in_zones = []
        for zone, hosts in enumerate(topology.hosts_of):
            water = _Water([topology.hosts[host] for host in hosts], fixed, allowed)
            water.fill(zones.low[zone])
            in_zones.append(water)
        # One more in a zone costs as many pairs as there are on the host that takes it.
        _choose(zones, [water.level for water in in_zones], count)
        self.zone_low, self.zone_high = zones.low, zones.high
        self.host_low = [0] * len(topology.hosts)
        self.host_high = [0] * len(topology.hosts)
        for zone, hosts in enumerate(topology.hosts_of):
            water = in_zones[zone]
            if sum(water.low) == zones.high[zone]:
                water.high = water.low
            elif sum(water.high) == zones.low[zone]:
                water.low = water.high
            for host, low, high in zip(hosts, water.low, water.high, strict=True):
                self.host_low[host], self.host_high[host] = low, high
        self._zone_needs = sum(self.zone_low)
        self._host_needs = [
            sum(self.host_low[host] for host in hosts) for hosts in topology.hosts_of
        ]
        self._open_hosts = self._open(topology.hosts, self.host_high)
        self._open_zones = self._open(topology.zones, self.zone_high)

    def _open(self, masks: Sequence[int], highs: Sequence[int]) -> int:
        """The nodes of what may have any."""
        found = 0
        for mask, high in zip(masks, highs, strict=True):
            if high:
                found |= mask
        return found & self.allowed

    def node_bounds(self, node: int) -> tuple[int, int]:
        """The least and the most replicas on a node: 0 or 1."""
        bit = 1 << node
        if not self.allowed & bit:
            return 0, 0
        host = self.topology.host[node]
        members = self.topology.hosts[host]
        if self.fixed & bit or self.host_low[host] == (members & self.allowed).bit_count():
            return 1, 1
        return 0, int(self.host_high[host] > (members & self.fixed).bit_count())

    def best(self, chosen: int) -> bool:
        """Whether replicas on these nodes, which include the fixed ones, are spread as these are.

        `chosen` may be fewer than `count`: then whether others can be added so that they are.
        """
        if chosen & ~self.allowed:
            return False
        topology = self.topology
        needs = self._zone_needs
        rest = chosen
        while rest:
            zone = topology.zone[_lowest(rest)]
            inside = rest & topology.zones[zone]
            rest ^= inside
            least = self._host_needs[zone]
            while inside:
                host = topology.host[_lowest(inside)]
                here = inside & topology.hosts[host]
                inside ^= here
                count = here.bit_count()
                if count > self.host_high[host]:
                    return False
                least += max(0, count - self.host_low[host])
            if least > self.zone_high[zone]:
                return False
            needs += max(0, least - self.zone_low[zone])
        return needs <= self.count

    def substitutes(self, chosen: int) -> dict[int, int]:
        """By each node of `chosen`, which are spread best: the nodes that may stand in for it."""
        topology = self.topology
        open_hosts, open_zones = self._open_hosts & ~chosen, self._open_zones
        spare_hosts = spare_zones = 0
        for node in each_of(chosen):
            host, zone = topology.host[node], topology.zone[node]
            members = topology.hosts[host]
            count = (members & chosen).bit_count()
            if count >= self.host_high[host]:
                open_hosts &= ~members
            if count > self.host_low[host]:
                spare_hosts |= 1 << node
            members = topology.zones[zone]
            count = (members & chosen).bit_count()
            if count >= self.zone_high[zone]:
                open_zones &= ~members
            if count > self.zone_low[zone]:
                spare_zones |= 1 << node
        found = {}
        for node in each_of(chosen & ~self.fixed):
            able = topology.hosts[topology.host[node]] & self.allowed & ~chosen
            if spare_hosts >> node & 1:
                inside = topology.zones[topology.zone[node]]
                if spare_zones >> node & 1:
                    inside |= open_zones
                able |= open_hosts & inside
            found[node] = able
        return found


class _Water:
    """Replicas that stand level in places, as far as what is fixed and what has room allows.

    low, high  the least and the most in each place
    level      how many are where one more may come
    """

    def __init__(self, places: Sequence[int], fixed: int, allowed: int) -> None:
        self._floors = [(place & fixed).bit_count() for place in places]
        self._tops = [(place & allowed).bit_count() for place in places]
        self.level = 0
        self.low = self._at(0)
        self.high = self._at(1)

    def _at(self, level: int) -> list[int]:
        return [
            max(floor, min(top, level)) for floor, top in zip(self._floors, self._tops, strict=True)
        ]

    def fill(self, count: int) -> None:
        while self.level < max(self._tops, default=0) and sum(self.high) <= count:
            self.level += 1
            self.low = self.high
            self.high = self._at(self.level + 1)


def _choose(zones: _Water, prices: Sequence[int], count: int) -> None:
    """Narrow the bounds of zones to those that take one more at the least price."""
    more = count - sum(zones.low)
    able = [zone for zone, low in enumerate(zones.low) if low < zones.high[zone]]
    if not more:
        zones.high = zones.low
        return
    price = sorted(prices[zone] for zone in able)[more - 1]
    exactly = more == sum(prices[zone] <= price for zone in able)
    low, high = list(zones.low), list(zones.high)
    for zone in able:
        if prices[zone] > price:
            high[zone] = low[zone]
        elif prices[zone] < price or exactly:
            low[zone] = high[zone]
    zones.low, zones.high = low, high
