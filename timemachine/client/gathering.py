"""What a batcher decides: which jobs it takes, when they go, and what became of them. No I/O.

`AsyncBatcher` and `Batcher` are this, with the waiting and sending of tasks or of threads.
"""

from collections.abc import Callable
from dataclasses import replace

from timemachine.client.answers import CreateResult
from timemachine.client.batching import BatchConfig, Buffer, Item
from timemachine.client.tally import Tally
from timemachine.errors import ClientClosed


class Gathering:
    """The jobs of a batcher that wait, and the counts of those that were answered.

    Not safe between threads: whoever has several holds a lock.
    """

    def __init__(
        self,
        batch: BatchConfig,
        max_wait_ms: int,
        on_result: Callable[[CreateResult], object] | None,
    ) -> None:
        if max_wait_ms < 0:
            raise ValueError("max_wait_ms must not be negative")
        self._batch = batch
        self._wait_ms = max_wait_ms
        self._buffer = Buffer(batch)
        self._tally = Tally(on_result)
        self._number = 0
        self._due = False
        """What waits is to be sent although it is no full batch."""
        self._open = self._entered = False

    @property
    def created(self) -> int:
        """How many jobs were created so far."""
        return self._tally.created

    @property
    def unchanged(self) -> int:
        """How many jobs were there already."""
        return self._tally.unchanged

    @property
    def failed(self) -> int:
        """How many jobs were not created."""
        return self._tally.failed

    def _enter(self) -> None:
        """The block begins. Raises ClientClosed the second time."""
        if self._entered:
            raise ClientClosed("A batcher has one block; make another.")
        self._open = self._entered = True

    def _hear(self) -> None:
        """Raises what `on_result` has raised."""
        if self._tally.raised is not None:
            raise self._tally.raised

    def _accept(self, item: Item) -> bool:
        """Take an item and number it; without room for it, False: what waits is due then.

        Raises ClientClosed outside of the block, and what `on_result` has raised.
        """
        self._hear()
        if not self._open:
            raise ClientClosed("The batcher is used outside of its block.")
        if not self._buffer.takes(item):
            self._due = True
            return False
        self._buffer.put(replace(item, number=self._number))
        self._number += 1
        return True

    @property
    def _ready(self) -> bool:
        """Whether there is a batch that is to be sent now."""
        return bool(self._buffer) and (self._due or self._buffer.full)

    def _next_batch(self) -> list[Item]:
        """The batch that is to be sent now."""
        self._due = False
        return self._buffer.take()
