"""Views of the store that backups are read from, one for each vnode that is being read.

A view shows one moment, so what comes out of it page by page is the vnode as it was then. The page
that was given last is kept for a repeat. A view is let go of after its last page, or when nobody
asks for more; what was begun is begun anew then.
"""

import asyncio
from collections.abc import Callable, Iterator

from timemachine import limits
from timemachine.backup.pages import PartHead, head_of, pages_of, unchanged_page
from timemachine.errors import StoreError, Unavailable
from timemachine.storage.api import View
from timemachine.vnode import Vnode

Key = tuple[str, tuple[int, int]]
"""The name that a backup has given, and the vnode."""


class _Open:
    """A vnode that is being read. `number` is that of the page given last."""

    __slots__ = ("head", "last", "lock", "number", "pages", "timer", "view")

    def __init__(
        self, view: View, head: PartHead, pages: Iterator[tuple[bytes, bool] | None]
    ) -> None:
        self.view = view
        self.head = head
        self.pages = pages
        self.number = -1
        self.last = b""
        self.lock = asyncio.Lock()
        self.timer: asyncio.TimerHandle | None = None


class BackupViews:
    """The views that are open on this node; `view` opens one more."""

    def __init__(self, view: Callable[[], View]) -> None:
        self._view = view
        self._open: dict[Key, _Open] = {}
        # The last pages of views that are closed already: their answers may have been lost.
        self._last: dict[Key, tuple[int, bytes]] = {}

    async def page(self, name: str, vnode: Vnode, number: int, unless: str | None) -> bytes | None:
        """A page of a vnode; None if it is not the next one of a view that is open here.

        Where `number` is 0 a view begins, and another one of that name ends; with `unless` only if
        the vnode has not the content that it names. Raises Unavailable.
        """
        key = (name, vnode.group)
        try:
            if number == 0 and not self._repeats(key):
                opened = self._begin(key, vnode)
                if opened.head.position.content == unless:
                    self._end(key, opened)
                    return unchanged_page(opened.head)
            reading = self._open.get(key)
            if reading is None:
                last, page = self._last.get(key, (-1, None))
                return page if number == last else None
            return await self._read(key, reading, number)
        except StoreError as error:
            found = self._open.get(key)
            if found is not None:
                self._end(key, found)
            raise Unavailable("The vnode cannot be read here.") from error

    def _begin(self, key: Key, vnode: Vnode) -> _Open:
        before = self._open.get(key)
        if before is not None:
            self._end(key, before)
        self._last.pop(key, None)
        if len(self._open) >= limits.BACKUP_VIEWS_MAX:
            raise Unavailable("Too many vnodes are being backed up here.")
        view = self._view()
        try:
            head = head_of(view, vnode.keys, vnode.group)
        except BaseException:
            view.close()
            raise
        opened = self._open[key] = _Open(view, head, pages_of(view, vnode.keys, head))
        self._look_after(key, opened)
        return opened

    async def _read(self, key: Key, reading: _Open, number: int) -> bytes | None:
        async with reading.lock:
            if number == reading.number:
                return reading.last  # its answer was lost on the way
            if number != reading.number + 1 or self._open.get(key) is not reading:
                return None
            for page in reading.pages:
                if page is not None:
                    reading.number, (reading.last, last) = number, page
                    if last:
                        self._keep(key, reading)
                    else:
                        self._look_after(key, reading)
                    return reading.last
                await asyncio.sleep(0)
                if self._open.get(key) is not reading:
                    return None
        return None

    def _look_after(self, key: Key, reading: _Open) -> None:
        """Let go of it when nobody has asked for long."""
        if reading.timer is not None:
            reading.timer.cancel()
        loop = asyncio.get_running_loop()
        reading.timer = loop.call_later(limits.BACKUP_VIEW_MS / 1_000, self._end, key, reading)

    def _repeats(self, key: Key) -> bool:
        """Whether the first page of a view was the one that was given last."""
        reading = self._open.get(key)
        if reading is not None:
            return reading.number <= 0
        return self._last.get(key, (-1, b""))[0] == 0

    def _keep(self, key: Key, reading: _Open) -> None:
        """Let go of a view that was read to its end, but for its last page."""
        self._end(key, reading)
        while len(self._last) >= limits.BACKUP_VIEWS_MAX:
            del self._last[next(iter(self._last))]
        self._last[key] = reading.number, reading.last
        loop = asyncio.get_running_loop()
        loop.call_later(limits.BACKUP_VIEW_MS / 1_000, self._forget, key, self._last[key])

    def _forget(self, key: Key, kept: tuple[int, bytes]) -> None:
        if self._last.get(key) is kept:
            del self._last[key]

    def _end(self, key: Key, reading: _Open) -> None:
        if reading.timer is not None:
            reading.timer.cancel()
        reading.view.close()
        if self._open.get(key) is reading:
            del self._open[key]
