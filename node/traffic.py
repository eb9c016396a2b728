"""How busy this node is: creators' commands and sends, over the last few seconds."""

from collections.abc import Callable
from typing import Final, NamedTuple

from node.env import World

_WINDOW_MS: Final = 5_000.0


class Rates(NamedTuple):
    """A second."""

    writes_per_s: float = 0.0
    fires_per_s: float = 0.0


class Traffic:
    """Looks at two counters now and then; `rates` are those between the last two looks."""

    def __init__(self, world: World, writes: Callable[[], int], fires: Callable[[], int]) -> None:
        self._world = world
        self._writes = writes
        self._fires = fires
        self._seen = (world.mono_ms(), 0, 0)
        self.rates = Rates()

    def start(self) -> None:
        """Look now and then, until the process ends."""
        self._world.call_later(_WINDOW_MS, self._look)

    def _look(self) -> None:
        before_ms, writes, fires = self._seen
        self._seen = now_ms, now_writes, now_fires = (
            self._world.mono_ms(),
            self._writes(),
            self._fires(),
        )
        per_s = 1_000.0 / max(now_ms - before_ms, 1.0)
        self.rates = Rates(
            round((now_writes - writes) * per_s, 1), round((now_fires - fires) * per_s, 1)
        )
        self.start()
