"""S14: all nodes together begin no more attempts of a route in any period than its shares allow.

An attempt begins when its node gives it a slot and asks for its claim; when it is sent, and if it
is, is another matter. What a process has begun counts until its period is over, or a new process of
that node runs, which does not know of it.

Shares are what the nodes own by what they know, each the largest of the last while: see S13.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tests.checks.violation import Violation
from tests.sim.cluster.flight import Owned
from tests.sim.mutations.planting import swapped
from timemachine.delivery.credits import blocked_ms
from timemachine.delivery.ratelimit import RateLimit


class _Begun(NamedTuple):
    node: int
    generation: int
    at_ms: float
    attempts: int


class Pace:
    """Counts what begins of the one route. `shares` gives what all nodes own of its rate.

    `generations` gives those of the processes that run, by node; `drift` says by how much their
    clocks may be fast. `most` is how many began within one period.
    """

    def __init__(
        self,
        shares: Callable[[], dict[int, int]],
        generations: Callable[[], dict[int, int]],
        drift: float,
    ) -> None:
        self._owned = Owned(shares)
        self._generations = generations
        self._drift = drift
        self._begun: list[_Begun] = []
        self.most = 0

    def look(self, now_ms: float) -> None:
        """The shares may have changed."""
        self._owned.look(now_ms)

    def begins(self, node: int, count: int, period_ms: int, now_ms: float) -> None:
        """A node begins so many. Raises Violation."""
        generations = self._generations()
        lasts_ms = period_ms / (1 + self._drift) - 1.0
        self._begun = [
            each
            for each in self._begun
            if now_ms < each.at_ms + lasts_ms
            and generations.get(each.node, each.generation) == each.generation
        ]
        self._begun.append(_Begun(node, generations.get(node, 0), now_ms, count))
        self.look(now_ms)
        total = sum(each.attempts for each in self._begun)
        self.most = max(self.most, total)
        allowed = self._owned.since(now_ms - 2 * blocked_ms(period_ms))
        if total > allowed:
            by = [(each.node, each.attempts) for each in self._begun]
            raise Violation("S14", f"{total} attempts began in a period by {by}, of {allowed}")


@contextmanager
def observed(begins: Callable[[RateLimit, int], None]) -> Iterator[None]:
    """Every attempt that begins is told, with the limit that it counts for."""
    begin = RateLimit.begin

    def told(
        self: RateLimit, count: int, now_ms: int, mono_ms: float, ahead_ms: float = 0.0
    ) -> None:
        begins(self, count)
        begin(self, count, now_ms, mono_ms, ahead_ms)

    with swapped(RateLimit, "begin", told):
        yield
