"""Batches of a route: which of its due jobs go together in one request, and when.

A batch has jobs of one vnode, for it is claimed by one command, and all of them have been tried
equally often. It goes as soon as it is full, or when its first job has waited for long enough.

A job with an ordering key goes alone, as a batch of one: nobody behind it is to wait for others.

What was sent in a batch is sent again in the same one: such jobs are bound, and wait until all of
them are here. Which they are stands in the batch's row; see `replica.records.BatchRow`.
"""

from bisect import insort
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from timemachine.delivery.item import CLAIMING, QUEUED, Item
from timemachine.model import Batching
from timemachine.replica.records import BatchRow

if TYPE_CHECKING:
    from timemachine.delivery.vnodehead import VnodeHead


class Batch:
    """One request for several jobs, from its grant to its end.

    id        drawn with its first claim
    row       how it was frozen; None before its first claim
    items     after the claim those whose claims hold: just these are sent, or nothing is
    open      how many of its jobs hold its slot: it is given back with the last one
    ready_ms  from when on it could have gone
    """

    __slots__ = ("id", "items", "open", "ready_ms", "row")

    def __init__(self, items: list[Item], row: BatchRow | None, batch: bytes) -> None:
        self.id = batch
        self.items = items
        self.row = row
        self.open = len(items)
        self.ready_ms = 0
        for item in items:
            item.stage = CLAIMING
            item.batch = self

    @property
    def due_ms(self) -> int:
        """When the last of its jobs is due: none is ever sent early."""
        return max([item.due_ms for item in self.items])


_Key = tuple["VnodeHead", int, str]
"""Of loose jobs: their vnode, their attempts, and the id of one that goes alone."""


def _key(item: Item) -> _Key:
    return item.head, item.attempts, item.job_id if item.alone else ""


class _Loose:
    """Jobs of one vnode that were tried equally often, and are bound to no batch; in due order.

    Or a job that goes alone.
    """

    __slots__ = ("gone", "items", "key", "posted_ms", "retries")

    def __init__(self, key: _Key) -> None:
        self.key = key
        self.items: list[tuple[int, int, Item]] = []
        self.gone = False
        self.posted_ms: int | None = None
        self.retries = key[1] > 0

    def queued(self) -> list[Item]:
        """Its jobs that are still to be sent."""
        self._clean()
        return [item for _, _, item in self.items]

    def ready_ms(self, batching: Batching) -> int | None:
        """When a batch of it may go; None if there are no jobs."""
        self._clean()
        items = self.items
        if not items:
            return None
        if self.key[2]:
            return items[0][0]
        ready_ms = items[0][0] + batching.max_wait_ms
        if len(items) < batching.max_jobs:
            return ready_ms
        return min(ready_ms, items[batching.max_jobs - 1][0])

    def take(self, batching: Batching, now_ms: int, until_ms: int) -> Batch:
        """The next batch. It has no job that is due so late that the first would wait for it."""
        self._clean()
        last_ms = min(until_ms, max(now_ms, self.items[0][0] + batching.max_wait_ms))
        taken = [item for due_ms, _, item in self.items[: batching.max_jobs] if due_ms <= last_ms]
        del self.items[: len(taken)]
        return Batch(taken, None, b"")

    def _clean(self) -> None:
        if self.gone:
            self.gone = False
            self.items = [each for each in self.items if each[2].stage == QUEUED]


class _Bound:
    """What is here of a batch that was sent before."""

    __slots__ = ("id", "items", "posted_ms", "retries", "row")

    def __init__(self, batch: bytes, row: BatchRow) -> None:
        self.id = batch
        self.row = row
        self.items: dict[str, Item] = {}
        self.posted_ms: int | None = None
        self.retries = True

    def queued(self) -> list[Item]:
        """Its jobs that are here."""
        return list(self.items.values())

    def missing(self) -> list[str]:
        """The ids of those that are not."""
        return [each.job_id for each in self.row.members if each.job_id not in self.items]

    def ready_ms(self, _: Batching) -> int | None:
        """When it may go; None while it is not whole."""
        if len(self.items) < len(self.row.members):
            return None
        return max([item.due_ms for item in self.items.values()])

    def take(self, *_: object) -> Batch:
        """All of it, in its own order."""
        batch = Batch([self.items[each.job_id] for each in self.row.members], self.row, self.id)
        self.items = {}
        return batch


_Group = _Loose | _Bound


class Forming:
    """The due jobs of a route that sends batches: first attempts in due order, retries beside."""

    def __init__(self, batching: Batching) -> None:
        self._batching = batching
        self._loose: dict[_Key, _Loose] = {}
        self._bound: dict[tuple[VnodeHead, bytes], _Bound] = {}
        self._lacking: dict[tuple[VnodeHead, bytes], None] = {}
        self._first: list[tuple[int, int, _Group]] = []
        self._retries: list[tuple[int, int, _Group]] = []
        self._sequence = 0
        self._picks = 0

    def set_batching(self, batching: Batching) -> None:
        """The route has these settings now. What was sent before is not touched by them."""
        if batching != self._batching:
            self._batching = batching
            self._first, self._retries = [], []
            for group in self._groups():
                group.posted_ms = None
                self._post(group)

    def _groups(self) -> list[_Group]:
        return [*self._loose.values(), *self._bound.values()]

    # --- what is queued --------------------------------------------------------------------

    def knows(self, head: "VnodeHead", batch: bytes) -> bool:
        """Whether the row of a batch that was sent before was told."""
        return (head, batch) in self._bound

    def expect(self, head: "VnodeHead", batch: bytes, row: BatchRow) -> None:
        """A batch that was sent before; its jobs come one by one."""
        self._bound[head, batch] = _Bound(batch, row)

    def push(self, item: Item) -> None:
        """Take in a due job."""
        group: _Group | None
        if item.bound:
            key = item.head, item.bound
            group = self._bound.get(key)
            if group is not None:
                group.items[item.job_id] = item
                self._lacking[key] = None
                self._post(group)
                return
            item.bound = b""
        key_of_loose = _key(item)
        loose = self._loose.get(key_of_loose)
        if loose is None:
            loose = _Loose(key_of_loose)
            self._loose[loose.key] = loose
        self._sequence += 1
        row = item.due_ms, self._sequence, item
        items = loose.items
        if not items or items[-1] < row:
            items.append(row)
            # Behind all others it changes nothing, unless it makes the first batch full.
            full = len(items) == self._batching.max_jobs
            if loose.posted_ms is not None and not full and not loose.gone:
                return
        else:
            insort(items, row)
        self._post(loose)

    def drop(self, item: Item) -> None:
        """A job is not to be sent any more: its batch, if it is bound to one, is not whole."""
        if not item.bound:
            loose = self._loose.get(_key(item))
            if loose is not None:
                loose.gone = True
            return
        key = item.head, item.bound
        group = self._bound.get(key)
        if group is not None and group.items.get(item.job_id) is item:
            del group.items[item.job_id]
            if not group.items:
                del self._bound[key]
                self._lacking.pop(key, None)

    def dissolve(self, head: "VnodeHead", batch: bytes) -> None:
        """A batch that was sent before is not sent again: its jobs that are here go like others."""
        group = self._bound.pop((head, batch), None)
        if group is None:
            return
        self._lacking.pop((head, batch), None)
        items, group.items = group.items, {}
        for item in items.values():
            item.bound = b""
            self.push(item)

    def take_all(self) -> list[Item]:
        """Empty it, in due order."""
        items = [item for group in self._groups() for item in group.queued()]
        self._loose.clear()
        self._bound.clear()
        self._lacking.clear()
        self._first, self._retries = [], []
        return sorted(items, key=lambda item: item.due_ms)

    def take_lacking(self) -> list[tuple["VnodeHead", bytes, list[str]]]:
        """Batches that are not whole, and have got another job since this was asked last.

        With the jobs that are missing of each.
        """
        found = []
        for key in self._lacking:
            missing = self._bound[key].missing()
            if missing:
                found.append((*key, missing))
        self._lacking.clear()
        return found

    def lack(self, head: "VnodeHead", batch: bytes) -> None:
        """What is missing of a batch could not be had yet: it is to be asked for again."""
        if (head, batch) in self._bound:
            self._lacking[head, batch] = None

    # --- whose turn it is ------------------------------------------------------------------

    def next_ms(self) -> int | None:
        """When the next batch may go."""
        heads = []
        for heap in (self._first, self._retries):
            self._clean(heap)
            if heap:
                heads.append(heap[0][0])
        return min(heads, default=None)

    def pop(self, now_ms: int, until_ms: int) -> Batch | None:
        """The next batch that may go at or before `until_ms`."""
        heap = self._next_heap(until_ms)
        if heap is None:
            return None
        self._picks += 1
        ready_ms, _, group = heappop(heap)
        group.posted_ms = None
        batch = group.take(self._batching, now_ms, until_ms)
        batch.ready_ms = ready_ms
        if isinstance(group, _Bound):
            key = batch.items[0].head, group.id
            del self._bound[key]
            self._lacking.pop(key, None)
        else:
            self._post_or_forget(group)
        return batch

    def _next_heap(self, until_ms: int) -> list[tuple[int, int, _Group]] | None:
        """First attempts before retries, which have every fourth turn at most."""
        heaps = []
        for heap in (self._first, self._retries):
            self._clean(heap)
            if heap and heap[0][0] <= until_ms:
                heaps.append(heap)
        if len(heaps) < 2:
            return heaps[0] if heaps else None
        first, retries = heaps
        if self._picks % 4 == 3 and retries[0][0] <= first[0][0]:
            return retries
        return first

    def _post(self, group: _Group) -> None:
        """Have the group come up when it is ready."""
        ready_ms = group.ready_ms(self._batching)
        if ready_ms is None or (group.posted_ms is not None and group.posted_ms <= ready_ms):
            return
        group.posted_ms = ready_ms
        self._sequence += 1
        heap = self._retries if group.retries else self._first
        heappush(heap, (ready_ms, self._sequence, group))

    def _clean(self, heap: list[tuple[int, int, _Group]]) -> None:
        """What comes up is ready just then."""
        while heap:
            ready_ms, _, group = heap[0]
            if group.posted_ms == ready_ms and group.ready_ms(self._batching) == ready_ms:
                return
            heappop(heap)
            if group.posted_ms == ready_ms:
                group.posted_ms = None
                self._post_or_forget(group)

    def _post_or_forget(self, group: _Group) -> None:
        if isinstance(group, _Loose) and not group.items:
            self._loose.pop(group.key, None)
        else:
            self._post(group)
