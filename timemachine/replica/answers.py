"""Answers kept for repeats: a write whose answer got lost is asked for again, and not done again.

Both machines keep them so, each in its own rows and by its own kind of result.
"""

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import msgspec

from timemachine import codec, limits
from timemachine.replica.commands import MADE_BY_NODE, Command, Request
from timemachine.storage.keys import ReplicaKeys, u64
from timemachine.storage.overlay import Overlay


class Counting(Protocol):
    """A machine's state, as far as it counts the answers that are kept."""

    requests: int


class Keeper(Protocol):
    """A machine, as far as answers are kept with it."""

    keys: ReplicaKeys
    overlay: Overlay

    @property
    def state(self) -> Counting: ...  # noqa: D102


Result = TypeVar("Result", bound=msgspec.Struct)
SomeCommand = TypeVar("SomeCommand", bound=Command)
SomeKeeper = TypeVar("SomeKeeper", bound=Keeper)


class StoredAnswer(msgspec.Struct, Generic[Result], frozen=True, array_like=True):
    """An answer as it is stored, to a request of this fingerprint; void from `expires_ms` on."""

    fingerprint: bytes
    expires_ms: int
    result: Result


class Answers(Generic[Result]):
    """How one kind of machine keeps its answers.

    read     reads the row of an answer
    refused  a result that refuses with this code; results have a field `replayed`
    kept     what is kept of a result; None where a repeat is to be tried anew
    """

    def __init__(
        self,
        read: Callable[[bytes], StoredAnswer[Result]],
        refused: Callable[[str], Result],
        kept: Callable[[Result], Result | None],
    ) -> None:
        self._read = read
        self._refused = refused
        self._kept = kept

    def once(
        self,
        keeper: SomeKeeper,
        request: Request,
        command: SomeCommand,
        run: Callable[[SomeKeeper, SomeCommand], Result],
    ) -> Result:
        """Answer a repeat of `request` as before; otherwise `run` the command, and keep its answer.

        A request of the same key that asks for something else is refused, and nothing is done.
        """
        key = keeper.keys.request + request.key
        data = keeper.overlay.get(key)
        if data is not None:
            stored = self._read(data)
            if stored.expires_ms > command.now_ms:
                if stored.fingerprint != request.fingerprint:
                    return self._refused("idempotency_key_reused")
                return msgspec.structs.replace(stored.result, replayed=True)
            _drop(keeper, stored.expires_ms, request.key)
        result = run(keeper, command)
        kept = self._kept(result)
        if kept is not None:
            kept_ms = limits.REQUESTS_KEPT_MS
            if request.fingerprint == MADE_BY_NODE:
                kept_ms = limits.REQUESTS_MADE_KEPT_MS
            expires_ms = command.now_ms + kept_ms
            answer = StoredAnswer(request.fingerprint, expires_ms, kept)
            keeper.overlay.put(key, codec.encode(answer))
            keeper.overlay.put(keeper.keys.request_age + u64(expires_ms) + request.key, b"")
            keeper.state.requests += 1
        return result

    def forget(self, keeper: Keeper, requests: list[tuple[int, bytes]]) -> None:
        """Forget answers by (expires_ms, request hash); those given since then are kept."""
        for expires_ms, key in requests:
            data = keeper.overlay.get(keeper.keys.request + key)
            if data is not None and self._read(data).expires_ms == expires_ms:
                _drop(keeper, expires_ms, key)


def _drop(keeper: Keeper, expires_ms: int, key: bytes) -> None:
    keeper.overlay.delete(keeper.keys.request + key)
    keeper.overlay.delete(keeper.keys.request_age + u64(expires_ms) + key)
    keeper.state.requests -= 1
