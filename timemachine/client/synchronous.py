"""The synchronous client: operations over blocking sockets. Safe to share between threads."""

import socket
import ssl
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Concatenate, Generic, ParamSpec, Self, TypeVar

from timemachine import limits
from timemachine.client import operations
from timemachine.client.answers import Bulk, CreateResult, Page, Task
from timemachine.client.batching import BatchConfig, Item, converse_batch
from timemachine.client.call import Call
from timemachine.client.common import ALL_BUSY, READ_BYTES, Paging, broken, dress
from timemachine.client.config import Config, Server, Sources, parse_server
from timemachine.client.conversation import Broken, Result, Step, Wait, converse
from timemachine.client.http1 import AnswerParser, RawAnswer
from timemachine.client.operations import NewJob
from timemachine.client.sync_batches import Batcher, create_many
from timemachine.client.waiting import converse_task
from timemachine.errors import BadAnswer, ClientClosed

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

    Arguments as for `Client`. Threads may share one client, over 64 connections at most; an
    iterator belongs to one thread. Name resolution is left to the system and its own time-outs.
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
        self._slots = threading.Semaphore(limits.CLIENT_CONNECTIONS_MAX)
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

    def wait_task(self, task: Bulk | str, *, timeout_ms: int | None = None) -> Task:
        """Wait until a task has ended; `task` is its id, or the answer that named it.

        Raises TaskFailed when it failed, TaskUnfinished when it goes on after `timeout_ms`; without
        that it waits as long as it takes. A task that was cancelled is returned like one that is
        done: its `state` says which.
        """
        return self._drive(converse_task(task, timeout_ms, self._config, self._server))

    def create_many(
        self,
        db: str,
        collection: str,
        jobs: Iterable[NewJob],
        *,
        max_jobs: int = limits.CLIENT_BATCH_JOBS_DEFAULT,
        max_bytes: int = limits.CLIENT_BATCH_BYTES_DEFAULT,
        max_in_flight: int = limits.CLIENT_BATCHES_IN_FLIGHT_DEFAULT,
        timeout_ms: int | None = None,
        allow_missing_route: bool = False,
    ) -> Generator[CreateResult, None, None]:
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
    ) -> Batcher:
        """Gather jobs that come one by one into batches: `with tm.batcher(...) as batch:`.

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
        return Batcher(self, batch, max_wait_ms, on_result)

    def _perform(self, call: Call[T]) -> T:
        """Carry a call through."""
        return self._drive(converse(call, self._config, self._server))

    def _create(self, items: Sequence[Item], batch: BatchConfig) -> list[CreateResult]:
        """Carry a batch through. Raises nothing that a node or the network can be blamed for."""
        return self._drive(converse_batch(items, batch, self._config, self._server))

    def _drive(self, conversation: Generator[Step, Result, T]) -> T:
        """Do what the conversation says, until it ends."""
        try:
            step = next(conversation)
            while True:
                if self._closed.is_set():
                    step = conversation.throw(ClientClosed())
                elif isinstance(step, Wait):
                    self._closed.wait(step.wait_ms / 1000)
                    step = conversation.send(None)
                else:
                    server = self._config.servers[step.server]
                    try:
                        result = self._send(server, step.request, step.timeout_ms)
                    except BadAnswer as error:
                        step = conversation.throw(error)
                        continue
                    if isinstance(result, RawAnswer):
                        self._server = step.server
                    step = conversation.send(result)
        except StopIteration as ended:
            value: T = ended.value
            return value

    def _send(self, server: Server, request: bytes, timeout_ms: float) -> RawAnswer | Broken:
        """One request on an idle connection or, when there is none that works, on a new one."""
        deadline_ms = self._config.sources.monotonic_ms() + timeout_ms
        if not self._slots.acquire(timeout=timeout_ms / 1000):
            return Broken(ALL_BUSY, sent=False)
        try:
            return self._exchange(server, request, deadline_ms)
        finally:
            self._slots.release()

    def _exchange(self, server: Server, request: bytes, deadline_ms: float) -> RawAnswer | Broken:
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
        self._paging = Paging(call)
        self._page: Iterator[T] = iter(())

    @property
    def next_cursor(self) -> str | None:
        """What goes on after the last page that was fetched; None when there is nothing."""
        return self._paging.next_cursor

    def __iter__(self) -> Self:
        """The iterator itself."""
        return self

    def __next__(self) -> T:
        """The next item, from the next page if need be."""
        while True:
            for item in self._page:
                return item
            page = self._next_page()
            if page is None:
                raise StopIteration
            self._page = iter(page.items)

    def pages(self) -> Generator[Page[T], None, None]:
        """Iterate over whole pages instead, from the next one on."""
        while (page := self._next_page()) is not None:
            yield page

    def _next_page(self) -> Page[T] | None:
        call = self._paging.call
        return None if call is None else self._paging.took(self._client._perform(call))


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
