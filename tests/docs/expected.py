"""Is what was printed what the page shows? Pages leave out what differs from run to run.

In text `...` stands for anything within a line, and alone in a line for any lines. In JSON
`"..."` stands for any value, a time (milliseconds since the Unix epoch) for any time, and members
that are not shown may be there.
"""

import json
import re
from typing import Any, Final

_A_TIME_MS: Final = 1_000_000_000_000
"""Any number from here on is taken for a time; that is September 2001."""


def text_pattern(shown: str) -> re.Pattern[str]:
    """What matches whole lines that look as shown."""
    lines = []
    for line in shown.splitlines():
        if line.strip() == "...":
            lines.append(r"(?:[^\n]*\n)*?")
        else:
            lines.append(r"[^\n]*".join(map(re.escape, line.split("..."))) + r"\n")
    return re.compile("".join(lines))


def text_is(shown: str, printed: str) -> bool:
    """Whether all that was printed looks as shown. The last line may end without a line feed."""
    if printed and not printed.endswith("\n"):
        printed += "\n"
    return text_pattern(shown).fullmatch(printed) is not None


def text_after(shown: str, printed: str, start: int) -> int | None:
    """Where the first lines from `start` on that look as shown end, or None without such."""
    while start < len(printed):
        if (found := text_pattern(shown).match(printed, start)) is not None:
            return found.end()
        start = printed.find("\n", start) + 1
        if start == 0:
            break
    return None


def json_is(shown: str, printed: str) -> bool:
    """Whether the JSON that was printed looks as shown."""
    try:
        return value_is(json.loads(shown), json.loads(printed))
    except ValueError:
        return False


def value_is(shown: Any, actual: Any) -> bool:
    """Whether one decoded value looks as shown."""
    if shown == "...":
        return True
    if isinstance(shown, dict):
        return isinstance(actual, dict) and all(
            name in actual and value_is(value, actual[name]) for name, value in shown.items()
        )
    if isinstance(shown, list):
        return (
            isinstance(actual, list)
            and len(shown) == len(actual)
            and all(map(value_is, shown, actual))
        )
    if type(shown) is int and shown >= _A_TIME_MS:
        return type(actual) is int and actual >= _A_TIME_MS
    return type(shown) is type(actual) and bool(shown == actual)
