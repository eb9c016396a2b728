"""Which part of the routes' limits this node owns, as nodes come and go.

Members own their parts whether they are alive or not: who is cut off goes on firing. The part of
one that was removed is left alone until its last sends must have ended.
"""

from collections.abc import Set as AbstractSet
from functools import partial

from node.env import World
from timemachine import limits
from timemachine.delivery.shares import Share
from timemachine.delivery.window import Window


class Shares:
    """Keeps the share of the window in step with the members."""

    def __init__(self, window: Window, world: World) -> None:
        self._window = window
        self._world = world
        self._members: AbstractSet[int] = frozenset()
        self._blocked: set[int] = set()
        self._number = 0

    def set_members(self, number: int, members: AbstractSet[int]) -> None:
        """These nodes are members of the cluster now; this one is `number`, and always counts."""
        for gone in self._members - members:
            self._blocked.add(gone)
            self._world.call_later(limits.SHARE_BLOCKED_MS, partial(self._unblock, gone))
        self._number = number
        self._members = frozenset(members)
        self._apply()

    def _unblock(self, gone: int) -> None:
        # Numbers are never given again, so it is not a member once more.
        self._blocked.discard(gone)
        self._apply()

    def _apply(self) -> None:
        owners = sorted({self._number} | self._members | self._blocked)
        self._window.set_share(Share(owners.index(self._number), len(owners)))
