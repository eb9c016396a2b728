"""HTTP clients that were candidates for sending webhooks, behind one interface.

Each is held to the same: only addresses that the policy permits are connected to, and a name is
not looked at again after it was judged; one deadline covers everything; of a response no more is
kept than the sender of production keeps; redirects are not followed; TLS is verified for the host
of the URL, with the options of the request's target. Nothing else of a node is here.
"""

import asyncio
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final, Protocol

from timemachine.addresses import AddressPolicy
from timemachine.outbound import Outcome, Request

Resolver = Callable[[str, int], Any]


class Candidate(Protocol):
    """A client. `prepare` brings a request into the form that it likes best; that is not timed."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, policy: AddressPolicy, resolver: Resolver
    ) -> None:
        """Connections are for requests to what `resolver` answers and `policy` permits."""

    def prepare(self, request: Request) -> Any:
        """The request as `send` takes it."""

    def send(self, prepared: Any, done: Callable[[Outcome], None]) -> object:
        """Send once; `done` is called exactly once, and never from inside this call."""

    async def close(self) -> None:
        """Close all connections."""


def header_fields(request: Request) -> list[tuple[str, str]]:
    """The header fields of a request, but for those that a client of its own writes."""
    lines = request.head.decode("latin-1").split("\r\n")[1:]
    parts = [line.partition(": ") for line in lines]
    fields = [(name, value) for name, found, value in parts if found]
    return [field for field in fields if field[0].lower() not in ("host", "content-length")]


def url_of(request: Request) -> str:
    """Where a request goes."""
    target = request.target
    return f"{target.scheme}://{target.host_header.decode()}{target.path_and_query.decode()}"


_CLASSES: Final = {
    "own": ("bench.senders.own", "OwnCandidate"),
    "pycurl": ("bench.senders.with_pycurl", "PycurlCandidate"),
    "aiohttp": ("bench.senders.with_aiohttp", "AiohttpCandidate"),
}
NAMES: Final = tuple(_CLASSES)


def candidate(name: str) -> type[Candidate]:
    """One of NAMES. Its library is imported only now, so that the others' memory is their own."""
    module, title = _CLASSES[name]
    found: type[Candidate] = getattr(import_module(module), title)
    return found
