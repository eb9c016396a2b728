"""Views of the store that backups are read from, one for each vnode that is being read.

A view shows one moment, so what comes out of it page by page is the vnode as it was then. It shows
all that had been acknowledged when its first page was asked for, so whoever is not sure that it
leads asks a majority first. The page that was given last is kept for a repeat. A view is let go of
after its last page, or when nobody asks for more; what was begun is begun anew then.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from node.env import Timer, World
from node.runtime import Runtime
from timemachine import limits
from timemachine.backup.pages import PartHead, head_of, pages_of, unchanged_page
from timemachine.errors import NotLeader, StoreError, TimeMachineError, Unavailable
from timemachine.storage.api import View
from timemachine.vnode import Vnode

Key = tuple[str, tuple[int, int]]
"""The name that a backup has given, and the vnode."""
Done = Callable[[bytes | TimeMachineError | None], None]
"""Hears a page, an error, or None where it is not the next one of a view that is open here."""

_UNREADABLE = "The vnode cannot be read here."


class _Open:
    """A vnode that is being read.

    number  that of the page given last
    asked   who waits for a page, and for which
    """

    __slots__ = ("asked", "head", "last", "number", "pages", "timer", "view")

    def __init__(
        self, view: View, head: PartHead, pages: Iterator[tuple[bytes, bool] | None]
    ) -> None:
        self.view = view
        self.head = head
        self.pages = pages
        self.number = -1
        self.last = b""
        self.asked: list[tuple[int, Done]] = []
        self.timer: Timer | None = None


class _Last(NamedTuple):
    """The last page of a view that is closed."""

    number: int
    page: bytes
    position: str


class BackupViews:
    """The views that are open on this node; `view` opens one more."""

    def __init__(self, world: World, runtime: Runtime, view: Callable[[], View]) -> None:
        self._world = world
        self._runtime = runtime
        self._view = view
        self._open: dict[Key, _Open] = {}
        # The last pages of views that are closed already: their answers may have been lost.
        self._last: dict[Key, _Last] = {}

    def page(
        self,
        name: str,
        vnode: Vnode,
        number: int,
        unless: str | None,
        position: str | None,
        done: Done,
    ) -> None:
        """Give a page of a vnode.

        Where `number` is 0 a view begins, and another one of that name ends; with `unless` only if
        the vnode has not the content that it names. Where it is not, `position` is that of the
        first page: another node may have given that one, of another moment.
        """
        key = (name, vnode.group)
        if number:
            self._go_on(key, number, position, done)
            return
        if self._repeats(key):
            self._go_on(key, number, None, done)
            return

        def known(error: TimeMachineError | None) -> None:
            if error is not None:
                done(error)
            elif not self._runtime.holds(vnode):
                done(NotLeader())  # what has taken its place here may be empty yet
            elif self._repeats(key):
                self._go_on(key, number, None, done)
            else:
                self._begin(key, vnode, unless, done)

        self._runtime.barrier(vnode, known)

    def _begin(self, key: Key, vnode: Vnode, unless: str | None, done: Done) -> None:
        before = self._open.get(key)
        if before is not None:
            self._end(key, before)
        self._last.pop(key, None)
        if len(self._open) >= limits.BACKUP_VIEWS_MAX:
            done(Unavailable("Too many vnodes are being backed up here."))
            return
        try:
            view = self._view()
        except StoreError:
            done(Unavailable(_UNREADABLE))
            return
        try:
            head = head_of(view, vnode.keys, vnode.group)
        except StoreError:
            view.close()
            done(Unavailable(_UNREADABLE))
            return
        except BaseException:
            view.close()
            raise
        if head.position.content == unless:
            view.close()
            done(unchanged_page(head))
            return
        opened = self._open[key] = _Open(view, head, pages_of(view, vnode.keys, head))
        self._look_after(key, opened)
        self._go_on(key, 0, None, done)

    def _go_on(self, key: Key, number: int, position: str | None, done: Done) -> None:
        reading = self._open.get(key)
        if reading is None:
            kept = self._last.get(key)
            fits = kept is not None and kept.number == number and position in (None, kept.position)
            done(kept.page if fits and kept is not None else None)
            return
        if position not in (None, reading.head.position.text):
            done(None)
            return
        reading.asked.append((number, done))
        if len(reading.asked) == 1:
            self._serve(key, reading)

    def _serve(self, key: Key, reading: _Open) -> None:
        """Answer those who wait, until one wants a page that has to be read."""
        while reading.asked and self._open.get(key) is reading:
            number, done = reading.asked[0]
            if number == reading.number + 1:
                self._read(key, reading)
                return
            del reading.asked[0]
            # Of the last one the answer was lost on the way.
            done(reading.last if number == reading.number else None)

    def _read(self, key: Key, reading: _Open) -> None:
        """Read on; in between others have their turn."""
        if self._open.get(key) is not reading:
            return
        try:
            page = next(reading.pages)
        except StoreError:
            self._end(key, reading, Unavailable(_UNREADABLE))
            return
        if page is None:
            self._world.call_soon(partial(self._read, key, reading))
            return
        reading.number += 1
        reading.last, last = page
        _, done = reading.asked.pop(0)
        if last:
            self._keep(key, reading)
        else:
            self._look_after(key, reading)
        done(reading.last)
        self._serve(key, reading)

    def _look_after(self, key: Key, reading: _Open) -> None:
        """Let go of it when nobody has asked for long."""
        if reading.timer is not None:
            reading.timer.cancel()
        reading.timer = self._world.call_later(
            limits.BACKUP_VIEW_MS, partial(self._end, key, reading)
        )

    def _repeats(self, key: Key) -> bool:
        """Whether the first page of a view was the one that was given last."""
        reading = self._open.get(key)
        if reading is not None:
            return reading.number <= 0
        kept = self._last.get(key)
        return kept is not None and kept.number == 0

    def _keep(self, key: Key, reading: _Open) -> None:
        """Let go of a view that was read to its end, but for its last page."""
        kept = _Last(reading.number, reading.last, reading.head.position.text)
        while len(self._last) >= limits.BACKUP_VIEWS_MAX:
            del self._last[next(iter(self._last))]
        self._last[key] = kept
        asked, reading.asked = reading.asked, []
        self._end(key, reading)
        self._world.call_later(limits.BACKUP_VIEW_MS, partial(self._forget, key, kept))
        for number, done in asked:
            self._go_on(key, number, kept.position, done)

    def _forget(self, key: Key, kept: _Last) -> None:
        if self._last.get(key) is kept:
            del self._last[key]

    def _end(self, key: Key, reading: _Open, error: TimeMachineError | None = None) -> None:
        if reading.timer is not None:
            reading.timer.cancel()
        reading.view.close()
        if self._open.get(key) is reading:
            del self._open[key]
        asked, reading.asked = reading.asked, []
        for _, done in asked:
            done(error)
