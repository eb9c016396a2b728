"""Plans: asked for, confirmed, carried out move by move, ended.

A plan is stored with all its moves, so that whoever leads the meta group goes on with it. One runs
at a time. A move that has begun is not taken back: the leader of its vnode sees to it that the
group gets the members that meta wants, and until then nothing is removed. So a plan may stop
between any two of its moves.
"""

import msgspec

from timemachine import limits
from timemachine.group import node_of
from timemachine.model import NodeState, Plan, PlanKind, PlanState
from timemachine.placement import members
from timemachine.rebalancing import basis
from timemachine.replica.meta import commands as c
from timemachine.replica.meta.compactions import failed_parts, has_open_parts
from timemachine.replica.meta.nodes import forget_removed
from timemachine.replica.meta.placing import do_moves
from timemachine.replica.meta.records import MetaResult, refused
from timemachine.replica.meta.tables import Tables


def put_plan(tables: Tables, command: c.PutPlan) -> MetaResult:
    """Keep a plan; it does nothing before it is confirmed."""
    assert len(command.moves.moves) <= limits.PLAN_MOVES_MAX
    existing = tables.plans.get(command.plan.id)
    if existing is not None:
        # Asked for again, with the key of a request whose answer is not kept any more, or late.
        return MetaResult(kind="unchanged", plan=existing)
    idle = [plan for plan in tables.plans.values() if not plan.under_way]
    void = [plan for plan in idle if not plan.ended and plan.expires_ms <= command.now_ms]
    for plan in void:
        _drop(tables, plan)
    if len(tables.plans) >= limits.PLANS_KEPT_MAX:
        kept = [plan for plan in idle if plan.id in tables.plans]
        _drop(tables, min(kept, key=lambda plan: (not plan.ended, plan.created_ms, plan.id)))
    tables.keep(command.plan)
    tables.keep(command.moves)
    return MetaResult(kind="created", plan=command.plan)


def confirm_plan(tables: Tables, command: c.ConfirmPlan) -> MetaResult:
    """Have a plan run, if the cluster is still what it was made from, and no other one runs."""
    plan = tables.plans.get(command.id)
    if plan is None:
        return refused("not_found")
    if plan.under_way or plan.completed:
        # Asked again by who did not hear the answer.
        return MetaResult(kind="unchanged", plan=plan)
    if plan.ended:
        return refused("plan_ended")
    if plan.expires_ms <= command.now_ms:
        return refused("plan_expired")
    if any(each.under_way for each in tables.plans.values()):
        return refused("plan_running")
    if plan.basis != basis_of(tables):
        return refused("plan_outdated")
    marked = _mark(tables, plan)
    _set_replicas(tables, plan, begins=True)
    return _kept(tables, plan, state=PlanState.RUNNING, marked=marked, confirmed_ms=command.now_ms)


def steer_plan(tables: Tables, command: c.SteerPlan) -> MetaResult:
    """Pause, resume or cancel a plan; what it is already is no change."""
    plan = tables.plans.get(command.id)
    if plan is None:
        return refused("not_found")
    if plan.state is command.state:
        return MetaResult(kind="unchanged", plan=plan)
    if plan.ended:
        return refused("plan_ended")
    if command.state is PlanState.CANCELLED:
        # What was emptied in part may be filled again.
        _set_states(tables, plan.marked, NodeState.MEMBER)
        return _kept(tables, plan, state=PlanState.CANCELLED, finished_ms=command.now_ms)
    if not plan.under_way:
        return refused("plan_not_confirmed")
    return _kept(tables, plan, state=command.state)


def advance_plan(tables: Tables, command: c.AdvancePlan) -> MetaResult:
    """Begin the next moves of a plan that runs: `count` from number `begun` on."""
    plan = tables.plans.get(command.id)
    if plan is None or plan.state is not PlanState.RUNNING or plan.begun != command.begun:
        return refused("version_moved")
    end = min(plan.begun + command.count, plan.moves)
    done = do_moves(tables, tables.plan_moves[plan.id].moves[plan.begun : end])
    void = [at for at, moved in enumerate(done, plan.begun) if not moved]
    return _kept(tables, plan, begun=end, void=(*plan.void, *void))


def end_plan(tables: Tables, command: c.EndPlan) -> MetaResult:
    """Nothing is left to do for a plan that runs.

    Nodes that are to be removed are, if they have nothing left: they have if a move came to
    nothing, or if there was more to move than one plan takes.
    """
    plan = tables.plans.get(command.id)
    if plan is None or plan.state is not PlanState.RUNNING or plan.begun < plan.moves:
        return refused("version_moved")
    if has_open_parts(plan):
        return refused("version_moved")
    error = failed_parts(plan)
    if plan.kind is PlanKind.REMOVE:
        left = _replicas_on(tables, set(plan.nodes))
        if left:
            error = f"{left} replicas are left on what is to be removed: make another plan."
        else:
            _set_states(tables, plan.nodes, NodeState.REMOVED)
            forget_removed(tables)
    if not plan.left:
        _set_replicas(tables, plan, begins=False)
    state = PlanState.DONE if error is None else PlanState.FAILED
    return _kept(tables, plan, state=state, error=error, finished_ms=command.now_ms)


def going(tables: Tables) -> frozenset[int]:
    """The nodes that are about to be removed: all that they had is elsewhere.

    They leave the meta group before that. Nobody hears them afterwards, and with them it could lose
    its majority for ever.
    """
    for plan in tables.plans.values():
        if plan.kind is PlanKind.REMOVE and plan.under_way and plan.begun == plan.moves:
            nodes = set(plan.nodes)
            return frozenset() if _replicas_on(tables, nodes) else frozenset(nodes)
    return frozenset()


def basis_of(tables: Tables) -> bytes:
    """See `timemachine.rebalancing.basis`."""
    return basis(tables.nodes.values(), tables.collections_by_uid.values(), tables.all_placements())


def _kept(tables: Tables, plan: Plan, **changes: object) -> MetaResult:
    plan = msgspec.structs.replace(plan, **changes)
    tables.keep(plan)
    return MetaResult(kind="replaced", plan=plan)


def _drop(tables: Tables, plan: Plan) -> None:
    tables.drop(tables.plan_moves[plan.id])
    tables.drop(plan)


def _mark(tables: Tables, plan: Plan) -> tuple[int, ...]:
    """Nodes that are emptied get nothing new; returns those that are leaving from now on."""
    if plan.kind is PlanKind.COMPACT:
        return ()  # it changes nothing about what its nodes may have
    if not plan.kind.empties:
        _set_states(tables, plan.nodes, NodeState.MEMBER)
        return ()
    there = members(tables.nodes.values())
    _set_states(tables, plan.nodes, NodeState.LEAVING)
    return tuple(number for number in plan.nodes if number in there)


def _set_states(tables: Tables, numbers: tuple[int, ...], state: NodeState) -> None:
    for node in [each for each in tables.nodes.values() if each.number in numbers]:
        if node.present:
            tables.keep(msgspec.structs.replace(node, state=state))


def _set_replicas(tables: Tables, plan: Plan, *, begins: bool) -> None:
    """A collection wants another count of replicas: fewer at once, more when they are there.

    In between its vnodes have more than it wants. If they had fewer, what they lack would come by
    itself, all at once.
    """
    collection = tables.collections_by_uid.get(plan.uid)
    if plan.kind is not PlanKind.REPLICATE or collection is None:
        return
    if plan.replicas != collection.replicas and (plan.replicas < collection.replicas) == begins:
        version = collection.version + 1
        tables.keep(msgspec.structs.replace(collection, replicas=plan.replicas, version=version))


def _replicas_on(tables: Tables, numbers: set[int]) -> int:
    """How many replicas these nodes have, or still have to give away."""
    return sum(
        node_of(each) in numbers
        for placement in tables.all_placements()
        for each in (*placement.replicas, *placement.removing)
    )
