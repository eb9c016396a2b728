"""The wall clock that firing goes by, watched for steps."""

from collections.abc import Callable

from node.env import World

_STEP_MS = 50.0
"""How far the wall clock may get from the monotonic one before somebody looks at it."""


class WallTime:
    """Tells the time, and says so first when it has jumped, so that nothing fires by it unjudged.

    `stepped` is called before a time is given out that is further ahead or behind, against the
    monotonic clock, than what was last looked at. A clock that only drifts has it called at times.
    """

    def __init__(self, world: World, stepped: Callable[[], None]) -> None:
        self._world = world
        self._stepped = stepped
        self._ahead_ms = world.wall_ms() - world.mono_ms()

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        now_ms = self._world.wall_ms()
        ahead_ms = now_ms - self._world.mono_ms()
        if not -_STEP_MS < ahead_ms - self._ahead_ms < _STEP_MS:
            self._ahead_ms = ahead_ms
            self._stepped()
        return now_ms
