"""A proxy that opens tunnels (CONNECT), or does what a test tells it to do instead."""

import select
import socket
import ssl
import threading
from types import TracebackType
from typing import Final, Self

_BLOCK: Final = 65_536
_PATIENCE_S: Final = 30.0


class Proxy:
    """Listens on 127.0.0.1; every tunnel ends at 127.0.0.1, whatever name is asked for.

    context   TLS that it speaks itself
    answers   what it says to CONNECT in place of opening a tunnel: bytes, or b"" to close; in
              turn, and the last one stays. None opens the tunnel. While `silent` it says nothing
    opened    what was asked for, as (authority, header lines in lower case)
    """

    def __init__(self, *, context: ssl.SSLContext | None = None) -> None:
        self.answers: list[bytes | None] = [None]
        self.silent = False
        self.opened: list[tuple[str, list[str]]] = []
        self.relayed_bytes = b""
        self._context = context
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    @property
    def url(self) -> str:
        """Where it is."""
        scheme = "http" if self._context is None else "https"
        return f"{scheme}://127.0.0.1:{self.port}"

    def _accept(self) -> None:
        while True:
            try:
                stream, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(stream,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, stream: socket.socket) -> None:
        try:
            if self._context is not None:
                stream = self._context.wrap_socket(stream, server_side=True)
            with stream:
                self._tunnel(stream)
        except OSError:
            stream.close()

    def _tunnel(self, stream: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            data = stream.recv(1)
            if not data:
                return
            head += data
        first, *lines = head.decode("latin-1").strip().split("\r\n")
        method, authority, _ = first.split(" ")
        self.opened.append((authority, [line.lower() for line in lines]))
        if self.silent:
            self._ended.wait(_PATIENCE_S)
            return
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is not None or method != "CONNECT":
            stream.sendall(answer or b"")
            return
        port = int(authority.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as other:
            stream.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            self._relay(stream, other)

    def _relay(self, one: socket.socket, other: socket.socket) -> None:
        to = {one: other, other: one}
        while not self._ended.is_set():
            pending = isinstance(one, ssl.SSLSocket) and one.pending() > 0
            ready = [one] if pending else select.select([one, other], [], [], 0.05)[0]
            for each in ready:
                data = each.recv(_BLOCK)
                if not data:
                    return
                self.relayed_bytes += data
                to[each].sendall(data)

    def __enter__(self) -> Self:
        """It listens already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop."""
        self._ended.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        for thread in self._threads:
            thread.join(_PATIENCE_S)
