"""Clocks that are apart, and what a node whose own is wrong does."""

from types import SimpleNamespace
from typing import Any

import pytest

from node.clocks import Clocks
from tests.unit.node.three import MEMBERS, ThreeNodes
from timemachine import codec

FAR_MS = 10_000


class _Asking:
    """A node, and the wall clocks of the others; `trips_ms` is how long each answer takes."""

    def __init__(self, offsets_ms: dict[int, int]) -> None:
        self.mono_ms = 1_000.0
        self.wall_ms = 1_000_000
        self.offsets_ms = offsets_ms
        self.trip_ms = 2.0
        self.judged: list[bool] = []
        self.timers: list[Any] = []
        world: Any = SimpleNamespace(
            mono_ms=lambda: self.mono_ms,
            wall_ms=lambda: self.wall_ms,
            call_later=lambda _, function: self.timers.append(function),
        )
        calls: Any = SimpleNamespace(serve=lambda *_: None, call=self._call)
        runtime: Any = SimpleNamespace(working=True)
        self.clocks = Clocks(
            world, runtime, calls, others=lambda: list(self.offsets_ms), judged=self.judged.append
        )
        self.clocks.start()

    def _call(self, node: int, kind: str, body: bytes, done: Any, timeout_ms: int) -> None:
        half_ms = self.trip_ms / 2
        self.pass_ms(half_ms)
        theirs = self.wall_ms + self.offsets_ms[node]
        self.pass_ms(half_ms)
        done(codec.encode(theirs))

    def pass_ms(self, ms: float) -> None:
        self.mono_ms += ms
        self.wall_ms += int(ms)

    def round(self) -> None:
        """Half a second later."""
        self.pass_ms(500)
        self.timers.pop()()


@pytest.mark.parametrize(
    ("offsets_ms", "wrong"),
    [
        ({2: 0, 3: 0}, False),
        ({2: 400, 3: 450}, False),
        ({2: 600, 3: 700}, True),
        ({2: -600, 3: -700}, True),
        ({2: FAR_MS, 3: 0}, False),
        # Two clocks: nobody can say which is wrong.
        ({2: FAR_MS}, False),
        # Of two camps one goes on.
        ({2: 0, 3: FAR_MS, 4: FAR_MS}, False),
        ({2: 0, 3: -FAR_MS, 4: -FAR_MS}, True),
        ({}, False),
    ],
)
def test_who_is_far_from_the_median_is_wrong(offsets_ms: dict[int, int], wrong: bool) -> None:
    """The median of all clocks that are heard, the own one among them."""
    asking = _Asking(offsets_ms)
    asking.round()
    assert wrong == asking.clocks.wrong
    assert wrong == (True in asking.judged)


def test_the_shortest_trip_tells_most() -> None:
    """An answer that was long on its way says less; a later one does not displace a better one."""
    asking = _Asking({2: 40, 3: 0})
    asking.round()
    asking.trip_ms = 300.0
    asking.round()
    assert asking.clocks.offset_ms(2) == pytest.approx(40, abs=2)
    assert asking.clocks.largest_ms() == pytest.approx(40, abs=2)


def test_a_step_of_the_own_clock_shows_at_once() -> None:
    """Before anybody is asked again; and it is right again after a step back."""
    asking = _Asking({2: 0, 3: 0})
    asking.round()
    asking.wall_ms += FAR_MS
    assert asking.clocks.offset_ms(2) == pytest.approx(-FAR_MS, abs=3)
    asking.round()
    assert asking.clocks.wrong
    asking.wall_ms -= FAR_MS
    asking.round()
    assert [True, False] == asking.judged


def test_nothing_fires_between_a_step_and_the_next_look_at_it() -> None:
    """A leader whose clock jumps an hour ahead takes nothing of that hour for due."""
    nodes = ThreeNodes()
    group = nodes.put_collection()
    nodes.world.run_for(2_000)
    leader = nodes.leader(group)
    engine = nodes.engines[leader]
    assert engine._clocks is not None
    # What it would see of the others, had it stepped; so does its delivery, on the shared clock.
    engine._clocks.offset_ms = lambda node: -float(FAR_MS)  # type: ignore[method-assign]
    nodes.world.wall_offset_ms += FAR_MS
    engine.delivery._pump.run()
    assert not engine.consensus.gate.open
    vnode = engine.runtime.vnodes[group]
    assert not vnode.may_fire(nodes.world.mono_ms())


def test_what_is_old_says_nothing() -> None:
    """A node that does not answer any more has no clock."""
    asking = _Asking({2: 0, 3: 0})
    asking.round()
    asking.pass_ms(10_000)
    assert asking.clocks.offset_ms(2) is None
    assert asking.clocks.is_right(2)


def test_a_node_whose_clock_is_wrong_gives_its_leaderships_away() -> None:
    """It fires nothing meanwhile, and may lead again when its clock is right."""
    nodes = ThreeNodes()
    group = nodes.put_collection()
    nodes.world.run_for(2_000)
    leader = nodes.leader(group)
    engine = nodes.engines[leader]
    clocks = engine._clocks
    assert clocks is not None
    # What it would see of the others, had it stepped.
    clocks.offset_ms = lambda node: -float(FAR_MS)  # type: ignore[method-assign]
    clocks.is_right = lambda node: True  # type: ignore[method-assign]
    nodes.world.run_for(3_000)
    assert nodes.leader(group) in set(MEMBERS) - {leader}
    assert not engine.consensus.gate.open
    del clocks.offset_ms
    nodes.world.run_for(1_000)
    assert engine.consensus.gate.open
    assert not engine.consensus.sleeping.leaving


def test_a_clock_that_jumps_and_comes_back_is_told_right() -> None:
    """What was stopped at the jump goes on, though no look in between saw it."""
    asking = _Asking({2: 0, 3: 0})
    asking.round()
    asking.wall_ms += FAR_MS
    assert asking.clocks.jumped()
    asking.wall_ms -= FAR_MS
    asking.round()
    assert [False] == asking.judged


def test_an_answer_of_another_version_is_as_good_as_none() -> None:
    """It must not end the node that asked."""
    asking = _Asking({2: 0, 3: 0})
    asking.clocks._took(2, asking.mono_ms, b"\xc1")
    asking.clocks._took(2, asking.mono_ms, codec.encode("soon"))
    asking.round()
    assert asking.clocks.offset_ms(2) == pytest.approx(0, abs=3)
