"""The seams: everything that a node asks of the world, as ports.

Production implements them in `clock.py`, `disk.py` and `sender/`; the simulator in `tests/sim/`.
Code on this side of the seams (engine, runtime, delivery) imports neither asyncio nor a
clock nor dice, and runs the same in both.
"""

from collections.abc import Callable
from typing import Any, Protocol

from timemachine.errors import StoreError
from timemachine.storage.api import Prepared


class Timer(Protocol):
    """A call that was asked for and may be taken back."""

    def cancel(self) -> None:
        """Do not call, if it has not happened yet."""


class World(Protocol):
    """Clocks, timers and chance."""

    def wall_ms(self) -> int:
        """Milliseconds since the Unix epoch. May step in both directions."""

    def mono_ms(self) -> float:
        """Milliseconds of a clock that only moves forward, also while the machine sleeps."""

    def call_soon(self, function: Callable[[], None]) -> None:
        """Call after everything that is already due."""

    def call_later(self, delay_ms: float, function: Callable[[], None]) -> Timer:
        """Call after a delay on the monotonic clock."""

    def random(self) -> float:
        """A number drawn uniformly from [0, 1)."""

    def random_bytes(self, count: int) -> bytes:
        """Unpredictable bytes: ids, keys, nonces."""


class Disk(Protocol):
    """Writes one batch at a time, synced, without blocking the caller."""

    def write(self, prepared: Prepared, done: Callable[[StoreError | None], None]) -> None:
        """Write and sync; then call `done` on the caller's thread, with the error if it failed."""


class Aside(Protocol):
    """Does what takes long and writes nothing, one piece after the other, beside the caller."""

    def do(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Do `work`; then call `done` on the caller's thread, with what it gave, or StoreError."""


class InTurn:
    """An `Aside` without a thread: the work is done in a turn of the loop, as in the simulator."""

    def __init__(self, world: World) -> None:
        self._world = world

    def do(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """See Aside."""

        def turn() -> None:
            try:
                result = work()
            except StoreError as error:
                result = error
            done(result)

        self._world.call_soon(turn)


class Network(Protocol):
    """The way to the other nodes of the cluster."""

    def send(self, node: int, frame: bytes, *, bulk: bool = False) -> None:
        """Hand a frame over for the node of that number, without blocking.

        It may be lost, late, doubled or overtaken by others; one that is `bulk` leaves when no
        other one waits.
        """
