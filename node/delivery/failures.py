"""Routes whose attempts only fail: what the meta group is told of them, so that it disables them.

What is told, and how seldom, is decided in `timemachine.failing`.
"""

from collections.abc import Callable

from node.env import World
from timemachine import limits
from timemachine.delivery.item import Item
from timemachine.failing import failure_is_news, succeeded
from timemachine.model import Failing
from timemachine.replica.meta import DisableRoute, MetaMachine, RouteFailed, RouteSucceeded


class Failures:
    """Tells what changes what meta knows, and not again before that can have arrived."""

    def __init__(
        self,
        world: World,
        meta: MetaMachine,
        tell: Callable[[DisableRoute | RouteFailed | RouteSucceeded], None],
    ) -> None:
        self._world = world
        self._meta = meta
        self._tell = tell
        # By route, and whether it was a success: with which knowledge of meta, and when.
        self._told: dict[int, dict[bool, tuple[Failing, float]]] = {}
        # By route: of which version it was said that its recipient wants no more, and when.
        self._refused: dict[int, tuple[int, float]] = {}

    def failed(self, item: Item, now_ms: int) -> None:
        """An attempt failed, and that says something of its recipient."""
        queue, uid = item.queue, item.queue.route.uid
        if item.route.version != queue.route.version:
            return
        if queue.failing_since_ms is None:
            queue.failing_since_ms = now_ms
        since_ms = min(queue.failing_since_ms, now_ms)
        route = self._meta.routes_by_uid.get(uid)
        if (
            route is not None
            and failure_is_news(route.failing, since_ms, now_ms, route.disable_after_ms)
            and self._may_tell(uid, route.failing, good=False)
        ):
            self._tell(RouteFailed(now_ms=now_ms, uid=uid, since_ms=since_ms, at_ms=now_ms))

    def succeeded(self, item: Item, now_ms: int) -> None:
        """An attempt succeeded."""
        queue, uid = item.queue, item.queue.route.uid
        if item.route.version != queue.route.version:
            return
        queue.failing_since_ms = None
        route = self._meta.routes_by_uid.get(uid)
        if (
            route is not None
            and succeeded(route.failing, now_ms) != route.failing
            and self._may_tell(uid, route.failing, good=True)
        ):
            self._tell(RouteSucceeded(now_ms=now_ms, uid=uid, at_ms=now_ms))

    def refused(self, command: DisableRoute) -> None:
        """A recipient wants no more of a route. So do all requests that are under way to it."""
        mono_ms = self._world.mono_ms()
        version, told_ms = self._refused.get(command.uid, (0, 0.0))
        if version != command.version or mono_ms >= told_ms + limits.FAILING_TOLD_MS:
            self._refused[command.uid] = command.version, mono_ms
            self._tell(command)

    def _may_tell(self, uid: int, known: Failing, *, good: bool) -> bool:
        mono_ms = self._world.mono_ms()
        told = self._told.setdefault(uid, {})
        before = told.get(good)
        if (
            before is not None
            and before[0] == known
            and (mono_ms < before[1] + limits.FAILING_TOLD_MS)
        ):
            return False
        told[good] = (known, mono_ms)
        return True

    def changed(self, route_uid: int) -> None:
        """A route was written anew, or deleted."""
        self._told.pop(route_uid, None)
        route = self._meta.routes_by_uid.get(route_uid)
        if route is None or self._refused.get(route_uid, (0, 0.0))[0] != route.version:
            self._refused.pop(route_uid, None)
