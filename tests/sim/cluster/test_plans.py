"""Clusters whose replicas operators have moved: what is planned, and what must hold meanwhile."""

from typing import Any

import pytest

from tests.checks.violation import Violation
from tests.sim.cluster.growth import Step, unsettled
from tests.sim.cluster.harness import Harness
from tests.sim.cluster.knobs import Knobs, draw
from tests.sim.cluster.plans import draw_plans
from tests.sim.mutations import planted
from timemachine.group import META_GROUP, node_of
from timemachine.model import NodeState, Plan, PlanKind, PlanState
from timemachine.placement import Move
from timemachine.replica import meta as m

_QUIET = Knobs(
    seed=1,
    num_vnodes=3,
    plans=1,
    safety_ms=8_000.0,
    fault_pace_ms=1e9,
    due_ms_max=1_000.0,
    client_pace_ms=90,
)


def _run(*kinds: str, **knobs: Any) -> Harness:
    """A run in which these are wished for, one after the other."""
    harness = Harness(_QUIET.changed(**knobs))
    harness.plans.plan = [
        Step(500.0 + 2_500.0 * number, kind, number) for number, kind in enumerate(kinds)
    ]
    result = harness.run()
    assert ([], []) == (result.judgement.broken, result.judgement.undecided)
    assert [] == unsettled(harness.members)
    return harness


def _states(harness: Harness) -> dict[int, NodeState]:
    meta = harness.members.meta()
    assert meta is not None
    return {node.number: node.state for node in meta.nodes.values()}


@pytest.mark.parametrize("mood", ["healthy", "slow"])
def test_a_drained_node_has_nothing(mood: str) -> None:
    """And nothing was sent twice for it, also where sends were under way."""
    harness = _run("drain", nodes=5, replicas=3, mood=mood, fault_kinds=0)
    drained = {node for node, state in _states(harness).items() if state is NodeState.LEAVING}
    assert drained
    assert all(
        drained.isdisjoint(map(node_of, each.voters))
        for each in harness.members.memberships()
        if each.group != META_GROUP
    )


def test_a_removed_node_is_in_no_group() -> None:
    """It has stopped."""
    harness = _run("remove", nodes=4, replicas=3)
    removed = {node for node, state in _states(harness).items() if state is NodeState.REMOVED}
    assert removed
    assert all(harness.members.members[node].lost for node in removed)
    assert all(
        removed.isdisjoint(map(node_of, each.voters)) for each in harness.members.memberships()
    )


def test_of_two_nodes_one_is_removed() -> None:
    """The meta group lost its majority for ever, when the node was not heard any more."""
    harness = _run("remove", nodes=2)
    assert 1 == len(harness.members.numbers)


def test_a_dead_node_is_removed() -> None:
    """Others have what it had."""
    harness = _run("remove_dead", nodes=4, replicas=3)
    assert [NodeState.REMOVED] == [
        state for state in _states(harness).values() if state is not NodeState.MEMBER
    ]


def test_the_sole_replica_moves() -> None:
    """It led no more: nobody told it that time passes."""
    _run("drain", "take_back", nodes=3, replicas=1, num_vnodes=6)


def _with_plan(transfers: int) -> tuple[Harness, Any]:
    """A cluster, and a meta machine in which a plan of two moves runs."""
    harness = Harness(_QUIET.changed(nodes=4, replicas=3))
    harness.boot()
    meta = harness.members.meta()
    assert meta is not None
    first, second = meta.all_placements()[:2]
    moves = []
    for place in (first, second):
        (free,) = {1, 2, 3, 4} - set(place.replicas)
        moves.append(Move(place.uid, place.index, 1, (free,), place.replicas[:1]))
    plan = Plan(
        id="x",
        kind=PlanKind.REBALANCE,
        basis=b"",
        created_ms=1,
        expires_ms=2,
        transfers=transfers,
        moves=2,
        state=PlanState.RUNNING,
    )
    meta.keep(plan)
    meta.keep(m.PlanMoves("x", tuple(moves), (0, 0)))
    return harness, meta


def test_a_step_of_a_plan_that_must_not_be_is_found() -> None:
    """More at once than is allowed, and an end before the end."""
    harness, meta = _with_plan(transfers=1)
    with harness.plans.judged():
        handlers = m.machine._HANDLERS
        advance = handlers[m.AdvancePlan]
        assert "replaced" == advance(meta, m.AdvancePlan(now_ms=1, id="x", begun=0, count=1)).kind
        with pytest.raises(Violation, match="C12: plan x changes"):
            advance(meta, m.AdvancePlan(now_ms=1, id="x", begun=1, count=1))
        with pytest.raises(Violation, match="C12: plan x has ended, and"):
            handlers[m.EndPlan](meta, m.EndPlan(now_ms=1, id="x"))


def test_a_step_of_a_plan_that_takes_effect_twice_is_found() -> None:
    """What two node leaders have seen alike only one of them begins."""
    harness, meta = _with_plan(transfers=2)
    command = m.AdvancePlan(now_ms=1, id="x", begun=0, count=1)
    with planted("plan-begins-twice"), harness.plans.judged():
        advance = m.machine._HANDLERS[m.AdvancePlan]
        assert "replaced" == advance(meta, command).kind
        with pytest.raises(Violation, match="C12: plan x begins moves twice"):
            advance(meta, command)


def test_a_plan_is_not_confirmed_that_no_group_survives() -> None:
    """Where what is lost for good and what goes are too much together."""
    harness = Harness(_QUIET.changed(nodes=4, replicas=3, num_vnodes=1))
    harness.boot()
    members = harness.members
    (place,) = [each for each in members.memberships() if each.group != META_GROUP]
    first, _, third = sorted(place.wanted)
    (free,) = {1, 2, 3, 4} - set(map(node_of, place.wanted))
    assert members.can_lose(third)
    members.plan("p", [Move(*place.group, 1, (), (first,))], ())
    assert members.can_carry("p")
    # Of the two that are to be left neither can be spared.
    assert not members.can_lose(third)
    members.planned.clear()
    members.lose(third)
    members.plan("p", [Move(*place.group, 1, (), (first,))], ())
    assert not members.can_carry("p")
    members.planned.clear()
    members.plan("q", [Move(*place.group, 1, (free,), (third,))], ())
    assert members.can_carry("q")


def test_what_is_wished_is_as_long_as_its_knob_says() -> None:
    """In some seeds; and nothing else is drawn otherwise for that."""
    knobs = _QUIET.changed(plans=3)
    assert 3 == len(draw_plans(knobs))
    assert draw_plans(knobs) == draw_plans(knobs)
    assert [] == draw_plans(_QUIET.changed(plans=0))
    quiet = [draw_plans(_QUIET.changed(seed=seed, plans=6, fault_kinds=0)) for seed in range(30)]
    assert "remove_dead" not in {step.kind for steps in quiet for step in steps}
    drawn = [draw(seed) for seed in range(300)]
    assert 30 < sum(knobs.plans > 0 for knobs in drawn) < 80
    assert {0, 1, 2, 3, 6} == {knobs.plans for knobs in drawn}
    assert not any(knobs.overruled and knobs.plans for knobs in drawn)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_plan_that_compacts_ends(seed: int) -> None:
    """With plans that move beside it; and what was deleted is gone from the disks."""
    harness = _run("compact", "drain", "compact", nodes=4, replicas=3, seed=seed)
    meta = harness.members.meta()
    assert meta is not None
    made = [plan for plan in meta.plans.values() if plan.kind is PlanKind.COMPACT]
    assert made
    assert PlanState.DONE in {plan.state for plan in made}
    assert harness.members.compacted


def test_a_plan_that_compacts_survives_crashes() -> None:
    """Of nodes that are at it, and of the node leader."""
    harness = _run(
        "compact", "compact", nodes=3, fault_pace_ms=700.0, compact_step_bytes=8_192, seed=5
    )
    assert harness.members.compacted


def test_other_plans_are_what_they_were() -> None:
    """Whether some compact or not."""
    knobs = _QUIET.changed(plans=3)
    more = draw_plans(knobs.changed(compactions=2))
    assert draw_plans(knobs) == [step for step in more if step.kind != "compact"]
    assert 2 == sum(step.kind == "compact" for step in more)
    assert [] == draw_plans(_QUIET.changed(plans=0, compactions=2))
