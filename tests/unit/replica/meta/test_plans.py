"""Plans in meta: confirmed while nothing has changed, begun move by move, ended, taken back."""

from typing import Any

import pytest
from msgspec.structs import replace

from tests.unit.replica.meta.driven import DrivenMeta, node
from timemachine import limits
from timemachine.group import node_of
from timemachine.model import NodeState, Plan, PlanKind, PlanState
from timemachine.placement import Move
from timemachine.rebalancing import Draft
from timemachine.replica.meta import (
    AdvancePlan,
    ConfirmPlan,
    EndPlan,
    PlanMoves,
    PutCollection,
    PutPlan,
    Removed,
    SteerPlan,
    basis_of,
    going,
)

_NOW_MS = 1_000


class _Cluster:
    """A meta group with a collection of `vnodes` of `replicas` on `nodes`."""

    def __init__(self, nodes: int = 4, vnodes: int = 4, replicas: int = 3) -> None:
        self.meta = DrivenMeta(nodes)
        result = self.meta.apply(
            PutCollection(now_ms=2, db="default", name="c", num_vnodes=vnodes, replicas=replicas)
        )
        assert result.collection is not None
        self.uid = result.collection.uid

    def put(
        self,
        id: str = "p",
        kind: PlanKind = PlanKind.DRAIN,
        nodes: tuple[int, ...] = (4,),
        **more: Any,
    ) -> Plan:
        """Make a plan as the API does; `more` are fields of it."""
        machine = self.meta.machine
        fields: dict[str, Any] = {"created_ms": _NOW_MS, "expires_ms": 2 * _NOW_MS, **more}
        uid = self.uid if kind is PlanKind.REPLICATE else 0
        draft = Draft(kind=kind, nodes=nodes, uid=uid, replicas=more.get("replicas", 0))
        moves = tuple(
            draft.moves(
                machine.nodes.values(), machine.collections_by_uid, machine.all_placements()
            )
        )
        plan = Plan(
            id=id,
            kind=kind,
            basis=basis_of(machine),
            nodes=nodes,
            uid=uid,
            moves=len(moves),
            **fields,
        )
        kept = PlanMoves(id, moves, (0,) * len(moves))
        result = self.meta.apply(PutPlan(now_ms=fields["created_ms"], plan=plan, moves=kept))
        assert result.plan is not None
        return result.plan

    def confirm(self, id: str = "p", now_ms: int = _NOW_MS) -> str | None:
        return self.meta.apply(ConfirmPlan(now_ms=now_ms, id=id)).code

    def steer(self, state: PlanState, id: str = "p") -> str | None:
        return self.meta.apply(SteerPlan(now_ms=_NOW_MS, id=id, state=state)).code

    def advance(self, begun: int, count: int, id: str = "p") -> str | None:
        return self.meta.apply(AdvancePlan(now_ms=_NOW_MS, id=id, begun=begun, count=count)).code

    def end(self, id: str = "p") -> str | None:
        return self.meta.apply(EndPlan(now_ms=_NOW_MS, id=id)).code

    def settle(self) -> None:
        """All groups get the members that they are to have."""
        for place in self.meta.machine.all_placements():
            for each in place.removing:
                command = Removed(now_ms=3, uid=place.uid, index=place.index, replica=each)
                self.meta.apply(command)

    def state(self, number: int) -> NodeState:
        return self.meta.machine.nodes[f"n{number}"].state

    def loads(self, number: int) -> int:
        """How many replicas a node has."""
        return sum(
            node_of(each) == number
            for place in self.meta.machine.all_placements()
            for each in place.replicas
        )

    @property
    def plan(self) -> Plan:
        return self.meta.machine.plans["p"]

    @property
    def replicas(self) -> int:
        return self.meta.machine.collections_by_uid[self.uid].replicas


def test_a_plan_does_nothing_before_it_is_confirmed() -> None:
    """It is kept with its moves, also over a restart."""
    cluster = _Cluster()
    before = cluster.meta.machine.all_placements()
    plan = cluster.put()
    assert PlanState.PROPOSED is plan.state
    assert (before, NodeState.MEMBER) == (cluster.meta.machine.all_placements(), cluster.state(4))
    assert "version_moved" == cluster.advance(0, 1) == cluster.end()
    again = cluster.meta.reloaded()
    assert cluster.meta.machine.plans == again.plans
    assert cluster.meta.machine.plan_moves == again.plan_moves


def test_a_plan_that_is_put_twice_is_the_first_one() -> None:
    """A repeat that is late does not take back what runs."""
    cluster = _Cluster()
    cluster.put()
    assert None is cluster.confirm()
    assert PlanState.RUNNING is cluster.put(transfers=9).state
    assert (PlanState.RUNNING, limits.PLAN_TRANSFERS_DEFAULT) == (
        cluster.plan.state,
        cluster.plan.transfers,
    )


def test_a_plan_is_refused_if_the_cluster_is_not_what_it_was_made_from() -> None:
    """Where a placement, a node or a collection has changed."""
    cluster = _Cluster()
    cluster.put()
    machine = cluster.meta.machine
    machine.keep(replace(machine.placement(cluster.uid, 0), version=9))
    assert "plan_outdated" == cluster.confirm()
    assert PlanState.PROPOSED is cluster.plan.state
    cluster.put("q")
    machine.keep(replace(machine.nodes["n1"], weight=7))
    assert "plan_outdated" == cluster.confirm("q")


def test_a_plan_expires_and_is_forgotten() -> None:
    """When another is put."""
    cluster = _Cluster()
    cluster.put()
    assert "plan_expired" == cluster.confirm(now_ms=2 * _NOW_MS)
    cluster.put("q", created_ms=3 * _NOW_MS, expires_ms=4 * _NOW_MS)
    assert ["q"] == list(cluster.meta.machine.plans) == list(cluster.meta.machine.plan_moves)
    assert "not_found" == cluster.confirm()


def test_one_plan_runs_at_a_time() -> None:
    """Also while it is paused; afterwards it is confirmed no more."""
    cluster = _Cluster()
    cluster.put()
    cluster.put("q")
    assert None is cluster.confirm() is cluster.confirm()
    assert "plan_running" == cluster.confirm("q")
    cluster.steer(PlanState.PAUSED)
    assert "plan_running" == cluster.confirm("q")
    cluster.steer(PlanState.CANCELLED)
    assert "plan_ended" == cluster.confirm() == cluster.steer(PlanState.RUNNING)
    assert None is cluster.steer(PlanState.CANCELLED)


def test_what_was_not_confirmed_can_only_be_cancelled() -> None:
    """Then it is over."""
    cluster = _Cluster()
    cluster.put()
    for state in (PlanState.PAUSED, PlanState.RUNNING):
        assert "plan_not_confirmed" == cluster.steer(state)
    assert None is cluster.steer(PlanState.CANCELLED)
    assert "plan_ended" == cluster.confirm()


def test_moves_begin_in_their_order_and_only_once() -> None:
    """Who proposes from what it saw before another did comes too late."""
    cluster = _Cluster()
    plan = cluster.put()
    assert 3 == plan.moves
    cluster.confirm()
    assert NodeState.LEAVING is cluster.state(4)
    assert None is cluster.advance(0, 2)
    assert "version_moved" == cluster.advance(0, 2)
    assert (2, 1) == (cluster.plan.begun, cluster.loads(4))
    assert "version_moved" == cluster.end()
    cluster.steer(PlanState.PAUSED)
    assert "version_moved" == cluster.advance(2, 1)
    cluster.steer(PlanState.RUNNING)
    assert None is cluster.advance(2, 9)
    assert (3, 0, ()) == (cluster.plan.begun, cluster.loads(4), cluster.plan.void)
    assert None is cluster.end()
    assert PlanState.DONE is cluster.plan.state
    # It keeps nothing and gets nothing, until it is taken back.
    assert NodeState.LEAVING is cluster.state(4)
    cluster.put("q", PlanKind.REBALANCE)
    assert None is cluster.confirm("q")
    assert NodeState.MEMBER is cluster.state(4)


def test_a_move_whose_vnode_has_changed_is_void() -> None:
    """The others are done."""
    cluster = _Cluster()
    cluster.put()
    cluster.confirm()
    machine = cluster.meta.machine
    first = machine.plan_moves["p"].moves[0]
    place = machine.placement(first.uid, first.index)
    machine.keep(replace(place, version=place.version + 1))
    cluster.advance(0, 3)
    assert ((0,), 1) == (cluster.plan.void, cluster.loads(4))


def test_cancelled_nodes_are_as_they_were() -> None:
    """One that was leaving before goes on with that."""
    cluster = _Cluster(nodes=6)
    cluster.put(nodes=(4,))
    cluster.confirm()
    cluster.advance(0, 9)
    cluster.end()
    cluster.put("q", nodes=(4, 5))
    cluster.confirm("q")
    assert (5,) == cluster.meta.machine.plans["q"].marked
    cluster.steer(PlanState.CANCELLED, "q")
    assert (NodeState.LEAVING, NodeState.MEMBER) == (cluster.state(4), cluster.state(5))


def test_a_node_is_removed_when_nothing_is_left_on_it() -> None:
    """Also nothing that is still to leave; before that it goes out of the meta group."""
    cluster = _Cluster()
    cluster.put(kind=PlanKind.REMOVE)
    cluster.confirm()
    assert frozenset() == going(cluster.meta.machine)
    cluster.advance(0, 9)
    assert frozenset() == going(cluster.meta.machine)
    cluster.settle()
    assert {4} == going(cluster.meta.machine)
    cluster.end()
    assert (NodeState.REMOVED, PlanState.DONE) == (cluster.state(4), cluster.plan.state)
    assert frozenset() == going(cluster.meta.machine)


def test_a_node_with_replicas_is_not_removed() -> None:
    """The plan has failed, and says so; the node is still leaving."""
    cluster = _Cluster()
    cluster.put(kind=PlanKind.REMOVE)
    cluster.confirm()
    cluster.advance(0, 9)
    cluster.end()
    assert (NodeState.LEAVING, PlanState.FAILED) == (cluster.state(4), cluster.plan.state)
    assert cluster.plan.error is not None
    assert cluster.plan.error.startswith("3 replicas are left")


@pytest.mark.parametrize(("replicas", "before", "after"), [(2, 2, 2), (4, 3, 4)])
def test_a_collection_wants_fewer_at_once_and_more_at_the_end(
    replicas: int, before: int, after: int
) -> None:
    """In between nothing comes by itself."""
    cluster = _Cluster()
    cluster.put(kind=PlanKind.REPLICATE, nodes=(), replicas=replicas)
    cluster.confirm()
    assert before == cluster.replicas
    cluster.advance(0, 9)
    cluster.settle()
    cluster.end()
    assert after == cluster.replicas
    assert {replicas} == {len(each.replicas) for each in cluster.meta.machine.all_placements()}


def test_a_collection_does_not_want_more_while_some_is_left_for_another_plan() -> None:
    """That one ends it."""
    cluster = _Cluster()
    cluster.put(kind=PlanKind.REPLICATE, nodes=(), replicas=4, left=1)
    cluster.confirm()
    cluster.advance(0, 9)
    cluster.end()
    assert (PlanState.DONE, 3) == (cluster.plan.state, cluster.replicas)


def test_the_oldest_plan_goes_that_does_not_run() -> None:
    """Those that have ended before those that have not."""
    cluster = _Cluster()
    cluster.put("running")
    cluster.confirm("running")
    ids = [f"p{number}" for number in range(limits.PLANS_KEPT_MAX - 1)]
    for number, each in enumerate(ids):
        cluster.put(each, created_ms=_NOW_MS + number)
    cluster.steer(PlanState.CANCELLED, "p5")
    cluster.put("more", created_ms=_NOW_MS + 100)
    cluster.put("again", created_ms=_NOW_MS + 101)
    kept = ["running", *[each for each in ids if each not in ("p0", "p5")], "more", "again"]
    assert kept == list(cluster.meta.machine.plans)


def test_no_replica_comes_to_where_one_is_leaving() -> None:
    """That one may be the only one that there is, and would be erased."""
    cluster = _Cluster(nodes=3, vnodes=1, replicas=1)
    machine = cluster.meta.machine
    place = machine.placement(cluster.uid, 0)
    here = node_of(place.replicas[0])
    first, second = sorted({1, 2, 3} - {here})
    cluster.put(nodes=(here,))
    machine.keep(
        replace(cluster.plan, state=PlanState.RUNNING, moves=3),
    )
    moves = (
        Move(cluster.uid, 0, 1, (first,), place.replicas),
        Move(cluster.uid, 0, 2, (here,)),
        Move(cluster.uid, 0, 2, (second,)),
    )
    machine.keep(PlanMoves("p", moves, (0, 0, 0)))
    cluster.advance(0, 3)
    assert (1,) == cluster.plan.void
    assert {first, second} == set(map(node_of, machine.placement(cluster.uid, 0).replicas))


def test_what_plans_are_made_from_is_the_same_in_any_order() -> None:
    """And a node that is gone is no part of it."""
    cluster = _Cluster()
    machine = cluster.meta.machine
    before = basis_of(machine)
    machine.nodes = dict(reversed(machine.nodes.items()))
    machine.keep(node(9, state=NodeState.REMOVED))
    assert before == basis_of(machine)
