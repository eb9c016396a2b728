"""New connections: from a target to a connection that may be written to.

The name is resolved once, every answer is judged, and only judged addresses are connected to; the
name is not looked at again. TLS is checked against the host of the URL, although the socket goes
to an address. Through a proxy (`egress.py`) it is the proxy that resolves and judges names.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final, Protocol

from node.sender.connection import Connection
from node.sender.egress import DIRECT, Egress, Proxy
from node.sender.failures import (
    CERTIFICATES_UNUSABLE,
    CLIENT_CERTIFICATE_EXPIRED,
    PORT_BLOCKED,
    Failure,
    NoDescriptors,
    of_connecting,
    of_tls,
)
from node.sender.resolve import Blocked, Names, Resolver, check_target, check_unresolved
from node.sender.tls import TlsContext, make_tls
from node.sender.tunnel import Tunnel
from timemachine import limits
from timemachine.addresses import AddressPolicy
from timemachine.outbound import Target, TlsOptions

PHASE_TIMEOUT_S: Final = 5.0
"""How long connecting may take, and the TLS handshake after it; resolving has the same."""

# RFC 8305, section 5: when one address does not answer, the next is tried beside it.
_NEXT_ADDRESS_S: Final = 0.25
_FAREWELL_S: Final = 1.0


class Progress(Protocol):
    """Where the dialler notes how far it is."""

    phase: str | None
    resolve_ms: float
    connect_ms: float
    tls_ms: float


class Dialler:
    """Makes connections under an address policy, which can change."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        policy: AddressPolicy,
        resolver: Resolver,
        *,
        phase_timeout_s: float = PHASE_TIMEOUT_S,
        wall_ms: Callable[[], int] | None = None,
        egress: Egress = DIRECT,
    ) -> None:
        self._loop = loop
        self._egress = egress
        self._policy = policy
        self._policy_number = 0
        self._names = Names(loop, resolver, timeout_s=phase_timeout_s)
        self._phase_timeout_s = phase_timeout_s
        self._wall_ms = wall_ms
        self._tls: dict[TlsOptions | None, asyncio.Future[TlsContext]] = {}

    @property
    def policy_number(self) -> int:
        """Rises with each change of the policy; a connection carries the one it was made under."""
        return self._policy_number

    def set_policy(self, policy: AddressPolicy) -> None:
        """Judge by another policy from now on."""
        self._policy = policy
        self._policy_number += 1

    def set_egress(self, egress: Egress) -> None:
        """Leave another way from now on."""
        self._egress = egress
        self._tls.clear()
        self._policy_number += 1

    async def check(self, target: Target) -> None:
        """Whether a route to `target` may be stored. Raises InvalidRequest."""
        lookup = self._egress.proxy is None
        await check_target(self._names, self._policy, target, lookup=lookup)

    def close(self) -> None:
        """Give up what is being looked up."""
        self._names.close()

    async def connect(self, target: Target, progress: Progress) -> Connection:
        """A connection to the target. Raises Failure, or NoDescriptors."""
        began_s = self._loop.time()
        progress.phase = "resolve"
        policy_number = self._policy_number
        if self._egress.proxy is not None:
            return await self._connect_through(self._egress.proxy, target, progress)
        addresses = await self._resolve(target)
        resolved_s = self._loop.time()
        progress.resolve_ms = (resolved_s - began_s) * 1000.0
        progress.phase = "connect"
        try:
            stream, address = await self._race(addresses, target.port)
        except Failure:
            self._names.forget(target.host, target.port)
            raise
        connected_s = self._loop.time()
        progress.connect_ms = (connected_s - resolved_s) * 1000.0
        if target.scheme == "https":
            progress.phase = "tls"
        connection = Connection(self._loop, address)
        connection.policy_number = policy_number
        await self._attach(connection, stream, target)
        if target.scheme == "https":
            progress.tls_ms = (self._loop.time() - connected_s) * 1000.0
        return connection

    def objection(self, connection: Connection, target: Target) -> Failure | None:
        """Why nothing may be sent on a new connection after all; to be asked right before."""
        if connection.policy_number != self._policy_number and not self._still_permits(
            connection, target
        ):
            return Failure("blocked_address", "connect")
        # In TLS 1.3 the recipient may refuse our certificate after the handshake has ended here.
        # While the connection is only about to close, its end tells the request why.
        return connection.loss

    def _still_permits(self, connection: Connection, target: Target) -> bool:
        if connection.remote_ip is not None:
            return self._policy.permits(connection.remote_ip, target.port)
        try:
            check_unresolved(self._policy, target)
        except Blocked:
            return False
        return True

    # --- through a proxy -------------------------------------------------------------------

    async def _connect_through(
        self, proxy: Proxy, target: Target, progress: Progress
    ) -> Connection:
        """A connection to the target that a proxy makes. All of that is the phase `connect`."""
        try:
            check_unresolved(self._policy, target)
        except Blocked as blocked:
            raise _blocked(blocked) from None
        progress.phase = "connect"
        began_s = self._loop.time()
        policy_number = self._policy_number
        tunnel = await self._to_proxy(proxy)
        connection = Connection(self._loop, None)
        connection.policy_number = policy_number
        try:
            tunnel.transport.write(proxy.opening(target))
            try:
                async with asyncio.timeout(self._phase_timeout_s):
                    await tunnel.answered
            except TimeoutError:
                raise Failure("timeout", "connect") from None
            opened_s = self._loop.time()
            progress.connect_ms = (opened_s - began_s) * 1000.0
            if target.scheme == "https":
                progress.phase = "tls"
                await self._encrypt(connection, tunnel, target)
                progress.tls_ms = (self._loop.time() - opened_s) * 1000.0
            else:
                tunnel.hand_over(connection)
        except BaseException:
            connection.cut()
            tunnel.transport.abort()
            raise
        return connection

    async def _to_proxy(self, proxy: Proxy) -> Tunnel:
        """Connected to the proxy itself, with TLS where it wants that. Raises `proxy_error`."""
        options: dict[str, Any] = {}
        stream: socket.socket | None = None
        try:
            async with asyncio.timeout(2 * self._phase_timeout_s):
                addresses = await self._names.unjudged(proxy.host, proxy.port)
                stream, _ = await self._race(_by_turns(addresses), proxy.port)
                if proxy.tls:
                    options = self._tls_options(await self._context(None), proxy.host)
                tunnel = Tunnel(self._loop)
                await self._loop.create_connection(lambda: tunnel, sock=stream, **options)
        except NoDescriptors:
            raise
        except (Failure, OSError, UnicodeError, ssl.CertificateError):
            # A TimeoutError is an OSError.
            self._names.forget(proxy.host, proxy.port)
            if stream is not None:
                stream.close()
            raise Failure("proxy_error", "connect") from None
        except BaseException:
            if stream is not None:
                stream.close()
            raise
        return tunnel

    async def _encrypt(self, connection: Connection, tunnel: Tunnel, target: Target) -> None:
        """TLS with the recipient, inside the tunnel."""
        context = await self._context(target.tls)
        options = self._tls_options(context, target.host)
        tunnel.check()
        try:
            async with asyncio.timeout(self._phase_timeout_s):
                transport = await self._loop.start_tls(
                    tunnel.transport, connection, options.pop("ssl"), **options
                )
        except (OSError, ssl.CertificateError) as error:
            raise of_tls(error, None) from None
        if transport is None or transport.is_closing():
            raise Failure("connection_reset", "tls")
        connection.connection_made(transport)

    def _tls_options(self, context: ssl.SSLContext, host: str) -> dict[str, Any]:
        return {
            "ssl": context,
            # A final dot makes a name absolute for resolvers; certificates have none.
            "server_hostname": host.rstrip("."),
            "ssl_handshake_timeout": 2 * self._phase_timeout_s,  # ours is shorter
            "ssl_shutdown_timeout": _FAREWELL_S,
        }

    # --- resolving and connecting ----------------------------------------------------------

    async def _resolve(self, target: Target) -> list[str]:
        try:
            addresses = await self._names.permitted(self._policy, target.host, target.port)
        except Blocked as blocked:
            raise _blocked(blocked) from None
        except TimeoutError:
            raise Failure("timeout", "resolve") from None
        except (OSError, UnicodeError):
            raise Failure("dns_error", "resolve") from None
        return _by_turns(addresses)[: limits.SENDER_ADDRESSES_TRIED_MAX]

    async def _race(self, addresses: list[str], port: int) -> tuple[socket.socket, str]:
        """A socket connected to the first address that answers, and that address."""
        try:
            async with asyncio.timeout(self._phase_timeout_s):
                if len(addresses) == 1:
                    return await self._tcp(addresses[0], port), addresses[0]
                return await self._race_all(addresses, port)
        except TimeoutError:
            remote_ip = addresses[0] if len(addresses) == 1 else None
            raise Failure("timeout", "connect", remote_ip=remote_ip) from None

    async def _race_all(self, addresses: list[str], port: int) -> tuple[socket.socket, str]:
        left = addresses[::-1]
        running: dict[asyncio.Task[socket.socket], str] = {}
        failures: list[Failure] = []
        try:
            while True:
                if left:
                    address = left.pop()
                    running[self._loop.create_task(self._tcp(address, port))] = address
                wait_s = _NEXT_ADDRESS_S if left else None
                ended, _ = await asyncio.wait(
                    running, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED
                )
                for task in ended:
                    error = task.exception()
                    if error is None:
                        return task.result(), running.pop(task)
                    del running[task]
                    if not isinstance(error, Failure):
                        raise error
                    failures.append(error)
                if not running and not left:
                    raise _most_telling(failures)
        finally:
            for task in running:
                # One that was just as fast has a socket already.
                if not task.cancel() and task.exception() is None:
                    task.result().close()

    async def _tcp(self, address: str, port: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            stream = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            raise of_connecting(error, address) from None
        try:
            stream.setblocking(False)
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.sock_connect(stream, (address, port))
        except OSError as error:
            stream.close()
            raise of_connecting(error, address) from None
        except BaseException:
            stream.close()
            raise
        return stream

    # --- TLS -------------------------------------------------------------------------------

    async def _attach(self, connection: Connection, stream: socket.socket, target: Target) -> None:
        """Give the socket to the connection, with the TLS handshake where there is one."""
        options: dict[str, Any] = {}
        try:
            if target.scheme == "https":
                options = self._tls_options(await self._context(target.tls), target.host)
            async with asyncio.timeout(self._phase_timeout_s):
                await self._loop.create_connection(lambda: connection, sock=stream, **options)
        except (OSError, ssl.CertificateError) as error:
            connection.cut()
            stream.close()
            if not options:
                raise of_connecting(error, connection.remote_ip) from None
            raise of_tls(error, connection.remote_ip) from None
        except BaseException:
            # Given up as the handshake ended, it would still wait for the other side's farewell:
            # on a socket that is gone, and with nobody who waits for its end.
            connection.cut()
            stream.close()
            raise

    async def _context(self, options: TlsOptions | None) -> ssl.SSLContext:
        """Made once for each TLS identity, in a thread: it takes 20 ms."""
        making = self._tls.pop(options, None)
        if making is None:
            if len(self._tls) >= limits.SENDER_TLS_CONTEXTS_MAX:
                del self._tls[next(iter(self._tls))]
            making = self._loop.run_in_executor(None, make_tls, options, self._egress.ca_pem)
        self._tls[options] = making
        try:
            tls = await asyncio.shield(making)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - PEM can be wrong in many ways
            if self._tls.get(options) is making:
                del self._tls[options]
            if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
                raise NoDescriptors from None
            raise Failure("tls_error", "tls", CERTIFICATES_UNUSABLE) from None
        expires_ms = tls.client_expires_ms
        if expires_ms is not None and self._wall_ms is not None and expires_ms < self._wall_ms():
            raise Failure("tls_error", "tls", CLIENT_CERTIFICATE_EXPIRED)
        return tls.context


def _blocked(blocked: Blocked) -> Failure:
    sentence = PORT_BLOCKED if blocked.by_port else None
    return Failure("blocked_address", "resolve", sentence)


def _by_turns(addresses: list[str]) -> list[str]:
    """IPv6 and IPv4 by turns, beginning with the resolver's first: one family may be broken."""
    first_is_ipv6 = ":" in addresses[0]
    first = [each for each in addresses if (":" in each) is first_is_ipv6]
    second = [each for each in addresses if (":" in each) is not first_is_ipv6]
    turns: list[str] = []
    for place in range(max(len(first), len(second))):
        turns += first[place : place + 1] + second[place : place + 1]
    return turns


def _most_telling(failures: list[Failure]) -> Failure:
    """The last failure that is not merely a family without a route."""
    for failure in reversed(failures):
        if failure.code != "network_unreachable":
            return failure
    return failures[-1]
