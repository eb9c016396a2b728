"""What is old enough to be forgotten, looked for only where any of it may be left.

The oldest is forgotten first. So deleted keys pile up at the front of the tables that are in order
of time, and LevelDB walks over them: a look that begins there costs more the more was forgotten,
every time. Therefore it is remembered, per replica and in memory, up to which time everything is
gone: its *mark*. A look begins at the mark, and moves it.

* The mark goes no further than was looked, and only when what was found is committed. Where a look
  found as many rows as it takes, that is the time of the last of them.
* Nor does it come nearer than a margin to the times that are being written: what a leader commits
  has been on its way for a while, and its clock may be behind that of the one that purges.
* It goes back with the time up to which is looked, when the retention or the clock say so.
* What is written with an older time than that is found by a *full sweep*: once in a while the mark
  is dropped, and a look begins at the very front.

Attempts are listed by route, and each route has a front of its own. To find the routes by their
rows is to walk over all of these, so that is left to the full sweep as well: it remembers which
there are. A route that gets its first row after that has none that is older. So the next full sweep
is due at the latest when rows of the time of this one are to be forgotten. A route that has no rows
any more is not asked again: LevelDB would look for its first one at the front of the next route.
"""

from array import array
from typing import NamedTuple

from timemachine import limits
from timemachine.replica.records import read_listed
from timemachine.storage.api import Reading
from timemachine.storage.keys import ReplicaKeys, after_prefix, read_u64, u64

_JOBS = 500
_ROWS = 500
_ROUTES_LOOKED_AT = 8
_REQUESTS = 1_000
_NEVER_MS = float("-inf")
_SPREAD = 0x9E3779B1
"""2^32 divided by the golden ratio: multiples of it lie far from each other (Knuth, 6.4)."""


class Mark:
    """Up to which time, `at_ms`, the rows of one table are gone, as far as is known."""

    __slots__ = ("_dropped_ms", "_every_ms", "at_ms")

    def __init__(self, keys: ReplicaKeys) -> None:
        self.at_ms = 0
        self._dropped_ms = _NEVER_MS
        # Not all replicas of a node at the same time: each has a share of the second half.
        share = keys.incarnation * _SPREAD % (1 << 32) / (1 << 32)
        self._every_ms = limits.FORGET_SWEEP_MS * (1 + share) / 2

    def is_full_due(self, mono_ms: float) -> bool:
        """Whether it is time for a full sweep."""
        return mono_ms - self._dropped_ms >= self._every_ms

    def drop(self, mono_ms: float) -> None:
        """Begin a full sweep."""
        self.at_ms = 0
        self._dropped_ms = mono_ms

    def move(self, reached_ms: int, written_ms: int) -> None:
        """All rows up to `reached_ms` are gone; new ones get times about `written_ms` or later."""
        self.at_ms = max(0, min(reached_ms, written_ms - limits.FORGET_MARGIN_MS))


class Found(NamedTuple):
    """What a look found: ended jobs, and rows of attempts without their table's prefix."""

    job_ids: list[str]
    attempt_rows: list[bytes]


class Ended:
    """What has ended in one replica: its jobs, and their attempts.

    `busy` from a look that found something until `done`, and meanwhile there is no other one.
    """

    __slots__ = ("_attempts", "_began_ms", "_finished", "_mark", "_reached_ms", "busy")

    def __init__(self, keys: ReplicaKeys) -> None:
        self._finished = keys.finished
        self._mark = Mark(keys)
        self._began_ms = self._reached_ms = 0
        self._attempts = _Attempts(keys)
        self.busy = False

    @property
    def routes(self) -> list[int] | None:
        """The routes that have attempts, as far as is known; None before that was looked for."""
        return self._attempts.routes

    def look(self, store: Reading, now_ms: int, before_ms: int, mono_ms: float) -> Found:
        """Some of what ended before a time. `done` is to say whether it was purged."""
        assert not self.busy
        mark, table = self._mark, self._finished
        if mark.is_full_due(mono_ms):
            mark.drop(mono_ms)
        self._began_ms = now_ms
        rows = store.scan(table + u64(mark.at_ms), table + u64(before_ms), _JOBS)
        at = len(table) + 8
        self._reached_ms = before_ms if len(rows) < _JOBS else read_u64(rows[-1][0][at - 8 : at])
        attempts, jobs = self._attempts.look(store, now_ms, before_ms, mono_ms)
        # What its attempt delivered is listed with this, or with one before or after.
        found = Found([key[at:].decode() for key, _ in rows] + jobs, attempts)
        if found.job_ids or found.attempt_rows:
            self.busy = True
        else:
            self.done(committed=True)
        return found

    def done(self, *, committed: bool) -> None:
        """What was found is purged, or will be found again."""
        self.busy = False
        if committed:
            self._mark.move(self._reached_ms, self._began_ms)
        self._attempts.done(committed=committed)


class _Pass:
    """One pass over the routes: `found` collects them in a full sweep, and is None otherwise.

    The next route is that at `place`, or the first from `cursor` on. `reached_ms` is up to when
    all rows were found so far.
    """

    __slots__ = ("began_ms", "cursor", "found", "over", "place", "reached_ms", "start_ms")

    def __init__(self, began_ms: int, start_ms: int, before_ms: int, cursor: bytes) -> None:
        self.began_ms = began_ms
        self.start_ms = start_ms
        self.reached_ms = before_ms
        self.cursor = cursor
        self.place = 0
        self.found: array[int] | None = None
        self.over = False


class _Attempts:
    """Attempts by route. A look goes on with the routes behind those of the look before."""

    __slots__ = ("_known_ms", "_mark", "_pass", "_routes", "_table")

    def __init__(self, keys: ReplicaKeys) -> None:
        self._table = keys.route_attempts
        self._mark = Mark(keys)
        self._pass: _Pass | None = None
        # All routes with rows that were written before a time.
        self._routes: array[int] | None = None
        self._known_ms = 0

    @property
    def routes(self) -> list[int] | None:
        """See Ended."""
        return None if self._routes is None else list(self._routes)

    def look(
        self, store: Reading, now_ms: int, before_ms: int, mono_ms: float
    ) -> tuple[list[bytes], list[str]]:
        """Rows of attempts, and the jobs they were made for."""
        resumed = self._pass
        rows, jobs = self._go_on(store, now_ms, before_ms, mono_ms)
        if resumed is not None and resumed.over and not rows:
            # Nothing was behind that route: look from the first one on, and not a round later.
            self.done(committed=True)
            rows, jobs = self._go_on(store, now_ms, before_ms, mono_ms)
        return rows, jobs

    def done(self, *, committed: bool) -> None:
        """See Ended. A pass of which something was not committed is void."""
        each = self._pass
        if each is None or not committed:
            self._pass = None
        elif each.over:
            self._pass = None
            self._mark.move(each.reached_ms, each.began_ms)
            if each.found is not None:
                self._known_ms = each.began_ms
                self._routes = each.found if len(each.found) <= limits.ROUTES_MAX else None

    def _go_on(
        self, store: Reading, now_ms: int, before_ms: int, mono_ms: float
    ) -> tuple[list[bytes], list[str]]:
        each = self._pass or self._begin(now_ms, before_ms, mono_ms)
        # What was found before a read that fails is told to nobody: then the pass is void.
        self._pass = None
        each.reached_ms = min(each.reached_ms, before_ms)
        rows: list[bytes] = []
        jobs: dict[str, None] = {}
        at = len(self._table)
        before = u64(before_ms)
        for _ in range(_ROUTES_LOOKED_AT):
            first = self._first(store, each, before_ms)
            if first is not None and first[at + 8 : at + 16] < before:
                some = store.scan(first, first[: at + 8] + before, _ROWS)
                taken = 0
                for key, value in some:
                    taken += 1
                    rows.append(key[at:])
                    jobs |= dict.fromkeys([job_id for job_id, _ in read_listed(value)])
                    if len(jobs) >= _JOBS:
                        break
                if taken == _ROWS or len(jobs) >= _JOBS:
                    each.reached_ms = min(each.reached_ms, read_u64(rows[-1][8:16]))
            if each.over or len(jobs) >= _JOBS:
                break
        self._pass = each
        return rows, list(jobs)

    def _begin(self, now_ms: int, before_ms: int, mono_ms: float) -> _Pass:
        mark = self._mark
        outdated = before_ms > self._known_ms - limits.FORGET_MARGIN_MS
        if self._routes is None or outdated or mark.is_full_due(mono_ms):
            mark.drop(mono_ms)
            self._routes = None
        each = _Pass(now_ms, mark.at_ms, before_ms, self._table)
        if self._routes is None:
            each.found = array("Q")
        return each

    def _first(self, store: Reading, each: _Pass, before_ms: int) -> bytes | None:
        """Take the next route: the first of its rows that may be left; None where none is."""
        table = self._table
        if each.found is not None:
            rows = store.scan(each.cursor, after_prefix(table), 1)
            if not rows:
                each.over = True
                return None
            route = rows[0][0][: len(table) + 8]
            each.cursor = after_prefix(route)
            if len(each.found) <= limits.ROUTES_MAX:
                each.found.append(read_u64(route[len(table) :]))
            return rows[0][0]
        routes = self._routes
        assert routes is not None, "a pass that does not find the routes knows them"
        rows = []
        if each.place < len(routes):
            route = table + u64(routes[each.place])
            start_ms = min(each.start_ms, before_ms)
            rows = store.scan(route + u64(start_ms), after_prefix(route), 1)
            if rows:
                each.place += 1
            else:
                del routes[each.place]
        each.over = each.place == len(routes)
        return rows[0][0] if rows else None


class Requests:
    """Stored answers of one replica; `busy` as with Ended.

    Beyond the bound in number the oldest go before their time: then a look goes on behind the one
    that went last.
    """

    __slots__ = ("_began_ms", "_behind", "_last", "_mark", "_reached_ms", "_table", "busy")

    def __init__(self, keys: ReplicaKeys) -> None:
        self._table = keys.request_age
        self._mark = Mark(keys)
        self._began_ms = self._reached_ms = 0
        self._behind = self._last = b""
        self.busy = False

    def look(
        self, store: Reading, count: int, now_ms: int, mono_ms: float
    ) -> list[tuple[int, bytes]]:
        """Some of those that are to be forgotten, of `count` there are: when each expires, its key.

        The oldest first. `done` is to say whether they were forgotten.
        """
        assert not self.busy
        if not count:
            return []
        mark, table = self._mark, self._table
        if mark.is_full_due(mono_ms):
            mark.drop(mono_ms)
            self._behind = b""
        at = len(table)
        now = table + u64(now_ms)
        self._began_ms = now_ms
        rows = store.scan(table + u64(mark.at_ms), now, _REQUESTS)
        full = len(rows) == _REQUESTS
        self._reached_ms = read_u64(rows[-1][0][at : at + 8]) if full else now_ms
        self._last = self._behind
        if count > limits.REQUESTS_PER_VNODE_MAX and not full:
            start = max(now, self._behind)
            early = store.scan(start, after_prefix(table), _REQUESTS - len(rows))
            # At the end it begins anew with what has come in between.
            self._last = early[-1][0] if early else b""
            rows += early
        if rows:
            self.busy = True
        else:
            self.done(committed=True)
        return [(read_u64(key[at : at + 8]), key[at + 8 :]) for key, _ in rows]

    def done(self, *, committed: bool) -> None:
        """What was found is forgotten, or will be found again."""
        self.busy = False
        if committed:
            self._mark.move(self._reached_ms, self._began_ms + limits.REQUESTS_MADE_KEPT_MS)
            self._behind = self._last
