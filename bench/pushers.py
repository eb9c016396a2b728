"""Clients that create jobs one by one, as fast as they are answered, each on its connection.

`python -m bench.pushers PORT CONNECTIONS SECONDS`: says `ready` once all are connected, `pushing`
once each has had an answer, and after so many seconds more how many creates were answered by which
status. A process of its own, so that whoever measures
beside it does not wait for it.
"""

import asyncio
import json
import sys
import time
from functools import partial
from typing import Any

import uvloop

from bench.tools import COLLECTION, FAR_MS, request_bytes

_PATH = f"{COLLECTION}/jobs"


class Pusher(asyncio.Protocol):
    """One connection."""

    stopped = False

    def __init__(self, number: int, statuses: dict[int, int]) -> None:
        self.number = number
        self.statuses = statuses
        self.sent = 0
        self.buffer = b""

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self.transport = transport

    def push(self) -> None:
        """Create the next job."""
        job = {"id": f"p{self.number}-{self.sent}", "trigger_time": FAR_MS, "route": "hook"}
        self.sent += 1
        self.transport.write(request_bytes("POST", _PATH, json.dumps(job).encode()))

    def data_received(self, data: bytes) -> None:
        """Count an answer; push again."""
        self.buffer += data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        at = head.lower().find(b"content-length:")
        if not found or len(body) < int(head[at + 15 :].split(b"\r\n", 1)[0]):
            return
        self.buffer = b""
        status = int(head[9:12])
        self.statuses[status] = self.statuses.get(status, 0) + 1
        if not Pusher.stopped:
            self.push()


def _same(pusher: Pusher) -> Pusher:
    return pusher


async def _main(port: int, connections: int, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    statuses: dict[int, int] = {}
    pushers = [Pusher(number, statuses) for number in range(connections)]
    for pusher in pushers:
        await loop.create_connection(partial(_same, pusher), "127.0.0.1", port)
    print("ready http=:0", flush=True)
    began_s = time.perf_counter()
    for pusher in pushers:
        pusher.push()
    while min(pusher.sent for pusher in pushers) < 2:
        await asyncio.sleep(0.01)
    print("pushing", flush=True)
    await asyncio.sleep(seconds)
    Pusher.stopped = True
    took_s = time.perf_counter() - began_s
    print(json.dumps({"statuses": statuses, "seconds": took_s}), flush=True)


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
