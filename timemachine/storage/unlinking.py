"""Gives the space of LevelDB's deleted files back beside LevelDB, not inside it.

LevelDB 1.22 deletes the files that a compaction has replaced while it holds the mutex that every
read and write takes. To free one file of 64 MiB took ext4 20 ms here, and a compaction replaces
half a dozen: reads on the event loop waited for more than 100 ms. To delete a name costs nothing
as long as the file has another one. So a thread gives every file a second name, in a directory of
its own, and removes that when LevelDB has removed the first.

Nothing depends on it: where a file has no second name yet, or can have none, LevelDB frees it.
"""

import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_EVERY_S = 0.1
_SUFFIXES = (".ldb", ".log")


class Unlinker:
    """The thread and its directory.

    `store` is LevelDB's directory, `links` one in the same file system, for the second names.
    """

    def __init__(self, store: Path, links: Path) -> None:
        self._store = store
        self._links = links
        self._linked: set[str] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="unlinker", daemon=True)

    def start(self) -> None:
        """Remove what an earlier process left in `links`, make it if need be, and begin.

        LevelDB must have opened its directory. Raises OSError.
        """
        self._links.mkdir(mode=0o700, exist_ok=True)
        self._remove(each.name for each in list(self._links.iterdir()))
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and remove all second names."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self._remove(self._linked)

    def _run(self) -> None:
        while not self._stopping.wait(_EVERY_S):
            with suppress(OSError):
                self._step()

    def _step(self) -> None:
        there = {each.name for each in self._store.iterdir() if each.suffix in _SUFFIXES}
        deleted = self._linked - there
        self._remove(deleted)
        self._linked -= deleted
        for name in there - self._linked:
            # It may be deleted by now; or this file system has no hard links.
            with suppress(OSError):
                (self._links / name).hardlink_to(self._store / name)
                self._linked.add(name)

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            (self._links / name).unlink(missing_ok=True)
