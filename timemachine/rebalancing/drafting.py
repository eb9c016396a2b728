"""A plan as it is asked for: its moves, and what to think of before it is confirmed."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

import msgspec

from timemachine import limits
from timemachine.group import node_of
from timemachine.model import Collection, Node, NodeState, Placement, PlanKind
from timemachine.placement import Move, present, tolerant, under_replicated
from timemachine.rebalancing.plans import drain, rebalance, replicate


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan is asked to do.

    nodes     the numbers of the nodes to empty; of a rebalance, of those to take back
    lost      those of them that are dead: nothing is copied from there
    uid       the collection that is to get another count of `replicas`
    """

    kind: PlanKind
    nodes: tuple[int, ...] = ()
    lost: frozenset[int] = frozenset()
    uid: int = 0
    replicas: int = 0

    def moves(
        self,
        nodes: Iterable[Node],
        collections: Mapping[int, Collection],
        placements: Sequence[Placement],
    ) -> list[Move]:
        """The moves after which it is done; `collections` are by uid, `placements` all there are.

        This takes a second where there are ten thousand vnodes.
        """
        nodes = list(nodes)
        if self.kind is PlanKind.REBALANCE:
            return rebalance(placements, [self._taken_back(node) for node in nodes])
        if self.kind is PlanKind.REPLICATE:
            return replicate(collections[self.uid], self.replicas, placements, nodes)
        return drain(placements, nodes, frozenset(self.nodes), self.lost)

    def _taken_back(self, node: Node) -> Node:
        if node.number in self.nodes and node.present:
            return msgspec.structs.replace(node, state=NodeState.MEMBER)
        return node

    def risks(
        self,
        moves: Iterable[Move],
        nodes: Iterable[Node],
        collections: Mapping[int, Collection],
        placements: Sequence[Placement],
        down: AbstractSet[int],
    ) -> list[str]:
        """Sentences for whoever confirms these moves, those of them that are true.

        `down` are the numbers of nodes that do not answer.
        """
        nodes = list(nodes)
        before = {(each.uid, each.index): each for each in placements}
        moved = {(move.uid, move.index): move for move in moves}
        after = [_after(each, moved.get((each.uid, each.index))) for each in placements]
        gone = frozenset(self.nodes) if self.kind.empties else frozenset()
        there = present(nodes) - (gone if self.kind is PlanKind.REMOVE else frozenset())
        wanted = dict(collections)
        if self.uid in wanted:
            wanted[self.uid] = msgspec.structs.replace(wanted[self.uid], replicas=self.replicas)
        names = {node.number: node.name or node.id for node in nodes}
        silent = ", ".join(names[each] for each in sorted(down & there))
        stay = sum(node_of(each) in gone for one in after for each in one.replicas)
        thin = sum(not tolerant(len(before[each].replicas)) for each in moved)
        single = sum(not tolerant(len(each.replicas)) for each in after)
        few = _few(wanted, after, there) - _few(collections, placements, present(nodes))
        told = {
            f"{silent} does not answer; groups of two or three with a replica there stop if another"
            " of theirs is lost meanwhile.": silent,
            f"{stay} replicas stay on what is to be emptied: their vnodes are being changed, or"
            " have no majority.": stay,
            f"{thin} vnodes that move have fewer than three replicas: they stop, for as long as"
            " that lasts, if the node of one is lost meanwhile.": thin,
            f"{few} vnodes more than now will have fewer replicas than their collections want:"
            " there are not enough nodes.": few > 0,
            f"{single} vnodes will have fewer than three replicas: the loss of one node stops"
            " them.": single,
        }
        return [sentence for sentence, holds in told.items() if holds]


def cut(moves: Sequence[Move]) -> tuple[Sequence[Move], int]:
    """As many moves as one plan takes, and how many are left for another."""
    return moves[: limits.PLAN_MOVES_MAX], max(0, len(moves) - limits.PLAN_MOVES_MAX)


def _few(
    collections: Mapping[int, Collection],
    placements: Iterable[Placement],
    there: AbstractSet[int],
) -> int:
    """How many vnodes have fewer replicas than their collections want."""
    of: defaultdict[int, list[Placement]] = defaultdict(list)
    for placement in placements:
        of[placement.uid].append(placement)
    return sum(under_replicated(each, of[each.uid], there) for each in collections.values())


def _after(before: Placement, move: Move | None) -> Placement:
    """A placement with a move done; the ids of those that come are not theirs yet."""
    if move is None:
        return before
    stay = tuple(each for each in before.replicas if each not in move.remove)
    return msgspec.structs.replace(before, replicas=stay + move.add)
