"""Which attempts are so old that what recipients answered to them is to be forgotten. Pure.

A *pass* goes through the attempts of each route, from the time up to which a vnode has forgotten
already (`ReplicaKeys.contents`, in the log) to the one up to which it is to. The rows stay, so what
a pass has done must be known to the next leader: its last step writes that down. A pass that finds
nothing is remembered in memory alone, for a vnode that rests must not be woken each minute.
"""

from collections.abc import Sequence
from typing import NamedTuple

from timemachine import limits
from timemachine.replica.records import (
    find_attempt,
    read_attempt,
    read_job,
    read_listed,
    without_content,
)
from timemachine.storage.api import Reading
from timemachine.storage.keys import ReplicaKeys, read_u64, u64

_ROWS = 100
_LOOKED_AT = 500


class Step(NamedTuple):
    """Attempts, (job id, serial), whose content is to go; with `until_ms` nothing older has any."""

    items: list[tuple[str, int]]
    until_ms: int


class _Pass:
    """The routes that are left, the row to go on with, the times between, whether it found any."""

    __slots__ = ("cursor", "found", "routes", "since_ms", "until_ms")

    def __init__(self, routes: Sequence[int], since_ms: int, until_ms: int) -> None:
        self.routes = list(routes)
        self.since_ms = since_ms
        self.until_ms = until_ms
        self.cursor = b""
        self.found = False


class Contents:
    """Of one replica. `busy` from a step that was told until `done`."""

    __slots__ = ("_checked_ms", "_keys", "_pass", "busy")

    def __init__(self, keys: ReplicaKeys) -> None:
        self._keys = keys
        self._pass: _Pass | None = None
        self._checked_ms = 0
        self.busy = False

    def look(
        self, store: Reading, routes: Sequence[int], now_ms: int, before_ms: int
    ) -> Step | None:
        """The next step, if there is anything to do. `routes` are those that have attempts."""
        assert not self.busy
        each = self._pass or self._begin(store, routes, now_ms, before_ms)
        if each is None:
            return None
        # What was found before a read that fails is told to nobody: then the pass is void.
        self._pass = None
        items = self._go_on(store, each)
        each.found = each.found or bool(items)
        over = not each.routes
        if not over:
            self._pass = each
        elif not each.found:
            self._checked_ms = each.until_ms
        if not items and not (over and each.found):
            return None
        self.busy = True
        return Step(items, each.until_ms if over else 0)

    def done(self, *, committed: bool) -> None:
        """The step is committed; or it is not, and the pass begins anew."""
        self.busy = False
        if not committed:
            self._pass = None

    def _begin(
        self, store: Reading, routes: Sequence[int], now_ms: int, before_ms: int
    ) -> _Pass | None:
        # What is settled now may get a time that is a little older.
        until_ms = min(before_ms, now_ms - limits.FORGET_MARGIN_MS)
        if until_ms - self._checked_ms < limits.CONTENT_PASS_MS:
            return None
        row = store.get(self._keys.contents)
        since_ms = self._checked_ms = max(self._checked_ms, 0 if row is None else read_u64(row))
        if until_ms - since_ms < limits.CONTENT_PASS_MS:
            return None
        return _Pass(routes, since_ms, until_ms)

    def _go_on(self, store: Reading, each: _Pass) -> list[tuple[str, int]]:
        items: list[tuple[str, int]] = []
        looked_at = 0
        while each.routes and looked_at < _LOOKED_AT:
            route = self._keys.route_attempts + u64(each.routes[-1])
            start = each.cursor or route + u64(each.since_ms)
            rows = store.scan(start, route + u64(each.until_ms), _ROWS)
            looked_at += 1
            for key, value in rows:
                each.cursor = key + b"\0"
                for job_id, serial in read_listed(value):
                    looked_at += 1
                    if self._has_content(store, job_id, serial):
                        items.append((job_id, serial))
                if looked_at >= _LOOKED_AT:
                    break
            else:
                if len(rows) < _ROWS:
                    each.routes.pop()
                    each.cursor = b""
        return items

    def _has_content(self, store: Reading, job_id: str, serial: int) -> bool:
        raw_id = job_id.encode()
        job = store.get(self._keys.job + raw_id)
        data = (
            None if job is None else find_attempt(store, self._keys, raw_id, read_job(job), serial)
        )
        if data is None:
            return False
        attempt = read_attempt(data)
        return without_content(attempt) is not attempt
