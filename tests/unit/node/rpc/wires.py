"""A transport that keeps what is written, for protocols without a network."""

import asyncio
from typing import Any

from node.rpc.framing import FrameReader


class Wire(asyncio.Transport):
    """One end of a connection. `full` makes it ask for a pause with each write."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.protocol = protocol
        self.written = bytearray()
        self.full = False
        self._closed = ""
        protocol.connection_made(self)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 7) if name == "peername" else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def write(self, data: Any) -> None:
        assert not self._closed
        self.written += data
        if self.full:
            self.protocol.pause_writing()

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    @property
    def closed(self) -> str:
        """How it was closed, or ""."""
        return self._closed

    @property
    def open(self) -> bool:
        """Whether it was not closed."""
        return not self._closed

    def abort(self) -> None:
        self._closed = "aborted"

    def close(self) -> None:
        self._closed = "closed"

    def frames(self) -> list[tuple[int, bytes]]:
        """What was written since the last call, as (kind, payload)."""
        data, self.written = bytes(self.written), bytearray()
        return FrameReader(2**31).feed(data)
