"""Many jobs with the async client: as an iterator, and as a batcher that is given one by one."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, overload

from timemachine.client.answers import CreateResult
from timemachine.client.batching import BatchConfig, Cutter, Item, given_job, item_of
from timemachine.client.call import Time
from timemachine.client.gathering import Gathering
from timemachine.client.operations.fields import NewJob

if TYPE_CHECKING:
    from timemachine.client.asynchronous import Client


async def create_many(
    client: "Client", batch: BatchConfig, jobs: Iterable[NewJob] | AsyncIterable[NewJob]
) -> AsyncGenerator[CreateResult, None]:
    """`Client.create_many`."""
    # No TaskGroup: a generator must not yield inside one.
    start = asyncio.get_running_loop().create_task
    sent: deque[asyncio.Task[list[CreateResult]]] = deque()
    source = _Source(client, batch, jobs)
    try:
        while items := await source.next_batch():
            while sent and (len(sent) == batch.max_in_flight or sent[0].done()):
                for result in await sent.popleft():
                    yield result
            sent.append(start(client._create(items, batch)))
        while sent:
            for result in await sent.popleft():
                yield result
    finally:
        for task in sent:
            task.cancel()
        await asyncio.gather(*sent, return_exceptions=True)
    if source.failure is not None:
        raise source.failure


class _Source:
    """Reads jobs as far as one batch goes. `failure` is what the source raised."""

    def __init__(
        self,
        client: "Client",
        batch: BatchConfig,
        jobs: Iterable[NewJob] | AsyncIterable[NewJob],
    ) -> None:
        self._jobs = jobs.__aiter__() if isinstance(jobs, AsyncIterable) else _asynchronous(jobs)
        self._cutter = Cutter(batch, client._config.sources)
        self._ended = False
        self.failure: Exception | None = None

    async def next_batch(self) -> list[Item]:
        """The next items; none at the end."""
        while not self._ended:
            try:
                items = self._cutter.add(await anext(self._jobs))
            except StopAsyncIteration:
                self._ended = True
            except Exception as error:  # noqa: BLE001  # raised after the jobs before it
                self._ended = True
                self.failure = error
            else:
                if items:
                    return items
        return self._cutter.rest()


async def _asynchronous(jobs: Iterable[NewJob]) -> AsyncIterator[NewJob]:
    for job in jobs:
        yield job


class AsyncBatcher(Gathering):
    """Gathers jobs into batches; made by `Client.batcher`, and used with `async with`.

    `created`, `unchanged` and `failed` count the answers so far. Many tasks may add at once.
    """

    def __init__(
        self,
        client: "Client",
        batch: BatchConfig,
        max_wait_ms: int,
        on_result: Callable[[CreateResult], object] | None,
    ) -> None:
        super().__init__(batch, max_wait_ms, on_result)
        self._client = client
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        """The batcher itself. Raises ClientClosed the second time."""
        self._enter()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Send the rest and wait for all answers; give both up when the block was cancelled."""
        self._open = False
        try:
            if error is None or isinstance(error, Exception):
                await self._idle()
        finally:
            self._stop()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tally.end(error)

    @overload
    async def add(self, job: NewJob, /) -> str: ...

    @overload
    async def add(
        self,
        /,
        *,
        route: str,
        trigger_time: Time | None = None,
        delay_ms: int | None = None,
        meta: Any = None,
        tags: Iterable[str] = (),
        ordering_key: str | None = None,
        id: str | None = None,
    ) -> str: ...

    async def add(self, job: NewJob | None = None, /, **fields: Any) -> str:
        """Take one job, a NewJob or its fields; returns its id. It will be created soon.

        Waits for room. Raises ValueError and TypeError for what cannot be a job, ClientClosed
        outside of the block, and what `on_result` has raised.
        """
        item = item_of(given_job(job, fields), 0, self._client._config.sources)
        while not self._accept(item):
            self._changed.clear()
            self._pump()  # Where it could send, there is room, and no wait.
            await self._changed.wait()
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._wait_ms / 1000, self._waited)
        self._pump()
        return item.id

    async def flush(self) -> None:
        """Send what was added, and wait until all of it is answered."""
        await self._idle()
        self._hear()

    async def _idle(self) -> None:
        while self._buffer or self._tasks:
            self._due = True
            self._pump()
            self._changed.clear()
            await self._changed.wait()

    def _waited(self) -> None:
        self._timer = None
        self._due = True
        self._pump()

    def _pump(self) -> None:
        """Send what is to be sent, as far as that many batches may be under way."""
        while self._ready and len(self._tasks) < self._batch.max_in_flight:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            # No TaskGroup: what is under way must end before the block's own error comes out.
            task = asyncio.get_running_loop().create_task(self._send(self._next_batch()))
            self._tasks.add(task)
            task.add_done_callback(self._ended)
            self._changed.set()

    async def _send(self, items: list[Item]) -> None:
        self._tally.add(await self._client._create(items, self._batch))

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and self._tally.raised is None:
            self._tally.raised = task.exception()
        if self._tally.raised is not None:
            self._stop()
        self._pump()
        self._changed.set()

    def _stop(self) -> None:
        """Give up what was not sent, and what is under way."""
        self._buffer.take()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for task in self._tasks:
            task.cancel()
