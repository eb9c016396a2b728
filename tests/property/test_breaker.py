"""The circuit breaker against a twin that keeps every outcome, and counts them all each time."""

from hypothesis import given
from hypothesis import strategies as st

from timemachine.delivery.breaker import TENTHS, CircuitBreaker, Phase
from timemachine.model import Breaker

SETTINGS = st.builds(
    Breaker,
    failure_ratio=st.sampled_from([0.01, 0.5, 0.7, 1.0]),
    min_requests=st.integers(1, 12),
    window_ms=st.sampled_from([1_000, 3_600]),
    open_ms=st.sampled_from([100, 1_000, 5_000]),
    half_open_requests=st.integers(1, 4),
)
# What follows after how long: an outcome of an attempt begun now, or one or two phases ago.
STEPS = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 7, 90, 400, 2_000]),
        st.sampled_from(["good", "bad", "bad", "bad", "try"]),
        st.sampled_from([0, 0, 0, 1, 2]),
    ),
    max_size=80,
)


class _Twin:
    """The rules, word by word."""

    def __init__(self, settings: Breaker) -> None:
        self.settings = settings
        self.phase = Phase.CLOSED
        self.trial = 0
        self.entered_ms = 0.0
        self.outcomes: list[tuple[float, bool]] = []
        self.open_ms = 0

    def enter(self, phase: Phase, now_ms: float) -> None:
        self.phase, self.entered_ms = phase, now_ms
        if phase is Phase.OPEN:
            self.open_ms = min(2 * self.open_ms or 1_000, self.settings.open_ms)
        elif phase is Phase.CLOSED:
            self.open_ms = 0
        self.trial += 1
        self.outcomes = []

    def noted(self, trial: int, now_ms: float, good: bool) -> None:
        if trial != self.trial or self.phase is Phase.OPEN:
            return
        self.outcomes.append((now_ms, good))
        bad = [each for each in self.outcomes if not each[1]]
        if self.phase is Phase.HALF_OPEN:
            if good:
                self.enter(Phase.CLOSED, now_ms)
            elif len(bad) >= self.settings.half_open_requests:
                self.enter(Phase.OPEN, now_ms)
        elif not good and any(self.is_failing(tenths, now_ms) for tenths in (2, TENTHS)):
            self.enter(Phase.OPEN, now_ms)

    def is_failing(self, tenths: int, now_ms: float) -> bool:
        length_ms = self.settings.window_ms / TENTHS
        first = now_ms // length_ms - tenths + 1
        counted = [good for at_ms, good in self.outcomes if at_ms // length_ms >= first]
        failed = counted.count(False)
        return len(
            counted
        ) >= self.settings.min_requests and failed >= self.settings.failure_ratio * len(counted)

    def tried(self, now_ms: float) -> None:
        if self.phase is Phase.OPEN and now_ms >= self.entered_ms + self.open_ms:
            self.enter(Phase.HALF_OPEN, now_ms)

    def room(self) -> int | None:
        if self.phase is Phase.HALF_OPEN:
            return self.settings.half_open_requests - len(self.outcomes)
        return None if self.phase is Phase.CLOSED else 0


@given(SETTINGS, STEPS)
def test_it_does_as_its_twin(settings: Breaker, steps: list[tuple[int, str, int]]) -> None:
    """Whatever comes in whichever order; and never more may try than the route says."""
    breaker, twin, now_ms = CircuitBreaker(settings), _Twin(settings), 0.0
    for after_ms, what, ago in steps:
        now_ms += after_ms
        trial = max(0, breaker.trial - ago)
        before = (breaker.phase, breaker.room)
        if what == "try":
            changed = breaker.may_be_tried(now_ms)
            twin.tried(now_ms)
        else:
            changed = breaker.noted(trial, now_ms, good=what == "good")
            twin.noted(trial, now_ms, what == "good")
        assert (twin.phase, twin.trial, twin.room()) == (
            breaker.phase,
            breaker.trial,
            breaker.room,
        )
        assert changed == (before != (breaker.phase, breaker.room))
        assert breaker.phase is not Phase.HALF_OPEN or (
            1 <= (breaker.room or 0) <= settings.half_open_requests
        )
