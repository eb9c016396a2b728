"""Routes that wait because their recipient asked for it, on this node or on another one.

Whoever is told so by a recipient tells the others, once, and waits for no answer: who does not hear
it is told by the recipient itself. A new version of the route ends the wait, for its owner has
changed something.
"""

from functools import partial
from typing import Any, Final

from node.calls import Answer, Calls
from node.env import World
from timemachine import codec, limits
from timemachine.delivery.condition import Span
from timemachine.delivery.waits import Wait, read_wait
from timemachine.delivery.window import Window
from timemachine.model import Route
from timemachine.replica.meta import MetaMachine

KIND: Final = "wait"
_LONGER_MS: Final = 100.0
"""Others are told again of a wait that is longer by more than this, or a tenth of it."""


class _Waiting:
    """Until when a route of some version waits, on the monotonic clock, and what others know."""

    __slots__ = ("since_ms", "told_ms", "until_ms", "version")

    def __init__(self, version: int, since_ms: float) -> None:
        self.version = version
        self.since_ms = since_ms
        self.until_ms = 0.0
        self.told_ms = 0.0


class Waits:
    """Closes queues for a while. `others` are the nodes that are to be told."""

    def __init__(
        self, window: Window, world: World, meta: MetaMachine, calls: Calls | None
    ) -> None:
        self._window = window
        self._world = world
        self._meta = meta
        self._calls = calls
        self._waiting: dict[int, _Waiting] = {}
        self.others: frozenset[int] = frozenset()
        window.waits = self._waiting.__contains__
        if calls is not None:
            calls.serve(KIND, self._heard)

    @property
    def routes(self) -> int:
        """How many routes wait at the moment."""
        return len(self._waiting)

    def is_long(self, route_uid: int) -> bool:
        """Whether a route waits for so long from now on that memory is not to be spent on it."""
        waiting = self._waiting.get(route_uid)
        left_ms = 0.0 if waiting is None else waiting.until_ms - self._world.mono_ms()
        return left_ms > limits.LAG_TO_WAITING_MS

    def seen(self, route_uid: int) -> Span | None:
        """Since when and until when a route waits, if it does."""
        waiting = self._waiting.get(route_uid)
        if waiting is None:
            return None
        wall_ms, now_ms = self._world.wall_ms(), self._world.mono_ms()
        left_ms = max(0, round(waiting.until_ms - now_ms))
        return Span(wall_ms - round(now_ms - waiting.since_ms), wall_ms + left_ms)

    def asked(self, route: Route, wait_ms: int) -> None:
        """A recipient asks for a pause, in answer to a request of that version of the route."""
        now = self._meta.routes_by_uid.get(route.uid)
        if now is None or now.version != route.version:
            return
        waiting = self._wait(route, wait_ms)
        if waiting is None or waiting.until_ms - waiting.told_ms <= max(_LONGER_MS, wait_ms / 10):
            return
        waiting.told_ms = waiting.until_ms
        if self._calls is not None:
            body = codec.encode(Wait(route.uid, route.version, wait_ms))
            for node in sorted(self.others):
                self._calls.call(node, KIND, body, _nobody, limits.CREDIT_CALL_MS)

    def _heard(self, sender: int, body: bytes, answer: Answer) -> None:
        """Another node has been asked by the recipient."""
        wait: Wait = read_wait(body)
        route = self._meta.routes_by_uid.get(wait.route_uid)
        if route is not None and route.version == wait.version:
            waiting = self._wait(route, min(wait.wait_ms, limits.RETRY_AFTER_MS_MAX))
            if waiting is not None:
                waiting.told_ms = waiting.until_ms
        answer(b"")

    def changed(self, route_uid: int) -> None:
        """A route was written anew, or deleted."""
        waiting = self._waiting.get(route_uid)
        route = self._meta.routes_by_uid.get(route_uid)
        if waiting is not None and (route is None or route.version != waiting.version):
            self._end(route_uid)

    def _wait(self, route: Route, wait_ms: int) -> _Waiting | None:
        """Have a route wait, if it does not do so for as long already."""
        uid = route.uid
        now_ms = self._world.mono_ms()
        until_ms = now_ms + wait_ms
        waiting = self._waiting.get(uid)
        if waiting is None or waiting.version != route.version:
            waiting = self._waiting[uid] = _Waiting(route.version, now_ms)
        if until_ms <= waiting.until_ms:
            return None
        rings = waiting.until_ms > 0.0
        waiting.until_ms = until_ms
        if not rings:
            self._world.call_later(wait_ms, partial(self._ring, uid, waiting))
        queue = self._window.queues.get(uid)
        if queue is not None:
            queue.waits = True
        return waiting

    def _ring(self, uid: int, waiting: _Waiting) -> None:
        if self._waiting.get(uid) is not waiting:
            return
        left_ms = waiting.until_ms - self._world.mono_ms()
        if left_ms > 0.0:
            self._world.call_later(left_ms, partial(self._ring, uid, waiting))
        else:
            self._end(uid)

    def _end(self, uid: int) -> None:
        del self._waiting[uid]
        queue = self._window.queues.get(uid)
        if queue is not None:
            queue.waits = False
            self._window.wake()


def _nobody(_: Any) -> None:
    """Whether others have heard it is no matter."""
