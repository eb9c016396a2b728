"""What the recipients that are processes of their own have in common.

Nothing else delays their clocks. Each prints its port. Each line on its input asks for what came
since the last one: answered as one JSON array.
"""

import asyncio
import json
import sys
import time
from typing import Any

import httptools
import uvloop

NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


class Recipient(asyncio.Protocol):
    """One connection. What httptools calls is the business of each."""

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)
        self.arrived_ms = 0.0

    def data_received(self, data: bytes) -> None:
        """Note the time before anything else."""
        self.arrived_ms = time.time() * 1000
        self.parser.feed_data(data)


def run(recipient: type[Recipient], noted: list[Any]) -> None:
    """Receive until the input ends, and tell what was noted each time it is asked for."""
    uvloop.run(_run(recipient, noted))


async def _run(recipient: type[Recipient], noted: list[Any]) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(recipient, "127.0.0.1", 0, backlog=1024)
    print(f"ready http=127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)

    def asked() -> None:
        if not sys.stdin.readline():
            sys.exit(0)
        print(json.dumps(noted), flush=True)
        noted.clear()

    loop.add_reader(0, asked)
    await asyncio.Event().wait()
