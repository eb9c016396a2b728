"""What a node holds in memory of the next moments of all vnodes that it leads."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from timemachine import limits
from timemachine.delivery.credits import Kind, Limit
from timemachine.delivery.item import GONE, QUEUED, SENDING, Item
from timemachine.delivery.routequeue import RouteQueue
from timemachine.delivery.shares import SOLE_SHARE, Share
from timemachine.model import Route
from timemachine.storage.keys import u64
from timemachine.vnode import Vnode

if TYPE_CHECKING:
    from timemachine.delivery.vnodehead import VnodeHead


class Window:
    """The heads of the vnodes, the queues of the routes by uid, and the slots of the node.

    `left` has the requests under way of groups that this node does not fire for at the moment.
    `in_flight` counts the jobs that hold a slot; `share` is what the node owns of the
    routes' limits, and `lent` tells how much it has lent of one; `waits` whether a route
    waits for its recipient. `stopping` says that none shall get a slot any more.
    `wake` asks for a look at what can be done now.
    """

    __slots__ = (
        "heads",
        "in_flight",
        "left",
        "lent",
        "queues",
        "share",
        "stopping",
        "waits",
        "wake",
    )

    def __init__(self, wake: Callable[[], None]) -> None:
        self.wake = wake
        self.heads: dict[Vnode, VnodeHead] = {}
        self.left: dict[tuple[int, int], list[Item]] = {}
        self.queues: dict[int, RouteQueue] = {}
        self.in_flight = 0
        self.share = SOLE_SHARE
        self.lent: Callable[[Limit], int] = lambda _: 0
        self.waits: Callable[[int], bool] = lambda _: False
        self.stopping = False

    def queue(self, route: Route) -> RouteQueue:
        """The queue of a route, an empty one at first."""
        queue = self.queues.get(route.uid)
        if queue is None:
            queue = self.queues[route.uid] = RouteQueue(route, self.share)
            for kind in Kind:
                queue.set_lent(kind, self.lent(Limit(route.uid, kind)))
            queue.waits = self.waits(route.uid)
        return queue

    def set_share(self, share: Share) -> None:
        """Of each route's limits this node owns that share from now on."""
        if share != self.share:
            self.share = share
            for queue in self.queues.values():
                queue.set_limits(queue.route, share)
            self.wake()

    def queued(self) -> int:
        """Jobs that are queued, over all routes."""
        return sum([queue.size for queue in self.queues.values()])

    def free(self, item: Item) -> None:
        """Give back the slots of a job that holds them, or of a batch with the last of its jobs."""
        batch = item.batch
        if batch is not None:
            batch.open -= 1
            if batch.open:
                return
        if self.in_flight >= limits.SENDS_PER_NODE_MAX:
            self.wake()  # the slot may be what another route waits for
        self.in_flight -= 1
        item.queue.in_flight -= 1

    def forget(self, item: Item) -> None:
        """Drop a job at whatever stage, and give its slots back."""
        if item.stage == QUEUED:
            item.queue.drop(item)
        elif item.stage != GONE:
            self.free(item)
        item.stage = GONE
        known = item.head.known
        if known.get(item.job_id) is item:
            del known[item.job_id]

    def leave_behind(self, queue: RouteQueue, mono_ms: float) -> None:
        """Take what is queued of a route out of memory; it is read again when its turn comes."""
        uid = queue.route.uid
        for item in queue.take_all():
            head = item.head
            head.known.pop(item.job_id, None)
            row = u64(item.due_ms) + item.job_id.encode()
            if item.waiting:
                key = head.vnode.keys.waiting_range(uid)[0] + row
                queue.waiting[head] = min(queue.waiting.get(head, key), key)
            else:
                key = head.vnode.keys.due + row
                head.lag[uid] = min(head.lag.get(uid, key), key)
                if not queue.lagging:
                    queue.lagging_since_ms = mono_ms
                queue.lagging[head] = None

    # --- vnodes that go --------------------------------------------------------------------

    def take_out(self, vnode: Vnode) -> "VnodeHead | None":
        """Fire for a vnode no more; its head, whose jobs are the caller's to see to."""
        head = self.heads.pop(vnode, None)
        if head is not None:
            head.fires = False
            for queue in self.queues.values():
                queue.lagging.pop(head, None)
                queue.waiting.pop(head, None)
        return head

    def leave_open(self, group: tuple[int, int], items: list[Item]) -> None:
        """Remember the requests under way of a group that is fired for no more."""
        left = [item for item in self.left.pop(group, []) if item.stage == SENDING]
        left += items
        if left:
            self.left[group] = left

    def sending(self) -> list[Item]:
        """All requests under way."""
        items = [item for head in self.heads.values() for item in head.sending()]
        return items + [item for left in self.left.values() for item in left]

    def forget_vnode(self, vnode: Vnode) -> None:
        """Drop all that is known of a vnode that is gone, what becomes of its sends too."""
        for item in self.left.pop(vnode.group, []):
            self.forget(item)
        head = self.take_out(vnode)
        if head is not None:
            for item in [*head.known.values(), *head.overtaken]:
                self.forget(item)


assert limits.ROUTE_WINDOW_JOBS_MAX <= limits.WINDOW_JOBS_MAX
