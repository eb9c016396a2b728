"""Connections by recipient, and one deadline for each request.

One deadline covers resolving, connecting, TLS, writing and reading. Deadlines are not timers of
their own: requests stand in one list per time-out in the order of their ends, and one timer looks
at the heads. A connection is used again only while the server has said nothing since its last
answer, and not after 30 s: whatever is closed under a request is a failure of that attempt, and
nothing is ever sent twice.
"""

import asyncio
import os
import socket
import ssl
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from node.sender.connection import Connection
from node.sender.resolve import (
    Blocked,
    Resolver,
    check_target,
    permitted_addresses,
    system_resolver,
)
from timemachine.addresses import AddressPolicy
from timemachine.outbound import Outcome, Request, Target, TlsOptions

IDLE_S = 30.0
CONNECT_TIMEOUT_S = 5.0
DEADLINE_TICK_S = 0.05
_ADDRESSES_KEPT_S = 2.0

_SENTENCES = {
    "dns_error": "The name {host} could not be resolved.",
    "connection_refused": "{host} refused the connection.",
    "connection_reset": "{host} closed the connection without an answer.",
    "network_unreachable": "{host} cannot be reached.",
    "timeout": "{host} did not answer in time.",
    "tls_error": "The TLS handshake with {host} failed.",
    "network_error": "The connection to {host} failed.",
    "blocked_address": "{host} has no address that may be connected to.",
    "protocol_error": "{host} did not answer in HTTP.",
    "shutdown": "The node stopped before {host} answered.",
}

_Key = tuple[str, str, int, TlsOptions | None]


class _Send:
    """One request under way."""

    __slots__ = (
        "connect_ms",
        "connection",
        "deadline_s",
        "done",
        "request",
        "resolve_ms",
        "sender",
        "sent_at_s",
        "started_s",
        "task",
        "tls_ms",
    )

    def __init__(
        self, sender: "PooledSender", request: Request, done: Callable[[Outcome], None]
    ) -> None:
        self.sender = sender
        self.request = request
        self.done: Callable[[Outcome], None] | None = done
        self.connection: Connection | None = None
        self.task: asyncio.Task[None] | None = None
        self.started_s = sender.loop.time()
        self.deadline_s = self.started_s + request.timeout_ms / 1000.0
        self.sent_at_s = 0.0
        self.resolve_ms = 0.0
        self.connect_ms = 0.0
        self.tls_ms = 0.0

    def abort_if_unsent(self) -> bool:
        """See Handle."""
        if self.done is None or self.connection is not None:
            return False
        self.done = None
        if self.task is not None:
            self.task.cancel()
        return True

    def abort(self) -> None:
        """See Handle."""
        self.fail("shutdown", "connect" if self.connection is None else "headers")

    def fail(self, error_code: str, phase: str) -> None:
        """End without a response."""
        connection = self.connection
        if self.task is not None:
            self.task.cancel()
        if connection is not None:
            connection.close()
        self.finish(error_code, phase)

    def finish(self, error_code: str | None, phase: str | None) -> None:
        """Report how it ended, once."""
        done, self.done = self.done, None
        if done is None:
            return
        now_s = self.sender.loop.time()
        connection = self.connection
        message = None
        if error_code is not None:
            message = _SENTENCES[error_code].format(host=self.request.target.host)
        if connection is None:
            outcome = Outcome(
                error_code=error_code,
                error_phase=phase,
                error_message=message,
                resolve_ms=self.resolve_ms,
                connect_ms=self.connect_ms,
                tls_ms=self.tls_ms,
                total_ms=(now_s - self.started_s) * 1000.0,
            )
        else:
            headers = connection.headers if connection.status is not None else {}
            if "location" in headers:
                headers["location"] = _host_only(headers["location"])
            first_s = connection.first_byte_at_s
            outcome = Outcome(
                status=connection.status if error_code is None else None,
                headers=headers,
                body=bytes(connection.body),
                truncated=connection.truncated,
                error_code=error_code,
                error_phase=phase,
                error_message=message,
                bytes_sent=connection.bytes_sent,
                remote_ip=connection.remote_ip,
                resolve_ms=self.resolve_ms,
                connect_ms=self.connect_ms,
                tls_ms=self.tls_ms,
                first_byte_ms=(first_s - self.sent_at_s) * 1000.0 if first_s else 0.0,
                total_ms=(now_s - self.started_s) * 1000.0,
            )
        done(outcome)


def _host_only(location: str) -> str:
    try:
        return urlsplit(location).hostname or ""
    except ValueError:
        return ""


class PooledSender:
    """The `Sender` of production. Runs on one event loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        policy: AddressPolicy,
        *,
        resolver: Resolver = system_resolver,
        idle_max: int = 2_000,
    ) -> None:
        self.loop = loop
        self._policy = policy
        self._resolver = resolver
        self._idle_max = idle_max
        self._idle: dict[_Key, deque[Connection]] = {}
        self._idle_count = 0
        self._addresses: dict[tuple[str, int], tuple[float, list[str]]] = {}
        self._contexts: dict[TlsOptions | None, ssl.SSLContext] = {}
        self._deadlines: dict[int, deque[_Send]] = {}
        self._open: set[_Send] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def set_policy(self, policy: AddressPolicy) -> None:
        """Judge by another policy from now on; connections made under the old one are dropped."""
        self._policy = policy
        self._addresses.clear()
        self._drop_idle()

    async def check(self, target: Target) -> None:
        """Whether a route to `target` may be stored. Raises InvalidRequest."""
        await check_target(self._resolver, self._policy, target)

    def send(self, request: Request, done: Callable[[Outcome], None]) -> _Send:
        """See Sender."""
        send = _Send(self, request, done)
        queue = self._deadlines.get(request.timeout_ms)
        if queue is None:
            queue = self._deadlines[request.timeout_ms] = deque()
        queue.append(send)
        if self._timer is None:
            self._timer = self.loop.call_later(DEADLINE_TICK_S, self._check_deadlines)
        connection = self._take_idle(request.target)
        if connection is not None:
            self._start(send, connection)
        else:
            self._open.add(send)
            send.task = self.loop.create_task(self._connect(send))
        return send

    def _start(self, send: _Send, connection: Connection) -> None:
        send.connection = connection
        send.sent_at_s = self.loop.time()
        request = send.request

        def ended(error_code: str | None, phase: str | None) -> None:
            if connection.reusable:
                self._keep(request.target, connection)
            send.finish(error_code, phase)

        connection.start(request.head + request.body, ended, self._forget)

    # --- deadlines -------------------------------------------------------------------------

    def _check_deadlines(self) -> None:
        now_s = self.loop.time()
        for timeout_ms, queue in list(self._deadlines.items()):
            while queue and (queue[0].done is None or queue[0].deadline_s <= now_s):
                send = queue.popleft()
                if send.done is not None:
                    self._time_out(send)
            if not queue:
                del self._deadlines[timeout_ms]
        self._expire_idle(now_s)
        self._timer = None
        if self._deadlines or self._idle_count:
            self._timer = self.loop.call_later(DEADLINE_TICK_S, self._check_deadlines)

    def _time_out(self, send: _Send) -> None:
        if send.connection is not None:
            send.connection.timed_out()
        else:
            send.fail("timeout", "connect" if send.resolve_ms else "resolve")

    # --- idle connections ------------------------------------------------------------------

    @staticmethod
    def _key(target: Target) -> _Key:
        return target.scheme, target.host, target.port, target.tls

    def _take_idle(self, target: Target) -> Connection | None:
        idle = self._idle.get(self._key(target))
        while idle:
            connection = idle.pop()
            self._idle_count -= 1
            transport = connection.transport
            if connection.reusable and transport is not None and not transport.is_closing():
                return connection
        return None

    def _keep(self, target: Target, connection: Connection) -> None:
        if self._closed or self._idle_count >= self._idle_max:
            connection.close()
            return
        connection.idle_since_s = self.loop.time()
        self._idle.setdefault(self._key(target), deque()).append(connection)
        self._idle_count += 1

    def _forget(self, connection: Connection) -> None:
        """An idle connection was closed by the other side; it is skipped when its turn comes."""
        connection.reusable = False

    def _expire_idle(self, now_s: float) -> None:
        for key, idle in list(self._idle.items()):
            while idle and (not idle[0].reusable or now_s - idle[0].idle_since_s > IDLE_S):
                idle.popleft().close()
                self._idle_count -= 1
            if not idle:
                del self._idle[key]

    def _drop_idle(self) -> None:
        for idle in self._idle.values():
            for connection in idle:
                connection.close()
        self._idle.clear()
        self._idle_count = 0

    # --- new connections -------------------------------------------------------------------

    async def _connect(self, send: _Send) -> None:
        try:
            connection = await self._open_connection(send)
        except _ConnectFailed as failed:
            send.task = None
            send.finish(failed.error_code, failed.phase)
        except asyncio.CancelledError:
            pass
        except Exception:  # noqa: BLE001 - whatever went wrong, the attempt must end
            send.task = None
            send.finish("network_error", "connect")
        else:
            send.task = None
            if send.done is None:
                connection.close()
            else:
                self._start(send, connection)
        finally:
            self._open.discard(send)

    async def _open_connection(self, send: _Send) -> Connection:
        target = send.request.target
        began_s = self.loop.time()
        addresses = await self._resolve(target)
        resolved_s = self.loop.time()
        send.resolve_ms = max(0.001, (resolved_s - began_s) * 1000.0)
        failure = _ConnectFailed("network_error", "connect")
        for address in addresses:
            try:
                stream = await self._tcp(address, target.port)
            except _ConnectFailed as failed:
                failure = failed
                continue
            connected_s = self.loop.time()
            send.connect_ms = (connected_s - resolved_s) * 1000.0
            connection = await self._handshake(stream, address, target)
            if target.scheme == "https":
                send.tls_ms = (self.loop.time() - connected_s) * 1000.0
            return connection
        raise failure

    async def _resolve(self, target: Target) -> list[str]:
        place = target.host, target.port
        known = self._addresses.get(place)
        now_s = self.loop.time()
        if known is not None and now_s - known[0] < _ADDRESSES_KEPT_S:
            return known[1]
        try:
            addresses = await permitted_addresses(self._resolver, self._policy, *place)
        except Blocked:
            raise _ConnectFailed("blocked_address", "resolve") from None
        except TimeoutError:
            raise _ConnectFailed("dns_error", "resolve") from None
        except (OSError, UnicodeError):
            raise _ConnectFailed("dns_error", "resolve") from None
        if len(self._addresses) > 10_000:
            self._addresses.clear()
        self._addresses[place] = (now_s, addresses)
        return addresses

    async def _tcp(self, address: str, port: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        stream = socket.socket(family, socket.SOCK_STREAM)
        try:
            stream.setblocking(False)
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self.loop.sock_connect(stream, (address.partition("%")[0], port))
        except BaseException as error:
            stream.close()
            match error:
                case TimeoutError():
                    raise _ConnectFailed("timeout", "connect") from None
                case ConnectionRefusedError():
                    raise _ConnectFailed("connection_refused", "connect") from None
                case ConnectionError():
                    raise _ConnectFailed("connection_reset", "connect") from None
                case OSError():
                    raise _ConnectFailed("network_unreachable", "connect") from None
            raise
        return stream

    async def _handshake(self, stream: socket.socket, address: str, target: Target) -> Connection:
        context = self._context(target.tls) if target.scheme == "https" else None
        tls: dict[str, Any] = {}
        if context is not None:
            tls = {
                "ssl": context,
                "server_hostname": target.host,
                "ssl_handshake_timeout": CONNECT_TIMEOUT_S,
            }
        try:
            _, connection = await self.loop.create_connection(
                lambda: Connection(self.loop, address), sock=stream, **tls
            )
        except (ssl.SSLError, ssl.CertificateError):
            stream.close()
            raise _ConnectFailed("tls_error", "tls") from None
        except (OSError, TimeoutError):
            stream.close()
            raise _ConnectFailed("tls_error" if tls else "network_error", "tls") from None
        except BaseException:
            stream.close()
            raise
        return connection

    def _context(self, options: TlsOptions | None) -> ssl.SSLContext:
        context = self._contexts.get(options)
        if context is None:
            if len(self._contexts) > 1_000:
                self._contexts.clear()
            try:
                context = self._contexts[options] = make_context(options)
            except (ssl.SSLError, ValueError):
                raise _ConnectFailed("tls_error", "tls") from None
        return context

    async def close(self) -> None:
        """Cut what is open and drop all connections."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for send in list(self._open):
            send.abort()
        for queue in self._deadlines.values():
            for send in queue:
                send.abort()
        self._deadlines.clear()
        self._drop_idle()
        await asyncio.sleep(0)


class _ConnectFailed(Exception):
    """No connection, and why."""

    def __init__(self, error_code: str, phase: str) -> None:
        super().__init__(error_code)
        self.error_code = error_code
        self.phase = phase


def make_context(options: TlsOptions | None) -> ssl.SSLContext:
    """TLS as a route wants it: verified, 1.2 or newer, with its own authorities and certificate.

    Raises ssl.SSLError or ValueError for PEM that cannot be used.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if options is None:
        return context
    if options.ca_pem is not None:
        context.load_verify_locations(cadata=options.ca_pem)
    if options.client_cert_pem is not None and options.client_key_pem is not None:
        # The ssl module reads certificates from files only: these have no place on any disk.
        with (
            _memory_file(options.client_cert_pem) as certificate,
            _memory_file(options.client_key_pem) as key,
        ):
            context.load_cert_chain(certificate, key)
    if options.skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


@contextmanager
def _memory_file(text: str) -> Iterator[str]:
    """A path under which `text` can be read, in memory only."""
    handle = os.memfd_create("pem", os.MFD_CLOEXEC)
    try:
        os.write(handle, text.encode())
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)
