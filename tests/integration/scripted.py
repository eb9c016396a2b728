"""A server that answers by a script, and both clients to ask it: real sockets, real connections."""

import contextlib
import http.client
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from typing import Any

import msgspec

PATIENCE_S = 20
"""Far more than anything here takes; no test waits for it to pass."""

Turn = Callable[["Connection"], bool]
"""What the server does with one request; False closes the connection."""


class Connection:
    """One accepted connection, and the body of the request that it brought."""

    def __init__(self, server: "Server", sock: socket.socket, body: bytes) -> None:
        self.server = server
        self.sock = sock
        self.body = body

    def send(self, *parts: bytes) -> bool:
        """Send parts, each in a write of its own."""
        for part in parts:
            self.sock.sendall(part)
        return True


class Server:
    """Answers requests by a script, in the order in which they arrive, and records them."""

    def __init__(self, *turns: Turn, tls: ssl.SSLContext | None = None) -> None:
        self.turns = list(turns)
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.connections = 0
        self.asked = threading.Event()
        self.over = threading.Event()
        self._tls = tls
        self._lock = threading.Lock()
        self._socks: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The base URL."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                self._socks.append(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), contextlib.closing(sock):
            sock.settimeout(PATIENCE_S)
            stream = self._tls.wrap_socket(sock, server_side=True) if self._tls else sock
            with contextlib.closing(stream), stream.makefile("rb") as reader:
                while True:
                    line = reader.readline().decode().strip()
                    if not line:
                        return
                    headers = dict(http.client.parse_headers(reader).items())
                    body = reader.read(int(headers.get("Content-Length", "0")))
                    with self._lock:
                        self.requests.append((line, headers, body))
                        turn = self.turns.pop(0)
                    self.asked.set()
                    if not turn(Connection(self, stream, body)):
                        return

    def stop(self) -> None:
        """Close everything."""
        self.over.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept(), which would take one more
        self._thread.join()  # before the descriptor is somebody else's
        self._listener.close()
        with self._lock:
            for sock in self._socks:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
                sock.close()


def answer(status: int, body: object = None, **headers: str) -> Turn:
    """Answer and keep the connection."""
    content = b"" if body is None else msgspec.json.encode(body)
    lines = [f"HTTP/1.1 {status} Status", "Content-Type: application/json"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    head = "\r\n".join([*lines, f"Content-Length: {len(content)}", "", ""]).encode()
    return lambda connection: connection.send(head + content)


def raw(*parts: bytes, close: bool = True) -> Turn:
    """Send these bytes."""
    return lambda connection: connection.send(*parts) and not close


def hang(connection: Connection) -> bool:
    """Never answer."""
    connection.server.over.wait(PATIENCE_S)
    return False


def drip(connection: Connection) -> bool:
    """Send a head, then a byte now and then, never the end."""
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while not connection.server.over.wait(0.02):
        connection.send(b"x")
    return False


def reset(connection: Connection) -> bool:
    """Break the connection instead of answering."""
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def shut(connection: Connection) -> bool:
    """Close the connection instead of answering."""
    return False


def take(connection: Connection) -> bool:
    """Create the jobs of a batch."""
    jobs = [{"id": job["id"], "state": "scheduled"} for job in msgspec.json.decode(connection.body)]
    items = [{"status": 201, "job": job} for job in jobs]
    return answer(200, {"items": items, "created": len(items), "failed": 0})(connection)


JOB = {"id": "nxz", "state": "scheduled", "version": 1}


Action = Callable[[Any], Any]
"""What is done with a client of either kind."""

Run = Callable[..., list[Any]]
Serve = Callable[..., Server]
