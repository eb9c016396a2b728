"""`python -m bench.senders NAME URL COUNT UNDER_WAY [AUTHORITY]`: one candidate, a round a line.

A round sends COUNT webhooks, UNDER_WAY at a time, over connections that are open already, and is
told as one JSON object: see Round. AUTHORITY is the file of the one to trust over https.
"""

import asyncio
import resource
import sys
import time
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop

from bench.senders import candidate
from timemachine.addresses import AddressPolicy
from timemachine.outbound import Outcome, Request, TlsOptions, parse_target

_DIFFERENT: Final = 1_000
_TIMEOUT_MS: Final = 30_000
_BODY: Final = (
    b'{"id":"f0-00012345","trigger_time":1760000000000,"meta":{"cart":12345,"user":"u-123456",'
    b'"text":"your cart is waiting"},"route":"hook","db":"default","collection":"jobs","version":1}'
)


class Round(msgspec.Struct):
    """One round: how long it took, and CPU time of the sending thread and of its process.

    `user_s` is the thread's outside the kernel; it is from other books than `thread_s`, and rough.
    """

    took_s: float
    thread_s: float
    user_s: float
    process_s: float
    failed: int
    resident_mb: float


async def _resolve(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]


def webhooks(url: str, authority: str | None) -> list[Request]:
    """Webhooks as a node sends them, with ids of their own."""
    # The head is what `node.webhook` makes, in size and kind.
    target, _ = parse_target(url, TlsOptions(ca_pem=authority))
    head = (
        "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n"
        "User-Agent: TimeMachine/0.1.0\r\nAccept: */*\r\nAccept-Encoding: identity\r\n"
        "webhook-id: msg_%026d\r\nwebhook-timestamp: 1760000000\r\n"
        "webhook-signature: v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=\r\n"
        'Idempotency-Key: "msg_%026d"\r\nTimeMachine-Attempt: 1\r\n'
        "TimeMachine-Trigger-Time: 1760000000000\r\nTimeMachine-Job-Id: f0-%08d\r\n"
        "TimeMachine-Fence: 0.123456\r\nContent-Length: %d\r\n\r\n"
    )
    path, host = target.path_and_query.decode(), target.host_header.decode()
    return [
        Request(
            target=target,
            head=(head % (path, host, number, number, number, len(_BODY))).encode(),
            body=_BODY,
            timeout_ms=_TIMEOUT_MS,
        )
        for number in range(_DIFFERENT)
    ]


class _Driver:
    """Sends the next webhook when one is answered."""

    def __init__(self, client: Any, prepared: list[Any], under_way: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._send = client.send
        self._prepared = prepared
        self._under_way = under_way
        self._left = 0
        self._open = 0
        self.failed = 0
        self.reason = ""

    async def run(self, count: int) -> None:
        """Send so many, and wait for the last answer."""
        self._ended = self._loop.create_future()
        self._left, self.failed = count, 0
        self._open = min(self._under_way, count)
        for _ in range(self._open):
            self._next()
        await self._ended

    def _next(self) -> None:
        self._left -= 1
        self._send(self._prepared[self._left % _DIFFERENT], self._done)

    def _done(self, outcome: Outcome) -> None:
        if outcome.status is None or not 200 <= outcome.status < 300:
            self.failed += 1
            self.reason = str(outcome)
        if self._left:
            self._next()
        else:
            self._open -= 1
            if not self._open:
                self._ended.set_result(None)


async def _run(name: str, url: str, count: int, under_way: int, authority: str | None) -> None:
    loop = asyncio.get_running_loop()
    client = candidate(name)(loop, AddressPolicy(["127.0.0.0/8"]), _resolve)
    driver = _Driver(client, [client.prepare(each) for each in webhooks(url, authority)], under_way)
    print("ready http=127.0.0.1:0", flush=True)
    lines = asyncio.Queue[str]()
    loop.add_reader(0, lambda: lines.put_nowait(sys.stdin.readline()))
    while await lines.get():
        # Those that were closed while others were measured are opened again.
        await driver.run(max(640, under_way))
        before = _clocks()
        await driver.run(count)
        took_s, thread_s, user_s, process_s = (
            after - earlier for earlier, after in zip(before, _clocks(), strict=True)
        )
        if driver.failed:
            print(driver.reason, file=sys.stderr, flush=True)
        told = Round(
            took_s=took_s,
            thread_s=thread_s,
            user_s=user_s,
            process_s=process_s,
            failed=driver.failed,
            resident_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        )
        print(msgspec.json.encode(told).decode(), flush=True)
    await client.close()


def _clocks() -> tuple[float, float, float, float]:
    user_s = resource.getrusage(resource.RUSAGE_THREAD).ru_utime
    return time.perf_counter(), time.thread_time(), user_s, time.process_time()


if __name__ == "__main__":
    words = sys.argv[1:]
    trusted = Path(words[4]).read_text() if words[4:] else None
    uvloop.run(_run(words[0], words[1], int(words[2]), int(words[3]), trusted))
