"""Asking the leaders of many vnodes, again where need be, until each of them is answered for.

A node that does not lead a vnode says who does, as far as it knows. Who is down, or does not answer
in time, is asked no more for what another node may lead by now. Reads change nothing, so asking
twice does no harm.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from node.calls import Calls
from node.env import Timer, World
from node.gathering.answering import Answering, Asked, Moved, Part, Tell, read_part
from node.gathering.leaders import Leaders
from node.gathering.questions import PARTS, Group, Question, Summed
from timemachine import codec, limits
from timemachine.errors import CodecError, TimeMachineError, Unavailable

KIND = "gather"

_LOOK_MS = 250.0
_RETRY_MS = 10.0
_RETRY_MS_MAX = 200.0


class Ways:
    """What an asking needs of its node.

    number  of this node
    exists  whether there is still a collection of that uid
    alive   whether another node can be expected to answer
    """

    def __init__(
        self,
        world: World,
        calls: Calls,
        answering: Answering,
        leaders: Leaders,
        *,
        number: int,
        exists: Callable[[int], bool],
        alive: Callable[[int], bool],
    ) -> None:
        self.world = world
        self.leaders = leaders
        self.number = number
        self.exists = exists
        self.alive = alive
        self._calls = calls
        self._answering = answering

    def ask(
        self,
        node: int,
        question: Question,
        groups: Sequence[Group] | None,
        tell: Tell,
        *,
        stale: bool = False,
        reading: Callable[[], None] = lambda: None,
        timeout_ms: int | None = None,
    ) -> None:
        """Ask one node about these vnodes; without `groups` about itself.

        Any replica will do if `stale`. Where this node is asked, `reading` is called as long as it
        reads.
        """
        if node == self.number:
            self._answering.answer(question, groups, tell, stale=stale, reading=reading)
            return
        body = codec.encode(Asked(question, None if groups is None else list(groups), stale))

        def answered(result: bytes | TimeMachineError) -> None:
            if isinstance(result, TimeMachineError):
                tell(result)
                return
            try:
                part = read_part(result, PARTS[type(question)])
            except CodecError as error:
                tell(error)
                return
            tell(part)

        self._calls.call(node, KIND, body, answered, timeout_ms or question.TIMEOUT_MS)


class Asking:
    """A question on its way. `done` gets one answer, or an error."""

    def __init__(
        self, ways: Ways, question: Question, done: Callable[[Any], None], *, stale: bool
    ) -> None:
        self._ways = ways
        self._question = question
        self._done = done
        self._stale = stale
        self.over = False
        self._timers: list[Timer] = []
        self._last = 0
        self._under_way: dict[int, tuple[int, Sequence[Group] | None, Tell]] = {}
        # How often a vnode was asked about in vain, whom at last, and whom that one named.
        self._tries: dict[Group, tuple[int, int, int]] = {}
        self._patience_ms: float = limits.GATHER_PATIENCE_MS
        self._answering_ms: float = question.TIMEOUT_MS
        self._since_ms = ways.world.mono_ms()

    def cancel(self) -> None:
        """Let go of it: nobody waits for the answer any more."""
        self.over = True
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _end(self, result: Any) -> None:
        if not self.over:
            self.cancel()
            self._done(result)

    def _overdue(self) -> None:
        self._end(Unavailable("Some vnodes have no leader at the moment.", retry_after_s=1))

    def _progress(self) -> None:
        """Something was answered: the patience begins anew."""
        self._since_ms = self._ways.world.mono_ms()

    # --- whom to ask -----------------------------------------------------------------------

    def _shares(self, groups: Sequence[Group]) -> dict[int, list[Group]]:
        """The vnodes by the node that is to be asked about them."""
        shares: dict[int, list[Group]] = {}
        own, of, tries = self._ways.number, self._ways.leaders.of, self._tries
        for group in groups:
            if group in tries:
                node = of(group, *tries[group])
            else:
                node = own if self._stale else of(group)
            share = shares.get(node)
            if share is None:
                share = shares[node] = []
            share.append(group)
        return shares

    def _ask(
        self, node: int, question: Question, groups: Sequence[Group] | None, tell: Tell
    ) -> None:
        """Ask one node; `tell` hears of it once, also if the node dies."""
        self._last = number = self._last + 1
        self._under_way[number] = node, groups, tell
        if node != self._ways.number and not self._ways.alive(node):
            self._ways.world.call_soon(partial(self._told, number, Unavailable("A node is down.")))
            return
        self._ways.ask(
            node,
            question,
            groups,
            partial(self._told, number),
            stale=self._stale,
            reading=self._progress,
        )
        if self._under_way and not self._timers and not self.over:
            self._look_later()

    def _told(self, number: int, part: Part | TimeMachineError) -> None:
        asked = self._under_way.pop(number, None)
        if asked is None or self.over:
            return
        node, groups, tell = asked
        if isinstance(part, TimeMachineError):
            if node == self._ways.number:
                self._end(part)
                return
            moved: Sequence[Moved] = [(*group, 0) for group in groups or ()]
        else:
            moved = part.moved
        for uid, index, leader in moved:
            group = uid, index
            self._ways.leaders.heard(group, leader)
            tries = self._tries[group][0] if group in self._tries else 0
            self._tries[group] = tries + 1, node, leader
        tell(part)

    def _look_later(self) -> None:
        world = self._ways.world
        self._timers = [world.call_later(_LOOK_MS, self._look)]

    def _look(self) -> None:
        """Give up what dead nodes were asked, and all, when nothing was answered for long."""
        # Who was asked may take its time; nobody to ask is another matter.
        patience_ms = self._patience_ms + (self._answering_ms if self._under_way else 0)
        if self._ways.world.mono_ms() > self._since_ms + patience_ms:
            self._overdue()
            return
        self._look_later()
        gone = Unavailable("A node is down.")
        for number, (node, *_) in list(self._under_way.items()):
            if node != self._ways.number and not self._ways.alive(node):
                self._told(number, gone)

    def _again(self, groups: Sequence[Group], ask: Callable[[list[Group]], None]) -> None:
        """Call `ask` with those of the vnodes that are still there, after a while."""
        exists = self._ways.exists
        left = [group for group in groups if exists(group[0])]
        if not left:
            ask(left)
            return
        most = max(self._tries[group][0] for group in left)

        def later() -> None:
            if not self.over:
                ask(left)

        pause_ms = min(_RETRY_MS * most, _RETRY_MS_MAX)
        self._ways.world.call_later(pause_ms, later)
        if not self._timers:
            self._look_later()


class Summing(Asking):
    """One question about many vnodes; the parts of the answer are put together.

    With `partly`, what was answered is the answer when the patience ends.
    """

    def __init__(
        self,
        ways: Ways,
        question: Summed,
        groups: Sequence[Group],
        done: Callable[[Any], None],
        *,
        stale: bool = False,
        partly: bool = False,
        patience_ms: float | None = None,
    ) -> None:
        super().__init__(ways, question, done, stale=stale)
        if patience_ms is not None:
            self._patience_ms, self._answering_ms = patience_ms, 0.0
        self._summed = question
        self._partly = partly
        self._parts: list[Any] = []
        self._left = len(groups)
        self._begin(groups)

    def _begin(self, groups: Sequence[Group]) -> None:
        self._check()
        for node, share in self._shares(groups).items():
            if not self.over:
                self._ask(node, self._question, share, partial(self._answered, share))

    def _answered(self, share: Sequence[Group], part: Part | TimeMachineError) -> None:
        again = share
        if isinstance(part, Part):
            again = [(uid, index) for uid, index, _ in part.moved]
            if part.content is not None:
                self._parts.append(part.content)
                self._left -= len(share) - len(again)
                self._progress()
        if again:
            gone = [group for group in again if not self._ways.exists(group[0])]
            self._left -= len(gone)
            self._again(again, self._begin)
        self._check()

    def _check(self) -> None:
        if not self._left:
            self._end(self._summed.merge(self._parts))

    def _overdue(self) -> None:
        if self._partly:
            self._end(self._summed.merge(self._parts))
        else:
            super()._overdue()
