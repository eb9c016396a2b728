"""The due jobs of one route: in which order they go, and how many at a time."""

from collections.abc import Sequence
from heapq import heappop, heappush
from typing import TYPE_CHECKING, NamedTuple

from timemachine import limits
from timemachine.delivery.borrowing import Credit
from timemachine.delivery.breaker import CircuitBreaker
from timemachine.delivery.credits import Kind
from timemachine.delivery.forming import Batch, Forming
from timemachine.delivery.item import CLAIMING, GONE, QUEUED, Item
from timemachine.delivery.ratelimit import RateLimit
from timemachine.delivery.shares import SOLE_SHARE, Share
from timemachine.model import HeldUp, Route

if TYPE_CHECKING:
    from timemachine.delivery.vnodehead import VnodeHead

TURN_JOBS = 64
"""How many jobs a route may take before the next route has its turn."""

_BY_FLIGHT = int(HeldUp.IN_FLIGHT)
_BY_RATE = int(HeldUp.RATE)
_BY_RECIPIENT = int(HeldUp.RECIPIENT)
_BY_NODE = int(HeldUp.NODE)
_BY_BATCH = int(HeldUp.BATCH)


class Standing(NamedTuple):
    """How a queue stands with one limit of its route.

    owned      what it may have of its own share, without what is lent
    used       how many attempts it has that count
    need       how many it would have, with the jobs that are due
    counts_ms  how long an attempt counts that begins now
    """

    owned: int
    used: int
    need: int
    counts_ms: int


class RouteQueue:
    """The due jobs of one route: first attempts in due order, retries beside them.

    A retry is taken at most every fourth time while first attempts wait: it is late anyway, and a
    backlog of failures must not delay what never had a chance.

    size       jobs that are queued here
    in_flight  jobs that hold a slot: claimed or about to be, or being sent
    lagging    vnodes whose due index holds more, passed by while the queue was full; in the order
               of their coming, the first since `lagging_since_ms` on the monotonic clock
    waiting    vnodes whose waiting index holds more, and from which key on
    waits      whether nothing is to begin for a while, because the recipient asked for that
    breaker    that of the route, if it has one; after it changed, `heed_breaker` is called
    shut       whether nothing is to begin because that is open

    owned      what the node may have in flight of its own share of the route's limit, without what
               it has lent; credits of others come on top
    paced      whether the route has a rate, to which `rate` keeps
    forming    where the jobs are, if they are sent in batches; None otherwise

    failing_since_ms
               when the first attempt failed since which none has succeeded here; None if the last
               one did. It is of this version of the route, and by the wall clock

    The rest is what became of attempts since the node started.
    """

    __slots__ = (
        "_cap",
        "_credits",
        "_first",
        "_held_up",
        "_in_flight_max",
        "_lent",
        "_picks",
        "_retries",
        "_sequence",
        "_share",
        "breaker",
        "failed",
        "failing_since_ms",
        "forming",
        "in_flight",
        "lagging",
        "lagging_since_ms",
        "last_failure",
        "last_failure_ms",
        "last_success_ms",
        "owned",
        "paced",
        "rate",
        "route",
        "shut",
        "size",
        "succeeded",
        "waiting",
        "waits",
    )

    def __init__(self, route: Route, share: Share = SOLE_SHARE) -> None:
        self._lent = 0
        self._credits: tuple[Credit, ...] = ()
        self._cap: int | None = None
        self._share = 1
        self.rate = RateLimit()
        self.breaker: CircuitBreaker | None = None
        self.shut = False
        self.route = route
        self.forming: Forming | None = None
        self._first: list[tuple[int, int, Item]] = []
        self._retries: list[tuple[int, int, Item]] = []
        self.size = 0
        self._new_breaker()
        self.set_limits(route, share)
        self._sequence = 0
        self._picks = 0
        # What jobs that are due are held up by since the last turn, `HeldUp`.
        self._held_up = 0
        self.in_flight = 0
        self.lagging: dict[VnodeHead, None] = {}
        self.lagging_since_ms = 0.0
        self.waiting: dict[VnodeHead, bytes] = {}
        self.waits = False
        self.succeeded = 0
        self.failed = 0
        self.last_success_ms: int | None = None
        self.last_failure_ms: int | None = None
        self.last_failure: str | None = None
        self.failing_since_ms: int | None = None

    def set_limits(self, route: Route, share: Share) -> None:
        """The route is this one now, and of its limits the node owns that share.

        A new version has a new breaker: its owner has changed something.
        """
        before, self.route = self.route, route
        if route.version != before.version:
            self.failing_since_ms = None
            self._new_breaker()
        self._share = share.of(route.max_in_flight)
        self._set_in_flight_max()
        self.paced = route.rate.count is not None
        self.rate.set_limit(route.rate, share)
        if self.forming is not None or route.batched:
            self._set_batching(route)

    def _set_batching(self, route: Route) -> None:
        if self.forming is not None and route.batched:
            self.forming.set_batching(route.batch)
            return
        items = self.take_all()
        self.forming = Forming(route.batch) if route.batched else None
        for item in items:
            item.stage = QUEUED
            if self.forming is None:
                item.bound = b""
            self.push(item)

    def set_lent(self, kind: Kind, lent: int) -> None:
        """So much of the share is lent to other nodes. 1 is never lent."""
        if kind == Kind.RATE:
            self.rate.set_lent(lent)
        elif lent != self._lent:
            self._lent = lent
            self._set_in_flight_max()

    def set_credits(self, kind: Kind, credits: tuple[Credit, ...]) -> None:
        """What other nodes lend of their shares, without what has run out."""
        if kind == Kind.RATE:
            self.rate.set_credits(credits)
        elif credits != self._credits:
            self._credits = credits
            self._set_in_flight_max()

    def _new_breaker(self) -> None:
        settings = self.route.breaker
        self.breaker = None if settings is None else CircuitBreaker(settings)
        self.heed_breaker()

    def heed_breaker(self) -> None:
        """Let through what the breaker lets through now."""
        self._cap = None if self.breaker is None else self.breaker.room
        self.shut = self._cap == 0
        self._set_in_flight_max()

    def _set_in_flight_max(self) -> None:
        self.owned = max(1, self._share - self._lent)
        self._in_flight_max = self.owned + sum([credit.slots for credit in self._credits])
        if self._cap is not None:
            self._in_flight_max = min(self._in_flight_max, self._cap)

    @property
    def held_up(self) -> bool:
        """Whether nothing is to begin for a while, whatever there is to do."""
        return self.waits or self.shut

    # --- what is queued --------------------------------------------------------------------

    def push(self, item: Item) -> None:
        """Take in a due job."""
        self.size += 1
        if self.forming is not None:
            self.forming.push(item)
            return
        self._sequence += 1
        heap = self._retries if item.attempts else self._first
        heappush(heap, (item.due_ms, self._sequence, item))

    def drop(self, item: Item) -> None:
        """Forget a job if it is queued; its place in the heap is cleaned when it comes up."""
        if item.stage == QUEUED:
            item.stage = GONE
            self.size -= 1
            if self.forming is not None:
                self.forming.drop(item)

    def dissolve(self, head: "VnodeHead", batch: bytes) -> None:
        """A batch that was sent before is not sent again: its jobs go like others."""
        if self.forming is not None:
            self.forming.dissolve(head, batch)

    def take_all(self) -> list[Item]:
        """Empty the queue, in due order."""
        if self.forming is not None:
            items = self.forming.take_all()
        else:
            rows = sorted(self._first + self._retries, key=lambda row: row[:2])
            self._first, self._retries = [], []
            items = [item for _, _, item in rows if item.stage == QUEUED]
        self.size = 0
        for item in items:
            item.stage = GONE
        return items

    # --- whose turn it is ------------------------------------------------------------------

    def grant(self, now_ms: int, mono_ms: float, room: int) -> list[Item]:
        """Give slots to jobs that are due, or so soon that their claims may be asked for.

        At most `room` jobs, and one turn; they hold their slots until these are given back. Their
        attempts have begun, as far as the rate is concerned.
        """
        free = self._free_slots(now_ms, mono_ms)
        share = min(free, room, TURN_JOBS)
        if share <= 0 or self.waits:
            self._hold(free, room)
            return []
        trial = 0 if self.breaker is None else self.breaker.trial
        lead_ms = self._lead_ms()
        until_ms = now_ms + lead_ms
        due_ms = self._next_due_ms()
        if due_ms is None or due_ms > until_ms - lead_ms // 2:
            self._held_up = 0
            return []  # claims of the same moments are made together
        items: list[Item] = []
        held_up = self._held_up
        while len(items) < share:
            item = self._pop(until_ms)
            if item is None:
                break
            item.stage = CLAIMING
            item.trial = trial
            if held_up and item.due_ms < now_ms:
                item.held_up = held_up
            items.append(item)
        self._granted(items, share, free, room, now_ms, mono_ms)
        return items

    def _hold(self, free: int, room: int) -> None:
        """What is due is held up until the next turn; remember what by."""
        if self.waits:
            self._held_up = _BY_RECIPIENT
        elif room < free:
            self._held_up = _BY_NODE
        elif self.in_flight >= self._in_flight_max:
            self._held_up = _BY_FLIGHT
        else:
            self._held_up = _BY_RATE

    def grant_batches(self, now_ms: int, mono_ms: float, room: int) -> list[Batch]:
        """What `grant` does for a route that sends batches: each of them has one slot."""
        forming = self.forming
        assert forming is not None
        free = self._free_slots(now_ms, mono_ms)
        share = min(free, room, TURN_JOBS)
        if share <= 0 or self.waits:
            self._hold(free, room)
            return []
        trial = 0 if self.breaker is None else self.breaker.trial
        lead_ms = self._lead_ms()
        due_ms = forming.next_ms()
        if due_ms is None or due_ms > now_ms + lead_ms - lead_ms // 2:
            self._held_up = 0
            return []
        batches: list[Batch] = []
        held_up = self._held_up
        while len(batches) < share:
            batch = forming.pop(now_ms, now_ms + lead_ms)
            if batch is None:
                break
            ready_ms = batch.ready_ms
            for item in batch.items:
                item.trial = trial
                if held_up and ready_ms < now_ms:
                    item.held_up = held_up
                elif item.due_ms < ready_ms:
                    item.held_up = _BY_BATCH
            batches.append(batch)
            self.size -= len(batch.items)
        self._granted(batches, share, free, room, now_ms, mono_ms)
        return batches

    def _granted(
        self,
        granted: Sequence[Item] | Sequence[Batch],
        share: int,
        free: int,
        room: int,
        now_ms: int,
        mono_ms: float,
    ) -> None:
        """Requests were given slots, `share` at most: how it stands with the limits by them."""
        self.in_flight += len(granted)
        if len(granted) < share or not self.size:
            self._held_up = 0
        elif share < TURN_JOBS:
            self._hold(free, room)
        if self.paced and granted:
            # They are sent when they are due, if nothing holds up their claims.
            ahead_ms = max(0, max([each.due_ms for each in granted]) - now_ms)
            self.rate.begin(len(granted), now_ms, mono_ms, ahead_ms)

    @property
    def is_full(self) -> bool:
        """Whether jobs wait because no more may be in flight, and more could be with credits."""
        return self._cap is None and self.size > 0 and self.in_flight >= self._in_flight_max

    def standing(self, kind: Kind, now_ms: int, mono_ms: float) -> Standing:
        """How it stands with a limit."""
        if kind == Kind.FLIGHT:
            need = self.need(now_ms, mono_ms)
            return Standing(self.owned, self.in_flight, need, self.route.timeout_ms)
        rate = self.rate
        used = need = rate.used(mono_ms)
        if rate.count is None:
            return Standing(rate.owned, 0, 0, rate.period_ms)
        if used < rate.count and self.in_flight < self._in_flight_max and self._has_due(now_ms):
            need = min(used + self._requests(), rate.count)
        return Standing(rate.owned, used, need, rate.period_ms)

    def need(self, now_ms: int, mono_ms: float) -> int:
        """How many attempts it would have in flight, with the jobs that are due."""
        most = self.route.max_in_flight
        if self._cap is not None:
            most = min(most, self._cap)
        if self.in_flight >= most or not self._has_due(now_ms):
            return self.in_flight
        if self.paced and self.rate.opens_in_ms(now_ms, mono_ms) > 0:
            return self.in_flight
        return min(self.in_flight + self._requests(), most)

    def _requests(self) -> int:
        """How many requests the jobs that are queued make."""
        return self.size if self.forming is None else -(-self.size // self.route.batch.max_jobs)

    def _has_due(self, now_ms: int) -> bool:
        """Whether there are jobs that only limits hold up."""
        if not self.size or not self.route.open or self.held_up:
            return False
        due_ms = self._next_due_ms()
        return due_ms is not None and due_ms <= now_ms + self._lead_ms()

    def timeout_ms(self, mono_ms: float) -> int:
        """How long the last of those that hold a slot may take, if it begins now.

        0 if it must not begin: what was lent has run out, or what is owned has become less.
        """
        timeout_ms = self.route.timeout_ms
        if self.in_flight <= self.owned:
            return timeout_ms
        lent = [credit for credit in self._credits if mono_ms < credit.until_ms]
        if self.in_flight > self.owned + sum([credit.slots for credit in lent]):
            return 0
        return min(timeout_ms, *[credit.counts_ms for credit in lent])

    def opens_in_ms(self, now_ms: int, mono_ms: float) -> float | None:
        """When it can be served next, from now on; None while that is not a matter of its jobs."""
        if self.in_flight >= self._in_flight_max or self.waits:
            return None
        if self.paced:
            opens_in_ms = self.rate.opens_in_ms(now_ms, mono_ms)
            if opens_in_ms > 0:
                return opens_in_ms
        due_ms = self._next_due_ms()
        return None if due_ms is None else due_ms - self._lead_ms() // 2 - now_ms

    def _lead_ms(self) -> int:
        """How long before a job is due its claim may be asked for."""
        return limits.CLAIM_LEAD_MS if self.route.delivery == "at_least_once" else 0

    def _free_slots(self, now_ms: int, mono_ms: float) -> int:
        """How many more attempts may be claimed now, by the limits on flight and rate."""
        free = self._in_flight_max - self.in_flight
        if self.paced and free > 0:
            return min(free, self.rate.free(now_ms, mono_ms))
        return free

    def _next_due_ms(self) -> int | None:
        if self.forming is not None:
            return self.forming.next_ms()
        heads = []
        for heap in (self._first, self._retries):
            self._clean(heap)
            if heap:
                heads.append(heap[0][0])
        return min(heads, default=None)

    def _pop(self, until_ms: int) -> Item | None:
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

    @staticmethod
    def _clean(heap: list[tuple[int, int, Item]]) -> None:
        while heap and heap[0][2].stage != QUEUED:
            heappop(heap)
