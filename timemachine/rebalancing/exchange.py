"""Replicas exchanged between nodes until each has its quota, with the fewest moves: a flow.

Where a vnode stands well, one node after the other may stand in for one that it has, as far as its
bounds allow (`Bounds.substitutes`). So there is a graph: an arc leads from node a to node b if some
vnode of a could be on b instead. It costs 1 if that is a move; -1 if it takes a move back, because
b has the replica in truth and a was to get it; and 0 if a replica that moves anyhow goes to b
instead of a. Having a replica moved along each arc of a path makes the first node have one less,
the last one have one more, and nobody else notice.

This is a minimum-cost flow, and it is solved by the oldest way: *successive shortest paths*
(Busacker and Gowen, 1960; Ahuja, Magnanti and Orlin, "Network Flows", 9.7). From a node that has
too much go along the cheapest path to one that has too little, until there is none. If the flow was
the cheapest before, for what each node has, it is so afterwards; it was at first, when nothing had
moved but what had to (`mending`). Nearly always the cheapest path is one arc: a direct move. Only
where zones, hosts or replicas that are there already leave no vnode for that does it lead through
other nodes, or take moves back.

Costs below 0 are no obstacle: *potentials* of nodes (Edmonds and Karp, 1972), kept from search to
search, make all costs at least 0, so that Dijkstra's algorithm finds the path and may stop at the
first node that lacks something.

The hard part: what of two arcs of one path that are of the same vnode? Each of them is possible,
and both together may not be: the vnode may have room for one more in a zone, and both lead there.
That never happens on a path which has, of the cheapest, the fewest arcs. Say the vnode is to go
from a to b and, later on the path, from c to d, and both need the same room. Then it could as well
go from a to d, and from c to b: these need no more than either did. The one shortens the path by
all that is between; the other closes that part, from b to c, to a circle, and circles that cost
less than nothing there are none. So the shortened path costs no more and has fewer arcs. It is
the argument of weighted matroid intersection (Frank, 1981), for sets with bounds on zones that
hold hosts. So the search looks at (cost, arcs), and vnodes are chosen for a whole path at once.

Rounding costs nothing, either: a quota leaves a node between `least` and `most`, and nodes of one
level share a *pool*, a vertex of the graph. A node draws as much into its pool as it has, between
these two; what it has beyond is too much, what it lacks is too little, and the pool itself is to
have just the sum. Arcs between nodes and pools are free.

Shares are sums over all vnodes, and it can happen that no placement meets all of them: when some
replicas are fixed, or vnodes have different counts of replicas. Then what is left over finds no
path, and `_level` goes on as leaders are balanced: from a node that would have more by its weight
even after it gave one, to one that can be reached. Then counts are as even as is possible, too, but
that there are no fewer moves is not proved.

A graph of a hundred nodes with 30,000 replicas has 10,000 arcs, each for many vnodes, and after
each move some of them change. So arcs are bits, one integer for all that lead away from a node at
one cost, and are looked for again only at the nodes of the vnode that moved.
"""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from heapq import heappop, heappush
from itertools import pairwise
from typing import Final

import msgspec

from timemachine.placement import Group, draw
from timemachine.rebalancing.shares import Quotas
from timemachine.rebalancing.spread import Bounds, Topology, each_of

_COSTS: Final = (-1, 0, 1)


class Vnode(msgspec.Struct):
    """A vnode that may move: which nodes have it, and which are to have it (`chosen`), as bits."""

    group: Group
    bounds: Bounds
    origin: int
    chosen: int


class Exchange:
    """Changes `chosen` of vnodes, each of which is spread best, until all nodes have their quotas.

    `beside` are replicas that nodes have and keep, by position.
    """

    def __init__(
        self, topology: Topology, quotas: Quotas, vnodes: Sequence[Vnode], beside: Sequence[int]
    ) -> None:
        self._topology = topology
        self._quotas = quotas
        self._vnodes = vnodes
        self._loads = list(beside)
        self._by_collection: Counter[tuple[int, int]] = Counter()
        count = len(topology.numbers)
        # By node and collection, what may move from it: by the vnode's position, to where.
        uids = {vnode.group[0] for vnode in vnodes}
        self._holding: list[dict[int, dict[int, int]]] = [
            {uid: {} for uid in sorted(uids)} for _ in range(count)
        ]
        for position, vnode in enumerate(vnodes):
            for node in each_of(vnode.chosen):
                self._loads[node] += 1
                self._by_collection[vnode.group[0], node] += 1
            self._hold(position)
        self._arcs: dict[int, tuple[int, int, int]] = {}
        # Nodes are vertices by their positions; pools follow.
        self._pools = [0] * len(quotas.sums)
        self._excess = [0] * (count + len(self._pools))
        self._drawn = []
        for node, quota in enumerate(quotas.nodes):
            drawn = min(max(self._loads[node], quota.least), quota.most)
            self._drawn.append(drawn)
            self._pools[quota.pool] |= 1 << node
            self._excess[node] = self._loads[node] - drawn
            self._excess[count + quota.pool] += drawn
        for pool, wanted in enumerate(quotas.sums):
            self._excess[count + pool] -= wanted
        self._lacking = sum(1 << each for each, excess in enumerate(self._excess) if excess < 0)
        self._potentials = [0] * len(self._excess)
        self._pooling = True

    def run(self) -> None:
        """Exchange until there is nothing more to gain."""
        stuck = False
        waiting = [(-excess, vertex) for vertex, excess in enumerate(self._excess) if excess > 0]
        waiting.sort()
        queue = deque(waiting)
        while queue:
            _, vertex = queue.popleft()
            path = self._path(vertex, goal=-1)
            if not path:
                # Nor will there be one after others have found theirs.
                stuck = True
                continue
            self._follow(path)
            if self._excess[vertex] > 0:
                queue.append((0, vertex))
        if stuck:
            self._pooling = False
            while any(self._level(node) for node in self._fullest()):
                pass

    def _path(self, source: int, goal: int) -> list[tuple[int, int]]:
        """The cheapest way to the goal, or to what has too little: (cost, vertex) of each step."""
        potentials, excess = self._potentials, self._excess
        best = {source: (0, 0)}
        came: dict[int, tuple[int, int]] = {}
        settled: dict[int, int] = {}
        goals = self._lacking if goal < 0 else 1 << goal
        heap = [(0, 0, 0, source)]
        while heap:
            distance, arcs, _, vertex = heappop(heap)
            if vertex in settled:
                continue
            settled[vertex] = distance
            leading = self._leading_on(vertex)
            if not goals >> vertex & 1:
                # One arc more at no cost: nothing that is still to be looked at comes nearer.
                near = [
                    (excess[other], other, cost)
                    for cost, mask in zip(_COSTS, leading, strict=True)
                    for other in each_of(mask & goals)
                    if cost + potentials[vertex] == potentials[other]
                    and best.get(other, (distance + 1, 0)) > (distance, arcs)
                ]
                if near:
                    _, found, cost = min(near)
                    came[found] = cost, vertex
                    vertex = found
            if goals >> vertex & 1:
                for each, nearer in settled.items():
                    potentials[each] += nearer - distance
                return _traced(came, source, vertex)
            for cost, mask in zip(_COSTS, leading, strict=True):
                base = distance + cost + potentials[vertex]
                for other in each_of(mask):
                    key = base - potentials[other], arcs + 1
                    if other not in best or key < best[other]:
                        best[other] = key
                        came[other] = cost, vertex
                        heappush(heap, (*key, excess[other], other))
        return []

    def _leading_on(self, vertex: int) -> tuple[int, int, int]:
        """The vertices that arcs lead to, as bits, by cost: -1, 0, 1."""
        count = len(self._topology.numbers)
        if vertex >= count:
            members = each_of(self._pools[vertex - count])
            return 0, sum(1 << node for node in members if self._gives_back(node)), 0
        back, free, paid = self._arcs_of(vertex)
        quota = self._quotas.nodes[vertex]
        if self._pooling and self._drawn[vertex] < quota.most:
            free |= 1 << (count + quota.pool)
        return back, free, paid

    def _gives_back(self, node: int) -> bool:
        return self._drawn[node] > self._quotas.nodes[node].least

    def _arcs_of(self, node: int) -> tuple[int, int, int]:
        found = self._arcs.get(node)
        if found is None:
            bit = 1 << node
            back = free = paid = 0
            held = [each for of_one in self._holding[node].values() for each in of_one.items()]
            for position, able in held:
                origin = self._vnodes[position].origin
                if origin & bit:
                    free |= able & origin
                    paid |= able & ~origin
                else:
                    back |= able & origin
                    free |= able & ~origin
            found = self._arcs[node] = back, free, paid
        return found

    def _follow(self, path: Sequence[tuple[int, int]]) -> None:
        """Move a replica along each arc."""
        count = len(self._topology.numbers)
        steps = [(source, target, cost) for (_, source), (cost, target) in pairwise(path)]
        moves = [
            (source, target, self._chosen_for(source, target, cost))
            for source, target, cost in steps
            if source < count and target < count
        ]
        for source, target, _ in steps:
            self._excess[source] -= 1
            self._excess[target] += 1
            for vertex in (source, target):
                lacks = self._excess[vertex] < 0
                self._lacking = self._lacking & ~(1 << vertex) | lacks << vertex
            if target >= count:
                self._drawn[source] += 1
            elif source >= count:
                self._drawn[target] -= 1
        for source, target, position in moves:
            self._move(source, target, position)
        for _, _, position in moves:
            vnode = self._vnodes[position]
            assert vnode.bounds.best(vnode.chosen)
            assert vnode.chosen.bit_count() == vnode.bounds.count

    def _chosen_for(self, source: int, target: int, cost: int) -> int:
        """Which vnode is to move: of the collection that the one has most of beside the other."""
        by = self._by_collection
        most = 0
        like: list[tuple[int, int]] = []
        uids = [(by[uid, target] - by[uid, source], uid) for uid in self._holding[source]]
        for less, uid in sorted(uids):
            if like and less > most:
                break
            most = less
            for position, able in self._holding[source][uid].items():
                if able >> target & 1:
                    vnode = self._vnodes[position]
                    if (vnode.origin >> source & 1) - (vnode.origin >> target & 1) == cost:
                        like.append((draw(vnode.group, target), position))
        return min(like)[1]

    def _move(self, source: int, target: int, position: int) -> None:
        vnode = self._vnodes[position]
        before = vnode.chosen
        vnode.chosen = (before | 1 << target) & ~(1 << source)
        del self._holding[source][vnode.group[0]][position]
        self._hold(position)
        self._loads[source] -= 1
        self._loads[target] += 1
        self._by_collection[vnode.group[0], source] -= 1
        self._by_collection[vnode.group[0], target] += 1
        for node in each_of(before | vnode.chosen):
            self._arcs.pop(node, None)

    def _hold(self, position: int) -> None:
        vnode = self._vnodes[position]
        for node, able in vnode.bounds.substitutes(vnode.chosen).items():
            self._holding[node][vnode.group[0]][position] = able

    def _fullest(self) -> list[int]:
        weights = self._topology.weights
        nodes = range(len(weights))
        return sorted(nodes, key=lambda node: (-self._loads[node] / weights[node], node))

    def _level(self, node: int) -> bool:
        """Have a node give to others that it reaches and that have less; whether it did."""
        loads, weights = self._loads, self._topology.weights
        gave = False
        while True:
            least = min(
                self._reached(node), key=lambda other: ((loads[other] + 1) / weights[other], other)
            )
            if (loads[least] + 1) * weights[node] > (loads[node] - 1) * weights[least]:
                return gave
            self._follow(self._path(node, goal=least))
            gave = True

    def _reached(self, node: int) -> Iterable[int]:
        seen = new = 1 << node
        while new:
            found = 0
            for each in each_of(new):
                back, free, paid = self._arcs_of(each)
                found |= back | free | paid
            new = found & ~seen
            seen |= new
        return each_of(seen)


def _traced(came: dict[int, tuple[int, int]], source: int, vertex: int) -> list[tuple[int, int]]:
    path = []
    while vertex != source:
        cost, before = came[vertex]
        path.append((cost, vertex))
        vertex = before
    return [(0, source), *path[::-1]]
