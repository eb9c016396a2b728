"""Reads the due index of each vnode when its next moment comes, a little ahead of it."""

from heapq import heappop, heappush

from node.delivery.admitting import Admission
from timemachine import limits
from timemachine.delivery.vnodehead import VnodeHead
from timemachine.delivery.window import Window
from timemachine.replica.records import NEVER_MS
from timemachine.storage.api import Store
from timemachine.storage.keys import u64

_HALF_AHEAD_MS = limits.SCAN_AHEAD_MS // 2


class Scanner:
    """Remembers when which vnode is to be looked at, and takes its due rows into the window."""

    def __init__(self, window: Window, admission: Admission, store: Store) -> None:
        self._window = window
        self._admit = admission.admit
        self._store = store
        self._moments: list[tuple[int, int, VnodeHead]] = []
        self._sequence = 0

    def look_at(self, head: VnodeHead, due_ms: int) -> None:
        """The next row of a vnode is due then, as far as is known."""
        head.next_due_ms = due_ms
        self._sequence += 1
        heappush(self._moments, (due_ms, self._sequence, head))

    def next_ms(self) -> int | None:
        """When `scan` has something to do, by the wall clock."""
        return self._moments[0][0] - _HALF_AHEAD_MS if self._moments else None

    def scan(self, now_ms: int) -> None:
        """Read the due index of every vnode whose next moment has come."""
        horizon_ms = now_ms + limits.SCAN_AHEAD_MS
        soon_ms = now_ms + _HALF_AHEAD_MS
        budget = limits.SCAN_ROWS_MAX
        moments = self._moments
        # Not each vnode at each tick: what a scan costs is mostly its beginning.
        while moments and moments[0][0] <= soon_ms and budget > 0:
            due_ms, _, head = heappop(moments)
            if due_ms != head.next_due_ms or not head.fires:
                continue
            if self._window.queued() >= limits.WINDOW_JOBS_MAX:
                self.look_at(head, now_ms)
                return
            budget -= self._scan_head(head, horizon_ms, budget)

    def _scan_head(self, head: VnodeHead, horizon_ms: int, budget: int) -> int:
        """Take the rows up to the horizon, `budget` at most; returns what it cost."""
        keys = head.vnode.keys
        stop = keys.due + u64(horizon_ms)
        rows = self._store.scan(head.cursor, stop, budget) if head.cursor < stop else []
        behind = {u64(uid) for uid in head.lag}
        for key, value in rows:
            if value[:8] in behind:
                continue  # its route lags already, from an earlier row on
            self._admit(head, key, value)
            if len(head.lag) != len(behind):
                behind = {u64(uid) for uid in head.lag}
        if len(rows) == budget:
            head.cursor = rows[-1][0] + b"\0"
            head.scanned_ms = max(head.scanned_ms, horizon_ms)
            self.look_at(head, horizon_ms - limits.SCAN_AHEAD_MS)
            self._window.wake()
            return budget
        if head.cursor < stop:
            head.cursor, head.scanned_ms = stop, horizon_ms
        following = self._store.scan(head.cursor, keys.due_stop, 1)
        if following:
            at = len(keys.due)
            self.look_at(head, int.from_bytes(following[0][0][at : at + 8], "big"))
        else:
            head.next_due_ms = NEVER_MS
        return len(rows) + 1
