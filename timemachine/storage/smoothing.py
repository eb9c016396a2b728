"""Does in small portions, beside LevelDB, what LevelDB lets the disk do in large ones.

**Freeing.** LevelDB 1.22 deletes the files that a compaction has replaced while it holds the mutex
that every read and write takes. To free one file of 64 MiB took ext4 20 ms here, and a compaction
replaces half a dozen: reads on the event loop waited for more than 100 ms. To delete a name costs
nothing as long as the file has another one. So every file gets a second name, in a directory of
its own, which is removed after LevelDB has removed the first.

**Writing out.** LevelDB writes a table of 64 MiB and then syncs it. Until that is done, syncs of
the log stand in the same queue: 20 ms on a fast disk, several hundred on a busy one, and jobs are
late by as much. So a table is synced every few MiB while it grows.

Nothing depends on it: what this thread does not get to, or may not do, LevelDB does as ever.
"""

import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_IDLE_S = 0.05
_GROWING_S = 0.02
_TABLE = ".ldb"
_LOG = ".log"
_sync = getattr(os, "fdatasync", os.fsync)


class Smoother:
    """The thread, and the directory of second names.

    `store` is LevelDB's directory, `links` one in the same file system, for the second names.
    """

    def __init__(self, store: Path, links: Path) -> None:
        self._store = store
        self._links = links
        self._linked: set[str] = set()
        self._growing: dict[str, int] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="smoother", daemon=True)

    def start(self) -> None:
        """Remove what an earlier process left in `links`, make it if need be, and begin.

        LevelDB must have opened its directory. Where there can be no second names, a full disk
        among it, there is no thread either.
        """
        try:
            self._links.mkdir(mode=0o700, exist_ok=True)
            left = [each.name for each in self._links.iterdir()]
        except OSError:
            return
        self._remove(left)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and remove all second names, as far as the disk still lets it."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self._remove(self._linked)

    def disk_bytes(self) -> int:
        """What the store takes on its disk, with files that LevelDB has deleted a moment ago."""
        sizes: dict[str, int] = {}
        for directory in (self._store, self._links):
            # What is deleted meanwhile takes nothing any more.
            with suppress(OSError), os.scandir(directory) as entries:
                for entry in entries:
                    if entry.name not in sizes:
                        with suppress(OSError):
                            sizes[entry.name] = entry.stat().st_size
        return sum(sizes.values())

    def _run(self) -> None:
        with suppress(OSError):
            self._link()
        # Those are complete. To sync each of them would make the disk flush once for each.
        self._growing.clear()
        while not self._stopping.wait(_GROWING_S if self._growing else _IDLE_S):
            with suppress(OSError):
                self._link()
            for name in list(self._growing):
                with suppress(OSError):
                    self._write_out(name)

    def _link(self) -> None:
        """Give new files a second name, and free those that LevelDB has deleted."""
        with os.scandir(self._store) as entries:
            there = {entry.name for entry in entries if entry.name.endswith((_TABLE, _LOG))}
        self._linked -= self._remove(self._linked - there)
        for name in there - self._linked:
            # It may be deleted by now; or this file system has no hard links.
            with suppress(OSError):
                (self._links / name).hardlink_to(self._store / name)
                self._linked.add(name)
                if name.endswith(_TABLE):
                    self._growing[name] = 0

    def _write_out(self, name: str) -> None:
        """Sync what a table has grown by; one that has begun and did not grow is complete."""
        before = self._growing.pop(name)
        handle = os.open(self._links / name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(handle).st_size
            if size > before or not size:
                self._growing[name] = size
                _sync(handle)
        finally:
            os.close(handle)

    def _remove(self, names: Iterable[str]) -> set[str]:
        """Remove second names; returns those that are gone."""
        gone = set()
        for name in names:
            with suppress(OSError):
                (self._links / name).unlink(missing_ok=True)
                gone.add(name)
        return gone
