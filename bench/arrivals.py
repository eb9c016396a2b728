"""A recipient that notes how late each webhook comes: `python -m bench.arrivals` prints its port.

A process of its own, so that nothing else delays its clock. Each line on its input asks for the
lateness of all that came since the last one: answered as one JSON array of milliseconds.
"""

import asyncio
import json
import sys
import time
from typing import Any

import httptools
import uvloop

_TRIGGER = b"timemachine-trigger-time"
late_ms: list[float] = []


class Recipient(asyncio.Protocol):
    """One connection; answers 204."""

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)
        self.arrived_ms = 0.0

    def data_received(self, data: bytes) -> None:
        """Note the time before anything else."""
        self.arrived_ms = time.time() * 1000
        self.parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Compare with when it was due."""
        if name.lower() == _TRIGGER:
            late_ms.append(self.arrived_ms - int(value))

    def on_message_complete(self) -> None:
        """Answer."""
        self.transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")


def _asked() -> None:
    if not sys.stdin.readline():
        sys.exit(0)
    print(json.dumps(late_ms), flush=True)
    late_ms.clear()


async def _main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Recipient, "127.0.0.1", 0, backlog=1024)
    print(f"ready http=127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    loop.add_reader(0, _asked)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_main())
