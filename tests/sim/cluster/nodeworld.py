"""What one node sees of the virtual world: its own clocks, timers and dice.

Its monotonic clock starts anywhere, goes a little too fast or too slow, and starts elsewhere after
a reboot; its wall clock is wrong by an offset that may jump. A process dies with all its timers.
One that is paused finds, when it wakes, everything that came meanwhile, in the worst order: the
timers that are overdue run before the frames that have long been there.
"""

from collections.abc import Callable
from typing import Final

from tests.sim.cluster.clockwork import (
    PUMP,
    SOON,
    START_MS,
    TICK,
    TIMER,
    Call,
    Clockwork,
    ProcessDied,
)

_ROUNDING_MS: Final = 1e-6
"""Timers ring this much late, so that no rounding makes them ring early on the node's clock."""

_ORIGIN_MS_MAX: Final = 1e9
_ALARMS: Final = (TIMER, TICK, PUMP)


class NodeWorld:
    """The `World` of one node, over all its lives.

    generation       the number of its process; calls of another one never run
    up               whether a process runs
    held             what a paused process has not seen yet, or None
    rate             how many milliseconds its monotonic clock counts in a true one
    wall_offset_ms   how far its wall clock is ahead of the truth
    wall_drift       how much that grows in a true millisecond
    slack_ms         how late a timer may ring at most
    ticks, pumps     the qualified names of functions whose timers are TICK and PUMP
    crash_listeners  called in order when the process dies: disk, network, recipients
    """

    __slots__ = (
        "_mono_base_ms",
        "_paused_until_ms",
        "_rng",
        "_since_ms",
        "_wall_since_ms",
        "clock",
        "crash_listeners",
        "generation",
        "held",
        "number",
        "pumps",
        "rate",
        "slack_ms",
        "ticks",
        "up",
        "wall_drift",
        "wall_offset_ms",
    )

    def __init__(self, clock: Clockwork, number: int, *, drift: float = 0.0) -> None:
        """A node that is down. `drift` is the error of its monotonic clock, e.g. 0.01."""
        self.clock = clock
        self.number = number
        self.generation = 0
        self.up = False
        self.held: list[Call] | None = None
        self.rate = 1.0 + drift
        self.wall_offset_ms = 0.0
        self.wall_drift = 0.0
        self.slack_ms = 0.0
        self.ticks: frozenset[str] = frozenset()
        self.pumps: frozenset[str] = frozenset()
        self.crash_listeners: list[Callable[[], None]] = []
        self._rng = clock.child(f"node {number}")
        self._mono_base_ms = self._rng.random() * _ORIGIN_MS_MAX
        self._since_ms = clock.now_ms
        self._wall_since_ms = clock.now_ms
        self._paused_until_ms = 0.0

    # --- the port --------------------------------------------------------------------------

    def wall_ms(self) -> int:
        """See World."""
        now_ms = self.clock.now_ms
        drifted_ms = (now_ms - self._wall_since_ms) * self.wall_drift
        return START_MS + int(now_ms + self.wall_offset_ms + drifted_ms)

    def mono_ms(self) -> float:
        """See World."""
        return self._mono_base_ms + (self.clock.now_ms - self._since_ms) * self.rate

    def call_soon(self, function: Callable[[], None]) -> None:
        """See World."""
        if self.up:
            clock = self.clock
            clock.work += 1
            clock.post(clock.now_ms, SOON, self, self.generation, function)

    def call_later(self, delay_ms: float, function: Callable[[], None]) -> Call:
        """See World."""
        if not self.up:
            # The rest of a call in which the process died.
            return Call(TIMER, self, self.generation, None, None)
        kind = TIMER
        name = getattr(function, "__qualname__", "")
        if name in self.ticks:
            kind = TICK
        elif name in self.pumps:
            kind = PUMP
        clock = self.clock
        at_ms = clock.now_ms
        if delay_ms > 0.0:
            at_ms += delay_ms / self.rate + _ROUNDING_MS
        if self.slack_ms:
            at_ms += self.slack_ms * self._rng.random()
        return clock.post(at_ms, kind, self, self.generation, function)

    def random(self) -> float:
        """See World."""
        return self._rng.random()

    def random_bytes(self, count: int) -> bytes:
        """See World."""
        return self._rng.randbytes(count)

    # --- lives -----------------------------------------------------------------------------

    def start(self, *, rebooted: bool = False) -> None:
        """A process starts. After a reboot, its monotonic clock starts anywhere again."""
        assert not self.up, "the node is up already"
        self.up = True
        if rebooted:
            self._mono_base_ms = self._rng.random() * _ORIGIN_MS_MAX
            self._since_ms = self.clock.now_ms

    def crash(self) -> None:
        """The process dies at once, with its timers and all that it waits for. Harmless if dead."""
        if not self.up:
            return
        self.up = False
        self.generation += 1
        self.held = None
        for listener in self.crash_listeners:
            listener()

    def die(self) -> None:
        """The process dies in the middle of its own call, the rest of which never runs."""
        self.crash()
        raise ProcessDied

    # --- pauses ----------------------------------------------------------------------------

    def pause(self, duration_ms: float) -> None:
        """The process stands still, as after SIGSTOP; a longer pause swallows a shorter one."""
        if not self.up:
            return
        if self.held is None:
            self.held = []
            self._paused_until_ms = 0.0
        self._paused_until_ms = max(self._paused_until_ms, self.clock.now_ms + duration_ms)
        self.clock.later(duration_ms, self._wake, self.generation)

    def _wake(self, generation: int) -> None:
        if self.clock.now_ms >= self._paused_until_ms and generation == self.generation:
            self.resume()

    def resume(self) -> None:
        """Go on: first the timers that are overdue, then what arrived."""
        held, self.held = self.held, None
        for call in held or ():
            if call.kind in _ALARMS:
                self.clock.repost(call)
        for call in held or ():
            if call.kind not in _ALARMS:
                self.clock.repost(call)

    # --- clocks ----------------------------------------------------------------------------

    def set_drift(self, drift: float) -> None:
        """From now on the monotonic clock goes at another rate; timers follow it."""
        now_ms = self.clock.now_ms
        self._mono_base_ms = self.mono_ms()
        self._since_ms = now_ms
        before, self.rate = self.rate, 1.0 + drift
        self.clock.stretch_timers(self, before / self.rate)

    def jump_wall(self, by_ms: float) -> None:
        """Somebody sets the wall clock."""
        self.wall_offset_ms += by_ms

    def set_wall(self, offset_ms: float, drift: float = 0.0) -> None:
        """Set the error of the wall clock, and by how much it grows in a true millisecond."""
        self._wall_since_ms = self.clock.now_ms
        self.wall_offset_ms = offset_ms
        self.wall_drift = drift
