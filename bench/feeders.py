"""Clients with the SDK that create one job after the other, each as soon as it is answered.

`python -m bench.feeders COUNT URL URL URL`. So how many they create tells what the nodes can take
beside what else they do. A job is due a second after its create is asked for. A line on its input
ends it, and it tells what `bench.callers` tells.
"""

import asyncio
import json
import sys
import time

import uvloop

from timemachine.client import Client
from timemachine.errors import ClientError

DUE_MS = 1_000


def _now_ms() -> float:
    return time.time() * 1000


class Feeders:
    """All clients, and what they were told."""

    def __init__(self, urls: list[str]) -> None:
        self.clients = [Client(*urls[first:], *urls[:first]) for first in range(len(urls))]
        self.jobs: dict[str, tuple[int, list[tuple[int, int, float, str]]]] = {}
        self.failed: list[str] = []
        self.longest_ms = 0.0

    async def run(self, count: int, over: asyncio.Event) -> None:
        """Create until it is over; then wait for the last answers."""
        await asyncio.gather(*(self._feed(number, over) for number in range(count)))
        for client in self.clients:
            await client.close()

    async def _feed(self, number: int, over: asyncio.Event) -> None:
        client, created = self.clients[number % len(self.clients)], 0
        while not over.is_set():
            created += 1
            job, began_ms = f"fed-{number}-{created}", _now_ms()
            due_ms, calls = self.jobs[job] = round(began_ms) + DUE_MS, []
            creating = client.create_job(
                "default", "jobs", id=job, trigger_time=due_ms, route="hook", meta={"v": 1}
            )
            try:
                answer = await creating
                calls.append((answer.version, 1, _now_ms(), ""))
            except ClientError as error:
                self.failed.append(repr(error))
            self.longest_ms = max(self.longest_ms, _now_ms() - began_ms)


async def _main(count: int, urls: list[str]) -> None:
    over = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, over.set)
    print("ready http=127.0.0.1:0", flush=True)
    feeders = Feeders(urls)
    await feeders.run(count, over)
    told = {name: getattr(feeders, name) for name in ("jobs", "failed", "longest_ms")}
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1]), sys.argv[2:]))
