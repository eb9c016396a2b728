"""Questions between nodes, and their answers: what a node cannot do without another one.

A call is a kind and bytes; its answer is bytes or a TimeMachineError. Both travel in frames, with
everything else that there is for that node, all that is asked in one turn of the loop together.
What is large is cut into parts that let others go first.

Frames may be lost, late or doubled. So a call may be answered by nobody, which its time-out tells:
then it is not known whether it was done. And a handler may run twice for one call, when a frame
comes a second time after the first was answered; where that matters, the body carries what tells
a repeat. An answer that nobody waits for is dropped.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from node.env import Timer, World
from node.peers import Peers
from timemachine import limits
from timemachine.carried import read_error, write_error
from timemachine.errors import CodecError, TimeMachineError, TooManyRequests, Unavailable
from timemachine.frames import CallPart, ReplyPart

Answer = Callable[[bytes | TimeMachineError], None]
"""Takes the answer to a call, once; what comes later is dropped."""

Handler = Callable[[int, bytes, Answer], None]
"""Answers calls of one kind: gets the number of the node that asks, and the body."""

UNKNOWN_KIND: Final = "A node does not know what another one asks of it."
"""What a node says of calls that its program does not know. Others go by it, so it stays."""

_NUMBER_BYTES: Final = 6
_PARTS_MAX: Final = limits.CALL_BODY_BYTES_MAX // limits.CALL_PART_BYTES + 1


class _Parts:
    """A body that comes in parts."""

    __slots__ = ("_bodies", "_parts", "size", "until_ms")

    def __init__(self, parts: int, until_ms: float) -> None:
        self._parts = parts
        self._bodies: dict[int, bytes] = {}
        self.size = 0
        self.until_ms = until_ms

    def add(self, part: int, parts: int, body: bytes) -> bytes | None:
        """Take a part; the whole body with the last one that was missing."""
        if parts != self._parts or part in self._bodies:
            return None
        self._bodies[part] = body
        self.size += len(body)
        if len(self._bodies) < parts:
            return None
        return b"".join([self._bodies[number] for number in range(parts)])


class _Open:
    """A call of this node that is not answered yet."""

    __slots__ = ("done", "node", "parts", "size", "timer")

    def __init__(self, node: int, size: int, done: Answer) -> None:
        self.node = node
        self.size = size
        self.done = done
        self.timer: Timer | None = None
        self.parts: _Parts | None = None


class Calls:
    """The calls of one node to others, and of others to this one.

    Without `peers` there are no others; calls to this node itself work all the same. `dropped`
    counts what made no sense.
    """

    def __init__(self, world: World, peers: Peers | None = None, *, number: int = 1) -> None:
        self._world = world
        self._peers = peers
        self._number = number if peers is None else peers.number
        self._handlers: dict[str, Handler] = {}
        self._open: dict[int, _Open] = {}
        self._open_bytes = 0
        # An answer that was meant for a life of this process before must not fit.
        self._last = 0 if peers is None else int.from_bytes(world.random_bytes(_NUMBER_BYTES))
        # Those of others, (node, number), with their sizes.
        self._taken: dict[tuple[int, int], int] = {}
        self._taken_bytes = 0
        self._coming: dict[tuple[int, int], _Parts] = {}
        self._posted_bytes = 0
        self._flushing = False
        self.dropped = 0

    def serve(self, kind: str, handler: Handler) -> None:
        """Have calls of this kind answered, by who said so last.

        An error that the handler raises is its answer.
        """
        self._handlers[kind] = handler

    # --- asking ----------------------------------------------------------------------------

    def call(
        self,
        node: int,
        kind: str,
        body: bytes,
        done: Answer,
        timeout_ms: int = limits.CALL_TIMEOUT_MS,
    ) -> None:
        """Ask a node; `done` gets its answer, perhaps before this returns.

        It is Unavailable when there is none in time, and TooManyRequests when too much is open.
        """
        if node == self._number:
            self._serve(node, kind, body, _Once(done))
            return
        peers = self._peers
        if peers is None or node not in peers.others:
            done(Unavailable("There is no such node."))
            return
        size = len(body)
        if size > limits.CALL_BODY_BYTES_MAX:
            done(_too_large())
            return
        if (
            len(self._open) >= limits.CALLS_OPEN_MAX
            or self._open_bytes + size > limits.CALL_BYTES_OPEN_MAX
        ):
            done(TooManyRequests("Too many requests are waiting for other nodes."))
            return
        self._last = number = self._last + 1
        self._open[number] = waiting = _Open(node, size, done)
        self._open_bytes += size
        waiting.timer = self._world.call_later(timeout_ms, partial(self._overdue, number))
        if size <= limits.CALL_PART_BYTES:
            peers.call(node, CallPart(number, kind, timeout_ms, 0, 1, body))
            self._flush_soon(size)
            return
        parts = _cut(body)
        for part, piece in enumerate(parts):
            peers.bulk(node, CallPart(number, kind, timeout_ms, part, len(parts), piece))

    def _overdue(self, number: int) -> None:
        waiting = self._open.get(number)
        if waiting is not None:
            self._close(number, waiting)
            waiting.done(Unavailable("Another node did not answer in time."))

    def _close(self, number: int, waiting: _Open) -> None:
        del self._open[number]
        self._open_bytes -= waiting.size
        assert waiting.timer is not None
        waiting.timer.cancel()

    def take_reply(self, sender: int, reply: ReplyPart) -> None:
        """An answer, or a part of one, has arrived."""
        waiting = self._open.get(reply.number)
        if waiting is None or waiting.node != sender:
            return
        body: bytes | None = reply.body
        if reply.parts != 1:
            if not _sound(reply.part, reply.parts):
                self.dropped += 1
                return
            if waiting.parts is None:
                waiting.parts = _Parts(reply.parts, 0.0)
            body = waiting.parts.add(reply.part, reply.parts, reply.body)
            if body is None:
                return
        assert body is not None
        answer: bytes | TimeMachineError = body
        if reply.failed:
            try:
                answer = read_error(body)
            except CodecError as error:
                answer = error
        self._close(reply.number, waiting)
        waiting.done(answer)

    # --- answering -------------------------------------------------------------------------

    def take(self, sender: int, call: CallPart) -> None:
        """A call of another node, or a part of one, has arrived."""
        taken = (sender, call.number)
        if taken in self._taken:
            return  # it came twice, and is being answered
        if call.parts == 1:
            self._begin(taken, call.kind, call.body)
            return
        if not _sound(call.part, call.parts):
            self.dropped += 1
            return
        coming = self._coming.get(taken)
        if coming is None:
            now_ms = self._world.mono_ms()
            self._forget_parts(now_ms)
            coming = self._coming[taken] = _Parts(call.parts, now_ms + call.timeout_ms)
        if self._taken_bytes + len(call.body) > limits.CALL_BYTES_OPEN_MAX:
            self._drop_parts(taken)
            self._refuse(taken)
            return
        self._taken_bytes -= coming.size
        body = coming.add(call.part, call.parts, call.body)
        self._taken_bytes += coming.size
        if body is not None:
            self._drop_parts(taken)
            self._begin(taken, call.kind, body)

    def _forget_parts(self, now_ms: float) -> None:
        """Let go of what nobody waits for any more: the rest of it was lost."""
        for taken in [each for each, coming in self._coming.items() if coming.until_ms < now_ms]:
            self._drop_parts(taken)

    def _drop_parts(self, taken: tuple[int, int]) -> None:
        self._taken_bytes -= self._coming.pop(taken).size

    def _begin(self, taken: tuple[int, int], kind: str, body: bytes) -> None:
        size = len(body)
        if (
            len(self._taken) >= limits.CALLS_OPEN_MAX
            or self._taken_bytes + size > limits.CALL_BYTES_OPEN_MAX
        ):
            self._refuse(taken)
            return
        self._taken[taken] = size
        self._taken_bytes += size
        self._serve(taken[0], kind, body, _Once(partial(self._answered, taken)))

    def _refuse(self, taken: tuple[int, int]) -> None:
        self._reply(taken, Unavailable("Too many requests of other nodes are open on a node."))

    def _serve(self, sender: int, kind: str, body: bytes, answer: Answer) -> None:
        handler = self._handlers.get(kind)
        if handler is None:
            answer(Unavailable(UNKNOWN_KIND))
            return
        try:
            handler(sender, body, answer)
        except TimeMachineError as error:
            answer(error)

    def _answered(self, taken: tuple[int, int], result: bytes | TimeMachineError) -> None:
        self._taken_bytes -= self._taken.pop(taken)
        self._reply(taken, result)

    def _reply(self, taken: tuple[int, int], result: bytes | TimeMachineError) -> None:
        peers = self._peers
        assert peers is not None
        sender, number = taken
        if not isinstance(result, TimeMachineError) and len(result) > limits.CALL_BODY_BYTES_MAX:
            result = _too_large()
        failed = isinstance(result, TimeMachineError)
        body = write_error(result) if isinstance(result, TimeMachineError) else result
        if len(body) <= limits.CALL_PART_BYTES:
            peers.reply(sender, ReplyPart(number, failed, 0, 1, body))
            self._flush_soon(len(body))
            return
        parts = _cut(body)
        for part, piece in enumerate(parts):
            peers.bulk(sender, ReplyPart(number, failed, part, len(parts), piece))

    # --- frames ----------------------------------------------------------------------------

    def _flush_soon(self, size: int) -> None:
        """Send what waits at the end of this turn, or now, if it is much."""
        self._posted_bytes += size
        if self._posted_bytes > limits.CALL_PART_BYTES:
            self._posted_bytes = 0
            assert self._peers is not None
            self._peers.flush()
        elif not self._flushing:
            self._flushing = True
            self._world.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        self._posted_bytes = 0
        assert self._peers is not None
        self._peers.flush()

    def statistics(self) -> dict[str, Any]:
        """Plain numbers for the metrics page."""
        return {"calls_open": len(self._open), "calls_served": len(self._taken)}


class _Once:
    """Gives the first answer, and no other."""

    __slots__ = ("_done",)

    def __init__(self, done: Answer) -> None:
        self._done: Answer | None = done

    def __call__(self, result: bytes | TimeMachineError) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(result)


def _sound(part: int, parts: int) -> bool:
    return 0 <= part < parts <= _PARTS_MAX


def _cut(body: bytes) -> list[bytes]:
    size = limits.CALL_PART_BYTES
    return [body[begin : begin + size] for begin in range(0, len(body), size)]


def _too_large() -> TimeMachineError:
    return Unavailable("This is too large to be sent from node to node.")
