"""How values look to people. Pure: the same value always looks the same."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SIZES: Final = ("KiB", "MiB", "GiB", "TiB", "PiB")
_STEPS: Final = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"))


def text(value: object) -> str:
    """Text that cannot steer a terminal: what recipients and callers sent may contain anything."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode()
        for each in str(value)
    )


def time(ms: object) -> str:
    """A time as RFC 3339 in UTC, which options take again; empty for none."""
    if not isinstance(ms, int) or isinstance(ms, bool):
        return ""
    try:
        moment = _EPOCH + timedelta(milliseconds=ms)
    except OverflowError:
        return str(ms)
    return moment.isoformat(timespec="milliseconds" if ms % 1000 else "seconds").replace(
        "+00:00", "Z"
    )


def duration(ms: object) -> str:
    """A duration in its two largest units, such as `2h 30m`; empty for none."""
    if isinstance(ms, bool) or not isinstance(ms, int | float):
        return ""
    if ms < 0:
        return f"-{duration(-ms)}"
    if ms < 1_000:
        return f"{ms:.3g}ms"
    left, parts = int(ms), []
    for size, unit in _STEPS:
        if left >= size:
            parts.append(f"{left // size}{unit}")
            left %= size
    return " ".join(parts[:2])


def size(count: int) -> str:
    """Bytes in a unit that people read, such as `1.5 MiB`."""
    if count < 1024:
        return f"{count} B"
    amount, units = count / 1024, list(_SIZES)
    # 1023.96 would be shown as 1024.
    while amount >= 1023.95 and len(units) > 1:
        amount /= 1024
        del units[0]
    return f"{amount:.1f} {units[0]}"


def distance(ms: object, now_ms: int) -> str:
    """How far a time is from now: `in 5m`, `3d ago`, `now`; empty for none."""
    if not isinstance(ms, int) or isinstance(ms, bool):
        return ""
    if abs(ms - now_ms) < 1_000:
        return "now"
    return f"in {duration(ms - now_ms)}" if ms > now_ms else f"{duration(now_ms - ms)} ago"


def route_state(route: Mapping[str, Any]) -> str:
    """The state of a route with its reason, and until when it lasts: `disabled (gone)`."""
    state, reason, until = (route.get(f"state{end}") for end in ("", "_reason", "_until_time"))
    told = f"{state or ''} ({reason})" if reason else str(state or "")
    return told if until is None else f"{told} until {time(until)}"


def value(name: str, content: Any) -> str:
    """A member of an answer; what it is, its name tells."""
    if content is None:
        return ""
    if isinstance(content, bool):
        return "yes" if content else "no"
    if name.endswith("_time"):
        return time(content)
    if isinstance(content, list) and not any(isinstance(each, dict | list) for each in content):
        shown = duration if name.endswith("_ms") else str
        return text(", ".join(shown(each) for each in content))
    if isinstance(content, dict | list):
        return text(json.dumps(content, ensure_ascii=False))
    if name.endswith("_ms"):
        return duration(content)
    return text(content)
