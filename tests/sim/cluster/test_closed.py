"""After the answer that a route is paused nothing leaves, whatever fails meanwhile."""

from functools import partial
from typing import Any

import pytest
from msgspec.structs import replace

from node.engine import Engine
from tests.sim.cluster.clients import DB, ROUTE
from tests.sim.cluster.harness import Harness
from tests.sim.cluster.knobs import Knobs
from timemachine.group import META_GROUP
from timemachine.replica import meta as m

_ROUND_MS = 150.0


class _Pauses:
    """Pauses and resumes the route all the time, by whoever leads; tells what leaves in between.

    `closed` counts the pauses that were certain before the route was turned over once more. A
    change that is late by a turn is void, since the version has moved.
    """

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.clock = harness.clock
        self.dice = harness.clock.child("pauses")
        self.closed = 0
        self.turns = 0
        self.certain = False
        self.left: list[str] = []
        self.over = False
        harness.members.recipients.on_leave = self._leaves
        self.clock.later(_ROUND_MS, self.step)

    def _leaves(self, sending: Any) -> None:
        if self.certain:
            self.left.append(f"{self.clock.now_ms:.1f} ms: node {sending.node}")

    def step(self) -> None:
        """Turn the route over."""
        if self.over:
            return
        self.certain = False
        self.turns += 1
        members = self.harness.members
        number = members.leader_of(META_GROUP)
        engine = members.members[number].engine if number else None
        route = None if engine is None else engine.meta.routes.get((DB, ROUTE))
        if engine is not None and route is not None:
            if not route.paused and self.dice.random() < 0.7:
                self.part(number)
            command = m.PutRoute(
                now_ms=engine.now_ms(),
                route=replace(route, paused=not route.paused),
                expected_version=route.version,
            )
            engine.propose_meta(command, partial(self._stored, engine, self.turns))
        self.clock.later(_ROUND_MS + 600.0 * self.dice.random(), self.step)

    def part(self, number: int) -> None:
        """One node does not hear of the pause, and can go on to lead with the others."""
        network = self.harness.members.network
        others = [each for each in self.harness.members.numbers if each != number]
        other = self.dice.choice(others)
        network.cut(number, other)
        self.clock.later(800.0, partial(network.join, number, other))

    def _stored(self, engine: Engine, turn: int, result: Any) -> None:
        if isinstance(result, m.MetaResult) and result.route is not None and result.route.paused:
            engine.seal(DB, partial(self._sealed, turn, result.route.version))

    def _sealed(self, turn: int, version: int, pending: list[Any]) -> None:
        newest = max(
            each.engine.meta.routes[DB, ROUTE].version
            for each in self.harness.members.members.values()
            if each.engine is not None and (DB, ROUTE) in each.engine.meta.routes
        )
        if not pending and turn == self.turns and newest == version:
            self.closed += 1
            self.certain = True


@pytest.mark.parametrize("seed", range(4))
def test_nothing_leaves_while_a_route_is_paused_for_certain(seed: int) -> None:
    """Crashes, cuts, pauses of processes, changes of leader: in whatever order."""
    knobs = Knobs(
        seed=seed,
        nodes=3 + 2 * (seed % 2),
        num_vnodes=6,
        due_ms_max=300,
        client_pace_ms=20.0,
        jobs=2_000,
        fault_kinds=2 * (seed % 2),
        fault_pace_ms=3_000.0,
    )
    harness = Harness(knobs)
    harness.boot()
    pauses = _Pauses(harness)
    harness.live()
    pauses.over = True
    assert [] == pauses.left
    assert pauses.closed
    assert harness.members.recipients.sendings
