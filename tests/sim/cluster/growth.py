"""What operators do to a cluster: nodes join, disks are lost and replaced, replicas are retired.

Drawn like the plan of the nemesis, and done through the meta group as in production: a token, with
which a node joins and gets its number; a command that retires a replica. Nobody does to a group
what would leave it without a majority for good: that no cluster survives, nor is asked to.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any, Final

from node.engine import Engine
from tests.sim.cluster.clients import Conversation
from tests.sim.cluster.clockwork import Clockwork
from tests.sim.cluster.knobs import Knobs
from tests.sim.cluster.members import Members
from tests.sim.cluster.nemesis import Group
from timemachine.model import Node, NodeState
from timemachine.replica import meta as m
from timemachine.vnode import Done

PATIENCE_MS: Final = 60_000.0
TRY_MS: Final = 2_000.0
"""Operators wait: the meta group may be slow, and slower with each repeat."""
_TOKEN_TTL_MS: Final = 3_600_000
_LATER_TIMES: Final = 5
"""So often it is looked again for somebody who can be spared."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a plan: when, what, and the seed of its own dice."""

    at_ms: float
    kind: str
    dice: int


def draw_growth(knobs: Knobs) -> list[Step]:
    """What happens in the safety phase, in order of time; some of it at once."""
    rng = random.Random(f"{knobs.seed}/growth")
    kinds = ["join"] * (knobs.nodes - knobs.born_nodes)
    kinds += ["replace"] * knobs.losses + ["retire"] * knobs.retires
    rng.shuffle(kinds)
    steps: list[Step] = []
    for kind in kinds:
        at_ms = 0.9 * knobs.safety_ms * rng.random()
        if steps and rng.random() < 0.3:
            at_ms = steps[-1].at_ms
        steps.append(Step(at_ms, kind, rng.getrandbits(63)))
    return sorted(steps, key=lambda step: step.at_ms)


class Growth:
    """Carries out a plan, and after the faults what is left of it.

    `open` counts what is under way.
    """

    def __init__(self, clock: Clockwork, members: Members, knobs: Knobs) -> None:
        self._clock = clock
        self._members = members
        self._knobs = knobs
        self.plan = draw_growth(knobs)
        self._waiting: dict[int, Step] = {}
        self._active = False
        self._joins = 0
        self.open = 0
        self.done = 0

    def start(self) -> None:
        """The safety phase begins."""
        self._active = True
        for number, step in enumerate(self.plan):
            self._waiting[number] = step
            self._clock.later(step.at_ms, self._begin, number)

    def heal(self) -> None:
        """Those who have not joined yet do so now, and disks that are damaged are replaced."""
        self._active = False
        for number, step in list(self._waiting.items()):
            if step.kind == "join":
                self._begin(number)
        self._waiting.clear()
        self._members.stop_abandoned()
        if self.plan or self._knobs.plans:
            for number in list(self._members.numbers):
                if self._members.disk(number).store.damaged:
                    self._members.lose(number)
                    self.join(random.Random(f"{self._knobs.seed}/damaged {number}"), number)

    # --- steps -----------------------------------------------------------------------------

    def _begin(self, number: int) -> None:
        step = self._waiting.pop(number, None)
        if step is not None:
            _KINDS[step.kind](self, random.Random(step.dice))

    def _say(self, text: str) -> None:
        self._clock.say(f"growth: {text}")

    def _join_new(self, dice: random.Random) -> None:
        self.done += 1
        self.join(dice, None)

    def _replace(self, dice: random.Random, turn: int = 0) -> None:
        """A disk is lost for good, or an operator believes so; another node takes its place."""
        members = self._members
        spare = [number for number in members.numbers if members.can_lose(number)]
        if not spare or not self._active:
            if self._active and turn < _LATER_TIMES:
                again_ms = 2.0 * self._knobs.election_ms
                self._clock.later(again_ms, lambda: self._replace(dice, turn + 1))
            return
        damaged = [number for number in spare if members.disk(number).store.damaged]
        number = dice.choice(damaged or spare)
        self.done += 1
        if dice.random() < 0.3 and not damaged:
            self._say(f"{number} is taken for lost, and runs on")
            members.abandon(number)
        else:
            self._say(f"the disk of {number} is lost")
            members.lose(number)
        within_ms = dice.choice([0.0, 3.0]) * self._knobs.election_ms * dice.random()
        self._clock.later(within_ms, lambda: self.join(dice, number))

    def _retire(self, dice: random.Random, turn: int = 0) -> None:
        """A replica is damaged, and the next generation takes its place."""
        members = self._members
        found = [
            (group, replica)
            for group, replica in members.placed()
            if members.can_spare(group, replica)
        ]
        if not found or not self._active:
            if self._active and turn < _LATER_TIMES:
                again_ms = 2.0 * self._knobs.election_ms
                self._clock.later(again_ms, lambda: self._retire(dice, turn + 1))
            return
        group, replica = dice.choice(found)
        self.done += 1
        self._say(f"retire {replica} of {group}")
        members.retired.add((group, replica))

        def ask(engine: Engine, answer: Done) -> None:
            command = m.Retire(
                now_ms=engine.now_ms(), uid=group[0], index=group[1], replica=replica
            )
            engine.propose_meta(command, answer)

        self._ask(dice, ask, lambda _: None)

    # --- joining ---------------------------------------------------------------------------

    def join(self, dice: random.Random, replaces: int | None) -> None:
        """With a token of its own, which has to be issued first."""
        self._joins += 1
        name = f"j{self._joins}"
        secret_hash = sha256(name.encode()).digest()
        node = Node(id=name, name=name, http="", rpc=f"{name}:1", zone="", version="0")
        lost = None if replaces is None else self._members.members[replaces].id

        def issue(engine: Engine, answer: Done) -> None:
            now_ms = engine.now_ms()
            command = m.IssueToken(
                now_ms=now_ms,
                id=name,
                secret_hash=secret_hash,
                expires_ms=now_ms + _TOKEN_TTL_MS,
            )
            engine.propose_meta(command, answer)

        def join(engine: Engine, answer: Done) -> None:
            given_up = replaces is not None and self._members.is_given_up(replaces)
            if replaces is not None and given_up:
                self._members.is_replaced(replaces)
            command = m.JoinNode(
                now_ms=engine.now_ms(),
                token_id=name,
                secret_hash=secret_hash,
                node=node,
                replaces=lost if given_up else None,
            )
            engine.propose_meta(command, partial(tell, engine, answer))

        def tell(engine: Engine, answer: Done, result: Any) -> None:
            if not isinstance(result, m.MetaResult) or result.node is None:
                # A late try may hear that it was replaced meanwhile; nobody waits for that.
                answer(result)
                return
            there = [
                each.number
                for each in engine.meta.nodes.values()
                if each.state is not NodeState.REMOVED
            ]
            answer((result.node.number, tuple(sorted(there))))

        def joined(result: Any) -> None:
            if isinstance(result, m.MetaResult) and result.code == "node_removed":
                # A plan was done with the lost one meanwhile.
                self.join(dice, None)
                return
            assert not isinstance(result, m.MetaResult), f"{name} cannot join: {result.code}"
            number, there = result
            self._say(f"{name} joins as {number}, and knows {there}")
            others = tuple(each for each in there if each != number)
            self._members.join(number, node.id, others)
            self.open += 1
            self._clock.later(
                dice.choice([1.0, 300.0]) * dice.random(), partial(self._first_start, number)
            )

        self._ask(dice, issue, lambda _: self._ask(dice, join, joined))

    def _first_start(self, number: int, _: Any = None) -> None:
        self.open -= 1
        if not self._members.world(number).up:
            self._members.start(number)

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


_KINDS: Final[dict[str, Callable[[Growth, random.Random], None]]] = {
    "join": Growth._join_new,
    "replace": Growth._replace,
    "retire": Growth._retire,
}


def unsettled(members: Members) -> list[Group]:
    """The groups that do not have the members that were asked for, as far as can be seen."""
    return [
        each.group
        for each in members.memberships()
        if each.missing
        or each.leaving
        or each.voters != each.wanted
        or each.learning != each.learners
        or each.replicas != each.wanted | each.learners
    ]
