"""What the node leader begins of a plan that runs, and when it ends it."""

from collections.abc import Callable, Collection
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from node.gathering.questions import Burden
from node.moving import Moving, waits_for
from tests.sim.world import SimWorld
from timemachine.errors import NotLeader
from timemachine.model import Node, NodeState, Placement, Plan, PlanKind, PlanState
from timemachine.placement import Move
from timemachine.raft import ConfState
from timemachine.rebalancing import Standing
from timemachine.replica.meta import AdvancePlan, EndPlan, MetaResult, PlanMoves

_LOOK_MS = 400.0
"""Within this time it looks once, at least."""


def _node(number: int) -> Node:
    return Node(id=f"n{number}", name="", http="", rpc="", zone="", version="", number=number)


class _Cluster:
    """A meta group of nodes 1 to 4 that this node, the first, leads, with a plan that runs.

    Its moves lead from node 3 to node 4; with `adds` nothing goes. `voters` is what leaders tell,
    `refusal` what a proposal is refused with, at once; `unsettled` counts each node's open sends;
    who is `mute` is there and does not say.
    """

    def __init__(
        self,
        moves: int = 5,
        *,
        transfers: int = 2,
        adds: bool = False,
        kind: PlanKind = PlanKind.DRAIN,
    ) -> None:
        self.world = SimWorld(1)
        self.silent: set[int] = set()
        self.mute: set[int] = set()
        self.unsettled = 0
        self.proposed: list[Any] = []
        self.asked = 0
        self.voters: dict[tuple[int, int], Collection[int]] = {}
        self.refusal: Any = None
        born = (1, 2) if adds else (1, 2, 3)
        self.placements = {(1, at): Placement(1, at, born, born) for at in range(moves)}
        gone = () if adds else (3,)
        plan = Plan(
            id="p",
            kind=kind,
            basis=b"",
            created_ms=0,
            expires_ms=1,
            nodes=(3,),
            moves=moves,
            transfers=transfers,
            state=PlanState.RUNNING,
        )
        kept = tuple(Move(1, at, 1, (4,), gone) for at in range(moves))
        self.meta: Any = SimpleNamespace(
            plans={"p": plan},
            plan_moves={"p": PlanMoves("p", kept, (0,) * moves)},
            collections_by_uid={1: None},
            nodes={f"n{number}": _node(number) for number in (1, 2, 3, 4)},
            placement=lambda uid, index: self.placements[uid, index],
            all_placements=lambda: list(self.placements.values()),
        )
        self.runtime: Any = SimpleNamespace(working=True, propose=self._propose)
        self.vnode: Any = SimpleNamespace(serving=True, members=ConfState(voters=(1, 2, 3, 4)))
        self.moving = self.another()

    def another(self) -> Moving:
        """What looks after the plan on a node that knows nothing of it yet."""
        gathering: Any = SimpleNamespace(ask=self._ask, poll=self._poll)
        return Moving(
            self.world,
            self.runtime,
            self.vnode,
            self.meta,
            gathering,
            alive=lambda node: node not in self.silent,
        )

    def _ask(self, _: Any, groups: list[Any], told: Callable[[Any], None], **__: Any) -> None:
        self.asked += 1
        found = [(group, self.voters[group]) for group in groups if group in self.voters]
        self.world.call_later(1.0, lambda: told(found))

    def _poll(self, _: Any, nodes: list[int], told: Callable[[Any], None]) -> None:
        self.asked += 1
        answered = [1, *[node for node in nodes if node not in self.mute]]
        burden = Burden([], unsettled=[(node, self.unsettled) for node in answered])
        self.world.call_later(1.0, lambda: told((burden, frozenset(nodes))))

    def _propose(self, _: Any, command: Any, done: Callable[[Any], None]) -> None:
        self.proposed.append(command)
        if self.refusal is not None:
            done(self.refusal)
            return
        plan = self.plan
        if isinstance(command, EndPlan):
            self.plan = replace(plan, state=PlanState.DONE)
        else:
            for move in self.meta.plan_moves["p"].moves[plan.begun : plan.begun + command.count]:
                group = move.uid, move.index
                self.placements[group] = replace(
                    self.placements[group],
                    replicas=(1, 2, 4),
                    removing=move.remove,
                    version=2,
                )
            self.plan = replace(plan, begun=plan.begun + command.count)
        self.world.call_later(1.0, lambda: done(MetaResult(kind="replaced")))

    @property
    def plan(self) -> Plan:
        plan = self.meta.plans["p"]
        assert isinstance(plan, Plan)
        return plan

    @plan.setter
    def plan(self, plan: Plan) -> None:
        self.meta.plans["p"] = plan

    def settle(self, *indexes: int) -> None:
        """These vnodes have the members that they are to have."""
        for index in indexes:
            before = self.placements[1, index]
            self.placements[1, index] = replace(before, removing=())
            self.voters[1, index] = before.replicas

    def look(self) -> list[Any]:
        """What is proposed within a look; (begun, count) of moves."""
        self.proposed.clear()
        self.moving.look_soon()
        self.world.run_for(_LOOK_MS)
        return [
            (each.begun, each.count) if isinstance(each, AdvancePlan) else type(each)
            for each in self.proposed
        ]


def test_so_many_vnodes_change_at_once_as_the_plan_allows() -> None:
    """The next begins when one has settled, and the plan ends with the last."""
    cluster = _Cluster()
    assert [(0, 2)] == cluster.look()
    assert [] == cluster.look()
    cluster.settle(1)
    assert [(2, 1)] == cluster.look()
    cluster.settle(0, 2)
    assert [(3, 2)] == cluster.look()
    cluster.settle(3)
    assert [] == cluster.look()
    cluster.settle(4)
    assert [EndPlan] == cluster.look()
    assert [] == cluster.look()
    assert 0 == cluster.asked


def test_a_plan_without_moves_ends() -> None:
    """There is nothing to wait for."""
    assert [EndPlan] == _Cluster(0).look()


def test_a_new_node_leader_goes_on() -> None:
    """It takes up what has begun and not settled, and begins nothing again."""
    cluster = _Cluster()
    cluster.look()
    cluster.settle(0)
    cluster.moving = cluster.another()
    assert [(2, 1)] == cluster.look()
    cluster.settle(1, 2)
    cluster.moving = cluster.another()
    assert [(3, 2)] == cluster.look()


def test_a_paused_plan_begins_nothing() -> None:
    """It does not end either, and goes on where it was."""
    cluster = _Cluster(3)
    cluster.look()
    cluster.plan = replace(cluster.plan, state=PlanState.PAUSED)
    cluster.settle(0, 1)
    assert [] == cluster.look()
    cluster.plan = replace(cluster.plan, state=PlanState.RUNNING)
    assert [(2, 1)] == cluster.look()
    cluster.settle(2)
    cluster.plan = replace(cluster.plan, state=PlanState.PAUSED)
    assert [] == cluster.look()


def test_nothing_begins_to_move_to_a_node_that_does_not_answer() -> None:
    """It is waited for; those before it are begun."""
    cluster = _Cluster()
    moves = list(cluster.meta.plan_moves["p"].moves)
    moves[1] = replace(moves[1], add=(2,))
    cluster.meta.plan_moves["p"] = PlanMoves("p", tuple(moves), (0,) * 5)
    cluster.silent = {2}
    assert [(0, 1)] == cluster.look()
    assert [] == cluster.look()
    waiting = [Standing.WAITING] * len(moves)
    assert [2] == waits_for(cluster.plan, moves, waiting, lambda node: node not in cluster.silent)
    cluster.silent = set()
    assert [(1, 1)] == cluster.look()


@pytest.mark.parametrize("state", [NodeState.REMOVED, NodeState.LEAVING])
def test_nobody_waits_for_a_node_that_gets_nothing_any_more(state: NodeState) -> None:
    """The move is void, and meta says so; the plan would never end."""
    cluster = _Cluster(1)
    cluster.silent = {4}
    assert [] == cluster.look()
    cluster.meta.nodes["n4"] = replace(_node(4), state=state)
    assert [(0, 1)] == cluster.look()


def test_moves_that_came_to_nothing_are_not_waited_for() -> None:
    """Nor is a vnode whose collection is gone."""
    cluster = _Cluster(2)
    cluster.look()
    cluster.plan = replace(cluster.plan, void=(0,))
    cluster.moving = cluster.another()
    cluster.settle(1)
    assert [EndPlan] == cluster.look()
    cluster = _Cluster(2)
    cluster.look()
    cluster.meta.collections_by_uid.clear()
    assert [EndPlan] == cluster.look()


def test_where_nobody_goes_leaders_are_asked() -> None:
    """A vnode has settled when all vote who are to."""
    cluster = _Cluster(2, adds=True)
    assert [(0, 2)] == cluster.look()
    assert 0 < cluster.asked
    cluster.voters[1, 0] = (1, 2)
    cluster.voters[1, 1] = (1, 2, 4)
    assert [] == cluster.look()
    cluster.settle(0)
    assert [EndPlan] == cluster.look()


def test_nodes_leave_the_meta_group_before_they_are_removed() -> None:
    """Afterwards nobody hears them, and of two voters the other one could do nothing."""
    cluster = _Cluster(1, kind=PlanKind.REMOVE)
    cluster.look()
    cluster.settle(0)
    assert [] == cluster.look()
    for members in (
        ConfState(voters=(1, 2, 4), voters_outgoing=(1, 2, 3, 4)),
        ConfState(voters=(1, 2, 4), learners=(3,)),
    ):
        cluster.vnode.members = members
        assert [] == cluster.look()
    cluster.vnode.members = ConfState(voters=(1, 2, 4))
    assert [EndPlan] == cluster.look()


@pytest.mark.parametrize("dead", [False, True])
def test_a_node_is_removed_when_what_it_has_sent_is_settled(dead: bool) -> None:
    """Nobody would hear what became of it; of a dead one nothing is to be heard."""
    cluster = _Cluster(1, kind=PlanKind.REMOVE)
    cluster.vnode.members = ConfState(voters=(1, 2, 4))
    cluster.look()
    cluster.settle(0)
    cluster.unsettled = 1
    if dead:
        cluster.silent = {3}
    else:
        assert [] == cluster.look()
        cluster.unsettled = 0
    assert [EndPlan] == cluster.look()


def test_who_does_not_say_what_it_has_sent_is_asked_again_later() -> None:
    """Named regression: it was asked again in the same moment, as long as it was mute."""
    cluster = _Cluster(1, kind=PlanKind.REMOVE)
    cluster.vnode.members = ConfState(voters=(1, 2, 4))
    cluster.look()
    cluster.settle(0)
    cluster.mute = {3}
    assert [] == cluster.look()
    assert 1 <= cluster.asked <= 4
    cluster.mute = set()
    assert [EndPlan] == cluster.look()


def test_a_node_on_which_replicas_are_left_is_not_waited_for() -> None:
    """Named regression: it goes on sending, so it never came to rest, and the plan never failed."""
    cluster = _Cluster(1, kind=PlanKind.REMOVE)
    cluster.placements[1, 9] = Placement(1, 9, (1, 3), (1, 3))
    cluster.look()
    cluster.settle(0)
    cluster.unsettled = 1
    assert [EndPlan] == cluster.look()


def test_only_the_node_leader_proposes() -> None:
    """And while the node works."""
    cluster = _Cluster()
    cluster.vnode.serving = False
    assert [] == cluster.look()
    cluster.vnode.serving = True
    cluster.runtime.working = False
    assert [] == cluster.look()


def test_what_is_refused_at_once_is_repeated_later() -> None:
    """A leader that hands over refuses: it asked itself again in the same moment, for ever."""
    cluster = _Cluster()
    cluster.refusal = NotLeader(2)
    assert 1 <= len(cluster.look()) <= 4
    cluster.refusal = None
    assert [(0, 2)] == cluster.look()


def test_one_proposal_at_a_time() -> None:
    """The next one comes when this one is answered."""
    cluster = _Cluster()
    answers: list[Callable[[Any], None]] = []

    def propose(_: Any, command: Any, done: Callable[[Any], None]) -> None:
        cluster.proposed.append(command)
        answers.append(done)

    cluster.runtime.propose = propose
    assert [(0, 2)] == cluster.look()
    assert [] == cluster.look()
    answers.pop()(NotLeader(2))
    assert [(0, 2)] == cluster.look()


def test_without_a_plan_nothing_is_looked_at() -> None:
    """No timer runs either."""
    cluster = _Cluster()
    cluster.plan = replace(cluster.plan, state=PlanState.CANCELLED)
    assert [] == cluster.look()
    events = cluster.world.events
    cluster.world.run_for(10_000.0)
    assert events == cluster.world.events


# --- what is told of a plan that runs ---------------------------------------------------------

MOVES = [Move(1, index, 1, (to,)) for index, to in enumerate((5, 6, 7, 8, 9))]


def _waits_for(begun: int, *standings: Standing, state: PlanState = PlanState.RUNNING) -> list[int]:
    """Of a plan that does two moves at once, while nobody but node 9 answers."""
    plan = Plan(
        id="p",
        kind=PlanKind.REBALANCE,
        basis=b"",
        created_ms=0,
        expires_ms=0,
        transfers=2,
        moves=len(MOVES),
        begun=begun,
        state=state,
    )
    told = [*standings, *([Standing.WAITING] * (len(MOVES) - len(standings)))]
    return list(waits_for(plan, MOVES, told, lambda number: number == 9))


def test_a_plan_tells_of_whom_it_waits_for() -> None:
    """Those whom a move is under way to as well: it was not told that such a move held it up."""
    assert [5, 6] == _waits_for(0)
    assert [6, 7, 8] == _waits_for(2, Standing.DONE, Standing.MOVING)
    assert [8] == _waits_for(3, Standing.DONE, Standing.VOID, Standing.DONE)
    assert [7] == _waits_for(3, *[Standing.DONE] * 2, Standing.MOVING, state=PlanState.CANCELLED)
    assert [] == _waits_for(5, *[Standing.DONE] * 5, state=PlanState.DONE)
