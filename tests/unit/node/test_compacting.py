"""Plans that compact, on three nodes: each compacts its own store, the node leader sees to it."""

from itertools import groupby, pairwise
from typing import Any

from msgspec.structs import replace

from node.compacting.reports import Phase
from tests.unit.node.three import MEMBERS, ThreeNodes
from timemachine.errors import NotLeader
from timemachine.model import Compaction, CompactionPart, Plan, PlanKind, PlanState
from timemachine.replica import meta as m
from timemachine.storage.keys import damaged_key

ID = "0198-plan"
META = (0, 0)


class _Compactions:
    """Three nodes that write down what their stores were asked to compact."""

    def __init__(self, *, steps: int = 3) -> None:
        self.nodes = ThreeNodes()
        self.world = self.nodes.world
        self.group = self.nodes.put_collection()
        self.done: dict[int, list[tuple[bytes, bytes]]] = {number: [] for number in MEMBERS}
        self.steps = steps
        self.gate = True
        for number in MEMBERS:
            self.spy(number)

    def spy(self, number: int) -> None:
        """Have a store look as large as so many steps."""
        store: Any = self.nodes.stores[number]
        store.compact = lambda start, stop: self.done[number].append((start, stop))
        store.approximate_bytes = lambda start, stop: (
            (
                (int.from_bytes(stop[:5].ljust(5, b"\0"), "big") >> 8)
                - (int.from_bytes(start[:5].ljust(5, b"\0"), "big") >> 8)
            )
            * (self.steps * 64 * 1024 * 1024)
        )

    def put(self, *, transfers: int = 1, **fields: Any) -> None:
        """Make a plan, and confirm it."""
        parts = tuple(CompactionPart(node=number) for number in MEMBERS)
        basis = m.basis_of(self.nodes.engines[1].meta)
        plan = Plan(
            id=ID,
            kind=PlanKind.COMPACT,
            basis=basis,
            created_ms=self.world.wall_ms(),
            expires_ms=self.world.wall_ms() + 900_000,
            transfers=transfers,
            compaction=replace(Compaction(parts=parts), **fields),
        )
        self.nodes.ask_meta(
            lambda now_ms: m.PutPlan(now_ms=now_ms, plan=plan, moves=m.PlanMoves(ID, (), ()))
        )
        result = self.nodes.ask_meta(lambda now_ms: m.ConfirmPlan(now_ms=now_ms, id=ID))
        assert result.code is None, result

    def steer(self, state: PlanState) -> None:
        """Pause, resume, cancel."""
        self.nodes.ask_meta(lambda now_ms: m.SteerPlan(now_ms=now_ms, id=ID, state=state))

    @property
    def plan(self) -> Plan:
        """As the node leader knows it."""
        return self.nodes.engines[self.nodes.leader(META)].meta.plans[ID]

    @property
    def parts(self) -> dict[int, CompactionPart]:
        """By node."""
        assert self.plan.compaction is not None
        return {part.node: part for part in self.plan.compaction.parts}

    def finish(self) -> Plan:
        """Run until the plan has ended."""
        self.world.run_until(lambda: self.nodes.leader(META) != 0 and self.plan.ended, 2_000_000)
        return self.plan

    def covers(self, number: int) -> bool:
        """Whether a node has compacted all its keys, in order and without a gap."""
        done = self.done[number]
        return (
            bool(done)
            and done[0][0] == b"\0\0\0\0"
            and all(a[1] == b[0] for a, b in pairwise(done))
        )


def test_each_node_compacts_all_it_has_one_after_the_other() -> None:
    """Then the plan is done, and tells of each node what came of it."""
    made = _Compactions()
    order: list[int] = []

    def spied(number: int, compact: Any) -> Any:
        def compacting(start: bytes, stop: bytes) -> None:
            order.append(number)
            compact(start, stop)

        return compacting

    for number in MEMBERS:
        store: Any = made.nodes.stores[number]
        store.compact = spied(number, store.compact)
    made.put()
    plan = made.finish()
    assert (PlanState.DONE, None) == (plan.state, plan.error)
    assert all(made.covers(number) for number in MEMBERS)
    assert len(MEMBERS) == len(list(groupby(order))), order
    for number, part in made.parts.items():
        assert len(made.done[number]) == part.steps > 1
        assert part.after_bytes


def test_only_the_ranges_of_what_is_asked_for() -> None:
    """A plan about vnodes of a collection leaves the others alone."""
    made = _Compactions(steps=1)
    made.put(uid=made.group[0], indexes=(0,))
    assert PlanState.DONE is made.finish().state
    for number in MEMBERS:
        keys = made.nodes.vnode(number, made.group).keys
        assert {keys.prefix} == {step[0][:4] for step in made.done[number]}
        assert keys.stop == made.done[number][-1][1]


def test_rows_stay_as_they_are() -> None:
    """The bounds of steps are written again as they are, and nothing else."""
    made = _Compactions()
    for number in range(30):
        made.nodes.put(made.nodes.leader(made.group), made.group, f"job{number}")
    made.world.run_for(2_000)
    collection = made.group[0]

    def jobs() -> dict[int, list[tuple[bytes, bytes]]]:
        found = {}
        for number in MEMBERS:
            keys = made.nodes.vnode(number, (collection, 0)).keys
            found[number] = made.nodes.stores[number].scan(keys.job, keys.job + b"\xff", 1_000)
        return found

    before = jobs()
    assert 30 == len(before[1])
    made.put(transfers=3)
    made.finish()
    assert before == jobs()


def test_logs_go_that_all_members_have() -> None:
    """Nobody needs an image for it: what comes later is read on from the log."""
    made = _Compactions()
    nodes, group = made.nodes, made.group
    for number in range(20):
        nodes.put(nodes.leader(group), group, f"job{number}")
        made.world.run_for(20)
    made.world.run_for(2_000)
    assert all(nodes.vnode(number, group).log_base < 5 for number in MEMBERS)
    made.put(transfers=3)
    made.finish()
    for number in MEMBERS:
        vnode = nodes.vnode(number, group)
        assert vnode.log_base > 15
        keys = vnode.keys
        made.world.run_for(500)
        rows = nodes.stores[number].scan(keys.log, keys.log_stop, 1_000)
        assert len(rows) == vnode.last_index - vnode.log_base < 5
    third = nodes.others(nodes.leader(group))[0]
    nodes.stop(third)
    nodes.restart(third)
    nodes.put(nodes.leader(group), group, "later")
    made.world.run_until(
        lambda: (
            nodes.vnode(third, group).machine.applied_index
            == nodes.vnode(nodes.leader(group), group).machine.applied_index
        ),
        1_000_000,
    )
    assert 0 == sum(
        engine.statistics()["snapshots_sent_bytes"] for engine in nodes.engines.values()
    )


def test_a_log_is_kept_for_a_node_that_is_down() -> None:
    """It is no member less."""
    made = _Compactions()
    nodes, group = made.nodes, made.group
    down = min({*MEMBERS} - {nodes.leader(META), nodes.leader(group)})
    nodes.stop(down)
    for number in range(20):
        nodes.put(nodes.leader(group), group, f"job{number}")
        made.world.run_for(20)
    made.put(transfers=3)
    up = nodes.others(down)
    made.world.run_until(lambda: all(made.parts[number].ended for number in up), 2_000_000)
    assert all(nodes.vnode(number, group).log_base < 5 for number in up)


def test_paused_it_rests_and_then_goes_on() -> None:
    """No step begins meanwhile; and those that were done are not done again."""
    made = _Compactions(steps=40)
    made.put()
    made.world.run_until(lambda: any(len(done) > 2 for done in made.done.values()))
    made.steer(PlanState.PAUSED)
    made.world.run_for(500)
    before = {number: list(done) for number, done in made.done.items()}
    made.world.run_for(10_000)
    assert before == made.done
    (at_work,) = [number for number, part in made.parts.items() if part.begun and not part.ended]
    report = made.nodes.engines[at_work]._compacting.report(ID)
    assert report is not None
    assert Phase.PAUSED is report.phase
    made.steer(PlanState.RUNNING)
    assert PlanState.DONE is made.finish().state
    assert all(made.covers(number) for number in MEMBERS)


def test_cancelled_it_ends_at_once() -> None:
    """What was compacted stays so."""
    made = _Compactions(steps=40)
    made.put()
    made.world.run_until(lambda: any(len(done) > 2 for done in made.done.values()))
    made.steer(PlanState.CANCELLED)
    made.world.run_for(500)
    before = {number: list(done) for number, done in made.done.items()}
    made.world.run_for(10_000)
    assert before == made.done
    assert PlanState.CANCELLED is made.plan.state


def test_it_survives_the_loss_of_the_node_leader() -> None:
    """Whoever follows goes on; the lost node is waited for, and does its part when it is back."""
    made = _Compactions(steps=40)
    made.put()
    made.world.run_until(lambda: any(len(done) > 2 for done in made.done.values()))
    nodes = made.nodes
    lost = nodes.leader(META)
    nodes.stop(lost)
    others = nodes.others(lost)
    made.world.run_until(lambda: nodes.leader(META) != 0, 1_000_000)
    if not made.parts[lost].begun:
        made.world.run_until(lambda: all(made.parts[each].ended for each in others), 2_000_000)
    made.world.run_for(20_000)
    assert PlanState.RUNNING is made.plan.state, "it is waited for"
    made.done[lost].clear()
    nodes.restart(lost)
    assert PlanState.DONE is made.finish().state
    assert all(made.covers(number) for number in MEMBERS)


def test_a_node_that_is_back_begins_its_part_again() -> None:
    """Nothing of its own is kept of it."""
    made = _Compactions(steps=40)
    made.put(transfers=3)
    made.world.run_until(lambda: all(len(done) > 2 for done in made.done.values()))
    lost = made.nodes.others(made.nodes.leader(META))[0]
    made.nodes.stop(lost)
    made.world.run_for(2_000)
    made.done[lost].clear()
    made.nodes.restart(lost)
    assert PlanState.DONE is made.finish().state
    assert made.covers(lost)


def test_no_step_while_level_zero_is_full() -> None:
    """Nor while the disk is nearly full: a step needs room for what it writes."""
    made = _Compactions(steps=40)
    nodes = made.nodes
    for number in MEMBERS:
        nodes.stores[number].pressure_files = 6
    made.put(transfers=3)
    made.world.run_for(10_000)
    assert [[], [], []] == list(made.done.values())
    for number in MEMBERS:
        nodes.stores[number].pressure_files = 0
        nodes.engines[number].space_low = True
    made.world.run_for(10_000)
    assert [[], [], []] == list(made.done.values())
    report = nodes.engines[1]._compacting.report(ID)
    assert report is not None
    assert Phase.LOW_SPACE is report.phase
    for number in MEMBERS:
        nodes.engines[number].space_low = False
    assert PlanState.DONE is made.finish().state


def test_a_node_with_damaged_tables_does_not_compact() -> None:
    """To compact a damaged table ends the node; at its next start it is written anew anyway."""
    made = _Compactions()
    store = made.nodes.stores[2]
    store.write(store.prepare({damaged_key(9): b""}))
    made.put(transfers=3)
    plan = made.finish()
    assert PlanState.FAILED is plan.state
    assert [] == made.done[2]
    assert "damaged tables" in (made.parts[2].error or "")
    assert made.covers(1)
    assert made.covers(3)


def test_a_node_leader_that_refuses_is_asked_again_later() -> None:
    """While it hands over it refuses at once: it was asked again in the same moment, for ever."""
    compactions = _Compactions()
    runtime = compactions.nodes.engines[compactions.nodes.leader(META)].runtime
    propose, refused = runtime.propose, [0]

    def refuse(vnode: Any, command: Any, done: Any = None) -> None:
        if isinstance(command, m.AdvanceCompaction):
            refused[0] += 1
            done(NotLeader())
        else:
            propose(vnode, command, done)

    runtime.propose = refuse  # type: ignore[method-assign]
    compactions.put()
    compactions.world.run_for(1_000)
    assert 1 <= refused[0] <= 4
    runtime.propose = propose  # type: ignore[method-assign]
    assert PlanState.DONE is compactions.finish().state
