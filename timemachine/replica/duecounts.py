"""How many jobs of one vnode are due in which minute: counted, never scanned.

A forecast over a million jobs must not read a million rows, and a counter on the disk for each
minute would be one more row to write for each job. So the counts are kept in memory, in step with
the due index, and are counted anew from its rows after a start (`cover`), in the background.

By day, in one of two forms. A day with few jobs is the plain list of their minutes, two bytes a
job. From `_DENSE_FROM` on it is one number for each minute, then one for each hour, and last their
sum; it stays so until the day is empty. So a job costs 50 bytes at most where days are dense, and
where they hold a single job each, some 200.
"""

from array import array
from collections.abc import Iterable, Sequence

_DAY_MS = 86_400_000
_MINUTE_MS = 60_000
_MINUTES = 1440
_HOURS = 24
_DAY = _MINUTES + _HOURS
_DENSE_FROM = 64
_SHORT_MAX = 65_535
_EVERYTHING = (1 << 64, b"")


class DueCounts:
    """Counts of due jobs by minute.

    They hold for rows of the due index below `covered`, a (due_ms, raw job id); `complete` when
    that is all of them.
    """

    __slots__ = ("_days", "covered")

    def __init__(self, *, complete: bool) -> None:
        self._days: dict[int, array[int]] = {}
        self.covered = _EVERYTHING if complete else (0, b"")

    @property
    def complete(self) -> bool:
        """Whether every row is counted."""
        return self.covered is _EVERYTHING

    def cover(self, rows: Iterable[tuple[int, bytes]], until: tuple[int, bytes] | None) -> None:
        """Count the rows that stand between `covered` and `until`; None is the end."""
        for due_ms, _ in rows:
            self._add(due_ms)
        self.covered = _EVERYTHING if until is None else until

    def add(self, due_ms: int, raw_id: bytes) -> None:
        """A row was written that was not there."""
        if self.covered is _EVERYTHING or (due_ms, raw_id) < self.covered:
            self._add(due_ms)

    def remove(self, due_ms: int, raw_id: bytes) -> None:
        """A row was deleted."""
        if self.covered is _EVERYTHING or (due_ms, raw_id) < self.covered:
            day, rest_ms = divmod(due_ms, _DAY_MS)
            counts = self._days[day]
            minute = rest_ms // _MINUTE_MS
            if len(counts) < _DENSE_FROM:
                counts.remove(minute)
                if not counts:
                    del self._days[day]
            else:
                counts[minute] -= 1
                counts[_MINUTES + minute // 60] -= 1
                counts[_DAY] -= 1
                if not counts[_DAY]:
                    del self._days[day]

    def _add(self, due_ms: int) -> None:
        day, rest_ms = divmod(due_ms, _DAY_MS)
        minute = rest_ms // _MINUTE_MS
        counts = self._days.get(day)
        if counts is None:
            self._days[day] = array("H", (minute,))
        elif len(counts) >= _DENSE_FROM:
            if counts[_DAY] == _SHORT_MAX and counts.typecode == "H":
                counts = self._days[day] = array("I", counts)
            counts[minute] += 1
            counts[_MINUTES + minute // 60] += 1
            counts[_DAY] += 1
        else:
            counts.append(minute)
            if len(counts) == _DENSE_FROM:
                dense = array("H", bytes(2 * (_DAY + 1)))
                for each in counts:
                    dense[each] += 1
                    dense[_MINUTES + each // 60] += 1
                dense[_DAY] = _DENSE_FROM
                self._days[day] = dense

    def count(self, from_minute: int, to_minute: int) -> int:
        """Jobs due from the one minute on, before the other; minutes since the Unix epoch."""
        if from_minute >= to_minute:
            return 0
        days = self._days
        first, start = divmod(from_minute, _MINUTES)
        last, stop = divmod(to_minute, _MINUTES)
        if first == last:
            return _within(days.get(first), start, stop)
        total = _within(days.get(first), start, _MINUTES) + _within(days.get(last), 0, stop)
        if last - first > len(days):
            whole = [counts for day, counts in days.items() if first < day < last]
        else:
            whole = [days[day] for day in range(first + 1, last) if day in days]
        return total + sum([_all(counts) for counts in whole])

    def count_each(self, edges: Sequence[int]) -> list[int]:
        """Jobs due between each of these minutes and the next one; `edges` ascend."""
        days, found = self._days, []
        low = edges[0]
        day, start = divmod(low, _MINUTES)
        for high in edges[1:]:
            next_day, stop = divmod(high, _MINUTES)
            if day == next_day:
                counts = days.get(day)
                if counts is None:
                    found.append(0)
                elif high == low + 1 and len(counts) >= _DENSE_FROM:
                    found.append(counts[start])
                else:
                    found.append(_within(counts, start, stop))
            else:
                found.append(self.count(low, high))
            low, day, start = high, next_day, stop
        return found


def _all(counts: "array[int]") -> int:
    return len(counts) if len(counts) < _DENSE_FROM else counts[_DAY]


def _within(counts: "array[int] | None", start: int, stop: int) -> int:
    """The jobs of a day from one minute on, before another."""
    if counts is None:
        return 0
    if len(counts) < _DENSE_FROM:
        return sum([1 for minute in counts if start <= minute < stop])
    if stop - start == 60 and start % 60 == 0:
        return counts[_MINUTES + start // 60]
    first, last = -(-start // 60), stop // 60
    if last - first <= 1:
        return sum(counts[start:stop])
    return (
        sum(counts[start : 60 * first])
        + sum(counts[_MINUTES + first : _MINUTES + last])
        + sum(counts[60 * last : stop])
    )
