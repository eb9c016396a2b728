"""A thread for what takes long beside the event loop and the commit thread: to compact, so far."""

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from timemachine.errors import StoreError

_Job = tuple[Callable[[], Any], Callable[[Any], None]]


class AsideThread:
    """The `Aside` of production."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="aside", daemon=True)
        self._thread.start()

    def do(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """See Aside."""
        self._jobs.put((work, done))

    def _run(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            work, done = job
            try:
                result = work()
            except StoreError as error:
                result = error
            except Exception as failure:  # noqa: BLE001 - whatever it was: the work is not done
                result = StoreError(f"Work beside the loop failed: {type(failure).__name__}.")
            try:
                self._loop.call_soon_threadsafe(done, result)
            except RuntimeError:  # the loop is closed: the process is on its way out
                return

    def close(self) -> None:
        """Finish what is under way and end the thread. The store must not be closed before."""
        self._jobs.put(None)
        self._thread.join()
