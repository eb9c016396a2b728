"""Commands of other nodes that are under way here: a repeat waits for what becomes of the first.

A node that hears nothing for a while asks again, and so does a client, through another node. The
machine would tell a repeat by its request, but only once it is in the log. Where a group commits
more slowly than it is asked again, repeats would fill the log, and nobody be answered in time.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from timemachine.errors import TimeMachineError
from timemachine.replica.commands import Request

Group = tuple[int, int]
"""(collection uid, vnode index)."""

Told = Callable[[Any], None]
"""Gets a result or a TimeMachineError."""


class Repeats:
    """Who waits for what becomes of a command. Those without a request are never repeats."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[Group, Request], list[Told]] = {}

    def begin(self, group: Group, command: Any, told: Told) -> Told | None:
        """What is to get the result of a command that is to be proposed now.

        None for a repeat of one that is under way: `told` gets the result of that one.
        """
        request = getattr(command, "request", None)
        if request is None:
            return told
        waiting = self._waiting.get((group, request))
        if waiting is not None:
            waiting.append(told)
            return None
        self._waiting[group, request] = []
        return partial(self._end, (group, request), told)

    def _end(self, key: tuple[Group, Request], told: Told, result: Any) -> None:
        waiting = self._waiting.pop(key)
        told(result)
        if waiting and not isinstance(result, TimeMachineError):
            result = msgspec.structs.replace(result, replayed=True)
        for each in waiting:
            each(result)
