"""How long the event loop was kept from its timers: what everybody on this node had to wait for."""

from node.env import World

_EVERY_MS = 5.0


class LoopWatch:
    """Sets a timer again and again, and remembers by how much the latest one was late."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._worst_ms = 0.0
        self._due_ms = 0.0
        self._set()

    def _set(self) -> None:
        self._due_ms = self._world.mono_ms() + _EVERY_MS
        self._world.call_later(_EVERY_MS, self._ring)

    def _ring(self) -> None:
        self._worst_ms = max(self._worst_ms, self._world.mono_ms() - self._due_ms)
        self._set()

    def take_ms(self) -> float:
        """The longest delay since the last call, in milliseconds; what is going on now counts."""
        worst_ms = max(self._worst_ms, self._world.mono_ms() - self._due_ms, 0.0)
        self._worst_ms = 0.0
        return worst_ms
