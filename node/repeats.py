"""Commands of other nodes that are under way here: a repeat waits for what becomes of the first.

A node that hears nothing for a while asks again, and so does a client, through another node. The
machine would tell a repeat by its request, but only once it is in the log. Where a group commits
more slowly than it is asked again, repeats would fill the log, and nobody be answered in time.
"""

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

import msgspec

from timemachine import limits
from timemachine.errors import TimeMachineError
from timemachine.replica.commands import PlaceJob, PutJob, Request

Group = tuple[int, int]
"""(collection uid, vnode index)."""

Told = Callable[[Any], None]
"""Gets a result or a TimeMachineError."""


def _identity(command: Any) -> Hashable:
    """What a command has in common with its repeats only; None where nothing tells them."""
    request: Request | None = getattr(command, "request", None)
    if request is not None:
        return request
    if isinstance(command, PutJob) and command.create_only:
        return command.uid
    return (command.job_id, command.ordering_key) if isinstance(command, PlaceJob) else None


class Repeats:
    """Who waits for what becomes of a command."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[Group, Hashable], tuple[int, list[Told]]] = {}

    def begin(self, group: Group, command: Any, told: Told) -> Told | None:
        """What is to get the result of a command that is to be proposed now.

        None for a repeat of one that is under way: `told` gets the result of that one.
        """
        identity = _identity(command)
        if identity is None:
            return told
        found = self._waiting.get((group, identity))
        if found is None:
            self._waiting[group, identity] = command.now_ms, []
            return partial(self._end, (group, identity), told)
        began_ms, waiting = found
        if isinstance(command, PlaceJob) and command.now_ms - began_ms > limits.PLACED_MS:
            # The alias would be so much older than who asks now takes it for.
            return told
        waiting.append(told)
        return None

    def _end(self, key: tuple[Group, Hashable], told: Told, result: Any) -> None:
        _, waiting = self._waiting.pop(key)
        told(result)
        # Without a request it is a node that repeats itself: who asked that one did so once.
        if waiting and isinstance(key[1], Request) and not isinstance(result, TimeMachineError):
            result = msgspec.structs.replace(result, replayed=True)
        for each in waiting:
            each(result)
