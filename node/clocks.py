"""How far the clocks of the nodes are apart, and whether this node's may be gone by.

Each node asks each other one for its wall clock, twice a second. Of the newest answers that with
the shortest round trip tells most: it lies at most half of that beside the truth (Mills, RFC 5905,
section 10). Answers are kept against the monotonic clock, so a step of the own wall clock shows at
once.

With three clocks or more it can be told whose is wrong: a node that is further than
CLOCK_OFFSET_MAX_MS from the median fires nothing (see `Vnode.gate`), and gives its leaderships to
nodes that are not. With two it cannot, and each fires by its own.

The answer also says whether the disk of that node has room: who is nearly full has nodes lead that
are not (see `Leaving.relieve`).
"""

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

from node.calls import Answer, Calls
from node.env import World
from node.runtime import Runtime
from timemachine import codec, limits
from timemachine.errors import CodecError

KIND: Final = "clock"
_EVERY_MS: Final = 500.0
_TIMEOUT_MS: Final = 1_000
_SAMPLES: Final = 8
_FRESH_MS: Final = _EVERY_MS * _SAMPLES * 2
_JUDGES: Final = 3
"""So many clocks, the own one among them, are needed to say which one is wrong."""

_read: Any = codec.decoder(int | tuple[int, bool])
"""The wall clock, and whether there is room; nodes of before say the first alone."""


class Clocks:
    """Asks for clocks, and judges the own one.

    `others` gives the numbers of the other nodes; `judged(wrong)` is told at first, when it
    changes, and again and again while the clock is wrong. `space_low` says whether the disk of this
    node is nearly full; while it is, `crowded` is called with each round.
    """

    def __init__(
        self,
        world: World,
        runtime: Runtime,
        calls: Calls,
        *,
        others: Callable[[], Iterable[int]],
        judged: Callable[[bool], None],
        space_low: Callable[[], bool] = lambda: False,
        crowded: Callable[[], None] = lambda: None,
    ) -> None:
        self._world = world
        self._runtime = runtime
        self._calls = calls
        self._others = others
        self._judged = judged
        self._space_low = space_low
        self._crowded = crowded
        # Nodes whose disks are nearly full, as they said last.
        self._full: set[int] = set()
        # Per node: (round trip, its wall clock less this monotonic clock, when).
        self._samples: dict[int, deque[tuple[float, float, float]]] = {}
        self._stopped = False
        self.wrong = False
        calls.serve(KIND, self._asked)

    def start(self) -> None:
        """Begin, and go on until `stop`, or until the node can do nothing any more."""
        if self._stopped or not self._runtime.working:
            return
        self._world.call_later(_EVERY_MS, self.start)
        others = list(self._others())
        for node in self._samples.keys() - set(others):
            del self._samples[node]
            self._full.discard(node)
        for node in others:
            took = partial(self._took, node, self._world.mono_ms())
            self._calls.call(node, KIND, b"", took, _TIMEOUT_MS)
        self._judge()
        if self._space_low():
            self._crowded()

    def stop(self) -> None:
        """Ask nobody any more."""
        self._stopped = True

    def _asked(self, sender: int, body: bytes, answer: Answer) -> None:
        answer(codec.encode((self._world.wall_ms(), not self._space_low())))

    def _took(self, node: int, sent_ms: float, result: Any) -> None:
        if not isinstance(result, bytes):
            return
        try:
            told = _read(result)
        except CodecError:
            return  # of a version that answers otherwise: as good as silent
        mono_ms = self._world.mono_ms()
        trip_ms = mono_ms - sent_ms
        samples = self._samples.setdefault(node, deque(maxlen=_SAMPLES))
        wall_ms, room = (told, True) if isinstance(told, int) else told
        samples.append((trip_ms, wall_ms - (mono_ms - trip_ms / 2), mono_ms))
        if room:
            self._full.discard(node)
        else:
            self._full.add(node)

    def has_room(self, node: int) -> bool:
        """Whether the disk of another node has room, as far as is known."""
        return node not in self._full

    def offset_ms(self, node: int) -> float | None:
        """By how much another node's wall clock is ahead of this one; None if it is not known."""
        since_ms = self._world.mono_ms() - _FRESH_MS
        fresh = [each for each in self._samples.get(node, ()) if each[2] >= since_ms]
        if not fresh:
            return None
        return min(fresh)[1] - (self._world.wall_ms() - self._world.mono_ms())

    def _median_ms(self) -> float | None:
        """The median of all clocks that are heard, ahead of this one; None for too few of them.

        Of an even number it is the lower one of two: a clock that somebody has.
        """
        offsets = [0.0]
        for node in self._samples:
            offset_ms = self.offset_ms(node)
            if offset_ms is not None:
                offsets.append(offset_ms)
        if len(offsets) < _JUDGES:
            return None
        offsets.sort()
        return offsets[(len(offsets) - 1) // 2]

    def is_right(self, node: int) -> bool:
        """Whether another node may go by its clock, as far as can be told."""
        median_ms = self._median_ms()
        offset_ms = self.offset_ms(node)
        if median_ms is None or offset_ms is None:
            return True
        return abs(offset_ms - median_ms) <= limits.CLOCK_OFFSET_MAX_MS

    def largest_ms(self) -> float:
        """The largest offset to another node, without its sign."""
        found = [self.offset_ms(node) for node in self._samples]
        return max([abs(each) for each in found if each is not None], default=0.0)

    def jumped(self) -> bool:
        """The own clock has jumped: whether it is wrong now. The next look tells what follows."""
        wrong = self._looks_wrong()
        self.wrong = self.wrong or wrong
        return wrong

    def _looks_wrong(self) -> bool:
        median_ms = self._median_ms()
        return median_ms is not None and abs(median_ms) > limits.CLOCK_OFFSET_MAX_MS

    def _judge(self) -> None:
        wrong = self._looks_wrong()
        if wrong or wrong != self.wrong:
            self.wrong = wrong
            self._judged(wrong)
