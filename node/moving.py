"""A confirmed plan, carried out by the node leader: so many moves at once, until all have ended.

Meta holds the plan, and how many of its moves were begun. Beginning a move changes the placement
of its vnode; the leader of that vnode does the rest (`node.membership`). Here it is only watched:
as soon as a vnode has settled, the next move may begin. Whoever becomes the node leader finds all
of that in meta, and goes on.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from node.env import Timer, World
from node.gathering import Gathering
from node.gathering.questions import Burdens, Group, Members
from node.runtime import Runtime
from timemachine.errors import TimeMachineError
from timemachine.group import node_of
from timemachine.model import Placement, Plan, PlanKind, PlanState
from timemachine.placement import Move, members
from timemachine.rebalancing import Standing, is_settled
from timemachine.replica.meta import AdvancePlan, EndPlan, MetaMachine, going
from timemachine.vnode import Vnode

_LOOK_MS: Final = 250.0
_PATIENCE_MS: Final = 1_000.0


class Moving:
    """Begins the moves of the plan that runs, and ends it, while this node leads the meta group.

    `alive` is whether a node answers: nothing begins to move to one that does not.
    """

    def __init__(
        self,
        world: World,
        runtime: Runtime,
        meta_vnode: Vnode,
        meta: MetaMachine,
        gathering: Gathering,
        *,
        alive: Callable[[int], bool],
    ) -> None:
        self._world = world
        self._runtime = runtime
        self._meta_vnode = meta_vnode
        self._meta = meta
        self._gathering = gathering
        self._alive = alive
        self._timer: Timer | None = None
        self._plan_id = ""
        self._seen = 0
        self._open: dict[int, Move] = {}
        self._proposing = False
        self._asking = False
        self._rested: set[int] = set()

    def look_soon(self) -> None:
        """Plans or placements have changed, or who leads the meta group."""
        if self._timer is None and self._meta_vnode.serving and running(self._meta) is not None:
            self._timer = self._world.call_later(0.0, self._look)

    def _look(self) -> None:
        self._timer = None
        plan = running(self._meta)
        if plan is None or not self._runtime.working or not self._meta_vnode.serving:
            return
        if plan.kind is PlanKind.COMPACT:
            return  # it moves nothing: see `node.compacting`
        self._follow(plan)
        self._close({})
        self._ask()
        if not self._proposing:
            self._next(plan)
        if self._timer is None:
            # Not in step with others that look again and again.
            pause_ms = _LOOK_MS * (0.5 + self._world.random())
            self._timer = self._world.call_later(pause_ms, self._look)

    def _follow(self, plan: Plan) -> None:
        """Know the moves that were begun since the last look, by whomever."""
        if plan.id != self._plan_id or plan.begun < self._seen:
            self._plan_id, self._seen, self._open, self._rested = plan.id, 0, {}, set()
        moves = self._meta.plan_moves[plan.id].moves
        void = set(plan.void)
        for at in range(self._seen, plan.begun):
            if at not in void:
                self._open[at] = moves[at]
        self._seen = plan.begun

    def _placement(self, move: Move) -> Placement | None:
        return placement_of(self._meta, (move.uid, move.index))

    def _close(self, voters: Mapping[Group, Collection[int]]) -> None:
        """Let go of moves whose vnodes have settled, or are gone."""
        for at, move in list(self._open.items()):
            placement = self._placement(move)
            votes = voters.get((move.uid, move.index), ())
            if placement is None or is_settled(move, placement, votes):
                del self._open[at]

    def _ask(self) -> None:
        """Ask the leaders of vnodes that only got replicas: placements do not tell that of them."""
        groups = [(each.uid, each.index) for each in self._open.values() if not each.remove]
        if not groups or self._asking:
            return
        self._asking = True
        self._gathering.ask(Members(), groups, self._told, partly=True, patience_ms=_PATIENCE_MS)

    def _told(self, found: Any) -> None:
        self._asking = False
        if not isinstance(found, TimeMachineError):
            self._close(dict(found))

    def _next(self, plan: Plan) -> None:
        """Begin what may begin now, or end the plan where nothing is left."""
        if plan.state is not PlanState.RUNNING:
            return
        now_ms = self._world.wall_ms()
        if plan.begun >= plan.moves:
            if not self._open and self._may_end(plan):
                self._propose(EndPlan(now_ms=now_ms, id=plan.id))
            return
        moves = self._meta.plan_moves[plan.id].moves
        there = members(self._meta.nodes.values())
        count = 0
        for move in moves[plan.begun : plan.begun + plan.transfers - len(self._open)]:
            # Where a node is no member any more the move is void, and nobody waits for that node.
            if there.issuperset(move.add) and not all(map(self._alive, move.add)):
                break
            count += 1
        if count > 0:
            command = AdvancePlan(now_ms=now_ms, id=plan.id, begun=plan.begun, count=count)
            self._propose(command)

    def _may_end(self, plan: Plan) -> bool:
        """Whether the cluster goes on without the nodes that are removed with the end.

        The meta group does once they do not belong to it; and what they have sent must be settled,
        for nobody hears them afterwards. Nodes on which replicas are left stay: the plan fails.
        """
        leave = going(self._meta)
        if plan.kind is not PlanKind.REMOVE or not leave:
            return True
        group = self._meta_vnode.members
        ids = {*group.voters, *group.voters_outgoing, *group.learners, *group.learners_next}
        if not leave.isdisjoint(map(node_of, ids)):
            return False
        living = [number for number in plan.nodes if self._alive(number)]
        if self._rested.issuperset(living):
            return True
        if not self._asking:
            self._asking = True
            heard = partial(self._heard, plan.id, living)
            self._gathering.poll(Burdens(sizes=False), living, heard)
        return False

    def _heard(self, plan_id: str, living: Collection[int], found: Any) -> None:
        self._asking = False
        if not isinstance(found, TimeMachineError) and plan_id == self._plan_id:
            burden, _ = found
            self._rested = {node for node, count in burden.unsettled if not count}
            # Else with the next look: who does not answer would be asked at once, again and again.
            if self._rested.issuperset(living) and self._timer is not None:
                self._timer.cancel()
                self._timer = self._world.call_later(0.0, self._look)

    def _propose(self, command: AdvancePlan | EndPlan) -> None:
        self._proposing = True
        self._runtime.propose(self._meta_vnode, command, self._answered)

    def _answered(self, result: object) -> None:
        self._proposing = False
        if not isinstance(result, TimeMachineError):
            self.look_soon()
        # Else it comes with the next look: who hands over refuses at once, again and again.


def running(meta: MetaMachine) -> Plan | None:
    """The plan that runs, or is paused; there is one at most."""
    return next((plan for plan in meta.plans.values() if plan.under_way), None)


def placement_of(meta: MetaMachine, group: Group) -> Placement | None:
    """Which replicas a vnode is to have; None if its collection is gone."""
    return meta.placement(*group) if group[0] in meta.collections_by_uid else None


def waits_for(
    plan: Plan,
    moves: Sequence[Move],
    standings: Sequence[Standing],
    alive: Callable[[int], bool],
) -> Iterable[int]:
    """The numbers of the nodes that do not answer, and that moves under way or the next go to."""
    soon = range(plan.begun, plan.begun + plan.transfers) if plan.under_way else ()
    coming = [
        move
        for at, (move, standing) in enumerate(zip(moves, standings, strict=True))
        if standing is Standing.MOVING or at in soon
    ]
    return sorted({number for move in coming for number in move.add if not alive(number)})
