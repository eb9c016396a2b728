"""The asynchronous client: operations over asyncio streams.

A client belongs to the event loop that it is first used in.
"""

import asyncio
import ssl
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from timemachine import limits
from timemachine.client import operations
from timemachine.client.answers import Bulk, CreateResult, Page, Task
from timemachine.client.async_batches import AsyncBatcher, create_many
from timemachine.client.batching import BatchConfig, Item, converse_batch
from timemachine.client.call import Call
from timemachine.client.common import ALL_BUSY, READ_BYTES, Paging, broken, dress
from timemachine.client.config import Config, Server, Sources, parse_server
from timemachine.client.conversation import Broken, Result, Step, Wait, converse
from timemachine.client.http1 import AnswerParser, RawAnswer
from timemachine.client.operations import NewJob
from timemachine.client.waiting import converse_task
from timemachine.errors import BadAnswer, ClientClosed

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
    once, over 64 connections at most; it belongs to the event loop that it is first used in. A
    call that is cancelled takes its connection along, and the next one is not disturbed.
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
        self._loop: asyncio.AbstractEventLoop | None = None

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
    rotate_route_secret = _method(operations.rotate_route_secret)
    pause_route = _method(operations.pause_route)
    resume_route = _method(operations.resume_route)
    send_example = _method(operations.send_example)
    route_stats = _method(operations.route_stats)
    route_attempts = _items(operations.route_attempts)
    redrive_route = _method(operations.redrive_route)
    replay_missing = _method(operations.replay_missing)
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
    delete_attempt_content = _method(operations.delete_attempt_content)
    cancel_jobs = _method(operations.cancel_jobs)
    reschedule_jobs = _method(operations.reschedule_jobs)
    forecast = _all(operations.forecast)
    get_task = _method(operations.get_task)
    list_tasks = _items(operations.list_tasks)
    cancel_task = _method(operations.cancel_task)
    cluster = _method(operations.cluster)
    vnodes = _all(operations.vnodes)
    make_plan = _method(operations.make_plan)
    get_plan = _method(operations.get_plan)
    list_plans = _items(operations.list_plans)
    confirm_plan = _method(operations.confirm_plan)
    pause_plan = _method(operations.pause_plan)
    resume_plan = _method(operations.resume_plan)
    cancel_plan = _method(operations.cancel_plan)
    finalise = _method(operations.finalise)
    master_keys = _all(operations.master_keys)
    reseal = _method(operations.reseal)
    issue_join_token = _method(operations.issue_join_token)
    get_settings = _method(operations.get_settings)
    put_settings = _method(operations.put_settings)
    ready = _method(operations.ready)
    version = _method(operations.version)
    request = _method(operations.request)

    async def wait_task(self, task: Bulk | str, *, timeout_ms: int | None = None) -> Task:
        """Wait until a task has ended; `task` is its id, or the answer that named it.

        Raises TaskFailed when it failed, TaskUnfinished when it goes on after `timeout_ms`; without
        that it waits as long as it takes. A task that was cancelled is returned like one that is
        done: its `state` says which.
        """
        return await self._drive(converse_task(task, timeout_ms, self._config, self._server))

    def create_many(
        self,
        db: str,
        collection: str,
        jobs: Iterable[NewJob] | AsyncIterable[NewJob],
        *,
        max_jobs: int = limits.CLIENT_BATCH_JOBS_DEFAULT,
        max_bytes: int = limits.CLIENT_BATCH_BYTES_DEFAULT,
        max_in_flight: int = limits.CLIENT_BATCHES_IN_FLIGHT_DEFAULT,
        timeout_ms: int | None = None,
        allow_missing_route: bool = False,
    ) -> AsyncGenerator[CreateResult, None]:
        """Create any number of jobs, and iterate over what became of each, in their order.

        Batches of up to `max_jobs` and `max_bytes` are sent, `max_in_flight` at the same time;
        `jobs` is read no faster than they are answered, so memory is bounded. `timeout_ms` is what
        one batch may take with all its tries, the client's own when None. A job that cannot be
        created has its `error`; the others go on.

        What `jobs` raises comes out after the results of the jobs before. Whoever leaves the loop
        early gives up what is on its way: those jobs may be created or not.
        """
        batch = BatchConfig(
            db=db,
            collection=collection,
            max_jobs=max_jobs,
            max_bytes=max_bytes,
            max_in_flight=max_in_flight,
            timeout_ms=timeout_ms,
            allow_missing_route=allow_missing_route,
        )
        return create_many(self, batch, jobs)

    def batcher(
        self,
        db: str,
        collection: str,
        *,
        max_jobs: int = limits.CLIENT_BATCH_JOBS_DEFAULT,
        max_bytes: int = limits.CLIENT_BATCH_BYTES_DEFAULT,
        max_in_flight: int = limits.CLIENT_BATCHES_IN_FLIGHT_DEFAULT,
        max_wait_ms: int = limits.CLIENT_BATCH_WAIT_MS_DEFAULT,
        timeout_ms: int | None = None,
        allow_missing_route: bool = False,
        on_result: Callable[[CreateResult], object] | None = None,
    ) -> AsyncBatcher:
        """Gather jobs that come one by one into batches: `async with tm.batcher(...) as batch:`.

        `batch.add(...)` takes one job, and waits while `max_in_flight` batches are under way and
        the next one is full. A batch is sent when it is full, after `max_wait_ms`, and at the end
        of the block, which waits for all answers. `on_result` is called with what became of each
        job; without it, a block in which jobs were not created ends with BatchFailed.
        """
        batch = BatchConfig(
            db=db,
            collection=collection,
            max_jobs=max_jobs,
            max_bytes=max_bytes,
            max_in_flight=max_in_flight,
            timeout_ms=timeout_ms,
            allow_missing_route=allow_missing_route,
        )
        return AsyncBatcher(self, batch, max_wait_ms, on_result)

    async def _perform(self, call: Call[T]) -> T:
        """Carry a call through."""
        return await self._drive(converse(call, self._config, self._server))

    async def _create(self, items: Sequence[Item], batch: BatchConfig) -> list[CreateResult]:
        """Carry a batch through. Raises nothing that a node or the network can be blamed for."""
        return await self._drive(converse_batch(items, batch, self._config, self._server))

    async def _drive(self, conversation: Generator[Step, Result, T]) -> T:
        """Do what the conversation says, until it ends."""
        self._bind()
        try:
            step = next(conversation)
            while True:
                if self._closed:
                    step = conversation.throw(ClientClosed())
                elif isinstance(step, Wait):
                    await asyncio.sleep(step.wait_ms / 1000)
                    step = conversation.send(None)
                else:
                    server = self._config.servers[step.server]
                    try:
                        result = await self._send(server, step.request, step.timeout_ms)
                    except BadAnswer as error:
                        step = conversation.throw(error)
                        continue
                    if isinstance(result, RawAnswer):
                        self._server = step.server
                    step = conversation.send(result)
        except StopIteration as ended:
            value: T = ended.value
            return value

    def _bind(self) -> None:
        """Connections cannot move to another event loop; say so, instead of failing oddly."""
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeError("this client was used in another event loop; make one for each loop")

    async def _send(self, server: Server, request: bytes, timeout_ms: float) -> RawAnswer | Broken:
        """One request on an idle connection or, when there is none that works, on a new one."""
        connection: _Connection | None = None
        waiting = True
        sent = False
        try:
            async with asyncio.timeout(timeout_ms / 1000), self._slots:
                waiting = False
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
            return Broken(ALL_BUSY, sent=False) if waiting else broken(error, sent=sent)
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
        self._paging = Paging(call)
        self._page: Iterator[T] = iter(())

    @property
    def next_cursor(self) -> str | None:
        """What goes on after the last page that was fetched; None when there is nothing."""
        return self._paging.next_cursor

    def __aiter__(self) -> Self:
        """The iterator itself."""
        return self

    async def __anext__(self) -> T:
        """The next item, from the next page if need be."""
        while True:
            for item in self._page:
                return item
            page = await self._next_page()
            if page is None:
                raise StopAsyncIteration
            self._page = iter(page.items)

    async def pages(self) -> AsyncGenerator[Page[T], None]:
        """Iterate over whole pages instead, from the next one on."""
        while (page := await self._next_page()) is not None:
            yield page

    async def _next_page(self) -> Page[T] | None:
        call = self._paging.call
        return None if call is None else self._paging.took(await self._client._perform(call))


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
