"""The sender of production: a minimal HTTP/1.1 client on httptools."""

import asyncio
from collections.abc import Callable

from bench.senders import Resolver
from node.sender import PooledSender
from timemachine.addresses import AddressPolicy
from timemachine.outbound import Outcome, Request


class OwnCandidate:
    """See Candidate."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, policy: AddressPolicy, resolver: Resolver
    ) -> None:
        self._sender = PooledSender(loop, policy, resolver=resolver)
        self.close = self._sender.close

    @staticmethod
    def prepare(request: Request) -> Request:
        """See Candidate."""
        return request

    def send(self, prepared: Request, done: Callable[[Outcome], None]) -> object:
        """See Candidate."""
        return self._sender.send(prepared, done)
