"""Senders for tests, and requests for them."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from node.sender import PooledSender
from timemachine.addresses import AddressPolicy
from timemachine.outbound import Outcome, Request, TlsOptions, parse_target

LOOPBACK = ("127.0.0.0/8", "::1/128")
LONG_MS = 20_000
"""A deadline that no test waits for."""
SHORT_MS = 400
"""A deadline that tests wait for."""


def request(
    url: str,
    *,
    timeout_ms: int = LONG_MS,
    tls: TlsOptions | None = None,
    body: bytes = b'{"id":"1"}',
    webhook_id: str = "w1",
) -> Request:
    """A webhook, as a node would send it."""
    target, _ = parse_target(url, tls)
    head = (
        b"POST %b HTTP/1.1\r\nHost: %b\r\nContent-Type: application/json\r\n"
        b"Accept-Encoding: identity\r\nwebhook-id: %b\r\nContent-Length: %d\r\n\r\n"
    ) % (target.path_and_query, target.host_header, webhook_id.encode(), len(body))
    return Request(target=target, head=head, body=body, timeout_ms=timeout_ms)


class Answers:
    """A resolver that answers what it is told, in turn; the last answer repeats."""

    def __init__(self, *answers: list[str] | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        """See Resolver."""
        self.asked.append(host)
        await asyncio.sleep(0)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


class Sent:
    """A request under way, and how it ended."""

    def __init__(
        self,
        sender: PooledSender,
        what: Request,
        may_leave: Callable[[], bool] | None = None,
    ) -> None:
        self.outcomes: list[Outcome] = []
        self._ended = asyncio.Event()
        self._returned = False
        self.handle = sender.send(what, self._done, may_leave)
        self._returned = True

    def _done(self, outcome: Outcome) -> None:
        assert self._returned, "done was called from inside send"
        self.outcomes.append(outcome)
        self._ended.set()

    async def outcome(self) -> Outcome:
        """Wait for the one outcome."""
        await self._ended.wait()
        (outcome,) = self.outcomes
        return outcome


class Lab:
    """Makes senders, and checks at the end that they left nothing behind."""

    def __init__(self) -> None:
        self.senders: list[PooledSender] = []
        self.sent: list[Sent] = []
        self.descriptors = descriptors()

    def sender(self, policy: AddressPolicy | None = None, **options: Any) -> PooledSender:
        """A sender that may reach loopback, unless a policy says otherwise."""
        loop = asyncio.get_running_loop()
        sender = PooledSender(loop, policy or AddressPolicy(LOOPBACK), **options)
        self.senders.append(sender)
        return sender

    @property
    def default(self) -> PooledSender:
        """The first sender, made when there is none."""
        return self.senders[0] if self.senders else self.sender()

    def start(
        self,
        what: Request | str,
        sender: PooledSender | None = None,
        *,
        may_leave: Callable[[], bool] | None = None,
        **options: Any,
    ) -> Sent:
        """Send, and go on."""
        if isinstance(what, str):
            what = request(what, **options)
        sent = Sent(sender or self.default, what, may_leave)
        self.sent.append(sent)
        return sent

    async def send(
        self, what: Request | str, sender: PooledSender | None = None, **options: Any
    ) -> Outcome:
        """Send, and wait for the outcome."""
        return await self.start(what, sender, **options).outcome()

    async def close(self) -> None:
        """Close the senders. Every request has had one outcome at most, and no socket is left."""
        for sender in self.senders:
            await sender.close()
            assert 0 == sender.connections
            assert 0 == sender.idle
            assert 0 == sender.waiting
        await until(lambda: descriptors() <= self.descriptors)
        assert all(len(sent.outcomes) <= 1 for sent in self.sent)


def descriptors() -> int:
    """How many sockets this process has open, but for the receivers' and the loop's own."""
    count = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            count += str(descriptor.readlink()).startswith("socket:")
        except OSError:
            pass  # it was the listing's own
    return count


async def until(holds: Callable[[], bool], *, timeout_s: float = 20.0) -> None:
    """Wait until something holds. Raises TimeoutError."""
    async with asyncio.timeout(timeout_s):
        while not holds():
            await asyncio.sleep(0.01)
