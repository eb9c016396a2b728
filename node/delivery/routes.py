"""What a change of a route means for its jobs."""

from node.delivery.breakers import Breakers
from node.delivery.failures import Failures
from node.delivery.parking import Parking
from node.delivery.sending import Sends
from node.delivery.sweeping import Sweeps
from node.delivery.waits import Waits
from node.env import World
from timemachine.delivery.routequeue import RouteQueue
from timemachine.delivery.vnodehead import VnodeHead
from timemachine.delivery.window import Window
from timemachine.replica.commands import PendingItem
from timemachine.replica.meta import MetaMachine
from timemachine.replica.states import HELD


class RouteChanges:
    """Closes, opens and empties queues."""

    def __init__(
        self,
        window: Window,
        sends: Sends,
        parking: Parking,
        sweeps: Sweeps,
        waits: Waits,
        breakers: Breakers,
        failures: Failures,
        world: World,
        meta: MetaMachine,
    ) -> None:
        self._window = window
        self._sends = sends
        self._parking = parking
        self._sweeps = sweeps
        self._waits = waits
        self._breakers = breakers
        self._failures = failures
        self._world = world
        self._meta = meta

    def take_up(self, head: VnodeHead) -> None:
        """A vnode is led from now on: routes may have changed while it was not."""
        routes = self._meta.routes_by_uid
        for uid, counts in head.machine.routes.items():
            if uid not in routes and (uid or counts.waiting) and not self._meta.may_come(uid):
                self._sweeps.give_up(head, uid)
        waiting = [
            (routes[uid], counts.waiting)
            for uid, counts in head.machine.routes.items()
            if counts.waiting and uid in routes
        ]
        # What the leader before was about when it went is seen by the numbers: to look at each
        # job would cost too much for what is only shown.
        held = head.machine.state.counts[HELD]
        to_hold = sum([count for route, count in waiting if not route.open])
        for route, _ in waiting:
            if route.open:
                self._window.queue(route).waiting[head] = b""
                if held > to_hold:
                    self._sweeps.release(head, route.uid)
            elif held < to_hold:
                self._sweeps.hold(head, route.uid)

    def changed(self, uid: int) -> None:
        """A route was created, replaced, paused, resumed, disabled or deleted."""
        self._sends.forget_route(uid)
        self._waits.changed(uid)
        self._breakers.changed(uid)
        self._failures.changed(uid)
        route = self._meta.routes_by_uid.get(uid)
        if route is None:
            self._deleted(uid)
        elif route.open:
            queue = self._window.queue(route)
            queue.set_limits(route, self._window.share)
            self._open(queue)
        else:
            closed = self._window.queues.get(uid)
            if closed is not None:
                was_open = closed.route.open
                closed.set_limits(route, self._window.share)
                self._close(closed)
                if was_open:
                    self._hold(uid)
        self._window.wake()

    def set_aside(self, queue: RouteQueue) -> None:
        """A route's breaker is open: have its due jobs wait in its waiting index until it closes.

        Their attempts stay what they are. Nothing else waits, and nothing is held.
        """
        self._window.leave_behind(queue, self._world.mono_ms())
        self._sweeps.park_lag(queue, held=False)
        self._window.wake()

    def _deleted(self, uid: int) -> None:
        for head in self._window.heads.values():
            self._sweeps.give_up(head, uid)
        queue = self._window.queues.pop(uid, None)
        if queue is not None:
            self._sends.unclaim_route(queue)
            # By job: those that were accepted before the route existed are not listed by it.
            for item in queue.take_all():
                seen = PendingItem(item.job_id, item.uid, item.version, item.attempts)
                self._parking.give_up(item.head, item.due_ms, seen)

    def _close(self, queue: RouteQueue) -> None:
        """Move what the window holds of a route to its waiting index."""
        uid = queue.route.uid
        for item in queue.take_all():
            seen = PendingItem(item.job_id, item.uid, item.version, item.attempts, uid)
            self._parking.park(item.head, item.due_ms, seen, held=True)
        self._sweeps.park_lag(queue, held=True)
        queue.waiting.clear()
        self._sends.unclaim_route(queue)

    def _hold(self, uid: int) -> None:
        """What waited already, for the breaker or for its turn, is held from now on."""
        for head in self._window.heads.values():
            counts = head.machine.routes.get(uid)
            if counts is not None and counts.waiting:
                self._sweeps.hold(head, uid)

    def _open(self, queue: RouteQueue) -> None:
        uid = queue.route.uid
        for head in self._window.heads.values():
            counts = head.machine.routes.get(uid)
            if counts is not None and counts.waiting:
                # From its start, also where a job that was just moved there is to be read.
                queue.waiting[head] = b""
                if head.machine.state.counts[HELD]:
                    self._sweeps.release(head, uid)
