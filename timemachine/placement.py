"""Which nodes have which replicas, and who leads: pure functions of what meta knows.

Two replicas of a vnode are never on one node. They are on one host, or in one zone, only where
there are not enough of these: three nodes on one machine do hold three replicas. First as few as
possible share a zone, then as few as possible a host, and only then the least loaded node is
taken. A node without a zone counts as a zone of its host. Loads are counted by weight: a node of
weight 200 gets twice what one of weight 100 gets, one of weight 0 gets nothing. Among nodes with
equally many replicas a hash decides, so that the vnodes of a node are no stretch of the ring, and
what a lost node led falls to many others.

Nothing here moves a replica that is there: additions happen by themselves, moves are plans.
Leaders are different, they change by transfer and cost nothing to move.

The same arguments give the same answer on every node, in whatever order nodes and placements come.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Collection as Sized
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Final, TypeAlias

import msgspec
from mmh3 import mmh3_32_uintdigest

from timemachine import limits
from timemachine.group import generation_of, node_of, replica_id
from timemachine.model import Collection, Node, NodeState, Placement

Group: TypeAlias = tuple[int, int]
"""A vnode: (collection uid, index)."""


class Move(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A change of one placement, made from its `version`.

    Replicas on the nodes of the numbers `add` come, the replicas of the ids `remove` go.
    """

    uid: int
    index: int
    version: int
    add: tuple[int, ...] = ()
    remove: tuple[int, ...] = ()


class Transfer(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The leader of a vnode, on the node `source`, is to give it to the replica on `target`."""

    uid: int
    index: int
    source: int
    target: int


def first_leader(placement: Placement) -> int:
    """The number of the node whose replica is to lead at first."""
    return node_of(placement.replicas[0])


def initial(
    collection: Collection, nodes: Iterable[Node], others: Iterable[Placement]
) -> list[Placement]:
    """The placements of a collection that begins, by index; `others` are those there already.

    As many replicas as are wanted, or as there are members that have a weight. Replicas are spread
    evenly over the nodes, counted over all collections, and so are the first leaders. Without any
    such member, the vnodes are node 1's.
    """
    nodes, others = list(nodes), list(others)
    spread = _Spread(nodes, others)
    chosen = {
        (collection.uid, index): spread.pick((collection.uid, index), (), collection.replicas)
        for index in range(collection.num_vnodes)
    }
    leads = Counter(first_leader(each) for each in others)
    leaders = _first_leaders(chosen, leads, {node.number: weight_of(node) for node in nodes})
    placements = []
    for (uid, index), numbers in chosen.items():
        leader = leaders.get((uid, index))
        order = sorted(numbers, key=lambda number: (number != leader, numbers.index(number)))
        ids = tuple(map(replica_id, order)) or Placement(uid, index).born
        placements.append(Placement(uid, index, ids, ids))
    return placements


def additions(
    collections: Iterable[Collection],
    placements: Iterable[Placement],
    nodes: Iterable[Node],
    limit: int = limits.MOVES_PER_COMMAND_MAX,
) -> list[Move]:
    """What is missing and can be had, at most `limit` moves: nothing that is there goes.

    A vnode gets replicas on members that have none of it, as far as there are such, until it has
    as many as its collection wants. `placements` are those of all vnodes. A vnode without any
    replica on a node that still belongs to the cluster gets none: there is nothing to copy.
    Nothing comes to a node from which a replica is still to go: `timemachine.replica.meta.placing`.
    """
    nodes, placements = list(nodes), list(placements)
    there = present(nodes)
    wanted = {collection.uid: collection.replicas for collection in collections}
    lacking = []
    for placement in placements:
        missing = wanted.get(placement.uid, 0) - (have := _replicas(placement, there))
        if missing > 0 and have:
            lacking.append((placement, missing))
    # Mostly nothing is missing, and then nothing needs to be counted.
    spread = _Spread(nodes, placements) if lacking else None
    moves: list[Move] = []
    for placement, missing in sorted(lacking, key=lambda each: (each[0].uid, each[0].index)):
        if len(moves) == limit:
            break
        assert spread is not None
        group = placement.uid, placement.index
        taken = [node_of(each) for each in placement.replicas]
        room = min(missing, limits.REPLICAS_MAX - len(taken))
        add = spread.pick(group, taken, room, leaving=map(node_of, placement.removing))
        if add:
            moves.append(Move(*group, placement.version, add))
    return moves


def present(nodes: Iterable[Node]) -> frozenset[int]:
    """The numbers of the nodes that belong to the cluster, those that are leaving among them."""
    return frozenset(node.number for node in nodes if node.present)


def members(nodes: Iterable[Node]) -> frozenset[int]:
    """The numbers of the nodes that may get something new."""
    return frozenset(node.number for node in nodes if node.state is NodeState.MEMBER)


def under_replicated(
    collection: Collection, placements: Iterable[Placement], there: Sized[int]
) -> int:
    """How many vnodes of a collection have fewer replicas than it wants, on the nodes `there`."""
    return sum(_replicas(each, there) < collection.replicas for each in placements)


def no_fault_tolerance(placements: Iterable[Placement], there: Sized[int]) -> bool:
    """Whether the loss of one node can stop one of these vnodes."""
    return any(not tolerant(_replicas(each, there)) for each in placements)


def tolerant(voters: int) -> bool:
    """Whether so many voters go on without one of them: two have no majority then."""
    return voters >= _TOLERANT_VOTERS


def may_retire(placement: Placement, replica: int, gone: Sized[int]) -> bool:
    """Whether a damaged replica may make way for another, as far as the placement tells.

    A change of the members needs a majority of those that vote. A replica that is lost votes until
    its successor does: it stands in `removing`, and its node is one of `gone`, whose numbers are
    those of removed nodes, or has the successor. The successors are those of the newest generations
    and do not vote yet, so one of them may always be retired. Of two replicas it is not known
    whether both vote already.
    """
    wanted = {node_of(each) for each in placement.replicas}
    lost = [each for each in placement.removing if node_of(each) in gone or node_of(each) in wanted]
    count = len(placement.replicas)
    if not lost or count < 3:
        return True
    coming = successors(placement, lost)
    return replica in coming or 2 * (count - len(coming) - 1) > count


def successors(placement: Placement, leaving: Sequence[int]) -> list[int]:
    """The replicas that come in the place of some that are to go, which do not vote yet.

    They are of the newest generations.
    """
    oldest = min(map(generation_of, leaving), default=0)
    newest = sorted(placement.replicas, key=generation_of, reverse=True)[: len(leaving)]
    return [each for each in newest if generation_of(each) > oldest]


def leader_moves(
    leaders: Mapping[Group, int],
    voters: Mapping[Group, Sequence[int]],
    weights: Mapping[int, int] | None = None,
) -> list[Transfer]:
    """The transfers after which no two nodes differ by more than one vnode that they lead.

    Where `voters` do not allow that, no node leads two more than one that could take some over,
    even through others. Counts are by weight, where `weights` of nodes are given: nobody could
    give one away and still have more than who gets it. `leaders` are the numbers of the nodes that
    lead now, `voters` of those that could, because they vote in the group and are up. The fewest
    transfers from node to node; of a collection's vnodes goes first what the one leads more of than
    the other.

    An optimal semi-matching by cost-reducing paths (Harvey, Ladner, Lovász and Tamir, 2006).
    """
    balance = _Leaders(leaders, voters, {}, weights or {})
    while balance.improve():
        pass
    return [
        Transfer(*group, leader, balance.leaders[group])
        for group, leader in sorted(leaders.items())
        if balance.leaders[group] != leader
    ]


_TOLERANT_VOTERS: Final = 3


def _replicas(placement: Placement, there: Sized[int]) -> int:
    return sum(node_of(each) in there for each in placement.replicas)


def draw(group: Group, number: int) -> int:
    """Chance that is the same everywhere."""
    return mmh3_32_uintdigest(b"%d/%d/%d" % (*group, number))


class _Spread:
    """Picks nodes for replicas, and counts what each has."""

    def __init__(self, nodes: Iterable[Node], placements: Iterable[Placement]) -> None:
        nodes = sorted(nodes, key=lambda node: node.number)
        self._zones = {node.number: zone_of(node) for node in nodes}
        self._hosts = {node.number: node.host or node.id for node in nodes}
        self._weights = {node.number: weight for node in nodes if (weight := weight_of(node))}
        self._loads = dict.fromkeys(self._weights, 0)
        for placement in placements:
            for each in placement.replicas:
                number = node_of(each)
                if number in self._loads:
                    self._loads[number] += 1

    def pick(
        self, group: Group, taken: Sequence[int], count: int, leaving: Iterable[int] = ()
    ) -> tuple[int, ...]:
        """Up to `count` members for replicas of a vnode that has some on the nodes `taken`.

        None of those that it is `leaving`.
        """
        zones, hosts, loads = self._zones, self._hosts, self._loads
        weights = self._weights
        used_zones = Counter(zones.get(number) for number in taken)
        used_hosts = Counter(hosts.get(number) for number in taken)
        not_free = {*taken, *leaving}
        free = [number for number in loads if number not in not_free]
        picked: list[int] = []
        while free and len(picked) < count:
            keys = [
                (
                    used_zones[zones[number]],
                    used_hosts[hosts[number]],
                    # What it has with half of one more: nearest to the share that is due to it.
                    (2 * loads[number] + 1) / weights[number],
                )
                for number in free
            ]
            best = min(keys)
            like = [number for number, key in zip(free, keys, strict=True) if key == best]
            number = min(like, key=lambda each: draw(group, each))
            picked.append(number)
            free.remove(number)
            used_zones[zones[number]] += 1
            used_hosts[hosts[number]] += 1
            loads[number] += 1
        return tuple(picked)


def zone_of(node: Node) -> tuple[str, str]:
    """What a node's zone is called; one without a zone is in that of its host."""
    return (node.zone, "") if node.zone else ("", node.host or node.id)


def weight_of(node: Node) -> int:
    """How much a node is to have beside the others: nothing, unless it is a member.

    A weight that is out of bounds counts as the bound.
    """
    if node.state is not NodeState.MEMBER:
        return 0
    return min(max(node.weight, 0), limits.NODE_WEIGHT_MAX)


def _taken(count: int, weight: int) -> tuple[bool, float]:
    """How much a node has for its weight; with none anything is more than what others have."""
    return (False, count / weight) if weight else (True, count)


def _first_leaders(
    chosen: Mapping[Group, Sequence[int]], leads: Mapping[int, int], weights: Mapping[int, int]
) -> dict[Group, int]:
    """Who leads which of these vnodes first, beside what each node leads already."""

    def key(number: int) -> tuple[tuple[bool, float], int, int]:
        count = leads.get(number, 0) + here[number] + 1
        return _taken(count, weights[number]), here[number], number

    here: Counter[int] = Counter()
    leaders = {}
    for group, numbers in chosen.items():
        if numbers:
            leader = min(numbers, key=key)
            leaders[group] = leader
            here[leader] += 1
    balance = _Leaders(leaders, chosen, leads, weights)
    while balance.improve():
        pass
    return balance.leaders


class _Leaders:
    """Who leads what, while it is made more even; `more` is what nodes lead beside that."""

    def __init__(
        self,
        leaders: Mapping[Group, int],
        voters: Mapping[Group, Sequence[int]],
        more: Mapping[int, int],
        weights: Mapping[int, int],
    ) -> None:
        self.leaders = dict(leaders)
        self._weights = weights
        self._voters = voters
        self._counts = Counter(self.leaders.values())
        self._counts.update(dict(more))
        self._by_collection = Counter((group[0], leader) for group, leader in leaders.items())
        # What a node leads and another could: by these two.
        self._links: defaultdict[int, defaultdict[int, set[Group]]] = defaultdict(
            lambda: defaultdict(set)
        )
        for group, leader in leaders.items():
            self._link(group, leader)

    def _link(self, group: Group, leader: int) -> None:
        for number in self._voters.get(group, ()):
            if number != leader:
                self._links[leader][number].add(group)

    def _unlink(self, group: Group, leader: int) -> None:
        for number in self._voters.get(group, ()):
            if number != leader:
                self._links[leader][number].discard(group)

    def improve(self) -> bool:
        """Have some node lead one less and another, that led two less, one more; if there are."""
        for source in sorted(self._links, key=lambda each: (self._with(each, -1), -each))[::-1]:
            path = self._path(source)
            if path:
                for leader, number in pairwise(path):
                    self._shift(leader, number)
                return True
        return False

    def _path(self, source: int) -> list[int]:
        """The shortest way to the node that leads least, of those that lead two less."""
        came: dict[int, int] = {source: source}
        waiting = deque([source])
        while waiting:
            leader = waiting.popleft()
            for number in sorted(self._links[leader]):
                if number not in came and self._links[leader][number]:
                    came[number] = leader
                    waiting.append(number)
        # Python's dictionaries keep the order of discovery: `min` takes the nearest of equals.
        least = min(came, key=lambda number: self._with(number, 1))
        if self._with(least, 1) > self._with(source, -1):
            return []
        path = [least]
        while path[-1] != source:
            path.append(came[path[-1]])
        return path[::-1]

    def _with(self, number: int, more: int) -> tuple[bool, float]:
        """How much a node leads for its weight, with so many more."""
        weight = self._weights.get(number, limits.NODE_WEIGHT_DEFAULT)
        return _taken(self._counts[number] + more, weight)

    def _shift(self, leader: int, number: int) -> None:
        """Have a vnode that the one leads be led by the other."""
        by = self._by_collection
        group = max(
            self._links[leader][number],
            key=lambda each: (by[each[0], leader] - by[each[0], number], each),
        )
        self._unlink(group, leader)
        self.leaders[group] = number
        self._link(group, number)
        self._counts[leader] -= 1
        self._counts[number] += 1
        by[group[0], leader] -= 1
        by[group[0], number] += 1
