"""The answering side: a node answers for the vnodes that it leads, no older than the question.

A leader that holds its lease knows that nobody else has acknowledged a write; otherwise a majority
is asked (ReadIndex; dissertation 6.4). Only then its rows are read.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from node.calls import Answer
from node.env import World
from node.gathering.questions import Group, Here, Question
from node.runtime import Runtime
from timemachine import codec
from timemachine.errors import TimeMachineError, Unavailable
from timemachine.vnode import Vnode

Moved = tuple[int, int, int]
"""A vnode that is not led by the node that was asked, and the node that does, 0 if unknown:
(collection uid, vnode index, node)."""

Tell = Callable[["Part | TimeMachineError"], None]


class Part(msgspec.Struct, frozen=True, array_like=True):
    """What one node answers: about the vnodes that it was asked for, but for those that moved.

    `content` is None where all have moved.
    """

    content: Any
    moved: Sequence[Moved] = ()


class Asked(msgspec.Struct, frozen=True, array_like=True):
    """A question on its way to a node. Without `groups` it is about the node.

    Replicas that do not lead will do if `stale`.
    """

    question: Question
    groups: list[Group] | None
    stale: bool = False


_read_asked: Callable[[bytes], Asked] = codec.decoder(Asked)
_read_part: Final[Callable[[bytes], tuple[bytes | None, list[Moved]]]] = codec.decoder(
    tuple[bytes | None, list[Moved]]
)


def write_part(part: Part) -> bytes:
    """The bytes of a part."""
    content = None if part.content is None else codec.encode(part.content)
    return codec.encode((content, part.moved))


def read_part(data: bytes, read_content: Callable[[bytes], Any]) -> Part:
    """The part of these bytes. Raises CodecError."""
    content, moved = _read_part(data)
    return Part(None if content is None else read_content(content), moved)


class Answering:
    """Answers questions from the replicas of this node."""

    def __init__(self, world: World, runtime: Runtime, here: Here) -> None:
        self.world = world
        self.runtime = runtime
        self.here = here

    def take(self, sender: int, body: bytes, answer: Answer) -> None:
        """A question of another node. Raises CodecError."""
        asked = _read_asked(body)

        def tell(part: Part | TimeMachineError) -> None:
            answer(part if isinstance(part, TimeMachineError) else write_part(part))

        self.answer(asked.question, asked.groups, tell, stale=asked.stale)

    def answer(
        self,
        question: Question,
        groups: Sequence[Group] | None,
        tell: Tell,
        *,
        stale: bool = False,
        reading: Callable[[], None] = lambda: None,
    ) -> None:
        """Answer for these vnodes, as far as they are led here; all replicas will do if `stale`.

        Without `groups` for the node, with whatever it has. `reading` is called again and again.
        """
        runtime = self.runtime
        if not runtime.working:
            tell(Unavailable("The node has stopped."))
        elif groups is None:
            _Reading(self, question, list(runtime.vnodes.values()), [], tell, reading).step()
        else:
            _Barrier(self, question, groups, tell, reading, stale=stale).begin()

    def leader_of(self, group: Group) -> int:
        """The node that leads a vnode, as far as its replica here knows; 0 for unknown."""
        vnode = self.runtime.vnodes.get(group)
        return 0 if vnode is None else vnode.leader


class _Barrier:
    """Waits until the replicas of some vnodes show all that was acknowledged before."""

    def __init__(
        self,
        answering: Answering,
        question: Question,
        groups: Sequence[Group],
        tell: Tell,
        reading: Callable[[], None],
        *,
        stale: bool,
    ) -> None:
        self._answering = answering
        self._question = question
        self._groups = groups
        self._tell = tell
        self._reading = reading
        self._stale = stale
        self._ready: list[Vnode] = []
        self._moved: list[Moved] = []
        self._waiting = 1
        self._unsure = False

    def begin(self) -> None:
        """Look at each vnode; go on when all are ready, or known to be elsewhere."""
        runtime = self._answering.runtime
        mono_ms = self._answering.world.mono_ms()
        unsure: list[Vnode] = []
        for group in self._groups:
            vnode = runtime.vnodes.get(group)
            if vnode is None:
                self._moved.append((*group, 0))
            elif self._stale or vnode.may_fire(mono_ms):
                self._ready.append(vnode)
            elif vnode.is_leader():
                unsure.append(vnode)
            else:
                self._moved.append((*group, vnode.leader))
        self._waiting += len(unsure)
        self._unsure = bool(unsure)
        for vnode in unsure:
            runtime.read(vnode, partial(self._known, vnode))
        self._known(None, None)

    def _known(self, vnode: Vnode | None, error: TimeMachineError | None) -> None:
        if vnode is not None:
            if error is None:
                self._ready.append(vnode)
            else:
                leader = self._answering.leader_of(vnode.group)
                self._moved.append((*vnode.group, leader))
        self._waiting -= 1
        if self._waiting:
            return
        if not self._ready:
            self._tell(Part(None, self._moved))
            return
        if self._unsure:
            # In the order of the question, whichever of them was ready first.
            places = {group: place for place, group in enumerate(self._groups)}
            self._ready.sort(key=lambda each: places[each.group])
        reading = _Reading(
            self._answering,
            self._question,
            self._ready,
            self._moved,
            self._tell,
            self._reading,
            checked=True,
        )
        reading.step()


class _Reading:
    """One question being answered, some rows at a time."""

    def __init__(
        self,
        answering: Answering,
        question: Question,
        vnodes: list[Vnode],
        moved: list[Moved],
        tell: Tell,
        reading: Callable[[], None],
        *,
        checked: bool = False,
    ) -> None:
        self._answering = answering
        # Whose range of rows is another one at the end, was read from what is being erased.
        self._keys = [(vnode, vnode.keys) for vnode in vnodes] if checked else []
        self._moved = moved
        self._tell = tell
        self._reading = reading
        self._steps: Iterator[Any] = question.steps(answering.here, vnodes)

    def step(self) -> None:
        """Read on."""
        answering = self._answering
        runtime = answering.runtime
        if not runtime.working:
            self._tell(Unavailable("The node has stopped."))
            return
        try:
            content = next(self._steps)
        except TimeMachineError as error:
            self._tell(error)
            return
        if content is None:
            self._reading()
            answering.world.call_soon(self.step)
        elif all(vnode.keys is keys and runtime.holds(vnode) for vnode, keys in self._keys):
            self._tell(Part(content, self._moved))
        else:
            again = [(*vnode.group, answering.leader_of(vnode.group)) for vnode, _ in self._keys]
            self._tell(Part(None, [*self._moved, *again]))
