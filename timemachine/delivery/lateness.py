"""How late first attempts started after they were due, as a histogram."""

from bisect import bisect_left

BOUNDS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000, 60000)


class Lateness:
    """Counts by upper bound (`BOUNDS_MS`, and one for what is later), and the sum of all."""

    __slots__ = ("counts", "sum_ms")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_MS) + 1)
        self.sum_ms = 0

    def note(self, late_ms: int) -> None:
        """One more attempt started, so long after its time."""
        self.sum_ms += late_ms
        self.counts[bisect_left(BOUNDS_MS, late_ms)] += 1
