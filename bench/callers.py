"""Clients with the SDK that create, replace and delete jobs at a constant rate through all nodes.

`python -m bench.callers RATE URL URL URL`. Each of three clients knows all nodes, and begins with
another one. A job is due three seconds after its create is asked for; one in ten is replaced and
one in twenty is deleted a second after it was created. A call is begun when its time has come,
however many are open.

A line on its input ends it: it lets all calls end, and prints what came of them as one JSON
object: `jobs`, by id `[due_ms, calls]` with `calls` of `[version or 0 for a delete, content,
acked_ms, outcome]`, `failed` calls in words, and the `longest_ms` of a call.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable
from typing import Any

import uvloop

from timemachine.client import Client, Job
from timemachine.errors import ClientError

_PLACE = ("default", "jobs")
_DUE_MS = 3_000
_CHANGE_S = 1.0


def _now_ms() -> float:
    return time.time() * 1000


class Callers:
    """All clients, and what they were told."""

    def __init__(self, urls: list[str]) -> None:
        self.clients = [Client(*urls[first:], *urls[:first]) for first in range(len(urls))]
        self.jobs: dict[str, tuple[int, list[tuple[int, int, float, str]]]] = {}
        self.failed: list[str] = []
        self.longest_ms = 0.0
        self._open: set[asyncio.Task[None]] = set()

    async def run(self, rate: float, over: asyncio.Event) -> None:
        """Begin calls until it is over; then wait for the last answer."""
        began_s = time.monotonic()
        number = 0
        while not over.is_set():
            task = asyncio.create_task(self._job(number))
            self._open.add(task)
            task.add_done_callback(self._open.discard)
            number += 1
            await asyncio.sleep(began_s + number / rate - time.monotonic())
        await asyncio.gather(*self._open)
        for client in self.clients:
            await client.close()

    async def _job(self, number: int) -> None:
        client = self.clients[number % len(self.clients)]
        job, due_ms = f"job-{number}", round(_now_ms()) + _DUE_MS
        calls: list[tuple[int, int, float, str]] = []
        self.jobs[job] = due_ms, calls
        fields: dict[str, Any] = {"trigger_time": due_ms, "route": "hook"}
        creating = client.create_job(*_PLACE, id=job, meta={"v": 1}, **fields)
        if (created := await self._call(creating)) is None:
            return
        calls.append((created.version, 1, _now_ms(), ""))
        if number % 20 not in (3, 7, 13):
            return
        await asyncio.sleep(_CHANGE_S)
        if number % 20 == 7:
            if (deleted := await self._call(client.delete_job(*_PLACE, job))) is not None:
                calls.append((0, 0, _now_ms(), deleted.outcome or ""))
            return
        putting = client.put_job(*_PLACE, job, meta={"v": 2}, **fields)
        if (written := await self._call(putting)) is not None:
            outcome = "" if written.previous is None else written.previous.outcome
            calls.append((written.version, 2, _now_ms(), outcome))

    async def _call(self, asked: Awaitable[Job]) -> Job | None:
        began_ms = _now_ms()
        try:
            return await asked
        except ClientError as error:
            self.failed.append(repr(error))
            return None
        finally:
            self.longest_ms = max(self.longest_ms, _now_ms() - began_ms)


async def _main(rate: float, urls: list[str]) -> None:
    over = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, over.set)
    print("ready http=127.0.0.1:0", flush=True)
    callers = Callers(urls)
    await callers.run(rate, over)
    told = {name: getattr(callers, name) for name in ("jobs", "failed", "longest_ms")}
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    uvloop.run(_main(float(sys.argv[1]), sys.argv[2:]))
