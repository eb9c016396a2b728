"""Virtual time: order, generations, pauses, drift, budgets; and one trace for one seed."""

import os
import subprocess
import sys

import pytest

from tests.sim.cluster.clockwork import (
    ANY_GENERATION,
    DISK,
    MESSAGE,
    START_MS,
    TIMER,
    BudgetSpentError,
    Clockwork,
)
from tests.sim.cluster.knobs import draw
from tests.sim.cluster.nodeworld import NodeWorld
from tests.sim.cluster.toy import ToyCluster


def _world(clock: Clockwork | None = None, *, drift: float = 0.0) -> NodeWorld:
    world = NodeWorld(clock or Clockwork(1), 1, drift=drift)
    world.start()
    return world


def test_calls_run_in_the_order_of_their_times_then_of_their_asking() -> None:
    """`call_soon` comes after everything that is already due."""
    world, seen = _world(), list[str]()
    world.call_later(2, lambda: seen.append("later"))

    def first() -> None:
        seen.append("first")
        world.call_soon(lambda: seen.append("soon"))

    world.call_later(1, first)
    world.call_later(1, lambda: seen.append("second"))
    world.clock.run_for(10)
    assert ["first", "second", "soon", "later"] == seen


def test_a_timer_that_is_taken_back_never_rings() -> None:
    """Neither does it count."""
    world, seen = _world(), list[int]()
    world.call_later(1, lambda: seen.append(1)).cancel()
    world.clock.run_for(10)
    assert [] == seen
    assert 0 == world.clock.events


def test_a_crash_drops_timers_and_answers() -> None:
    """Also after the next life began; a frame finds whoever is alive."""
    world, seen = _world(), list[str]()
    clock = world.clock
    world.call_later(5, lambda: seen.append("timer"))
    clock.post(5, DISK, world, world.generation, lambda: seen.append("disk"))
    clock.post(5, MESSAGE, world, ANY_GENERATION, lambda: seen.append("frame"))
    clock.post(2, MESSAGE, world, ANY_GENERATION, lambda: seen.append("frame to the dead"))
    world.crash()
    world.call_later(1, lambda: seen.append("asked for by the dead"))
    world.call_soon(lambda: seen.append("asked for by the dead"))
    clock.run_until(3)
    world.start()
    clock.run_until(10)
    assert ["frame"] == seen
    assert 1 == clock.events


def test_a_process_that_dies_in_a_call_does_not_run_the_rest_of_it() -> None:
    """The clockwork goes on with the others."""
    world, seen = _world(), list[str]()

    def dies() -> None:
        seen.append("before")
        world.die()
        seen.append("after")

    world.call_later(1, dies)
    world.clock.later(2, lambda: seen.append("others"))
    world.clock.run_for(10)
    assert ["before", "others"] == seen
    assert not world.up


def test_a_pause_lets_the_timers_go_first() -> None:
    """Overdue timers run before frames that came long before them."""
    world, seen = _world(), list[tuple[str, float]]()
    clock = world.clock

    def note(name: str) -> None:
        seen.append((name, clock.now_ms))

    clock.post(10, MESSAGE, world, ANY_GENERATION, note, "frame")
    clock.post(11, DISK, world, world.generation, note, "disk")
    world.call_later(20, lambda: note("timer"))
    world.call_later(100, lambda: note("not due yet"))
    world.pause(50)
    clock.later(15, world.pause, 5)  # swallowed
    clock.run_until(49)
    assert [] == seen
    clock.run_until(200)
    assert ["timer", "frame", "disk", "not due yet"] == [name for name, _ in seen]
    assert [50, 50, 50] == [at_ms for _, at_ms in seen[:3]]


def test_a_crash_ends_a_pause() -> None:
    """What was held back is gone, and the next life is not paused."""
    world, seen = _world(), list[str]()
    world.call_later(1, lambda: seen.append("old"))
    world.pause(100)
    world.clock.run_until(10)
    world.crash()
    world.start()
    world.call_later(1, lambda: seen.append("new"))
    world.clock.run_until(20)
    assert ["new"] == seen


def test_timers_follow_the_drifting_clock() -> None:
    """A clock that is 1 % fast rings early in true time, never early by itself."""
    world = _world(drift=0.01)
    clock, began_ms, rung = world.clock, world.mono_ms(), list[tuple[float, float]]()
    world.call_later(1010, lambda: rung.append((clock.now_ms, world.mono_ms() - began_ms)))
    clock.run_until(500)
    clock.run_until(1_100)
    assert pytest.approx(1_000) == rung[0][0]
    assert 1_010 <= rung[0][1] < 1_010.01


def test_a_change_of_drift_moves_the_timers_and_not_the_clock() -> None:
    """The monotonic clock makes no step."""
    world = _world(drift=0.01)
    clock, began_ms, rung = world.clock, world.mono_ms(), list[float]()
    world.call_later(1_000, lambda: rung.append(world.mono_ms() - began_ms))
    clock.run_until(500)
    before_ms = world.mono_ms()
    world.set_drift(-0.01)
    assert pytest.approx(before_ms) == world.mono_ms()
    clock.run_until(2_000)
    assert 1_000 <= rung[0] < 1_000.01


def test_the_wall_clock_jumps_and_the_monotonic_clock_does_not() -> None:
    """A reboot lets the monotonic clock start elsewhere; the wall clock stays."""
    world = _world()
    world.clock.run_until(1_000)
    assert START_MS + 1_000 == world.wall_ms()
    mono_ms = world.mono_ms()
    world.jump_wall(-400)
    assert (START_MS + 600, mono_ms) == (world.wall_ms(), world.mono_ms())
    world.set_wall(50, 0.1)
    world.clock.run_until(2_000)
    assert START_MS + 2_150 == world.wall_ms()
    world.crash()
    world.start(rebooted=True)
    assert START_MS + 2_150 == world.wall_ms()
    assert abs(world.mono_ms() - mono_ms - 1_000) > 1


def test_ticks_and_idle_pumps_do_not_count() -> None:
    """A pump counts when it sets something going."""
    world = _world()
    clock = world.clock

    class Engine:
        idle = True

        def tick(self) -> None:
            world.call_later(1, self.tick)

        def pump(self) -> None:
            world.call_later(1, self.pump)
            if not self.idle:
                world.call_soon(lambda: None)

    prefix = Engine.__qualname__
    world.ticks, world.pumps = frozenset([f"{prefix}.tick"]), frozenset([f"{prefix}.pump"])
    engine = Engine()
    engine.tick()
    engine.pump()
    clock.run_for(9.5)
    assert 0 == clock.events
    engine.idle = False
    clock.run_for(3)
    assert 3 == clock.events == clock.counts[TIMER]
    assert "3 soon, 12 tick, 9 pump, 3 timer" == clock.summary()


def test_a_storm_spends_the_budget() -> None:
    """An event that makes two of its kind."""
    clock = Clockwork(1, events_max=5_000)
    world = _world(clock)

    def breed() -> None:
        world.call_later(0.1, breed)
        world.call_later(0.1, breed)

    breed()
    with pytest.raises(BudgetSpentError, match="timer"):
        clock.run_for(1_000)


def test_what_a_node_raises_is_a_finding_unless_it_is_dealt_with() -> None:
    """Violations always are."""
    world = _world()
    clock = world.clock

    def fails() -> None:
        raise OSError

    def violated() -> None:
        raise AssertionError

    world.call_later(1, fails)
    with pytest.raises(OSError):
        clock.run_for(2)
    clock.on_error = lambda owner, error: owner.number == 1 and isinstance(error, OSError)
    world.call_later(1, fails)
    clock.run_for(2)
    world.call_later(1, violated)
    with pytest.raises(AssertionError):
        clock.run_for(2)


def test_a_seed_is_one_history_under_every_hash_seed() -> None:
    """The trace of two processes with other hashes of strings; another seed has another one."""

    def trace(seed: int, hash_seed: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-m", "tests.sim.cluster.toy", str(seed)]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return ran.stdout

    assert trace(3, "1") == trace(3, "77")
    assert trace(3, "1") != trace(4, "1")


def test_a_trace_tells_histories_apart() -> None:
    """The same calls with another frame are another history."""
    traces = []
    for frame in (b"a", b"a", b"b"):
        cluster = ToyCluster(draw(1, nodes=3))
        cluster.start(1)
        cluster.network.ports[1].send(2, frame)
        cluster.clock.run_for(10)
        traces.append(cluster.clock.trace)
    assert traces[0] == traces[1] != traces[2]


def test_what_was_said_is_there_for_a_failure() -> None:
    """With its time."""
    clock = Clockwork(1)
    clock.run_until(12.5)
    clock.say("crash 1")
    assert ["      12.500 crash 1"] == clock.journal()
