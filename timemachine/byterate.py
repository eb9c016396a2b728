"""How many bytes a second leave: a token bucket that says how long the next ones wait."""


class ByteRate:
    """In any time of t seconds at most `burst_bytes` + t * `bytes_per_s` leave.

    What is larger than the burst counts as the burst of its own moment. Bytes are booked in the
    order in which they ask, so those who share a rate take turns.
    """

    __slots__ = ("_burst_ms", "_bytes_per_ms", "_paid_ms")

    def __init__(self, bytes_per_s: int, burst_bytes: int) -> None:
        assert bytes_per_s > 0
        assert burst_bytes >= 0
        self._bytes_per_ms = bytes_per_s / 1_000
        self._burst_ms = burst_bytes / self._bytes_per_ms
        # When everything booked so far would have left, at this rate and without bursts.
        self._paid_ms = 0.0

    def book(self, size_bytes: int, now_ms: float) -> float:
        """Book bytes; for how many ms they wait before they leave, 0.0 for not at all.

        `now_ms` is of a clock that never goes back.
        """
        starts_ms = max(self._paid_ms, now_ms)
        self._paid_ms = starts_ms + size_bytes / self._bytes_per_ms
        return max(0.0, self._paid_ms - self._burst_ms - now_ms)
