"""When a route has failed for so long that it is disabled."""

from timemachine.failing import failed, failure_is_news, periods, succeeded
from timemachine.model import Failing

HOUR_MS = 3_600_000
AFTER_MS = 120 * HOUR_MS
BEGAN_MS = 1_000 * HOUR_MS


def _after(*hours: float, known: Failing = Failing()) -> tuple[Failing, bool]:
    """What is known after failures so many hours after the beginning."""
    disables = False
    for each in hours:
        at_ms = BEGAN_MS + round(each * HOUR_MS)
        known, disables = failed(known, BEGAN_MS, at_ms, AFTER_MS)
    return known, disables


def test_five_days_of_failures_disable() -> None:
    """From the failure on that lay twelve hours after the first."""
    assert not _after(0, 12, 131.9)[1]
    assert _after(0, 12, 132)[1]


def test_one_bad_night_does_not_begin_the_clock() -> None:
    """However many fail in it, and however long ago it was."""
    assert (Failing(BEGAN_MS), False) == _after(0, 1, 2, 11.9)
    known, disables = _after(0, 11.9, 400)
    assert (BEGAN_MS + 400 * HOUR_MS, 0, False) == (known.first_ms, known.clock_ms, disables)


def test_failures_more_than_a_day_apart_do_not_begin_it() -> None:
    """The later one takes the place of the first."""
    known, disables = _after(0, 25, 50, 75, 400)
    assert (BEGAN_MS + 400 * HOUR_MS, 0, False) == (known.first_ms, known.clock_ms, disables)


def test_any_success_clears_all_of_it() -> None:
    """Also right before the end; one that is told late clears no more than was before it."""
    known, _ = _after(0, 12, 131)
    clear = succeeded(known, BEGAN_MS + 131 * HOUR_MS)
    assert Failing(cleared_ms=BEGAN_MS + 131 * HOUR_MS) == clear
    assert not _after(132, 133, known=clear)[1]
    assert known == succeeded(known, BEGAN_MS - 1)
    assert clear == succeeded(clear, BEGAN_MS + 140 * HOUR_MS)


def test_failures_from_before_a_success_do_not_count() -> None:
    """A node that has not seen it tells of a long row of its own."""
    clear = Failing(cleared_ms=BEGAN_MS + HOUR_MS)
    assert (clear, False) == failed(clear, BEGAN_MS, BEGAN_MS + HOUR_MS, AFTER_MS)
    known, _ = failed(clear, BEGAN_MS, BEGAN_MS + 2 * HOUR_MS, AFTER_MS)
    assert BEGAN_MS + HOUR_MS == known.first_ms


def test_zero_turns_it_off() -> None:
    """Nothing is told, and nothing follows from what is."""
    assert (Failing(), False) == failed(Failing(), 1, 10**15, 0)
    assert not failure_is_news(Failing(), 1, 10**15, 0)


def test_meta_is_told_a_few_times_in_a_row_of_failures() -> None:
    """One attempt each minute, for a week: the row, the clock, the end."""
    known, told = Failing(), []
    for minute in range(7 * 24 * 60):
        at_ms = BEGAN_MS + minute * 60_000
        if failure_is_news(known, BEGAN_MS, at_ms, AFTER_MS):
            known, disables = failed(known, BEGAN_MS, at_ms, AFTER_MS)
            told.append(minute / 60)
            if disables:
                break
    assert [1, 12, 132] == told


def test_a_recipient_that_fails_now_and_then_is_never_spoken_of() -> None:
    """A row of failures that ends within the hour is not told."""
    assert not failure_is_news(Failing(), BEGAN_MS, BEGAN_MS + HOUR_MS - 1, AFTER_MS)
    clear = Failing(cleared_ms=BEGAN_MS)
    assert not failure_is_news(clear, 0, BEGAN_MS + HOUR_MS - 1, AFTER_MS)


def test_shorter_settings_have_shorter_periods() -> None:
    """A tenth lies between the failures that begin the clock; never more than twelve hours."""
    assert 12 * HOUR_MS == periods(AFTER_MS).apart_ms == periods(10 * AFTER_MS).apart_ms
    assert 6_000 == periods(60_000).apart_ms
    known, disables = failed(Failing(), 1, 1, 1)
    assert (True, False) == (known.clock_ms == 1, disables)
    assert failed(known, 1, 2, 1)[1]
