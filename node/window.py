"""What a vnode leader holds in memory of its next moments: due jobs, by route, in due order.

The due index on disk is the truth; this is a bounded view of its head. One route can fill its own
share of the window only: what does not fit stays in the index, and the vnode remembers from where
on (`lag`), so that other routes' jobs behind it are found in time.
"""

from heapq import heappop, heappush
from typing import Any

from timemachine import limits
from timemachine.model import JobRecord, Route
from timemachine.storage.keys import u64
from timemachine.vnode import Vnode

QUEUED, CLAIMING, CLAIMED, SENDING, GONE = range(5)


class Item:
    """One due job on its way through queue, claim and send.

    `attempts` counts the settled ones; the claim asks for the next. `waiting` tells that it came
    out of its route's waiting index.
    """

    __slots__ = (
        "attempts",
        "due_ms",
        "head",
        "handle",
        "job_id",
        "queue",
        "record",
        "stage",
        "uid",
        "version",
        "waiting",
        "started_ms",
        "url",
    )

    def __init__(
        self,
        head: "VnodeHead",
        due_ms: int,
        job_id: str,
        version: int,
        attempts: int,
        uid: bytes,
        *,
        waiting: bool,
    ) -> None:
        self.head = head
        self.due_ms = due_ms
        self.job_id = job_id
        self.version = version
        self.attempts = attempts
        self.uid = uid
        self.waiting = waiting
        self.stage = QUEUED
        self.queue: RouteQueue | None = None
        self.record: JobRecord | None = None
        self.handle: Any = None
        self.started_ms = 0
        self.url = ""


class RouteQueue:
    """The due jobs of one route: first attempts in due order, retries beside them.

    A retry is taken at most every fourth time while first attempts wait: it is late anyway, and a
    backlog of failures must not delay what never had a chance.
    """

    __slots__ = (
        "_first",
        "_picks",
        "_retries",
        "_sequence",
        "completed",
        "failed",
        "in_flight",
        "lagging",
        "lagging_since_ms",
        "last_failure",
        "last_failure_ms",
        "last_success_ms",
        "rate_count",
        "rate_from_ms",
        "route",
        "size",
        "succeeded",
        "waiting",
    )

    def __init__(self, route: Route) -> None:
        self.route = route
        self._first: list[tuple[int, int, Item]] = []
        self._retries: list[tuple[int, int, Item]] = []
        self._sequence = 0
        self._picks = 0
        self.size = 0
        self.in_flight = 0
        self.completed = 0
        self.lagging: dict[VnodeHead, None] = {}
        self.lagging_since_ms = 0.0
        self.waiting: dict[VnodeHead, bytes] = {}
        self.rate_from_ms = 0
        self.rate_count = 0
        self.succeeded = 0
        self.failed = 0
        self.last_success_ms: int | None = None
        self.last_failure_ms: int | None = None
        self.last_failure: str | None = None

    def push(self, item: Item) -> None:
        """Take in a due job."""
        item.queue = self
        self._sequence += 1
        heap = self._retries if item.attempts else self._first
        heappush(heap, (item.due_ms, self._sequence, item))
        self.size += 1

    def _clean(self, heap: list[tuple[int, int, Item]]) -> None:
        while heap and heap[0][2].stage != QUEUED:
            heappop(heap)

    def _next_heap(self) -> list[tuple[int, int, Item]] | None:
        first, retries = self._first, self._retries
        self._clean(first)
        self._clean(retries)
        if not first and not retries:
            return None
        if not first:
            return retries
        if not retries or self._picks % 4 != 3 or retries[0][0] > first[0][0]:
            return first
        return retries

    def next_due_ms(self) -> int | None:
        """When the next job is due, or None."""
        heads = []
        for heap in (self._first, self._retries):
            self._clean(heap)
            if heap:
                heads.append(heap[0][0])
        return min(heads, default=None)

    def pop(self, until_ms: int) -> Item | None:
        """The next job due at or before `until_ms`."""
        heap: list[tuple[int, int, Item]] | None = self._first
        if self._retries or not heap or heap[0][2].stage != QUEUED:
            heap = self._next_heap()
            if heap is None:
                return None
        if heap[0][0] > until_ms:
            other = self._retries if heap is self._first else self._first
            if not other or other[0][0] > until_ms:
                return None
            heap = other
        self._picks += 1
        self.size -= 1
        return heappop(heap)[2]

    def drop(self, item: Item) -> None:
        """Forget a queued job; its place in the heap is cleaned when it comes up."""
        if item.stage == QUEUED:
            item.stage = GONE
            self.size -= 1

    def take_all(self) -> list[Item]:
        """Empty the queue, in due order."""
        items = sorted(self._first + self._retries, key=lambda row: row[:2])
        self._first, self._retries = [], []
        self.size = 0
        return [item for _, _, item in items if item.stage == QUEUED]

    def slots(self, now_ms: int) -> int:
        """How many more attempts may be claimed now, by the limits on flight and rate."""
        free = self.route.max_in_flight - self.in_flight
        rate = self.route.rate
        if rate.count is not None and free > 0:
            if not 0 <= now_ms - self.rate_from_ms < rate.period_ms:
                self.rate_from_ms = now_ms
                self.rate_count = 0
            free = min(free, rate.count - self.rate_count)
        return free

    def rate_opens_ms(self) -> int | None:
        """When a rate that is used up gives again; None when it is not used up."""
        rate = self.route.rate
        if rate.count is None or self.rate_count < rate.count:
            return None
        return self.rate_from_ms + rate.period_ms


class VnodeHead:
    """The head of one vnode's due index.

    Every row below `cursor` is either in `known`, behind a `lag` mark of its route, on its way to
    a waiting index (`moving`), or gone. Rows from `cursor` on have not been looked at.
    `scanned_ms` is the due time of the cursor or later, for a quick look.
    """

    __slots__ = (
        "cursor",
        "known",
        "lag",
        "moving",
        "next_due_ms",
        "offset_asked",
        "scanned_ms",
        "seen_index",
        "settles",
        "vnode",
    )

    def __init__(self, vnode: Vnode, cursor: bytes, seen_index: int) -> None:
        self.vnode = vnode
        self.cursor = cursor
        self.seen_index = seen_index
        self.known: dict[str, Item] = {}
        self.lag: dict[int, bytes] = {}
        self.moving: dict[str, int] = {}
        self.next_due_ms = 0
        self.scanned_ms = 0
        self.settles: list[Any] = []
        self.offset_asked = False

    def low_mark(self) -> bytes:
        """The lowest row that is not settled, as far as this leader knows: `due_ms + job id`."""
        at = len(self.vnode.keys.due)
        low = self.cursor[at:]
        for item in self.known.values():
            if not item.waiting:
                low = min(low, u64(item.due_ms) + item.job_id.encode())
        for job_id, due_ms in self.moving.items():
            low = min(low, u64(due_ms) + job_id.encode())
        for key in self.lag.values():
            low = min(low, key[at:])
        return low


assert limits.ROUTE_WINDOW_JOBS_MAX <= limits.WINDOW_JOBS_MAX
