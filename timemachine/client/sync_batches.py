"""Many jobs with the sync client: as an iterator, and as a batcher that is given one by one.

Batches under way at the same time are threads.
"""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, overload

from timemachine.client.answers import CreateResult
from timemachine.client.batching import BatchConfig, Cutter, Item, given_job, item_of
from timemachine.client.call import Time
from timemachine.client.gathering import Gathering
from timemachine.client.operations.fields import NewJob

if TYPE_CHECKING:
    from timemachine.client.synchronous import SyncClient


def create_many(
    client: "SyncClient", batch: BatchConfig, jobs: Iterable[NewJob]
) -> Generator[CreateResult, None, None]:
    """`SyncClient.create_many`."""
    sent: deque[Future[list[CreateResult]]] = deque()
    source = _Source(client, batch, jobs)
    with ThreadPoolExecutor(batch.max_in_flight, "timemachine-create") as threads:
        try:
            while items := source.next_batch():
                while sent and (len(sent) == batch.max_in_flight or sent[0].done()):
                    yield from sent.popleft().result()
                sent.append(threads.submit(client._create, items, batch))
            while sent:
                yield from sent.popleft().result()
        finally:
            for future in sent:
                future.cancel()
    if source.failure is not None:
        raise source.failure


class _Source:
    """Reads jobs as far as one batch goes. `failure` is what the source raised."""

    def __init__(self, client: "SyncClient", batch: BatchConfig, jobs: Iterable[NewJob]) -> None:
        self._jobs = iter(jobs)
        self._cutter = Cutter(batch, client._config.sources)
        self._ended = False
        self.failure: Exception | None = None

    def next_batch(self) -> list[Item]:
        """The next items; none at the end."""
        while not self._ended:
            try:
                items = self._cutter.add(next(self._jobs))
            except StopIteration:
                self._ended = True
            except Exception as error:  # noqa: BLE001  # raised after the jobs before it
                self._ended = True
                self.failure = error
            else:
                if items:
                    return items
        return self._cutter.rest()


class Batcher(Gathering):
    """Gathers jobs into batches; made by `SyncClient.batcher`, and used with `with`.

    `created`, `unchanged` and `failed` count the answers so far. Many threads may add at once.
    """

    def __init__(
        self,
        client: "SyncClient",
        batch: BatchConfig,
        max_wait_ms: int,
        on_result: Callable[[CreateResult], object] | None,
    ) -> None:
        super().__init__(batch, max_wait_ms, on_result)
        self._client = client
        self._told = threading.Lock()
        """Held while results are told, so that listeners are called one at a time."""
        self._changed = threading.Condition()
        """Guards what waits and all that follows; told of every change."""
        self._threads: list[threading.Thread] = []
        self._in_flight = 0
        self._since_ms = 0.0
        self._ended = False

    def __enter__(self) -> Self:
        """The batcher itself. Raises ClientClosed the second time."""
        self._enter()
        for number in range(self._batch.max_in_flight):
            # An interpreter that ends need not wait for a batcher that was left open.
            thread = threading.Thread(
                target=self._work, name=f"timemachine-batcher-{number}", daemon=True
            )
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Send the rest and wait for all answers; after Ctrl-C only for what is under way."""
        with self._changed:
            # First, so that what another thread still adds is refused rather than lost.
            self._open = False
            self._changed.notify_all()
        try:
            if error is None or isinstance(error, Exception):
                self._idle()
        finally:
            with self._changed:
                self._stop()
            for thread in self._threads:
                thread.join()
        self._tally.end(error)

    @overload
    def add(self, job: NewJob, /) -> str: ...

    @overload
    def add(
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

    def add(self, job: NewJob | None = None, /, **fields: Any) -> str:
        """Take one job, a NewJob or its fields; returns its id. It will be created soon.

        Waits for room. Raises ValueError and TypeError for what cannot be a job, ClientClosed
        outside of the block, and what `on_result` has raised.
        """
        item = item_of(given_job(job, fields), 0, self._client._config.sources)
        with self._changed:
            while not self._accept(item):
                self._changed.notify_all()
                self._changed.wait()
            if len(self._buffer) == 1:
                self._since_ms = self._now_ms()
            self._changed.notify_all()
        return item.id

    def flush(self) -> None:
        """Send what was added, and wait until all of it is answered."""
        self._idle()
        self._hear()

    def _idle(self) -> None:
        with self._changed:
            while self._buffer or self._in_flight:
                self._due = True
                self._changed.notify_all()
                self._changed.wait()

    def _now_ms(self) -> float:
        return self._client._config.sources.monotonic_ms()

    def _work(self) -> None:
        while items := self._take():
            try:
                results = self._client._create(items, self._batch)
                with self._told:
                    self._tally.add(results)
            except BaseException as error:  # noqa: BLE001  # raised where the batcher is used
                self._tally.raised = error
            with self._changed:
                self._in_flight -= 1
                if self._tally.raised is not None:
                    self._stop()
                self._changed.notify_all()

    def _take(self) -> list[Item]:
        """Wait for a batch that is to be sent; none when there will be no more."""
        with self._changed:
            while not self._ended:
                wait_ms: float | None = None
                if self._buffer:
                    wait_ms = self._since_ms + self._wait_ms - self._now_ms()
                    self._due |= wait_ms <= 0
                    if self._ready:
                        self._in_flight += 1
                        self._changed.notify_all()
                        return self._next_batch()
                self._changed.wait(None if wait_ms is None else wait_ms / 1000)
            return []

    def _stop(self) -> None:
        """Give up what was not sent."""
        self._buffer.take()
        self._ended = True
        self._changed.notify_all()
