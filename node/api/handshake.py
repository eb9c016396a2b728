"""TLS before HTTP: connections whose handshake is under way, with a bound on their time and number.

The loop can listen with TLS on its own. But it tells of a connection only once its hands are
shaken, so that those who never finish would not be counted, and could take all descriptors.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog

from timemachine import limits

_ACCEPTED_AT_ONCE: Final = 16
"""More wait for the next turn of the loop: each will cost a millisecond of arithmetic."""

_WRITE_BUFFER_BYTES: Final = 64 * 1024
_PAUSE_S: Final = 1.0
"""How long nobody is accepted when the system has no descriptor left."""

log = structlog.get_logger()


class Handshakes:
    """Accepts connections; after its handshake each belongs to a protocol of `connect`.

    `full` is told how many handshakes are under way, and says whether that is enough. A connection
    too many is closed without a word: whatever it could be told needs a handshake before.
    `context` may be replaced; handshakes from then on use the new one.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        connect: Callable[[], asyncio.Protocol],
        full: Callable[[int], bool],
    ) -> None:
        self.context = context
        self._connect = connect
        self._full = full
        self._loop = asyncio.get_running_loop()
        self._listeners: list[socket.socket] = []
        self._running: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def listen(self, bound_fd: int, backlog: int) -> None:
        """Accept at a socket that is bound; the descriptor stays the caller's."""
        listener = socket.socket(fileno=os.dup(bound_fd))
        listener.setblocking(False)
        listener.listen(backlog)
        self._listeners.append(listener)
        self._loop.add_reader(listener, self._accept, listener)

    def stop_accepting(self) -> None:
        """Listen no more; handshakes go on."""
        while self._listeners:
            listener = self._listeners.pop()
            self._loop.remove_reader(listener)
            listener.close()

    async def stop(self) -> None:
        """Listen no more, and break off the handshakes that are under way."""
        self.stop_accepting()
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.error("cannot accept connections", error=error.strerror)
                self._loop.remove_reader(listener)
                self._loop.call_later(_PAUSE_S, self._go_on, listener)
                return
            if self._full(len(self._running)):
                connection.close()
                continue
            task = self._loop.create_task(self._shake(connection))
            self._running.add(task)
            task.add_done_callback(partial(self._ended, connection))

    def _go_on(self, listener: socket.socket) -> None:
        if listener in self._listeners:
            self._loop.add_reader(listener, self._accept, listener)

    def _ended(self, connection: socket.socket, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if task.cancelled():
            connection.close()  # perhaps before it was begun

    async def _shake(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        try:
            transport, _ = await self._loop.connect_accepted_socket(
                self._connect,
                connection,
                ssl=self.context,
                ssl_handshake_timeout=limits.HTTP_HANDSHAKE_S,
                ssl_shutdown_timeout=limits.HTTP_LINGER_S,
            )
        except OSError:
            connection.close()  # no TLS, too old, too slow, or gone; the client knows
            return
        # As over TCP. By default TLS keeps eight times as much for a client that does not read.
        transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
