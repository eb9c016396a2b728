"""One connection that another node has dialled: its hello, the answer, then its frames."""

import asyncio
from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol, cast

from node.rpc.framing import FrameReader, Kind, write
from node.rpc.hello import Hello
from timemachine import limits
from timemachine.errors import CodecError

_PONG = write(Kind.PONG)
_JOIN_KINDS = frozenset({Kind.JOIN_ASK, Kind.JOIN_REQUEST})


class State(Enum):
    """How far a connection is."""

    STRANGER = auto()
    """Nothing is known of who dialled."""
    JOINING = auto()
    """Somebody wants to become a node."""
    NODE = auto()
    """A node of this cluster."""
    OVER = auto()
    """It has ended, or is about to; what still comes is not looked at."""


class Desk(Protocol):
    """What an inbound connection needs of this node."""

    def opened(self, connection: "Inbound") -> None:
        """Somebody has connected."""

    def greeted(self, connection: "Inbound", hello: bytes) -> None:
        """Says hello; CodecError if that is none. To be answered with `accept` or `refuse`."""

    def joining(self, connection: "Inbound", kind: Kind, payload: bytes) -> None:
        """Says something about joining; CodecError if it makes no sense."""

    def closed(self, connection: "Inbound", why: str) -> None:
        """The connection is gone."""


class Inbound(asyncio.Protocol):
    """Reads frames, and hands over those of the engine to `take`, with the number of the sender.

    Whatever strangers send, they end nothing but their own connection. What `take` raises is a
    fault of this node and goes to the loop.

    hello          what a node has said, once it is accepted
    peer           the address at the other end, for people
    spoke          whether anything came
    frames, bytes  what came since the hello
    """

    def __init__(self, desk: Desk, take: Callable[[int, bytes], None]) -> None:
        self.state = State.STRANGER
        self.hello: Hello | None = None
        self.peer = ""
        self.spoke = False
        self.frames = 0
        self.bytes = 0
        self._desk = desk
        self._take = take
        self._number = 0
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._parts: list[bytes] = []
        self._parts_bytes = 0
        self._unacknowledged = 0
        self._silent_ticks = 0
        self._patience_ticks = limits.RPC_HELLO_MS // limits.RPC_PING_MS
        self._why = ""

    @property
    def over(self) -> bool:
        """Whether nothing that still comes is looked at."""
        return self.state is State.OVER

    # --- what the loop calls -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=limits.RPC_HELLO_BYTES_MAX * 16)
        name = transport.get_extra_info("peername")
        self.peer = f"{name[0]}:{name[1]}" if name else "?"
        self._desk.opened(self)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self.over:
            return
        self.spoke = True
        if self.state is State.NODE:
            self._silent_ticks = 0
            self._heard(len(data))
        try:
            received = self._reader.feed(data)
        except CodecError as error:
            self.cut(error.detail)
            return
        for kind, payload in received:
            if self.over:
                return
            if kind == Kind.FRAME and self.state is State.NODE:
                self.frames += 1
                self._take(self._number, payload)
                continue
            try:
                self._read(kind, payload)
            except CodecError as error:
                self.cut(error.detail)

    def pause_writing(self) -> None:
        """See asyncio.Protocol. Next to nothing is written here: somebody asks and never reads."""
        self.cut("it does not read what it is answered")

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._transport = None
        self.state = State.OVER
        self._parts.clear()
        why = self._why or (str(exc) if exc is not None else "the other side closed it")
        self._desk.closed(self, why)

    # --- reading ---------------------------------------------------------------------------

    def _heard(self, count: int) -> None:
        self.bytes += count
        self._unacknowledged += count
        if self._unacknowledged >= limits.RPC_ACKNOWLEDGED_BYTES:
            # Who sends much over a slow way may have its questions far behind.
            self._unacknowledged = 0
            self._write(_PONG)

    def _read(self, kind: int, payload: bytes) -> None:
        state = self.state
        if state is State.NODE:
            if kind == Kind.PING:
                self._write(_PONG)
                return
            if kind in (Kind.PART, Kind.LAST_PART):
                self._join_parts(payload, last=kind == Kind.LAST_PART)
                return
        elif state is State.STRANGER and kind == Kind.HELLO:
            self._desk.greeted(self, payload)
            return
        elif kind in _JOIN_KINDS:
            self._desk.joining(self, Kind(kind), payload)
            return
        raise CodecError(f"a frame of kind {kind} has no place here")

    def _join_parts(self, part: bytes, *, last: bool) -> None:
        self._parts_bytes += len(part)
        if self._parts_bytes > limits.RPC_FRAME_BYTES_MAX or not part:
            raise CodecError("parts that make no frame")
        self._parts.append(part)
        if last:
            whole = b"".join(self._parts)
            self._parts.clear()
            self._parts_bytes = 0
            self.frames += 1
            self._take(self._number, whole)

    # --- what the desk calls ---------------------------------------------------------------

    def accept(self, hello: Hello, welcome: bytes) -> None:
        """Who dialled is a node; its frames are taken from here on."""
        self.hello = hello
        self._number = hello.number
        self.state = State.NODE
        self._patience_ticks = limits.RPC_PINGS_UNANSWERED_MAX + 1
        self._silent_ticks = 0
        self._reader.bytes_max = limits.RPC_FRAME_BYTES_MAX
        self._write(write(Kind.WELCOME, welcome))

    def join(self, patience_ms: int, bytes_max: int) -> None:
        """Who dialled wants to become a node, and is given so much time from here on."""
        self.state = State.JOINING
        self._silent_ticks = 0
        self._patience_ticks = patience_ms // limits.RPC_PING_MS
        self._reader.bytes_max = bytes_max

    def say(self, kind: Kind, payload: bytes) -> None:
        """Write something that is neither frame nor hello."""
        self._write(write(kind, payload))

    def part(self, kind: Kind, payload: bytes, why: str) -> None:
        """Say a last word, and end the connection once that has left."""
        self._write(write(kind, payload))
        self.state = State.OVER
        self._why = why
        if self._transport is not None:
            self._transport.close()

    def cut(self, why: str) -> None:
        """End the connection now."""
        self.state = State.OVER
        self._why = self._why or why
        if self._transport is not None:
            self._transport.abort()

    def tick(self) -> None:
        """Time passes; a connection on which nothing comes does not stay.

        Counted in calls and not in time: who was itself asleep has to read first.
        """
        self._silent_ticks += 1
        if self._silent_ticks > self._patience_ticks:
            self.cut("silent for too long" if self.hello is not None else "no hello in time")

    def _write(self, data: bytes) -> None:
        # What is closed may raise when it is written to.
        if self._transport is not None and not self.over:
            self._transport.write(data)
