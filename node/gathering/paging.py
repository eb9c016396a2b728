"""Lists over vnodes of several nodes: the page of each, merged into one.

Each node gives what it has in the order of the list, piece by piece; a piece has about
`GATHER_PAGE_BYTES`. The merge takes the next of all that was given, and asks a node on whose pieces
it has used up. Where all vnodes are led here there is nothing to merge.
"""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from node.gathering.answering import Part
from node.gathering.asking import Asking, Ways
from node.gathering.questions import Group, Listed
from timemachine.errors import TimeMachineError


class _Stream:
    """What one node has for the list.

    `position` is where it goes on behind `items`; `ended` that nothing follows them, `halted` that
    nothing is known of what follows, and it is not to be asked for now.
    """

    __slots__ = ("asked", "ended", "groups", "halted", "items", "node", "position")

    def __init__(self, node: int, groups: Sequence[Group], position: Any) -> None:
        self.node = node
        self.groups = groups
        self.position = position
        self.items: deque[Any] = deque()
        self.asked = False
        self.ended = False
        self.halted = False


class Paging(Asking):
    """A page of a list."""

    def __init__(
        self,
        ways: Ways,
        question: Listed,
        groups: Sequence[Group],
        done: Callable[[Any], None],
        *,
        stale: bool = False,
    ) -> None:
        super().__init__(ways, question, done, stale=stale)
        self._listed: Any = question
        self._limit = question.limit
        self._streams: list[_Stream] = []
        self._items: list[Any] = []
        shares = self._shares(groups)
        if list(shares) == [ways.number]:
            # All of it is here: one page, however large.
            stream = _Stream(ways.number, groups, question.position)
            self._streams.append(stream)
            stream.asked = True
            self._ask(ways.number, question, groups, partial(self._given, stream))
        else:
            self._open(question.position, groups)

    def _open(self, position: Any, groups: Sequence[Group]) -> None:
        for node, share in self._shares(groups).items():
            self._streams.append(_Stream(node, share, position))
        self._merge()

    def _given(self, stream: _Stream, part: Part | TimeMachineError) -> None:
        """A piece has come, or none: then others are asked, from the same position on."""
        stream.asked = False
        again, position = stream.groups, stream.position
        if isinstance(part, Part):
            again = [(uid, index) for uid, index, _ in part.moved]
            if part.content is None:
                again = stream.groups
        if again:
            moved = set(again)
            stream.groups = [group for group in stream.groups if group not in moved]
        if isinstance(part, Part) and part.content is not None:
            self._progress()
            page, listed = part.content, self._listed
            if len(self._streams) == 1 and not again and not self._items and not self._cut(page):
                self._end(page)
                return
            stream.items.extend(listed.items(page))
            stream.position = page.position
            stream.ended = page.position is None
            stream.halted = page.halted
        elif not stream.groups:
            self._streams.remove(stream)
        if again:
            # Until it is known who leads them, nothing behind `position` can be told.
            waiting = _Stream(0, again, position)
            waiting.asked = True
            self._streams.append(waiting)
            self._again(again, partial(self._instead, waiting))
        self._merge()

    def _cut(self, page: Any) -> bool:
        """Whether a page was cut by its bytes: it is not full, and goes on."""
        full = len(self._listed.items(page)) == self._limit
        return page.position is not None and not (page.halted or full)

    def _instead(self, waiting: _Stream, groups: Sequence[Group]) -> None:
        self._streams.remove(waiting)
        self._open(waiting.position, groups)

    def _merge(self) -> None:
        """Take what is next for sure; ask on those that have nothing left."""
        listed, streams = self._listed, self._streams
        order, place = listed.order, listed.place
        while not self.over and len(self._items) < self._limit:
            known = True
            for stream in list(streams):
                if not (stream.items or stream.ended or stream.halted):
                    known = False
                    if not stream.asked:
                        self._fetch(stream)
                        if self.over:
                            return
            if not known:
                if all(s.items or s.ended or s.halted for s in streams):
                    continue  # it was answered at once
                return
            end = self._halt()
            full = [stream for stream in streams if stream.items]
            if not full:
                self._end(listed.page(self._items, end))
                return
            first = min(full, key=lambda stream: order(place(stream.items[0])))
            at = place(first.items[0])
            if end is not None and order(at) > order(end):
                self._end(listed.page(self._items, end))
                return
            self._items.append(first.items.popleft())
        if not self.over:
            more = any(stream.items or not stream.ended for stream in streams)
            position = place(self._items[-1]) if more else None
            self._end(listed.page(self._items, position))

    def _halt(self) -> Any:
        """The position behind which nothing is known of some stream, or None."""
        ends = [each.position for each in self._streams if each.halted and not each.items]
        return min(ends, key=self._listed.order, default=None)

    def _fetch(self, stream: _Stream) -> None:
        stream.asked = True
        question = self._listed.on(stream.position, self._limit - len(self._items))
        self._ask(stream.node, question, stream.groups, partial(self._given, stream))
