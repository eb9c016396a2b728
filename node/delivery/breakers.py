"""The circuit breakers of the routes on this node, and what others say of theirs.

Each node judges a recipient by its own attempts, and opens for itself: what one node cannot reach
another one may. That they are open is told to the others, for users who ask them; it is best
effort, and nothing is decided by it.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec

from node.calls import Answer, Calls
from node.env import World
from timemachine import codec, limits
from timemachine.delivery.breaker import CircuitBreaker, Phase
from timemachine.delivery.condition import Span
from timemachine.delivery.item import Item
from timemachine.delivery.routequeue import RouteQueue
from timemachine.delivery.window import Window
from timemachine.replica.meta import MetaMachine

KIND: Final = "breaker"
_HEARD_MARGIN_MS: Final = 5_000.0
"""After what it should have told next, a node that says nothing is not believed any more."""


class Told(msgspec.Struct, frozen=True, array_like=True):
    """A node tells others: its breaker of that version of a route is in this phase.

    for_ms   since when it is not closed
    left_ms  for how long it is open, or may be half-open without more being said
    """

    route_uid: int
    version: int
    phase: int
    for_ms: int
    left_ms: int


_read_told = codec.decoder(Told)


class _Seen(NamedTuple):
    """A breaker that is not closed, by this node's monotonic clock."""

    version: int
    phase: Phase
    since_ms: float
    until_ms: float


class Breakers:
    """Has breakers opened and closed. `others` are the nodes that are told.

    `set_aside` has a queue's jobs moved out of the way. `trips` counts how often one opened.
    """

    def __init__(
        self,
        window: Window,
        world: World,
        meta: MetaMachine,
        calls: Calls | None,
        *,
        set_aside: Callable[[RouteQueue], None],
    ) -> None:
        self._window = window
        self._world = world
        self._meta = meta
        self._calls = calls
        self._set_aside = set_aside
        self._heard: dict[int, dict[int, _Seen]] = {}
        self.others: frozenset[int] = frozenset()
        self.trips = 0
        if calls is not None:
            calls.serve(KIND, self._hear)

    def noted(self, item: Item, *, good: bool) -> None:
        """An attempt ended that says something of its recipient."""
        queue = item.queue
        breaker = queue.breaker
        if breaker is None or item.route.version != queue.route.version:
            return
        before = breaker.phase
        if breaker.noted(item.trial, self._world.mono_ms(), good=good):
            self._changed(queue, breaker, before)

    def _changed(self, queue: RouteQueue, breaker: CircuitBreaker, before: Phase) -> None:
        queue.heed_breaker()
        phase = breaker.phase
        if phase is not Phase.OPEN:
            self._window.wake()
        if phase is before:
            return  # one of those that try the recipient has failed
        if phase is Phase.OPEN:
            self.trips += before is Phase.CLOSED
            self._ring_later(queue, breaker)
            self._world.call_soon(partial(self._make_room, queue))
        self._tell(queue, breaker)

    def _make_room(self, queue: RouteQueue) -> None:
        if queue.shut and self._is_known(queue):
            self._set_aside(queue)

    def _ring_later(self, queue: RouteQueue, breaker: CircuitBreaker) -> None:
        left_ms = breaker.until_ms - self._world.mono_ms()
        self._world.call_later(max(1.0, left_ms), partial(self._ring, queue, breaker))

    def _ring(self, queue: RouteQueue, breaker: CircuitBreaker) -> None:
        """It may have been open for long enough. A new version of its route has another one."""
        if queue.breaker is not breaker or not self._is_known(queue):
            return
        if breaker.may_be_tried(self._world.mono_ms()):
            self._changed(queue, breaker, Phase.OPEN)
        elif breaker.phase is Phase.OPEN:
            self._ring_later(queue, breaker)

    def _is_known(self, queue: RouteQueue) -> bool:
        return self._window.queues.get(queue.route.uid) is queue

    # --- what is told ----------------------------------------------------------------------

    def _tell(self, queue: RouteQueue, breaker: CircuitBreaker) -> None:
        if self._calls is None or not self.others:
            return
        route, now_ms = queue.route, self._world.mono_ms()
        is_open = breaker.phase is Phase.OPEN
        left_ms = round(breaker.until_ms - now_ms) if is_open else breaker.settings.open_ms
        told = Told(
            route.uid, route.version, int(breaker.phase), round(now_ms - breaker.since_ms), left_ms
        )
        body = codec.encode(told)
        for node in sorted(self.others):
            self._calls.call(node, KIND, body, _nobody, limits.CREDIT_CALL_MS)

    def _hear(self, sender: int, body: bytes, answer: Answer) -> None:
        told: Told = _read_told(body)
        heard = self._heard.setdefault(told.route_uid, {})
        heard.pop(sender, None)
        if told.phase in (Phase.OPEN, Phase.HALF_OPEN) and told.route_uid in (
            self._meta.routes_by_uid
        ):
            now_ms = self._world.mono_ms()
            left_ms = min(told.left_ms, limits.BREAKER_OPEN_MS_MAX)
            heard[sender] = _Seen(
                told.version, Phase(told.phase), now_ms - told.for_ms, now_ms + left_ms
            )
        if not heard:
            del self._heard[told.route_uid]
        answer(b"")

    def changed(self, route_uid: int) -> None:
        """A route was written anew, or deleted."""
        if route_uid not in self._meta.routes_by_uid:
            self._heard.pop(route_uid, None)

    # --- what others may see ---------------------------------------------------------------

    def counts(self) -> dict[Phase, int]:
        """How many breakers of this node are open, and half-open."""
        counts = {Phase.OPEN: 0, Phase.HALF_OPEN: 0}
        for queue in self._window.queues.values():
            if queue.breaker is not None and queue.breaker.phase in counts:
                counts[queue.breaker.phase] += 1
        return counts

    def seen(self, route_uid: int) -> tuple[Phase, Span] | None:
        """A route's breaker, if it is not closed here, or on another node as far as is known.

        One that is open comes before one that is half-open, and the one open for longest first.
        """
        route = self._meta.routes_by_uid.get(route_uid)
        if route is None:
            return None
        now_ms = self._world.mono_ms()
        found = [
            each
            for each in self._heard.get(route_uid, {}).values()
            if each.version == route.version and now_ms < each.until_ms + _HEARD_MARGIN_MS
        ]
        queue = self._window.queues.get(route_uid)
        breaker = None if queue is None else queue.breaker
        if breaker is not None and breaker.phase is not Phase.CLOSED:
            found.append(_Seen(route.version, breaker.phase, breaker.since_ms, breaker.until_ms))
        if not found:
            return None
        first = min(found, key=lambda each: (each.phase, each.since_ms))
        wall_ms = self._world.wall_ms()
        until_ms = None
        if first.phase is Phase.OPEN:
            until_ms = wall_ms + max(0, round(first.until_ms - now_ms))
        return first.phase, Span(wall_ms - round(now_ms - first.since_ms), until_ms)


def _nobody(_: Any) -> None:
    """Whether others have heard it is no matter."""
