"""A virtual world for one node: clock, timers, chance, a disk that forgets, recipients.

Everything happens in one thread, in the order of a heap of virtual times. A crash forgets what
was not synced and drops every call that the dead process was waiting for.
"""

import heapq
import random
from collections.abc import Callable

from timemachine.errors import StoreError
from timemachine.outbound import Outcome, Request
from timemachine.storage.memory import MemoryStore

START_MS = 1_700_000_000_000


class SimTimer:
    """A call in the heap."""

    def __init__(self, function: Callable[[], None], life: int) -> None:
        self.function = function
        self.life = life
        self.cancelled = False

    def cancel(self) -> None:
        """See Timer."""
        self.cancelled = True


class SimWorld:
    """The `World` of a simulated process. `life` numbers its incarnations, `up` says if one runs.

    A process that dies in the middle of a call goes on to its end, as code does; what it asks for
    in the rest of it never happens.
    """

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now_ms = 0.0
        self.wall_offset_ms = START_MS
        self.life = 0
        self.up = True
        self.events = 0
        self._heap: list[tuple[float, int, SimTimer]] = []
        self._sequence = 0

    def wall_ms(self) -> int:
        """See World."""
        return int(self.now_ms) + self.wall_offset_ms

    def mono_ms(self) -> float:
        """See World."""
        return self.now_ms

    def call_soon(self, function: Callable[[], None]) -> None:
        """See World."""
        self.call_later(0.0, function)

    def call_later(self, delay_ms: float, function: Callable[[], None]) -> SimTimer:
        """See World."""
        timer = SimTimer(function, self.life)
        self._sequence += 1
        heapq.heappush(self._heap, (self.now_ms + max(0.0, delay_ms), self._sequence, timer))
        return timer

    def outside(self, delay_ms: float, function: Callable[[], None]) -> None:
        """A call that belongs to no process: it survives crashes."""
        self.call_later(delay_ms, function).life = -1

    def random(self) -> float:
        """See World."""
        return self.rng.random()

    def random_bytes(self, count: int) -> bytes:
        """See World."""
        return self.rng.randbytes(count)

    def step(self) -> bool:
        """Run the next call; False when nothing is left."""
        while self._heap:
            at_ms, _, timer = heapq.heappop(self._heap)
            if timer.cancelled or timer.life not in (-1, self.life if self.up else -1):
                continue
            self.now_ms = max(self.now_ms, at_ms)
            self.events += 1
            timer.function()
            return True
        return False

    def run_until(self, until: Callable[[], bool], events_max: int = 200_000) -> None:
        """Run until a condition holds. Raises AssertionError when the budget of events is spent."""
        for _ in range(events_max):
            if until():
                return
            if not self.step():
                break
        assert until(), f"still waiting after {self.events} events at {self.now_ms} ms"

    def run_for(self, duration_ms: float) -> None:
        """Let virtual time pass."""
        end_ms = self.now_ms + duration_ms
        while self._heap and self._heap[0][0] <= end_ms:
            if not self.step():
                break
        self.now_ms = end_ms


class SimDisk:
    """A `Disk` over a durable image. `crash_at` names the sync at which the process dies.

    `keep` says whether the batch under way survives that crash: both happen in the world, since
    the power may go before or after the platter got it.
    """

    def __init__(self, world: SimWorld, image: dict[bytes, bytes]) -> None:
        self.world = world
        self.store = MemoryStore(image)
        self.syncs = 0
        self.crash_at: int | None = None
        self.keep = False
        self.on_crash: Callable[[], None] = lambda: None
        self._under_way: dict[bytes, bytes | None] = {}

    def write(
        self, prepared: dict[bytes, bytes | None], done: Callable[[StoreError | None], None]
    ) -> None:
        """See Disk."""
        self.syncs += 1
        if self.syncs == self.crash_at:
            if self.keep:
                self.store.write(prepared)
            self.on_crash()
            return

        def synced() -> None:
            self._under_way = {}
            self.store.write(prepared)
            done(None)

        self._under_way = prepared
        self.world.call_later(self.world.rng.uniform(0.1, 2.0), synced)

    def finish(self) -> None:
        """The batch under way gets to the platter, and nobody will be told: a crash follows."""
        self.store.write(self._under_way)


class SimHandle:
    """A request under way in the simulated network."""

    def __init__(self, sender: "SimSender", done: Callable[[Outcome], None]) -> None:
        self.sender = sender
        self.done: Callable[[Outcome], None] | None = done
        self.sent = False

    def abort_if_unsent(self) -> bool:
        """See Handle."""
        if self.sent or self.done is None:
            return False
        self.done = None
        return True

    def abort(self) -> None:
        """See Handle."""
        done, self.done = self.done, None
        if done is not None:
            outcome = Outcome(error_code="shutdown", bytes_sent=self.sent)
            self.sender.world.call_soon(lambda: done(outcome))


class SimSender:
    """Recipients that answer after a while what `answer` says, and remember what they got."""

    def __init__(self, world: SimWorld) -> None:
        self.world = world
        self.received: list[tuple[int, Request]] = []
        self.answer: Callable[[Request], Outcome] = lambda _: Outcome(status=200, bytes_sent=True)

    def send(
        self,
        request: Request,
        done: Callable[[Outcome], None],
        may_leave: Callable[[], bool] | None = None,
    ) -> SimHandle:
        """See Sender."""
        handle = SimHandle(self, done)
        rng = self.world.rng

        def arrive() -> None:
            if handle.done is None:
                return
            handle.sent = True
            self.received.append((self.world.wall_ms(), request))
            outcome = self.answer(request)

            def back() -> None:
                finish, handle.done = handle.done, None
                if finish is not None:
                    finish(outcome)

            self.world.call_later(rng.uniform(0.1, 20.0), back)

        self.world.call_later(rng.uniform(0.0, 5.0), arrive)
        return handle
