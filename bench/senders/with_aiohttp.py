"""aiohttp's client."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any, NamedTuple

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from multidict import CIMultiDict
from yarl import URL

from bench.senders import Resolver, header_fields, url_of
from node.sender.connection import KEPT_HEADERS
from node.sender.failures import of_connecting
from node.sender.resolve import Blocked, Names
from node.sender.tls import make_context
from timemachine import limits
from timemachine.addresses import AddressPolicy
from timemachine.outbound import Outcome, Request, TlsOptions

_CAPTURED_BYTES_MAX = limits.ATTEMPT_BODY_BYTES_MAX


class _Judged(AbstractResolver):
    """Answers permitted addresses only."""

    def __init__(self, names: Names, policy: AddressPolicy) -> None:
        self._names = names
        self._policy = policy

    async def resolve(
        self, host: str, port: int = 0, family: int = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """See AbstractResolver. Raises OSError where none is permitted."""
        try:
            addresses = await self._names.permitted(self._policy, host, port)
        except Blocked as blocked:
            raise PermissionError(blocked.reason) from None
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        """See AbstractResolver."""


class _Prepared(NamedTuple):
    url: URL
    headers: CIMultiDict[str]
    body: bytes
    timeout: aiohttp.ClientTimeout
    tls: ssl.SSLContext | bool
    host: str


class AiohttpCandidate:
    """See Candidate."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, policy: AddressPolicy, resolver: Resolver
    ) -> None:
        self._loop = loop
        self._policy = policy
        self._contexts: dict[TlsOptions | None, ssl.SSLContext] = {}
        self._timeouts: dict[int, aiohttp.ClientTimeout] = {}
        self._urls: dict[str, URL] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=_Judged(Names(loop, resolver), policy),
                use_dns_cache=False,
                socket_factory=self._socket,
                keepalive_timeout=limits.SENDER_IDLE_S,
                limit=limits.SENDER_CONNECTIONS_MAX,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )

    def _socket(self, info: Any) -> socket.socket:
        """For an address that is judged here once more: literals do not reach the resolver."""
        family, kind, protocol, _, address = info
        if not self._policy.permits(address[0], address[1]):
            raise PermissionError(self._policy.explain(address[0], address[1]))
        return socket.socket(family, kind, protocol)

    def prepare(self, request: Request) -> _Prepared:
        """See Candidate."""
        target = request.target
        tls: ssl.SSLContext | bool = True
        if target.scheme == "https":
            tls = self._contexts.get(target.tls) or make_context(target.tls)
            self._contexts[target.tls] = tls
        timeout = self._timeouts.setdefault(
            request.timeout_ms, aiohttp.ClientTimeout(total=request.timeout_ms / 1000)
        )
        text = url_of(request)
        url = self._urls.setdefault(text, URL(text, encoded=True))
        headers = CIMultiDict(header_fields(request))
        return _Prepared(url, headers, request.body, timeout, tls, target.host)

    def send(self, prepared: _Prepared, done: Callable[[Outcome], None]) -> object:
        """See Candidate."""
        task = self._loop.create_task(self._send(prepared, done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _send(self, prepared: _Prepared, done: Callable[[Outcome], None]) -> None:
        began_s = self._loop.time()
        try:
            async with self._session.post(
                prepared.url,
                data=prepared.body,
                headers=prepared.headers,
                timeout=prepared.timeout,
                ssl=prepared.tls,
                allow_redirects=False,
            ) as response:
                truncated = False
                try:
                    body = await response.content.read(_CAPTURED_BYTES_MAX + 1)
                    while body and len(body) <= _CAPTURED_BYTES_MAX:
                        more = await response.content.read(_CAPTURED_BYTES_MAX + 1 - len(body))
                        if not more:
                            break
                        body += more
                    if len(body) > _CAPTURED_BYTES_MAX:
                        body, truncated = body[:_CAPTURED_BYTES_MAX], True
                except (aiohttp.ClientError, TimeoutError):
                    # From its head on an attempt is answered.
                    body, truncated = b"", True
                if truncated:
                    response.close()
                headers = {
                    name: response.headers[name]
                    for name in KEPT_HEADERS.values()
                    if name in response.headers
                }
                outcome = Outcome(
                    status=response.status,
                    headers=headers,
                    body=body,
                    truncated=truncated,
                    bytes_sent=True,
                    total_ms=(self._loop.time() - began_s) * 1000,
                )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            outcome = Outcome(
                error_code=_code_of(error),
                error_message=f"The request to {prepared.host} failed.",
                total_ms=(self._loop.time() - began_s) * 1000,
            )
        done(outcome)

    async def close(self) -> None:
        """See Candidate."""
        await self._session.close()


def _code_of(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, aiohttp.ClientConnectorDNSError | aiohttp.ClientConnectorError) and (
        isinstance(error.os_error, PermissionError)
    ):
        return "blocked_address"
    if isinstance(error, PermissionError):
        return "blocked_address"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "dns_error"
    if isinstance(error, aiohttp.ClientSSLError | aiohttp.ClientConnectorCertificateError):
        return "tls_error"
    if isinstance(error, aiohttp.ClientConnectorError):
        failure = of_connecting(error.os_error, "")
        return getattr(failure, "code", "network_error")
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError):
        return "connection_reset"
    if isinstance(error, aiohttp.ClientResponseError):
        return "protocol_error"
    return "network_error"
