"""Calls the pump: soon when something changed, or at the next moment of something known."""

from collections.abc import Callable

from node.env import Timer, World


class Alarm:
    """However often it is asked, `ring` is called once in a turn of the loop, and by one timer."""

    def __init__(self, world: World, ring: Callable[[], None]) -> None:
        self._world = world
        self._ring = ring
        self._soon = False
        self._timer: Timer | None = None
        self._timer_at_ms = 0.0

    def wake(self) -> None:
        """Ring after what is already due."""
        if not self._soon:
            self._soon = True
            self._world.call_soon(self._ring_soon)

    def set(self, delay_ms: float) -> None:
        """Ring after that delay at the latest."""
        at_ms = self._world.mono_ms() + delay_ms
        if self._timer is not None:
            if self._timer_at_ms <= at_ms:
                return
            self._timer.cancel()
        self._timer_at_ms = at_ms
        self._timer = self._world.call_later(delay_ms, self._ring_timer)

    def _ring_soon(self) -> None:
        self._soon = False
        self._ring()

    def _ring_timer(self) -> None:
        self._timer = None
        self._ring()
