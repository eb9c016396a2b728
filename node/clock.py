"""The one place where a node reads clocks, sets timers and draws chance."""

import asyncio
import os
import time
from collections.abc import Callable

from node.env import Timer

_POOL_BYTES = 4096
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class RealWorld:
    """The `World` of production: the system's clocks, the event loop's timers, its chance."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._pool = b""
        self._pool_at = 0

    def wall_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        return time.time_ns() // 1_000_000

    def mono_ms(self) -> float:
        """CLOCK_BOOTTIME: only forward, and also while the machine sleeps."""
        return time.clock_gettime(_CLOCK) * 1000.0

    def call_soon(self, function: Callable[[], None]) -> None:
        """See World."""
        self._loop.call_soon(function)

    def call_later(self, delay_ms: float, function: Callable[[], None]) -> Timer:
        """See World."""
        return self._loop.call_later(delay_ms / 1000.0, function)

    def random(self) -> float:
        """See World. 53 bits of the system's chance, as random.SystemRandom takes them."""
        return (int.from_bytes(self.random_bytes(7), "big") >> 3) * 2.0**-53

    def random_bytes(self, count: int) -> bytes:
        """See World. Drawn from the system in larger pieces: a call for each id costs more."""
        if count > len(self._pool) - self._pool_at:
            self._pool = os.urandom(max(_POOL_BYTES, count))
            self._pool_at = 0
        start = self._pool_at
        self._pool_at = start + count
        return self._pool[start : start + count]
