"""The asynchronous client: operations over asyncio streams."""

import asyncio
import ssl
from collections.abc import Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

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


def _method(
    build: Callable[P, Call[T]],
) -> Callable[Concatenate["Client", P], Coroutine[Any, Any, T]]:
    """The method that carries one operation through."""

    async def method(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._perform(build(*args, **kwargs))

    return dress(method, build)


def _all(
    build: Callable[P, Call[Page[T]]],
) -> Callable[Concatenate["Client", P], Coroutine[Any, Any, list[T]]]:
    """The method that fetches all pages of a short list."""

    async def method(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> list[T]:
        return [item async for item in AsyncItems(self, build(*args, **kwargs))]

    return dress(method, build)


def _items(
    build: Callable[P, Call[Page[T]]],
) -> "Callable[Concatenate[Client, P], AsyncItems[T]]":
    """The method that iterates over a long list."""

    def method(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> "AsyncItems[T]":
        return AsyncItems(self, build(*args, **kwargs))

    return dress(method, build)


class Client:
    """Talks to a cluster of TimeMachine.

    servers             base URLs like http://127.0.0.1:8001; with several, a node that does not
                        answer is passed over
    token               sent as `Authorization: Bearer`
    timeout_ms          one call in all, with all its tries and waits
    attempt_timeout_ms  one try with one server
    backoff_ms          wait after every server has failed once; doubles, with jitter
    backoff_ms_max      and stops growing here
    ssl_context         for https; the system's certificates by default

    Use it as `async with Client(...) as tm:` or call `close()`. One client serves many tasks at
    once, over 64 connections at most.
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
        self._slots = asyncio.Semaphore(limits.CLIENT_CONNECTIONS_MAX)
        self._server = 0
        self._closed = False

    def __repr__(self) -> str:
        """The servers, not the token."""
        return f"Client({', '.join(repr(server.url) for server in self._config.servers)})"

    async def __aenter__(self) -> Self:
        """The client itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the client."""
        await self.close()

    async def close(self) -> None:
        """Close all idle connections. Calls under way end; later ones raise ClientClosed."""
        self._closed = True
        connections = [each for idle in self._idle.values() for each in idle]
        for idle in self._idle.values():
            idle.clear()
        for connection in connections:
            connection.close()
        for connection in connections:
            await connection.wait_closed()

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

    async def _perform(self, call: Call[T]) -> T:
        """Do what the conversation says, until it ends."""
        conversation = converse(call, self._config, self._server)
        result: Result = None
        while True:
            if self._closed:
                raise ClientClosed
            try:
                step = conversation.send(result)
            except StopIteration as ended:
                value: T = ended.value
                return value
            if isinstance(step, Wait):
                await asyncio.sleep(step.wait_ms / 1000)
                result = None
                continue
            result = await self._send(
                self._config.servers[step.server], step.request, step.timeout_ms
            )
            if isinstance(result, RawAnswer):
                self._server = step.server

    async def _send(self, server: Server, request: bytes, timeout_ms: float) -> RawAnswer | Broken:
        """One request on an idle connection or, when there is none that works, on a new one."""
        connection: _Connection | None = None
        sent = False
        try:
            async with asyncio.timeout(timeout_ms / 1000), self._slots:
                while True:
                    connection = self._take_idle(server)
                    reused = connection is not None
                    if connection is None:
                        connection = await self._connect(server)
                    sent = True
                    try:
                        answer = await connection.exchange(request)
                    except OSError:
                        # Servers close idle connections; that is nobody's failure.
                        if not reused or connection.parser.started:
                            raise
                        connection.close()
                        continue
                    self._give_back(server, connection)
                    connection = None
                    return answer
        except OSError as error:  # TimeoutError is one.
            return broken(error, sent=sent)
        finally:
            if connection is not None:
                connection.close()

    async def _connect(self, server: Server) -> "_Connection":
        context = None
        if server.tls:
            if self._ssl_context is None:
                self._ssl_context = ssl.create_default_context()
            context = self._ssl_context
        return _Connection(
            *await asyncio.open_connection(
                server.host,
                server.port,
                ssl=context,
                server_hostname=server.host if server.tls else None,
            )
        )

    def _take_idle(self, server: Server) -> "_Connection | None":
        oldest_ms = self._config.sources.monotonic_ms() - limits.CLIENT_IDLE_MS_MAX
        idle = self._idle[server]
        while idle:
            connection = idle.pop()
            if connection.idle_since_ms >= oldest_ms and connection.usable:
                return connection
            connection.close()
        return None

    def _give_back(self, server: Server, connection: "_Connection") -> None:
        connection.idle_since_ms = self._config.sources.monotonic_ms()
        if connection.parser.keep_alive and not self._closed:
            self._idle[server].append(connection)
        else:
            connection.close()


class AsyncItems(Generic[T]):
    """An async iterator over a list; `next_cursor` goes on after the last page fetched."""

    def __init__(self, client: Client, call: Call[Page[T]]) -> None:
        self._client = client
        self._call: Call[Page[T]] | None = call
        self._page: Iterator[T] = iter(())
        self.next_cursor: str | None = None

    def __aiter__(self) -> Self:
        """The iterator itself."""
        return self

    async def __anext__(self) -> T:
        """The next item, from the next page if need be."""
        while True:
            for item in self._page:
                return item
            if self._call is None:
                raise StopAsyncIteration
            page = await self._client._perform(self._call)
            self._page = iter(page.items)
            self.next_cursor = page.next_cursor
            self._call = next_page(self._call, page.next_cursor)


class _Connection:
    """One connection, one exchange at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.parser = AnswerParser()
        self.idle_since_ms = 0.0

    @property
    def usable(self) -> bool:
        """Whether the other end is not known to have closed it."""
        return not self._reader.at_eof() and not self._writer.is_closing()

    async def exchange(self, request: bytes) -> RawAnswer:
        """Send a request and read its answer. Raises OSError and BadAnswer."""
        self.parser = AnswerParser()
        self._writer.write(request)
        await self._writer.drain()
        while self.parser.answer is None:
            data = await self._reader.read(READ_BYTES)
            if data:
                self.parser.feed(data)
            else:
                self.parser.end()
        return self.parser.answer

    def close(self) -> None:
        """Close the connection now, without waiting for what was not sent."""
        self._writer.transport.abort()

    async def wait_closed(self) -> None:
        """Wait until it is closed; how it ended does not matter any more."""
        try:
            await self._writer.wait_closed()
        except OSError:
            pass
