"""Fetches what stayed behind of routes whose queues have room again."""

from node.delivery.admitting import Admission
from timemachine import limits
from timemachine.delivery.item import Item
from timemachine.delivery.routequeue import RouteQueue
from timemachine.delivery.window import Window
from timemachine.storage.api import Store
from timemachine.storage.keys import batch_of_due, is_ordered, read_due_value

_ROWS_MIN = 64
"""Of one vnode: what a scan costs is mostly its beginning."""


class Refill:
    """Reads waiting indexes, and due indexes where a route lags, into queues half empty."""

    def __init__(self, window: Window, admission: Admission, store: Store) -> None:
        self._window = window
        self._admission = admission
        self._store = store

    def refill(self) -> None:
        """Give each queue that is half empty more of its jobs.

        While the window is full only empty queues get some: thousands of routes may be open again
        at the same moment, when the way out of the node is.
        """
        budget = limits.SCAN_ROWS_MAX
        queued: int | None = None
        for queue in list(self._window.queues.values()):
            if queue.forming is not None and queue.route.open and not queue.shut:
                self._admission.complete(queue)
            if (
                queue.size > limits.ROUTE_WINDOW_JOBS_MAX // 2
                or not queue.route.open
                or queue.held_up
            ):
                continue
            if not queue.waiting and not queue.lagging:
                continue
            if queued is None:
                queued = self._window.queued()
            before = queue.size
            most = limits.ROUTE_WINDOW_JOBS_MAX
            if queued >= limits.WINDOW_JOBS_MAX:
                if before:
                    continue
                most = _ROWS_MIN
            if queue.waiting:
                budget -= self._from_waiting(queue, most)
            if queue.lagging and budget > 0 and queue.size < most:
                budget -= self._from_lag(queue, most)
            queued += queue.size - before
            if budget <= 0:
                self._window.wake()
                return

    def _from_lag(self, queue: RouteQueue, most: int) -> int:
        uid = queue.route.uid
        looked = 0
        room = most - queue.size
        share = max(_ROWS_MIN, room // len(queue.lagging))
        for head in list(queue.lagging):
            if queue.size >= most:
                break
            del queue.lagging[head]
            looked += self._admission.admit_lag(head, uid, share)
            if uid in head.lag:
                queue.lagging[head] = None
        return looked

    def _from_waiting(self, queue: RouteQueue, most: int) -> int:
        looked = 0
        share = max(_ROWS_MIN, most // (2 * len(queue.waiting)))
        for head, cursor in list(queue.waiting.items()):
            if queue.size >= most:
                break
            start, stop = head.vnode.keys.waiting_range(queue.route.uid)
            rows = self._store.scan(max(cursor, start), stop, share)
            looked += len(rows)
            at = len(start)
            for key, value in rows:
                job_id = key[at + 8 :].decode()
                if job_id in head.known or job_id in head.moving:
                    continue
                if is_ordered(value) and not head.machine.in_turn(job_id):
                    self._admission.stand_aside(head, key[at:], value)
                    continue
                _, version, attempts, uid = read_due_value(value)
                due_ms = int.from_bytes(key[at : at + 8], "big")
                item = Item(head, queue, due_ms, job_id, version, attempts, uid, waiting=True)
                item.alone = is_ordered(value)
                if queue.forming is not None:
                    self._admission.bind(item, batch_of_due(value))
                head.known[job_id] = item
                queue.push(item)
            del queue.waiting[head]
            if len(rows) == share:
                # Behind the others: their turn comes before.
                queue.waiting[head] = rows[-1][0] + b"\0"
        return looked
