"""Moves jobs out of the way: to the waiting index of a route that cannot take them, or to the end.

Otherwise one route would hold up the window, and the offset, for all others.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from node.delivery.orphans import Orphans
from node.env import World
from node.runtime import Runtime
from timemachine.delivery.vnodehead import VnodeHead
from timemachine.delivery.window import Window
from timemachine.errors import TimeMachineError
from timemachine.model import DeadReason
from timemachine.replica.commands import GiveUp, PendingItem, StandAside, Wait
from timemachine.replica.meta import MetaMachine
from timemachine.storage.keys import u64

_AGAIN_MS = 50.0


class Parking:
    """Commits that due jobs wait for their route or their turn, or that their route is gone.

    `under_way` counts by vnode those that are on their way to a waiting index. `look_for_turn` is
    told of a job that did not have to wait for its turn any more.
    """

    def __init__(
        self,
        window: Window,
        orphans: Orphans,
        world: World,
        runtime: Runtime,
        meta: MetaMachine,
    ) -> None:
        self._window = window
        self._orphans = orphans
        self._world = world
        self._runtime = runtime
        self._meta = meta
        self.under_way: Counter[VnodeHead] = Counter()
        self.look_for_turn: Callable[[VnodeHead, str], None] = lambda _head, _job_id: None

    def park(self, head: VnodeHead, due_ms: int, seen: PendingItem, *, held: bool) -> None:
        """Move a due job to the waiting index of the route that `seen` names."""
        head.known.pop(seen.job_id, None)
        head.moving[seen.job_id] = due_ms
        self.under_way[head] += 1
        command = Wait(now_ms=self._world.wall_ms(), items=[seen], held=held)
        self._runtime.propose(
            head.vnode, command, partial(self._parked, head, due_ms, seen, held=held)
        )

    def stand_aside(self, head: VnodeHead, due_ms: int, seen: PendingItem) -> None:
        """Have a due job wait until no earlier one of its ordering key is pending."""
        head.known.pop(seen.job_id, None)
        head.moving[seen.job_id] = due_ms
        command = StandAside(now_ms=self._world.wall_ms(), items=[seen])

        def stood(result: Any) -> None:
            if isinstance(result, TimeMachineError):
                # This node ceases to lead, or has so much to do that it is to be asked later.
                if head.fires:
                    self._world.call_later(_AGAIN_MS, partial(stood, None))
                return
            head.moving.pop(seen.job_id, None)
            if not self._orphans.look(head, due_ms, seen):
                self.look_for_turn(head, seen.job_id)

        self._runtime.propose(head.vnode, command, stood)

    def _parked(
        self, head: VnodeHead, due_ms: int, seen: PendingItem, _: Any, *, held: bool
    ) -> None:
        self.under_way[head] -= 1
        if not self.under_way[head]:
            del self.under_way[head]
        head.moving.pop(seen.job_id, None)
        # Fired for again, in the same term: what its new head has read may not have shown the row.
        now = self._window.heads.get(head.vnode)
        if now is None:
            return
        head = now
        if self._orphans.look(head, due_ms, seen):
            return
        route = self._meta.routes_by_uid.get(seen.route_uid)
        if head.fires and not held and route is not None and not route.open:
            # It was closed meanwhile, and what was looked through for that may not have shown it.
            self.park(head, due_ms, seen, held=True)
        else:
            self.read_again(head, due_ms, seen)

    def read_again(self, head: VnodeHead, due_ms: int, seen: PendingItem) -> None:
        """A job stands in its route's waiting index: what is read of it next must include its row.

        A closed route's is read when it opens; a deleted route's nobody reads any more.
        """
        if not head.fires:
            return
        route = self._meta.routes_by_uid.get(seen.route_uid)
        if route is None:
            if not self._meta.may_come(seen.route_uid):
                self.give_up(head, due_ms, seen)
        elif route.open:
            waiting = self._window.queue(route).waiting
            start, _ = head.vnode.keys.waiting_range(seen.route_uid)
            key = start + u64(due_ms) + seen.job_id.encode()
            waiting[head] = min(waiting.get(head, key), key)
            self._window.wake()

    def give_up(self, head: VnodeHead, due_ms: int, seen: PendingItem) -> None:
        """End a due job whose route is not there."""
        head.known.pop(seen.job_id, None)
        head.moving[seen.job_id] = due_ms

        def given_up(_: Any) -> None:
            head.moving.pop(seen.job_id, None)
            self._orphans.look(head, due_ms, seen)

        self.give_up_all(head, [seen], "The route does not exist any more.", given_up)

    def give_up_all(
        self,
        head: VnodeHead,
        seen: list[PendingItem],
        error: str,
        done: Callable[[Any], None] | None = None,
    ) -> None:
        """End jobs whose route is not there; `error` is what their users read."""
        command = GiveUp(
            now_ms=self._world.wall_ms(),
            items=seen,
            reason=DeadReason.ROUTE_DELETED.value,
            error=error,
        )
        self._runtime.propose(head.vnode, command, done)
