"""Times and durations as people type them."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import click
import pytest

from admin import times
from admin.times import When, parse_duration_ms, parse_time

NOW = datetime(2030, 3, 30, 12, 0, tzinfo=UTC)
NOW_MS = 1_901_102_400_000
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("text", "expected_ms"),
    [
        ("0", 0),
        ("5000", 5_000),
        ("250ms", 250),
        ("90s", 90_000),
        ("2h30m", 9_000_000),
        ("2h 30m", 9_000_000),
        ("1.5h", 5_400_000),
        ("0.0015s", 1),
        ("3d", 3 * 86_400_000),
        ("1w", 7 * 86_400_000),
        ("90 seconds", 90_000),
        ("1 minute 5 secs", 65_000),
        ("2 HOURS", 7_200_000),
    ],
)
def test_durations(text: str, expected_ms: int) -> None:
    """Units may be letters or words; a number alone is milliseconds."""
    assert expected_ms == parse_duration_ms(text)


@pytest.mark.parametrize("text", ["", " ", "h", "5x", "5 5", "-5s", "1h-", "5months", "²s", "1e3s"])
def test_what_is_no_duration(text: str) -> None:
    """Anything else is refused with a sentence."""
    with pytest.raises(ValueError, match="Write for instance"):
        parse_duration_ms(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", When(NOW_MS, 0)),
        ("+5m", When(NOW_MS + 300_000, 300_000)),
        ("+ 2h30m", When(NOW_MS + 9_000_000, 9_000_000)),
        ("+3d", When(NOW_MS + 259_200_000, 259_200_000)),
        ("in 2h", When(NOW_MS + 7_200_000, 7_200_000)),
        ("in 90 seconds", When(NOW_MS + 90_000, 90_000)),
        ("-1h", When(NOW_MS - 3_600_000)),
        ("3 days ago", When(NOW_MS - 259_200_000)),
        ("1667659342626", When(1_667_659_342_626)),
        ("0", When(0)),
        ("2030-03-30T12:00:00Z", When(NOW_MS)),
        ("2030-03-30 13:00:00+01:00", When(NOW_MS)),
        ("2030-03-30t12:00:00.250z", When(NOW_MS + 250)),
        ("today 13:30", When(NOW_MS + 30 * 60_000)),
        ("tomorrow", When(NOW_MS + 23 * 3_600_000)),
        ("Tomorrow at 09:00", When(NOW_MS + 19 * 3_600_000)),
        ("yesterday 13:00:30", When(NOW_MS - 86_400_000 + 30_000)),
    ],
)
def test_times(text: str, expected: When) -> None:
    """Relative times keep their distance, so that the node can count it.

    Days are those of the clock on the wall: the night after this noon in Berlin has an hour less.
    """
    assert int(NOW.timestamp() * 1000) == NOW_MS
    assert expected == parse_time(text, NOW_MS, BERLIN)


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This machine stands in Berlin."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("berlin")
def test_the_systems_zone() -> None:
    """Without a zone days are those of this machine, also beyond a change of its clocks."""
    assert When(NOW_MS + 23 * 3_600_000) == parse_time("tomorrow", NOW_MS)
    assert When(NOW_MS + 19 * 3_600_000) == parse_time("tomorrow 09:00", NOW_MS)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1667659342", "1667659342000"),
        ("2030-01-31", "names no time zone"),
        ("2030-01-31T08:00:00", "names no time zone"),
        ("2030-01-31 08:00", "names no time zone"),
        ("+5", r"\+5s or \+5m"),
        ("in 5", r"\+5s"),
        ("next week", "is no time"),
        ("tomorrow 9am", "tomorrow 09:00"),
        ("tomorrow 24:00", "tomorrow 09:00"),
        ("2030-02-30T08:00:00Z", "is no time"),
        ("", "is no time"),
    ],
)
def test_what_is_no_time(text: str, told: str) -> None:
    """What may mean two things is refused, and the sentence says what to write."""
    with pytest.raises(ValueError, match=told):
        parse_time(text, NOW_MS, UTC)


def test_an_option_says_what_is_wrong() -> None:
    """As an option a bad value is a usage error; what was read already stays."""
    with pytest.raises(click.BadParameter, match="is no duration"):
        times.DURATION.convert("soon", None, None)
    with pytest.raises(click.BadParameter, match="too short"):
        times.DURATION_NOT_ZERO.convert("0", None, None)
    assert -60_000 == times.DURATION_SIGNED.convert("-1m", None, None)
    assert 60_000 == times.DURATION_SIGNED.convert("+1m", None, None)
    assert When(5) == times.TIME.convert(When(5), None, None)
