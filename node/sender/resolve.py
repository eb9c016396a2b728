"""Names to addresses that may be connected to."""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Final

from timemachine import ports
from timemachine.addresses import OWN_ADDRESS, AddressPolicy, parse_address
from timemachine.errors import InvalidRequest
from timemachine.outbound import Target

RESOLVE_TIMEOUT_S: Final = 5.0

# A burst for one recipient asks the resolver once, and still a changed record is followed at
# once by human measure: a shorter time than any sensible TTL, which the system does not tell us.
_ANSWERS_KEPT_S: Final = 2.0
_ANSWERS_KEPT_MAX: Final = 4_096
_LOOKUPS_MAX: Final = 64

Resolver = Callable[[str, int], Awaitable[list[str]]]
"""Host and port to addresses, as text. Raises OSError when there are none."""


class Blocked(Exception):
    """The port, or all addresses of the host, may not be connected to.

    `reason` says so to whoever owns the route.
    """

    def __init__(self, reason: str, *, by_port: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.by_port = by_port


class SystemResolver:
    """The system's resolver, each lookup in a thread of its own.

    Not in the event loop's pool: a lookup can hang for half a minute, and a few of them would keep
    everybody's names waiting. The threads are daemons, so a hanging one does not hold up the end
    of the process either.
    """

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(_LOOKUPS_MAX)

    async def __call__(self, host: str, port: int) -> list[str]:
        """See Resolver."""
        loop = asyncio.get_running_loop()
        await self._free.acquire()
        answer: asyncio.Future[list[str]] = loop.create_future()

        def finish(found: list[str] | Exception) -> None:
            self._free.release()
            if answer.done():
                return
            if isinstance(found, Exception):
                answer.set_exception(found)
            else:
                answer.set_result(found)

        def look_up() -> None:
            found: list[str] | Exception
            try:
                infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                found = [str(info[4][0]) for info in infos]
            except Exception as error:  # noqa: BLE001 - it is raised again where it is awaited
                found = error
            try:
                loop.call_soon_threadsafe(finish, found)
            except RuntimeError:
                pass  # the loop was closed meanwhile

        try:
            threading.Thread(target=look_up, name="resolver", daemon=True).start()
        except RuntimeError:
            self._free.release()
            raise OSError("no thread for a lookup") from None
        return await answer


class Names:
    """Resolves names: each once at a time, with a short memory, and judges what comes out."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        resolver: Resolver,
        *,
        timeout_s: float = RESOLVE_TIMEOUT_S,
    ) -> None:
        self._loop = loop
        self._resolver = resolver
        self._timeout_s = timeout_s
        self._lookups: dict[tuple[str, int], asyncio.Task[list[str]]] = {}
        self._answers: dict[tuple[str, int], tuple[float, list[str]]] = {}

    async def permitted(self, policy: AddressPolicy, host: str, port: int) -> list[str]:
        """The addresses of `host` that may be connected to; literals are judged like any other.

        Raises Blocked when the port is not permitted, or when there are addresses and none is;
        TimeoutError when the resolver takes too long, OSError or UnicodeError when there are none.
        """
        check_port(policy, port)
        literal = parse_address(host)
        answers = [str(literal)] if literal is not None else await self._resolve(host, port)
        permitted, reason = [], None
        for answer in answers:
            refused = _refusal(policy, answer, port)
            if refused is None:
                permitted.append(str(parse_address(answer)))
            reason = reason or refused
        if not permitted:
            if reason is None:
                raise OSError("the name has no address")
            raise Blocked(reason)
        return list(dict.fromkeys(permitted))

    async def unjudged(self, host: str, port: int) -> list[str]:
        """The addresses of a host that the operator has named: it may be anywhere.

        Raises TimeoutError, OSError or UnicodeError.
        """
        literal = parse_address(host)
        if literal is not None:
            return [str(literal)]
        found = [str(each) for each in map(parse_address, await self._resolve(host, port)) if each]
        if not found:
            raise OSError("the name has no address")
        return list(dict.fromkeys(found))

    def forget(self, host: str, port: int) -> None:
        """Ask again next time: nothing could be reached where the name pointed."""
        self._answers.pop((host, port), None)

    def close(self) -> None:
        """Give up what is being looked up."""
        for lookup in self._lookups.values():
            lookup.cancel()

    async def _resolve(self, host: str, port: int) -> list[str]:
        place = host, port
        known = self._answers.get(place)
        if known is not None and self._loop.time() - known[0] < _ANSWERS_KEPT_S:
            return known[1]
        lookup = self._lookups.get(place)
        if lookup is None:
            lookup = self._loop.create_task(self._look_up(place))
            self._lookups[place] = lookup
            lookup.add_done_callback(lambda done: self._looked_up(place, done))
        # Who stops waiting does not stop the lookup: others may wait for it.
        return await asyncio.shield(lookup)

    async def _look_up(self, place: tuple[str, int]) -> list[str]:
        async with asyncio.timeout(self._timeout_s):
            return await self._resolver(*place)

    def _looked_up(self, place: tuple[str, int], lookup: asyncio.Task[list[str]]) -> None:
        del self._lookups[place]
        # Asking for the exception tells asyncio that somebody has seen it.
        if lookup.cancelled() or lookup.exception() is not None:
            return
        if len(self._answers) >= _ANSWERS_KEPT_MAX:
            self._answers.clear()
        self._answers[place] = self._loop.time(), lookup.result()


async def check_target(
    names: Names, policy: AddressPolicy, target: Target, *, lookup: bool = True
) -> None:
    """The check when a route is written: the same rule as at every connect.

    Its port has to be permitted, and one of its addresses. A name that cannot be resolved now is
    accepted: its record may come later, and every attempt is judged anyway. Without `lookup` a
    proxy judges names. Raises InvalidRequest naming the range or port to allow.
    """
    try:
        if lookup:
            await names.permitted(policy, target.host, target.port)
        else:
            check_unresolved(policy, target)
    except Blocked as blocked:
        raise InvalidRequest(
            blocked.reason, code="blocked_address", errors=[("/webhook_url", blocked.reason)]
        ) from None
    except (OSError, UnicodeError):
        return


def check_unresolved(policy: AddressPolicy, target: Target) -> None:
    """Judge what can be judged of a target that somebody else looks up. Raises Blocked."""
    check_port(policy, target.port)
    literal = _literal(target.host)
    if literal is not None:
        reason = _refusal(policy, literal, target.port)
        if reason is not None:
            raise Blocked(reason)


def _literal(host: str) -> str | None:
    """The address that a host is without any lookup, if it is one.

    As resolvers have it: `127.1`, `0x7f.1` and `2130706433` are addresses, too.
    """
    if parse_address(host) is not None:
        return host
    try:
        return socket.inet_ntoa(socket.inet_aton(host.rstrip(".")))
    except OSError:
        return None


def check_port(policy: AddressPolicy, port: int) -> None:
    """Raise Blocked for a port that no webhook may go to: no name is looked up for it."""
    if not policy.permits_port(port):
        raise Blocked(ports.explain(port), by_port=True)


def _refusal(policy: AddressPolicy, given: str, port: int) -> str | None:
    """Why this address must not be connected to; None if it may be."""
    if not policy.permits(given, port):
        return policy.explain(given, port)
    if policy.listens_everywhere(port) and _is_of_this_machine(given):
        return OWN_ADDRESS
    return None


def _is_of_this_machine(given: str) -> bool:
    """Whether an address belongs to this machine: only those can be bound."""
    address: Any = (str(parse_address(given)), 0)
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind(address)
    except OSError:
        return False
    return True
