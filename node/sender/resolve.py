"""Names to addresses that may be connected to."""

import asyncio
import socket
from collections.abc import Awaitable, Callable

from timemachine.addresses import AddressPolicy, parse_address
from timemachine.errors import InvalidRequest
from timemachine.outbound import Target

RESOLVE_TIMEOUT_S = 5.0

Resolver = Callable[[str, int], Awaitable[list[str]]]
"""Host and port to addresses, as text. Raises OSError when there are none."""


class Blocked(Exception):
    """No address of the host may be connected to."""

    def __init__(self, addresses: list[str]) -> None:
        super().__init__("blocked")
        self.addresses = addresses


async def system_resolver(host: str, port: int) -> list[str]:
    """What the system's resolver says."""
    loop = asyncio.get_running_loop()
    infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in infos))


async def permitted_addresses(
    resolver: Resolver, policy: AddressPolicy, host: str, port: int
) -> list[str]:
    """The addresses of `host` that may be connected to; literals are judged like any other.

    Raises Blocked when there are addresses and none is permitted, OSError when there are none,
    TimeoutError when the resolver takes too long.
    """
    if parse_address(host) is not None:
        addresses = [host]
    else:
        async with asyncio.timeout(RESOLVE_TIMEOUT_S):
            addresses = await resolver(host, port)
    permitted = [address for address in addresses if policy.permits(address, port)]
    if addresses and not permitted:
        raise Blocked(addresses)
    if not permitted:
        raise OSError("the name has no address")
    return permitted


async def check_target(resolver: Resolver, policy: AddressPolicy, target: Target) -> None:
    """The check when a route is written: the same rule as at every connect.

    A name that cannot be resolved now is accepted: its record may come later, and every attempt
    is judged anyway. Raises InvalidRequest naming the range to allow.
    """
    try:
        await permitted_addresses(resolver, policy, target.host, target.port)
    except Blocked as blocked:
        detail = policy.explain(blocked.addresses[0])
        raise InvalidRequest(
            detail, code="blocked_address", errors=[("/webhook_url", detail)]
        ) from None
    except (OSError, TimeoutError, UnicodeError):
        return
