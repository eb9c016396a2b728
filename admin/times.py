"""Times and durations as people type them."""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final, NamedTuple, TypedDict

from admin.parsed import Parsed

_UNITS_MS: Final = {
    "ms": 1,
    "s": 1_000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 7 * 86_400_000,
}
_WORDS: Final = {
    "millisecond": "ms",
    "sec": "s",
    "second": "s",
    "min": "m",
    "minute": "m",
    "hr": "h",
    "hour": "h",
    "day": "d",
    "week": "w",
}
_PIECE: Final = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,6}))?\s*([a-z]+)\s*", re.ASCII)
_DIGITS: Final = re.compile(r"-?[0-9]{1,15}", re.ASCII)
_CLOCK: Final = re.compile(r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?", re.ASCII)
_NAIVE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[Tt ][0-9:.]+)?", re.ASCII)
_DAYS: Final = {"yesterday": -1, "today": 0, "tomorrow": 1}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FORMS: Final = "+5m, in 2h, tomorrow 09:00, 2030-01-31T08:00:00Z, or milliseconds since 1970"


class When(NamedTuple):
    """A time that was typed: `delay_ms` from now where it was relative, else `time_ms`.

    `time_ms` is there in any case, by this machine's clock.
    """

    time_ms: int
    delay_ms: int | None = None


class Window(TypedDict):
    """A time window as operations of the SDK take it."""

    from_time: int | None
    to_time: int | None


def now_ms() -> int:
    """This machine's clock, in milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


def parse_duration_ms(text: str) -> int:
    """A duration in milliseconds: `90s`, `2h30m`, `1.5 hours`, `7d`, or `5000` for milliseconds.

    Raises ValueError with a sentence for the user.
    """
    words = text.strip().lower()
    if _DIGITS.fullmatch(words) and not words.startswith("-"):
        return int(words)
    total_ms, at = 0, 0
    while at < len(words):
        piece = _PIECE.match(words, at)
        unit = None if piece is None else _unit_ms(piece[3])
        if piece is None or unit is None:
            raise ValueError(
                f"{text!r} is no duration. Write for instance 90s, 2h30m, 7d, or 5000 for"
                " milliseconds."
            )
        fraction = piece[2] or "0"
        total_ms += int(piece[1]) * unit + int(fraction) * unit // 10 ** len(fraction)
        at = piece.end()
    if at == 0:
        raise ValueError("A duration is missing. Write for instance 90s, 2h30m or 7d.")
    return total_ms


def _unit_ms(word: str) -> int | None:
    if word in _UNITS_MS:
        return _UNITS_MS[word]
    short = _WORDS.get(word.removesuffix("s"))
    return None if short is None else _UNITS_MS[short]


def parse_time(text: str, now_ms: int, zone: tzinfo | None = None) -> When:
    """A time as people type it; see `_FORMS`. Days and clocks are those of `zone`, or the system's.

    Raises ValueError with a sentence for the user.
    """
    words = " ".join(text.split()).lower()
    if _DIGITS.fullmatch(words):
        return When(_epoch_ms(words))
    if words == "now":
        return When(now_ms, 0)
    if (delay_ms := _relative_ms(words)) is not None:
        return When(now_ms + delay_ms, delay_ms if delay_ms >= 0 else None)
    day, _, rest = words.partition(" ")
    if day in _DAYS:
        return When(_on_day(text, _DAYS[day], rest.removeprefix("at "), now_ms, zone))
    if _NAIVE.fullmatch(words):
        raise ValueError(
            f"{text!r} names no time zone. Add Z for UTC, or an offset such as +01:00, as in"
            " 2030-01-31T08:00:00Z."
        )
    try:
        moment = datetime.fromisoformat(words.upper())
        return When((moment - _EPOCH) // timedelta(milliseconds=1))
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"{text!r} is no time. Write for instance {_FORMS}.") from None


def _epoch_ms(digits: str) -> int:
    if len(digits) == 10 and not digits.startswith("-"):
        raise ValueError(
            f"{digits} looks like seconds since 1970. Times are in milliseconds: {digits}000."
        )
    return int(digits)


def _relative_ms(words: str) -> int | None:
    if words.startswith(("+", "-")):
        sign = -1 if words.startswith("-") else 1
        return sign * _with_unit(words[1:].strip())
    if words.startswith("in "):
        return _with_unit(words[3:])
    if words.endswith(" ago"):
        return -_with_unit(words[:-4])
    return None


def _with_unit(words: str) -> int:
    """A duration after a sign: a number alone might mean anything."""
    if words.isdecimal():
        raise ValueError(f"{words} what? Write a unit, as in +{words}s or +{words}m.")
    return parse_duration_ms(words)


def _on_day(text: str, days: int, clock: str, now_ms: int, zone: tzinfo | None) -> int:
    """A day by name, at a clock time or at the time that it is now, as a clock there shows it."""
    local = (_EPOCH + timedelta(milliseconds=now_ms)).astimezone(zone)
    there = local.replace(tzinfo=None) + timedelta(days=days)
    if clock:
        found = _CLOCK.fullmatch(clock)
        if found is None or int(found[1]) > 23 or int(found[2]) > 59 or int(found[3] or 0) > 59:
            raise ValueError(f"{text!r} is no time. Write for instance tomorrow 09:00.")
        there = there.replace(
            hour=int(found[1]), minute=int(found[2]), second=int(found[3] or 0), microsecond=0
        )
    moment = there.astimezone() if zone is None else there.replace(tzinfo=zone)
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def window(from_time: When | None, to_time: When | None) -> Window:
    """The window between two times that were typed, open where one was not."""
    return {
        "from_time": None if from_time is None else from_time.time_ms,
        "to_time": None if to_time is None else to_time.time_ms,
    }


def _at_least(least_ms: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        found_ms = parse_duration_ms(text)
        if found_ms < least_ms:
            raise ValueError(f"{text!r} is too short.")
        return found_ms

    return parse


def _signed(text: str) -> int:
    sign = -1 if text.startswith("-") else 1
    return sign * parse_duration_ms(text[1:] if text.startswith(("-", "+")) else text)


DURATION: Final = Parsed("duration", parse_duration_ms)
"""An option that takes a duration; its value is in milliseconds."""

DURATION_NOT_ZERO: Final = Parsed("duration", _at_least(1))
"""The same, but not nothing."""

DURATION_SIGNED: Final = Parsed("duration", _signed)
"""The same, perhaps with a minus."""

TIME: Final = Parsed("time", lambda text: parse_time(text, now_ms()))
"""An option that takes a time; its value is a `When`."""
