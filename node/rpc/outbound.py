"""One connection that this node has dialled: hello, the answer, then frames, one way."""

import asyncio
from collections.abc import Callable
from typing import cast

from node.rpc.framing import FrameReader, Kind, header, write
from node.rpc.hello import Welcome, read_welcome
from timemachine import limits
from timemachine.errors import CodecError


class Outbound(asyncio.Protocol):
    """Says hello as soon as it is connected.

    welcome  the answer to that; ConnectionError when the connection ends before
    ended    why the connection ended, once it has
    paused   whether the other side is slow, so that nothing more should be written
    resumed  called when it is no longer
    """

    def __init__(self, hello: bytes, resumed: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        self.welcome: asyncio.Future[Welcome] = loop.create_future()
        self.ended: asyncio.Future[str] = loop.create_future()
        self.paused = False
        self._resumed = resumed
        self._hello = hello
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._unanswered = 0
        self._why = ""

    # --- what the loop calls -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=limits.RPC_WRITE_BUFFER_BYTES)
        self._transport.write(write(Kind.HELLO, self._hello))

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._unanswered = 0
        try:
            for kind, payload in self._reader.feed(data):
                if kind == Kind.WELCOME and not self.welcome.done():
                    self.welcome.set_result(read_welcome(payload))
                elif kind != Kind.PONG:
                    raise CodecError(f"a frame of kind {kind} has no place here")
        except CodecError as error:
            self.cut(error.detail)

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self.paused = True

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self.paused = False
        self._resumed()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._end(self._why or (str(exc) if exc is not None else "the other side closed it"))

    def _end(self, why: str) -> None:
        self._transport = None
        self.paused = True
        if not self.ended.done():
            self.ended.set_result(why)
        if not self.welcome.done():
            self.welcome.set_exception(ConnectionError(why))
            self.welcome.exception()  # nobody may be waiting any more

    # --- what the link calls -----------------------------------------------------------------

    def write(self, kind: Kind, payload: bytes | memoryview) -> None:
        """Write a frame, whether paused or not."""
        if self._transport is not None:
            self._transport.writelines((header(kind, len(payload)), payload))

    def ping(self) -> bool:
        """Ask whether the other side is there; False if it is silent for too long already.

        Counted in questions and not in time: who was itself asleep has to read first.
        """
        if self._transport is None:
            return True
        if self._unanswered >= limits.RPC_PINGS_UNANSWERED_MAX:
            return False
        self._unanswered += 1
        if not self.paused:
            self._transport.write(write(Kind.PING))
        return True

    def cut(self, why: str) -> None:
        """End the connection now; what is not sent yet is lost."""
        transport = self._forget(why)
        if transport is not None:
            transport.abort()

    def close(self, why: str) -> None:
        """End the connection when what was written has left."""
        transport = self._forget(why)
        if transport is not None:
            transport.close()

    def _forget(self, why: str) -> asyncio.Transport | None:
        """Write no more: a transport that is closed may raise at that."""
        self._why = self._why or why
        self.paused = True
        transport, self._transport = self._transport, None
        return transport
