"""Virtual time for a whole cluster: one heap of calls, their count and their trace.

A call belongs to a generation of a node, or to the world (nemesis, clients, what is on a wire).
Calls of one moment run in the order in which they were asked for. A crash drops what its node's
generation had waiting, for a dead process gets no answer; a pause holds it back.
"""

import random
import struct
from collections import deque
from collections.abc import Callable
from hashlib import blake2b
from heapq import heapify, heappop, heappush
from typing import Any, Final, Protocol

START_MS: Final = 1_700_000_000_000
"""The true wall clock when virtual time begins."""

WORLD: Final = 0
"""A call of nobody's process: nemesis, clients, recipients, what is on a wire."""
SOON: Final = 1
"""`World.call_soon`: the rest of some other event."""
TICK: Final = 2
"""A timer that rings again and again, whether there is work or not."""
PUMP: Final = 3
"""A timer that looks for work. It counts as TIMER when it found some."""
TIMER: Final = 4
MESSAGE: Final = 5
DISK: Final = 6
HTTP: Final = 7
KIND_NAMES: Final = ("world", "soon", "tick", "pump", "timer", "message", "disk", "http")

ANY_GENERATION: Final = -1
"""Of a call that whoever is alive at the node then gets, such as a frame that arrives."""

_TIMERS: Final = (TICK, PUMP, TIMER)
_EVENTS_CHECKED_EVERY: Final = 1024
_pack = struct.Struct("<dBB").pack


class BudgetSpentError(AssertionError):
    """More happened than any healthy run needs: a storm of messages, or a loop without end."""


class ProcessDied(BaseException):
    """Unwinds the stack of a process that dies in the middle of a call. The clockwork takes it."""


class Owner(Protocol):
    """The process that a call belongs to. See `NodeWorld`."""

    number: int
    generation: int
    up: bool
    held: "list[Call] | None"


class Call:
    """A call in the heap, and the `Timer` that takes it back."""

    __slots__ = ("argument", "function", "generation", "kind", "owner")

    def __init__(
        self,
        kind: int,
        owner: Owner | None,
        generation: int,
        function: Callable[..., object] | None,
        argument: Any,
    ) -> None:
        self.kind = kind
        self.owner = owner
        self.generation = generation
        self.function = function
        self.argument = argument

    def cancel(self) -> None:
        """See Timer."""
        self.function = None


class Clockwork:
    """The heap. `now_ms` is true time, in virtual milliseconds since `START_MS`.

    counts      calls that ran, by kind
    work        how often something was set going: a frame, a batch, a request, a call soon
    on_error    what a node's code raised: True when the node has dealt with it (as a process
                does that ends), False when it is a finding. Violations are always findings
    events_max  the budget of events, `calls_max` of calls of every kind
    """

    __slots__ = (
        "_heap",
        "_journal",
        "_sequence",
        "_trace",
        "calls",
        "calls_max",
        "counts",
        "events_max",
        "now_ms",
        "on_error",
        "seed",
        "work",
    )

    def __init__(
        self, seed: int, *, events_max: int = 1_000_000, calls_max: int = 10_000_000
    ) -> None:
        self.seed = seed
        self.now_ms = 0.0
        self.counts = [0] * len(KIND_NAMES)
        self.calls = 0
        self.work = 0
        self.events_max = events_max
        self.calls_max = calls_max
        self.on_error: Callable[[Owner, Exception], bool] | None = None
        self._heap: list[tuple[float, int, Call]] = []
        self._sequence = 0
        self._trace = blake2b(digest_size=8)
        self._journal: deque[tuple[float, str]] = deque(maxlen=400)

    # --- asking for calls ------------------------------------------------------------------

    def post(
        self,
        at_ms: float,
        kind: int,
        owner: Owner | None,
        generation: int,
        function: Callable[..., object],
        argument: Any = None,
    ) -> Call:
        """Call `function(argument)` at a true time; without argument when that is None."""
        call = Call(kind, owner, generation, function, argument)
        self._sequence = sequence = self._sequence + 1
        heappush(self._heap, (at_ms, sequence, call))
        return call

    def later(self, delay_ms: float, function: Callable[..., object], argument: Any = None) -> Call:
        """A call of the world itself: no crash and no pause keeps it back."""
        return self.post(self.now_ms + delay_ms, WORLD, None, 0, function, argument)

    def repost(self, call: Call) -> None:
        """Put a call that was held back behind what is due now."""
        self._sequence = sequence = self._sequence + 1
        heappush(self._heap, (self.now_ms, sequence, call))

    def stretch_timers(self, owner: Owner, factor: float) -> None:
        """The clock of `owner` goes at another rate: its timers are this many times as far off."""
        heap, now_ms = self._heap, self.now_ms
        for place, (at_ms, sequence, call) in enumerate(heap):
            if call.owner is owner and call.kind in _TIMERS and at_ms > now_ms:
                heap[place] = (now_ms + (at_ms - now_ms) * factor, sequence, call)
        heapify(heap)

    def child(self, name: str) -> random.Random:
        """Dice for one part of the world: what the others draw does not change what it draws."""
        return random.Random(f"{self.seed}/{name}")

    # --- running ---------------------------------------------------------------------------

    def run_until(self, end_ms: float, until: Callable[[], bool] | None = None) -> bool:
        """Run what is due until `end_ms`, or until a condition holds: whether it does.

        The condition is looked at after every call. Raises BudgetSpentError.
        """
        heap, counts, update = self._heap, self.counts, self._trace.update
        calls_max = self.calls_max
        if until is not None and until():
            return True
        while heap:
            at_ms = heap[0][0]
            if at_ms > end_ms:
                break
            call = heappop(heap)[2]
            function = call.function
            if function is None:
                continue
            owner = call.owner
            kind = call.kind
            if owner is None:
                update(_pack(at_ms, kind, 0))
            else:
                generation = call.generation
                if generation != owner.generation and (generation >= 0 or not owner.up):
                    continue
                if owner.held is not None:
                    owner.held.append(call)
                    continue
                update(_pack(at_ms, kind, owner.number))
            self.now_ms = at_ms
            call.function = None
            argument = call.argument
            work = self.work
            try:
                if argument is None:
                    function()
                else:
                    function(argument)
            except ProcessDied:
                pass
            except AssertionError:
                raise
            except Exception as error:
                if owner is None or self.on_error is None or not self.on_error(owner, error):
                    raise
            if kind == PUMP and self.work != work:
                kind = TIMER
            counts[kind] += 1
            self.calls = calls = self.calls + 1
            if calls % _EVENTS_CHECKED_EVERY == 0 and (
                calls > calls_max or self.events > self.events_max
            ):
                raise BudgetSpentError(f"the budget is spent: {self.summary()}")
            if until is not None and until():
                return True
        if self.now_ms < end_ms:
            self.now_ms = end_ms
        return False

    def run_for(self, duration_ms: float) -> None:
        """Let virtual time pass."""
        self.run_until(self.now_ms + duration_ms)

    # --- what happened ---------------------------------------------------------------------

    @property
    def events(self) -> int:
        """Due timers, messages, completions of disk and HTTP; ticks and idle pumps do not count."""
        return sum(self.counts[TIMER:])

    @property
    def trace(self) -> str:
        """A digest of every call so far, with its time and node, and of what was noted."""
        return self._trace.hexdigest()

    def note(self, content: bytes) -> None:
        """Add content to the trace: a frame, a batch, a request."""
        self._trace.update(content)

    def say(self, text: str) -> None:
        """Remember something for whoever reads a failure; the last few hundred are kept."""
        self._trace.update(text.encode())
        self._journal.append((self.now_ms, text))

    def journal(self) -> list[str]:
        """What was said last, in order."""
        return [f"{at_ms:12.3f} {text}" for at_ms, text in self._journal]

    def summary(self) -> str:
        """The counts by kind, in words."""
        counted = zip(KIND_NAMES, self.counts, strict=True)
        return ", ".join(f"{count} {name}" for name, count in counted if count)
