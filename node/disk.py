"""The commit thread: writes and syncs one batch at a time beside the event loop.

The write releases the interpreter, so the loop goes on while the disk works. One thread, one call
a batch: every further crossing costs more than it gives.
"""

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue

from timemachine.errors import StoreError, StoreFailed
from timemachine.storage.api import Prepared, Store

_Job = tuple[Prepared, Callable[[StoreError | None], None]]


class CommitThread:
    """The `Disk` of production."""

    def __init__(self, loop: asyncio.AbstractEventLoop, store: Store) -> None:
        self._loop = loop
        self._store = store
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="commit", daemon=True)
        self._thread.start()

    def write(self, prepared: Prepared, done: Callable[[StoreError | None], None]) -> None:
        """See Disk."""
        self._jobs.put((prepared, done))

    def _run(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            prepared, done = job
            error: StoreError | None = None
            try:
                self._store.write(prepared)
            except StoreError as failure:
                error = failure
            except Exception as failure:  # noqa: BLE001 - whatever it was: the batch is not known to be written
                error = StoreFailed(f"A write failed: {type(failure).__name__}.")
            try:
                self._loop.call_soon_threadsafe(done, error)
            except RuntimeError:  # the loop is closed: the process is on its way out
                return

    def close(self) -> None:
        """Finish what is under way and end the thread."""
        self._jobs.put(None)
        self._thread.join()
