"""Operators who make plans, confirm them at once, late or never, pause, resume and cancel them.

Drawn like the plan of the nemesis, and done as production does it: the moves are drafted on some
node from what its meta group says, the plan is put there and confirmed by its id. What is asked is
repeated until it is answered. A plan is not confirmed if a group would have no majority with what
is gone for good; and what a plan is about to do counts when more is taken away (`Members`).
"""

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from node.engine import Engine
from tests.checks.history import PlanEnd
from tests.checks.violation import Violation
from tests.sim.cluster.clients import Conversation
from tests.sim.cluster.clockwork import Clockwork
from tests.sim.cluster.growth import PATIENCE_MS, TRY_MS, Step
from tests.sim.cluster.knobs import Knobs
from tests.sim.cluster.members import Members
from tests.sim.mutations.planting import swapped_item
from timemachine import limits
from timemachine.errors import Unavailable
from timemachine.group import node_of
from timemachine.model import (
    Compaction,
    CompactionPart,
    NodeState,
    Plan,
    PlanKind,
    PlanState,
)
from timemachine.placement import present
from timemachine.rebalancing import Draft
from timemachine.rebalancing.wishes import changeable
from timemachine.replica import meta as m
from timemachine.replica.meta import MetaMachine, machine
from timemachine.replica.meta.tables import Tables
from timemachine.vnode import Done

_LOOK_MS: Final = 200.0
_TIMES: Final = 6
"""So often it is tried again what came to nothing because of what others do."""


def draw_plans(knobs: Knobs) -> list[Step]:
    """What operators wish in the safety phase, in order of time; some of it at once."""
    rng = random.Random(f"{knobs.seed}/plans")
    kinds = ["rebalance", "rebalance", "drain", "drain", "remove", "replicate", "take_back"]
    if knobs.fault_kinds:
        kinds.append("remove_dead")
    steps: list[Step] = []
    for _ in range(knobs.plans):
        at_ms = 0.9 * knobs.safety_ms * rng.random()
        if steps and rng.random() < 0.3:
            at_ms = steps[-1].at_ms
        steps.append(Step(at_ms, rng.choice(kinds), rng.getrandbits(63)))
    # Beside them, so that the others are what they were.
    rng = random.Random(f"{knobs.seed}/compact")
    for _ in range(knobs.compactions if knobs.plans else 0):
        at_ms = 0.9 * knobs.safety_ms * rng.random()
        steps.append(Step(at_ms, "compact", rng.getrandbits(63)))
    return sorted(steps, key=lambda step: step.at_ms)


@dataclass(slots=True)
class _Wish:
    """What one operator wants. `lasting`: it is asked for until it is so.

    Of one who compacts, `within` are the nodes; no others, unless it is empty, and only these
    `indexes` of the collection, unless that is None.
    """

    kind: PlanKind
    dice: random.Random
    nodes: tuple[int, ...] = ()
    lost: frozenset[int] = frozenset()
    replicas: int = 0
    lasting: bool = False
    within: tuple[int, ...] = ()
    indexes: tuple[int, ...] | None = None
    turns: int = 0


@dataclass(slots=True)
class _Made:
    """A plan that was put.

    `whole`: all that is on the nodes that it empties can be moved. `asked`: its confirmation was.
    """

    id: str
    wish: _Wish
    whole: bool = True
    waits: int = 0
    asked: bool = False
    confirmed: bool = False
    over: bool = False
    steers: list[PlanState] = field(default_factory=list)


class Plans:
    """Carries out what was drawn, and after the faults what is left of it.

    `open` counts what is under way. `replace` has another node join in the place of one that is
    lost, with these dice.
    """

    def __init__(self, clock: Clockwork, members: Members, knobs: Knobs) -> None:
        self._clock = clock
        self._members = members
        self._knobs = knobs
        self.replace: Callable[[random.Random, int], None] = lambda *_: None
        self.plan = draw_plans(knobs)
        self._active = False
        self._made: dict[str, _Made] = {}
        self._numbers = 0
        self._removed: set[int] = set()
        self._seen_index = 0
        self.open = 0
        self.done = 0
        self.states: list[str] = []

    def start(self) -> None:
        """The safety phase begins."""
        self._active = True
        for step in self.plan:
            self._clock.later(step.at_ms, self._begin, step)
        if self.plan:
            self._look()

    def heal(self) -> None:
        """No further plans, but what has to be done; those that are paused go on."""
        self._active = False
        for made in list(self._made.values()):
            if made.confirmed:
                self._steer(made, PlanState.RUNNING)

    # --- wishes ----------------------------------------------------------------------------

    def _say(self, text: str) -> None:
        self._clock.say(f"plans: {text}")

    def _later(self, delay_ms: float, function: Callable[[], None]) -> None:
        """What has to come counts as open until then."""
        self.open += 1

        def now() -> None:
            self.open -= 1
            function()

        self._clock.later(delay_ms, now)

    def _begin(self, step: Step) -> None:
        if self._active:
            self._wish(step.kind, random.Random(step.dice), 0)

    def _wish(self, kind: str, dice: random.Random, turn: int) -> None:
        if not self._active:
            return
        wish = self._drawn(kind, dice)
        if wish is not None:
            self.done += 1
            self._make(wish)
        elif turn < _TIMES:
            again_ms = 2.0 * self._knobs.election_ms
            self._clock.later(again_ms, lambda: self._wish(kind, dice, turn + 1))

    def _drawn(self, kind: str, dice: random.Random) -> _Wish | None:
        """What exactly is wanted; None where nobody can be spared."""
        members, meta = self._members, self._members.meta()
        if meta is None or not meta.collections_by_uid:
            return None
        states = {node.number: node.state for node in meta.nodes.values()}
        there = [each for each in members.numbers if states.get(each) is NodeState.MEMBER]
        match kind:
            case "rebalance":
                return _Wish(PlanKind.REBALANCE, dice)
            case "compact":
                within = dice.sample(there, dice.randrange(1, len(there) + 1)) if there else []
                index = dice.randrange(self._knobs.num_vnodes)
                return _Wish(
                    PlanKind.COMPACT,
                    dice,
                    within=tuple(sorted(within)) if dice.random() < 0.4 else (),
                    indexes=dice.choice([None, None, (), (index,)]),
                )
            case "take_back":
                leaving = [
                    each for each in members.numbers if states.get(each) is NodeState.LEAVING
                ]
                return _Wish(PlanKind.REBALANCE, dice, tuple(sorted(leaving)))
            case "replicate":
                most = min(len(there), limits.REPLICAS_MAX)
                replicas = dice.randrange(1, most + 1) if most else 1
                return _Wish(PlanKind.REPLICATE, dice, replicas=replicas)
            case "remove_dead":
                spare = [each for each in there if members.can_lose(each) and len(there) > 1]
                if not spare:
                    return None
                dead = dice.choice(spare)
                self._say(f"the disk of {dead} is lost, and nobody comes in its place")
                members.lose(dead)
                return _Wish(PlanKind.REMOVE, dice, (dead,), frozenset({dead}), lasting=True)
            case _:
                count = dice.choice([1, 1, 1, 2])
                if len(there) <= count:
                    return None
                numbers = tuple(sorted(dice.sample(there, count)))
                return _Wish(PlanKind(kind), dice, numbers)

    # --- making ----------------------------------------------------------------------------

    def _make(self, wish: _Wish) -> None:
        self._numbers += 1
        wish.turns += 1
        made = self._made[f"p{self._numbers}"] = _Made(f"p{self._numbers}", wish)
        transfers = wish.dice.choice([1, 1, 2, limits.PLAN_TRANSFERS_MAX])

        def ask(engine: Engine, answer: Done) -> None:
            self._put(made, transfers, engine, answer)

        self._ask(wish.dice, ask, partial(self._put_was, made))

    def _put(self, made: _Made, transfers: int, engine: Engine, answer: Done) -> None:
        """As `node.api.plans` does it; a repeat may be drafted from something else."""
        wish, meta, now_ms = made.wish, engine.meta, engine.now_ms()
        uid = self._members.collection_uid
        if uid not in meta.collections_by_uid:
            answer(Unavailable("The collection is not known here."))
            return
        if wish.kind is PlanKind.COMPACT:
            self._put_compaction(made, transfers, engine, answer)
            return
        draft = Draft(
            kind=wish.kind,
            nodes=wish.nodes,
            lost=wish.lost,
            uid=uid if wish.kind is PlanKind.REPLICATE else 0,
            replicas=wish.replicas,
        )
        placements = meta.all_placements()
        moves = draft.moves(meta.nodes.values(), meta.collections_by_uid, placements)
        plan = Plan(
            id=made.id,
            kind=wish.kind,
            basis=m.basis_of(meta),
            created_ms=now_ms,
            expires_ms=now_ms + limits.PLAN_TTL_MS,
            nodes=wish.nodes,
            uid=draft.uid,
            replicas=wish.replicas,
            transfers=transfers,
            moves=len(moves),
        )
        self._members.plan(
            made.id,
            moves,
            wish.nodes if wish.kind is PlanKind.REMOVE else (),
            wish.nodes if wish.kind.empties else (),
        )
        kept = m.PlanMoves(made.id, tuple(moves), (0,) * len(moves))
        if wish.kind.empties:
            nodes = meta.nodes.values()
            there = present(nodes)
            # The last ones have nobody to give to.
            takers = {node.number for node in nodes if node.state is NodeState.MEMBER}
            made.whole = (
                made.whole
                and bool(takers.difference(wish.nodes))
                and all(
                    changeable(place, wish.lost) and there.issuperset(map(node_of, place.replicas))
                    for place in placements
                    if any(node_of(each) in wish.nodes for each in place.replicas)
                )
            )
        engine.propose_meta(m.PutPlan(now_ms=now_ms, plan=plan, moves=kept), answer)

    def _put_compaction(self, made: _Made, transfers: int, engine: Engine, answer: Done) -> None:
        """As `node.api.compactions` does it, but for sizes and estimates."""
        wish, meta, now_ms = made.wish, engine.meta, engine.now_ms()
        there = present(meta.nodes.values())
        holders = set(there)
        if wish.indexes is not None:
            holders &= {
                node_of(each)
                for place in meta.all_placements()
                if place.index in wish.indexes or not wish.indexes
                for each in place.replicas
            }
        chosen = sorted(holders.intersection(wish.within or there)) or sorted(holders)
        compaction = Compaction(
            uid=0 if wish.indexes is None else self._members.collection_uid,
            indexes=wish.indexes or (),
            bytes_per_s=limits.COMPACT_RATE_BYTES_MIN,
            parts=tuple(CompactionPart(node=number) for number in chosen),
        )
        plan = Plan(
            id=made.id,
            kind=wish.kind,
            basis=m.basis_of(meta),
            created_ms=now_ms,
            expires_ms=now_ms + limits.PLAN_TTL_MS,
            transfers=transfers,
            compaction=compaction,
        )
        self._members.plan(made.id, (), ())
        moves = m.PlanMoves(made.id, (), ())
        engine.propose_meta(m.PutPlan(now_ms=now_ms, plan=plan, moves=moves), answer)

    def _put_was(self, made: _Made, result: m.MetaResult) -> None:
        assert result.plan is not None, result
        wish, dice = made.wish, made.wish.dice
        self._say(
            f"{made.id}: {wish.kind} {wish.nodes or wish.within or wish.replicas},"
            f" {result.plan.moves} moves"
        )
        if not wish.lasting and dice.random() < 0.1:
            self._drop(made)  # nobody ever confirms it
            return
        late_ms = 0.0
        if dice.random() < 0.35:
            late_ms = dice.choice([1.0, 10.0]) * self._knobs.election_ms * dice.random()
        self._later(late_ms, lambda: self._confirm(made))

    def _confirm(self, made: _Made) -> None:
        if not self._active and not made.wish.lasting:
            self._withdraw(made)
            return
        if not self._members.can_carry(made.id):
            self._say(f"{made.id} would leave a group without a majority")
            self._withdraw(made, lambda: self._again(made.wish))
            return

        def ask(engine: Engine, answer: Done) -> None:
            engine.propose_meta(m.ConfirmPlan(now_ms=engine.now_ms(), id=made.id), answer)

        made.asked = True
        self._ask(made.wish.dice, ask, partial(self._confirm_was, made))

    def _confirm_was(self, made: _Made, result: m.MetaResult) -> None:
        dice = made.wish.dice
        if result.code == "plan_running" and made.waits < _TIMES:
            made.waits += 1
            self._later(self._pause_ms(dice), lambda: self._confirm(made))
        elif result.code is not None and result.code != "plan_ended":
            self._say(f"{made.id} is refused: {result.code}")
            self._withdraw(made, lambda: self._again(made.wish))
        else:
            self._say(f"{made.id} is confirmed")
            made.confirmed = True
            chance = dice.random()
            if chance < 0.25:
                made.steers = [PlanState.PAUSED, PlanState.RUNNING]
            elif chance < 0.35:
                made.steers = [PlanState.PAUSED]
            elif chance < 0.5 and not made.wish.lasting:
                made.steers = [PlanState.CANCELLED]
            elif chance < 0.55 and not made.wish.lasting:
                made.steers = [PlanState.PAUSED, PlanState.CANCELLED]
            self._steer_next(made)

    def _withdraw(self, made: _Made, then: Callable[[], None] = lambda: None) -> None:
        """Do not confirm it, or no more: no confirmation that is late may have it run."""
        if not made.asked:
            self._drop(made)
            then()
            return

        def cancelled() -> None:
            # It may have run to its end before, and is looked after as others are.
            made.confirmed = True
            then()

        self._steer(made, PlanState.CANCELLED, cancelled)

    def _again(self, wish: _Wish) -> None:
        """Make another one, as an operator does who wants it still."""
        if wish.turns < _TIMES and (wish.lasting or (self._active and wish.dice.random() < 0.7)):
            self._later(self._pause_ms(wish.dice), lambda: self._make(wish))
        elif wish.lasting:
            self._say(f"no plan removes {wish.nodes[0]}: another one takes its place")
            self.replace(wish.dice, wish.nodes[0])

    def _pause_ms(self, dice: random.Random) -> float:
        return (0.5 + dice.random()) * self._knobs.election_ms

    # --- steering --------------------------------------------------------------------------

    def _steer_next(self, made: _Made) -> None:
        if made.steers:
            delay_ms = made.wish.dice.choice([0.5, 5.0]) * self._knobs.election_ms
            self._later(delay_ms * made.wish.dice.random(), lambda: self._steer_now(made))

    def _steer_now(self, made: _Made) -> None:
        if self._active and not made.over and made.steers:
            self._steer(made, made.steers.pop(0), lambda: self._steer_next(made))

    def _steer(
        self, made: _Made, state: PlanState, then: Callable[[], None] = lambda: None
    ) -> None:
        def ask(engine: Engine, answer: Done) -> None:
            command = m.SteerPlan(now_ms=engine.now_ms(), id=made.id, state=state)
            engine.propose_meta(command, answer)

        def told(result: m.MetaResult) -> None:
            self._say(f"{made.id}: {state}, {result.code or result.kind}")
            if state is PlanState.PAUSED and not self._active:
                self._steer(made, PlanState.RUNNING)
            then()

        self._ask(made.wish.dice, ask, told)

    def _drop(self, made: _Made) -> None:
        """It does nothing any more."""
        made.over = True
        self._members.planned.pop(made.id, None)

    # --- watching --------------------------------------------------------------------------

    def _look(self) -> None:
        """What has ended is not counted with any more; nodes that were removed stop."""
        meta = self._members.meta()
        # While those are down who know most, the others do not know what has become of a plan.
        if meta is not None and meta.applied_index >= self._seen_index:
            self._seen_index = meta.applied_index
            for made in list(self._made.values()):
                if made.confirmed and not made.over:
                    self._follow(made, meta)
        self._clock.later(_LOOK_MS, self._look)

    def _follow(self, made: _Made, meta: MetaMachine) -> None:
        plan, wish = meta.plans.get(made.id), made.wish
        if plan is not None and not plan.ended:
            if plan.state is PlanState.PAUSED and not self._active and not self.open:
                # A pause that was asked for in vain came late.
                self._steer(made, PlanState.RUNNING)
            return
        self._drop(made)
        self._say(f"{made.id}: {'forgotten' if plan is None else plan.state}")
        if plan is not None:
            self.states.append(plan.state)
        there = {node.number for node in meta.nodes.values() if node.present}
        # A drain of the same nodes may be followed first: it removes nobody.
        if wish.kind is PlanKind.REMOVE and not wish.lost:
            for number in set(wish.nodes) - there - self._removed:
                self._removed.add(number)
                self._retire(number, wish.dice)
        if wish.lasting and not there.isdisjoint(wish.nodes):
            self._again(wish)

    def _retire(self, number: int, dice: random.Random) -> None:
        """In production another node tells it that it was removed, sooner or later."""
        members = self._members
        if number in members.numbers:
            members.abandon(number)
            members.is_replaced(number)
            delay_ms = dice.choice([0.0, 10.0]) * self._knobs.election_ms * dice.random()
            self._later(delay_ms if self._active else 0.0, lambda: members.stop(number))

    @property
    def settled(self) -> bool:
        """Whether nothing is to be done any more."""
        meta = self._members.meta()
        return (
            not self.open
            and not any(made.confirmed and not made.over for made in self._made.values())
            and not (meta is not None and any(plan.under_way for plan in meta.plans.values()))
        )

    def ends(self) -> list[PlanEnd]:
        """How the plans have ended, as the leader of the meta group has them."""
        meta = self._members.meta()
        if meta is None:
            return []
        leaving = {node.number for node in meta.nodes.values() if node.state is NodeState.LEAVING}
        found = []
        for plan in meta.plans.values():
            made = self._made[plan.id]
            left = 0
            if plan.state is PlanState.DONE and _empties(plan, whole=made.whole):
                # What has been done with a node since then is another matter.
                since = {
                    number
                    for each in meta.plans.values()
                    if (each.confirmed_ms or 0) > (plan.confirmed_ms or 0)
                    for number in each.nodes
                }
                emptied = leaving.intersection(plan.nodes) - since
                left = _replicas_on(meta.all_placements(), emptied)
            found.append(PlanEnd(plan.id, plan.state.value, plan.under_way, left))
        return found

    # --- asking ----------------------------------------------------------------------------

    def _ask(
        self,
        dice: random.Random,
        ask: Callable[[Engine, Done], None],
        told: Callable[[Any], None],
    ) -> None:
        """Ask until somebody answers, however long that takes."""
        self.open += 1

        def ended(result: Any) -> None:
            self.open -= 1
            if result is None:
                self._ask(dice, ask, told)
            else:
                told(result)

        Conversation(self._members, dice, ask, ended, patience_ms=PATIENCE_MS, try_ms=TRY_MS)

    # --- the judge -------------------------------------------------------------------------

    @contextmanager
    def judged(self) -> Iterator[None]:
        """Each step of a plan is judged where it is applied."""
        table = machine._HANDLERS
        steps: dict[Any, Callable[[Tables, Plan, Any], None]] = {
            m.AdvancePlan: self._advanced,
            m.AdvanceCompaction: self._compacted,
            m.EndPlan: self._ended,
        }
        with ExitStack() as stack:
            for command, judge in steps.items():
                stack.enter_context(
                    swapped_item(table, command, partial(_judged, table[command], judge))
                )
            yield

    def _advanced(self, tables: Tables, plan: Plan, command: m.AdvancePlan) -> None:
        """C12: so many vnodes change at once as the plan allows, by steps from where it was."""
        if not command.begun < plan.begun <= command.begun + command.count:
            told = f"{command.count} from {command.begun} on were meant, it is at {plan.begun}"
            raise Violation("C12", f"plan {plan.id} begins moves twice: {told}")
        open_ = list(_open(tables, plan))
        if len(open_) > plan.transfers:
            told = f"plan {plan.id} changes {open_} at once, {plan.transfers} are allowed"
            raise Violation("C12", told)

    def _compacted(self, tables: Tables, plan: Plan, _: m.AdvanceCompaction) -> None:
        """C12: so many nodes compact at once, and those have that are said to."""
        assert plan.compaction is not None
        parts = plan.compaction.parts
        at_work = [part.node for part in parts if part.at_work]
        if len(at_work) > plan.transfers:
            told = f"plan {plan.id} has {at_work} compact at once, {plan.transfers} are allowed"
            raise Violation("C12", told)
        for part in parts:
            done = part.ended and part.error is None
            if done and (plan.id, part.node) not in self._members.compacted:
                told = f"plan {plan.id} takes node {part.node} for done, which it is not"
                raise Violation("C12", told)

    def _ended(self, tables: Tables, plan: Plan, _: m.EndPlan) -> None:
        """C12: a plan ends when all that was moved is where it is to be."""
        open_ = list(_open(tables, plan))
        if open_:
            raise Violation("C12", f"plan {plan.id} has ended, and {open_} still change")
        parts = () if plan.compaction is None else plan.compaction.parts
        if not all(part.ended for part in parts):
            raise Violation("C12", f"plan {plan.id} has ended before nodes have compacted")
        made = self._made[plan.id]
        if plan.state is PlanState.DONE and _empties(plan, whole=made.whole):
            left = _replicas_on(tables.all_placements(), set(plan.nodes))
            if left:
                raise Violation("C12", f"plan {plan.id} has ended, and left {left} replicas")


def _judged(
    handler: Callable[[Tables, Any], m.MetaResult],
    judge: Callable[[Tables, Plan, Any], None],
    tables: Tables,
    command: Any,
) -> m.MetaResult:
    result = handler(tables, command)
    if result.kind == "replaced" and result.plan is not None:
        judge(tables, result.plan, command)
    return result


def _open(tables: Tables, plan: Plan) -> Iterator[tuple[int, int]]:
    """The vnodes of a plan whose old replicas have not left yet."""
    for at, move in enumerate(tables.plan_moves[plan.id].moves[: plan.begun]):
        if at not in plan.void and not set(move.remove).isdisjoint(
            tables.placement(move.uid, move.index).removing
        ):
            yield move.uid, move.index


def _empties(plan: Plan, *, whole: bool) -> bool:
    """Whether nothing may be left on the nodes of a plan that is done."""
    return plan.kind.empties and whole and not plan.void and not plan.left


def _replicas_on(placements: Any, numbers: set[int]) -> int:
    return sum(node_of(each) in numbers for place in placements for each in place.replicas)
