"""The synchronous client: operations over blocking sockets. Safe to share between threads."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Concatenate, Generic, ParamSpec, Self, TypeVar

from timemachine import limits
from timemachine.client import operations
from timemachine.client.answers import Page
from timemachine.client.call import Call
from timemachine.client.common import READ_BYTES, broken, dress, next_page
from timemachine.client.config import Config, Server, Sources, parse_server
from timemachine.client.conversation import Broken, Result, Wait, converse
from timemachine.client.http1 import AnswerParser, RawAnswer
from timemachine.errors import ClientClosed

P = ParamSpec("P")
T = TypeVar("T")


def _method(build: Callable[P, Call[T]]) -> Callable[Concatenate["SyncClient", P], T]:
    """The method that carries one operation through."""

    def method(self: "SyncClient", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._perform(build(*args, **kwargs))

    return dress(method, build)


def _all(build: Callable[P, Call[Page[T]]]) -> Callable[Concatenate["SyncClient", P], list[T]]:
    """The method that fetches all pages of a short list."""

    def method(self: "SyncClient", /, *args: P.args, **kwargs: P.kwargs) -> list[T]:
        return list(Items(self, build(*args, **kwargs)))

    return dress(method, build)


def _items(
    build: Callable[P, Call[Page[T]]],
) -> "Callable[Concatenate[SyncClient, P], Items[T]]":
    """The method that iterates over a long list."""

    def method(self: "SyncClient", /, *args: P.args, **kwargs: P.kwargs) -> "Items[T]":
        return Items(self, build(*args, **kwargs))

    return dress(method, build)


class SyncClient:
    """Talks to a cluster of TimeMachine; the same methods as `Client`, but blocking.

    Arguments as for `Client`. Name resolution is left to the system and its own time-outs.
    """

    def __init__(
        self,
        *servers: str,
        token: str | None = None,
        timeout_ms: int = 30_000,
        attempt_timeout_ms: int = 10_000,
        backoff_ms: int = 100,
        backoff_ms_max: int = 5_000,
        ssl_context: ssl.SSLContext | None = None,
        sources: Sources | None = None,
    ) -> None:
        self._config = Config(
            servers=tuple(parse_server(url) for url in servers),
            timeout_ms=timeout_ms,
            attempt_timeout_ms=attempt_timeout_ms,
            backoff_ms=backoff_ms,
            backoff_ms_max=backoff_ms_max,
            token=token,
            sources=sources or Sources(),
        )
        self._ssl_context = ssl_context
        self._idle: dict[Server, list[_Connection]] = {s: [] for s in self._config.servers}
        self._lock = threading.Lock()
        self._server = 0
        self._closed = threading.Event()

    def __repr__(self) -> str:
        """The servers, not the token."""
        return f"SyncClient({', '.join(repr(server.url) for server in self._config.servers)})"

    def __enter__(self) -> Self:
        """The client itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the client."""
        self.close()

    def close(self) -> None:
        """Close all connections. Calls that are under way end; later ones raise ClientClosed."""
        self._closed.set()
        with self._lock:
            for connections in self._idle.values():
                while connections:
                    connections.pop().close()

    put_database = _method(operations.put_database)
    get_database = _method(operations.get_database)
    list_databases = _all(operations.list_databases)
    delete_database = _method(operations.delete_database)
    put_collection = _method(operations.put_collection)
    get_collection = _method(operations.get_collection)
    list_collections = _all(operations.list_collections)
    delete_collection = _method(operations.delete_collection)
    put_route = _method(operations.put_route)
    get_route = _method(operations.get_route)
    patch_route = _method(operations.patch_route)
    delete_route = _method(operations.delete_route)
    list_routes = _all(operations.list_routes)
    get_route_secret = _method(operations.get_route_secret)
    pause_route = _method(operations.pause_route)
    resume_route = _method(operations.resume_route)
    send_example = _method(operations.send_example)
    create_job = _method(operations.create_job)
    create_jobs = _method(operations.create_jobs)
    put_job = _method(operations.put_job)
    patch_job = _method(operations.patch_job)
    get_job = _method(operations.get_job)
    delete_job = _method(operations.delete_job)
    run_job = _method(operations.run_job)
    redrive_job = _method(operations.redrive_job)
    list_jobs = _items(operations.list_jobs)
    attempts = _all(operations.attempts)
    cluster = _method(operations.cluster)
    request = _method(operations.request)

    def _perform(self, call: Call[T]) -> T:
        """Do what the conversation says, until it ends."""
        conversation = converse(call, self._config, self._server)
        result: Result = None
        while True:
            if self._closed.is_set():
                raise ClientClosed
            try:
                step = conversation.send(result)
            except StopIteration as ended:
                value: T = ended.value
                return value
            if isinstance(step, Wait):
                self._closed.wait(step.wait_ms / 1000)
                result = None
                continue
            result = self._send(self._config.servers[step.server], step.request, step.timeout_ms)
            if isinstance(result, RawAnswer):
                self._server = step.server

    def _send(self, server: Server, request: bytes, timeout_ms: float) -> RawAnswer | Broken:
        """One request on an idle connection or, when there is none that works, on a new one."""
        monotonic_ms = self._config.sources.monotonic_ms
        deadline_ms = monotonic_ms() + timeout_ms
        sent = False
        while True:
            connection = self._take_idle(server)
            reused = connection is not None
            try:
                if connection is None:
                    connection = self._connect(server, deadline_ms)
                sent = True
                answer = connection.exchange(request, deadline_ms)
            except OSError as error:
                if connection is not None:
                    connection.close()
                    # Servers close idle connections; that is nobody's failure.
                    if (
                        reused
                        and not connection.parser.started
                        and not isinstance(error, TimeoutError)
                    ):
                        continue
                return broken(error, sent=sent)
            except BaseException:
                if connection is not None:
                    connection.close()
                raise
            self._give_back(server, connection)
            return answer

    def _connect(self, server: Server, deadline_ms: float) -> "_Connection":
        monotonic_ms = self._config.sources.monotonic_ms
        sock = socket.create_connection(
            (server.host, server.port), _seconds_left(deadline_ms, monotonic_ms)
        )
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if server.tls:
                if self._ssl_context is None:
                    self._ssl_context = ssl.create_default_context()
                sock.settimeout(_seconds_left(deadline_ms, monotonic_ms))
                sock = self._ssl_context.wrap_socket(sock, server_hostname=server.host)
        except BaseException:
            sock.close()
            raise
        return _Connection(sock, monotonic_ms)

    def _take_idle(self, server: Server) -> "_Connection | None":
        oldest_ms = self._config.sources.monotonic_ms() - limits.CLIENT_IDLE_MS_MAX
        with self._lock:
            while self._idle[server]:
                connection = self._idle[server].pop()
                if connection.idle_since_ms >= oldest_ms:
                    return connection
                connection.close()
        return None

    def _give_back(self, server: Server, connection: "_Connection") -> None:
        connection.idle_since_ms = self._config.sources.monotonic_ms()
        with self._lock:
            room = len(self._idle[server]) < limits.CLIENT_CONNECTIONS_MAX
            if connection.parser.keep_alive and room and not self._closed.is_set():
                self._idle[server].append(connection)
                return
        connection.close()


class Items(Generic[T]):
    """An iterator over a list; `next_cursor` goes on after the last page that was fetched."""

    def __init__(self, client: SyncClient, call: Call[Page[T]]) -> None:
        self._client = client
        self._call: Call[Page[T]] | None = call
        self._page: Iterator[T] = iter(())
        self.next_cursor: str | None = None

    def __iter__(self) -> Self:
        """The iterator itself."""
        return self

    def __next__(self) -> T:
        """The next item, from the next page if need be."""
        while True:
            for item in self._page:
                return item
            if self._call is None:
                raise StopIteration
            page = self._client._perform(self._call)
            self._page = iter(page.items)
            self.next_cursor = page.next_cursor
            self._call = next_page(self._call, page.next_cursor)


class _Connection:
    """One connection, one exchange at a time."""

    def __init__(self, sock: socket.socket, monotonic_ms: Callable[[], float]) -> None:
        self._sock = sock
        self._monotonic_ms = monotonic_ms
        self.parser = AnswerParser()
        self.idle_since_ms = 0.0

    def exchange(self, request: bytes, deadline_ms: float) -> RawAnswer:
        """Send a request and read its answer. Raises OSError and BadAnswer."""
        self.parser = AnswerParser()
        self._sock.settimeout(_seconds_left(deadline_ms, self._monotonic_ms))
        self._sock.sendall(request)
        while self.parser.answer is None:
            # Set anew for each read: a time-out of a socket is one read's, not the answer's.
            self._sock.settimeout(_seconds_left(deadline_ms, self._monotonic_ms))
            data = self._sock.recv(READ_BYTES)
            if data:
                self.parser.feed(data)
            else:
                self.parser.end()
        return self.parser.answer

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()


def _seconds_left(deadline_ms: float, monotonic_ms: Callable[[], float]) -> float:
    left_ms = deadline_ms - monotonic_ms()
    if left_ms <= 0:
        raise TimeoutError("timed out")
    return left_ms / 1000
