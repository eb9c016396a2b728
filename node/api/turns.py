"""Work of many connections, some at a time, so that the loop comes to everything else between.

Five thousand clients that create jobs at once are a quarter of a second of work. Done in one turn
of the event loop it would keep waiting whatever else goes on: due jobs, heartbeats, a health check.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

_PER_TURN: Final = 64
"""One or two milliseconds of creates."""

Work = Callable[[], None]


class Turns:
    """Does work at once, as long as it is little; the rest waits for the next turns of the loop.

    What ends a request goes before what begins one. What is added must not raise.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ends: deque[Work] = deque()
        self._beginnings: deque[Work] = deque()
        self._left = _PER_TURN
        self._scheduled = False

    def begin(self, work: Work) -> None:
        """Add what begins a request."""
        self._add(self._beginnings, work)

    def end(self, work: Work) -> None:
        """Add what ends one."""
        self._add(self._ends, work)

    def _add(self, queue: deque[Work], work: Work) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)
        if self._left > 0 and not queue:
            self._left -= 1
            work()
        else:
            queue.append(work)

    def _turn(self) -> None:
        self._scheduled = False
        self._left = _PER_TURN
        ends, beginnings = self._ends, self._beginnings
        while self._left > 0 and (ends or beginnings):
            self._left -= 1
            (ends or beginnings).popleft()()
        if ends or beginnings:
            self._scheduled = True
            self._loop.call_soon(self._turn)
