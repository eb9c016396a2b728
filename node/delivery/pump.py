"""Does all steps of firing in order, and says when to do so again."""

from node.delivery.claiming import Claims
from node.delivery.credits import Credits
from node.delivery.leading import Leading
from node.delivery.offsets import Offsets
from node.delivery.refilling import Refill
from node.delivery.scanning import Scanner
from node.delivery.sending import Sends
from node.delivery.sweeping import Sweeps
from node.delivery.walltime import WallTime
from node.env import World
from timemachine import limits
from timemachine.delivery.window import Window

_IDLE_MS = 500.0
_TICK_MS = 1.0
_LEASE_MS = 10.0
"""How soon a lease that was missing is looked for again."""
_STEP_BACK_MS = 1_000
_OFFSETS_MS = 1_000.0


class Pump:
    """Everything is driven by `run`; between two runs only answers and outcomes come in."""

    def __init__(
        self,
        window: Window,
        leading: Leading,
        scanner: Scanner,
        refill: Refill,
        claims: Claims,
        sends: Sends,
        sweeps: Sweeps,
        offsets: Offsets,
        credits: Credits | None,
        world: World,
        wall_time: WallTime,
    ) -> None:
        self._window = window
        self._leading = leading
        self._scanner = scanner
        self._refill = refill
        self._claims = claims
        self._sends = sends
        self._sweeps = sweeps
        self._offsets = offsets
        self._credits = credits
        self._world = world
        self._wall_time = wall_time
        self._last_wall_ms = world.wall_ms()
        self._next_offsets_ms = 0.0

    def run(self) -> None:
        """Do all that can be done now."""
        lending = self._credits
        now_ms = self._wall_time.now_ms()
        if now_ms < self._last_wall_ms - _STEP_BACK_MS:
            # The clock went back: claims that are not due for long are taken back.
            self._sends.unclaim_after(now_ms + _STEP_BACK_MS)
        self._last_wall_ms = now_ms
        self._sends.send_due(now_ms)
        if not self._window.stopping:
            if self._leading.suspended:
                self._leading.end_suspensions()
            self._scanner.scan(now_ms)
            self._refill.refill()
            if lending is not None:
                lending.run_out(self._world.mono_ms())
            self._claims.grant(now_ms)
        self._sweeps.step()
        mono_ms = self._world.mono_ms()
        if lending is not None:
            lending.round(now_ms, mono_ms)
        if mono_ms >= self._next_offsets_ms:
            self._next_offsets_ms = mono_ms + _OFFSETS_MS
            self._sweeps.park_old_lag(mono_ms)
            self._offsets.raise_all()

    def rest_ms(self) -> float:
        """How long nothing can be done but what an outcome, an answer or a change brings."""
        if not self._sweeps.idle:
            return _TICK_MS
        now_ms, mono_ms = self._world.wall_ms(), self._world.mono_ms()
        rest_ms = _LEASE_MS if self._leading.suspended else _IDLE_MS
        if self._credits is not None:
            rest_ms = min(rest_ms, self._credits.rest_ms())
        send_ms = self._sends.next_ms()
        if send_ms is not None:
            rest_ms = min(rest_ms, send_ms - now_ms)
        if not self._window.stopping:
            scan_ms = self._scanner.next_ms()
            if scan_ms is not None:
                rest_ms = min(rest_ms, scan_ms - now_ms)
            if self._window.in_flight < limits.SENDS_PER_NODE_MAX:
                for queue in self._window.queues.values():
                    opens_ms = queue.opens_in_ms(now_ms, mono_ms) if queue.size else None
                    if opens_ms is not None:
                        rest_ms = min(rest_ms, opens_ms)
        return max(_TICK_MS, rest_ms)
