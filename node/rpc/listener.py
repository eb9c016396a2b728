"""Where other nodes connect to: bound first, so that its port is known, served later."""

import asyncio
import socket
import ssl
from collections.abc import Callable

from node.api.handshake import Handshakes
from timemachine import limits
from timemachine.errors import TimeMachineError

_BACKLOG = 128
CANNOT_LISTEN = "cannot_listen"
"""The code of the error for an address that cannot be had, most often because another has it."""


def bind(host: str, port: int) -> socket.socket:
    """A socket that nobody can connect to yet; port 0 lets the system choose.

    Raises TimeMachineError.
    """
    failure = OSError(f"{host} has no address")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        found, failure = [], error
    for family, _, _, _, address in found:
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.bind(address)
        except OSError as error:
            listening.close()
            failure = error
            continue
        listening.setblocking(False)
        return listening
    raise TimeMachineError(
        f"rpc: cannot listen on {shown(host, port)}: {failure.strerror or failure}",
        code=CANNOT_LISTEN,
    )


def bound_address(listening: socket.socket) -> tuple[str, int]:
    """Host and port that a socket is bound to."""
    host, port = listening.getsockname()[:2]
    return host, port


def shown(host: str, port: int) -> str:
    """An address as HOST:PORT, with brackets around IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Listener:
    """Accepts connections, with TLS if there is a context; each belongs to one of `connect`."""

    def __init__(
        self,
        connect: Callable[[], asyncio.Protocol],
        context: ssl.SSLContext | None,
        strangers: Callable[[], int],
    ) -> None:
        self._connect = connect
        self._strangers = strangers
        self._server: asyncio.Server | None = None
        self._handshakes: Handshakes | None = None
        if context is not None:
            self._handshakes = Handshakes(context, connect, self._is_full)

    def _is_full(self, shaking: int) -> bool:
        return shaking + self._strangers() >= limits.RPC_STRANGERS_MAX

    async def start(self, listening: socket.socket) -> None:
        """Accept connections at a bound socket."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self._connect,
            sock=listening,
            backlog=_BACKLOG,
            start_serving=self._handshakes is None,
        )
        if self._handshakes is not None:
            for each in self._server.sockets:
                self._handshakes.listen(each.fileno(), _BACKLOG)

    def use(self, context: ssl.SSLContext) -> None:
        """Shake the hands of those who connect from now on with another context."""
        if self._handshakes is not None:
            self._handshakes.context = context

    async def stop(self) -> None:
        """Accept nobody any more."""
        if self._server is not None:
            self._server.close()
        if self._handshakes is not None:
            await self._handshakes.stop()
