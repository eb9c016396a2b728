"""Is a history of calls linearizable? A checker for the calls on one key.

A history is linearizable if every call can be given one moment between its call and its return at
which it seems to have happened, all at once, so that the answers are those of a system that does
one thing after the other (M. Herlihy, J. Wing, "Linearizability: A Correctness Condition for
Concurrent Objects", ACM TOPLAS 12(3), 1990). The property is local: a history of many keys is
linearizable if that of each key is, so the caller takes them apart and checks each by itself.

The search is that of J. Wing and C. Gong ("Testing and Verifying Concurrent Objects", Journal of
Parallel and Distributed Computing 17, 1993): of the calls that could be next, take one, see
whether the model could have given its answer, go on with the rest, and take it back if that leads
nowhere. It remembers which (calls placed, state) it has been in, and does not go on from there a
second time, as G. Lowe does ("Testing for linearizability", Concurrency and Computation: Practice
and Experience 29(4), 2017).
"""

import math
from collections.abc import Hashable, Sequence
from enum import Enum
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

BUDGET: Final = 2_000_000
"""Steps after which a search gives up: about three seconds."""


class Unknown(Enum):
    """The type of UNKNOWN."""

    UNKNOWN = "unknown"

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = Unknown.UNKNOWN
"""The answer of a call that timed out or broke off: it happened, or will happen later, or never."""

State = TypeVar("State", bound=Hashable)
Asked = TypeVar("Asked")
Answered = TypeVar("Answered")
Asked_contra = TypeVar("Asked_contra", contravariant=True)
Answered_contra = TypeVar("Answered_contra", contravariant=True)


class Model(Protocol[State, Asked_contra, Answered_contra]):
    """How a system behaves that does one thing after the other."""

    @property
    def initial(self) -> State:
        """The state before the first call."""

    def step(
        self, state: State, asked: Asked_contra, answered: Answered_contra | Unknown
    ) -> State | None:
        """The state after a call, or None if in `state` it could not have got this answer.

        With UNKNOWN every answer is possible, and the call does what it would have done.
        """


class Operation(NamedTuple, Generic[Asked, Answered]):
    """One call on the key. `returned_ms` is infinite, and `answered` UNKNOWN, if nobody knows."""

    called_ms: float
    returned_ms: float
    asked: Asked
    answered: Answered | Unknown


class Verdict(Enum):
    """What became of a search."""

    LINEARIZABLE = "linearizable"
    NOT_LINEARIZABLE = "not linearizable"
    UNKNOWN = "unknown"
    """The budget was spent before an order was found or all were excluded."""


class Finding(NamedTuple):
    """A verdict, the steps that it took, and, if it is not good, where the search got stuck.

    `stuck` is the number of the operation that no order explains, among those that explain
    everything that returned before it: the place to begin to look.
    """

    verdict: Verdict
    steps: int
    stuck: int | None = None


class _Events:
    """Calls and returns in the order of time, in a ring from which operations are lifted.

    Event numbers run in that order. `HEAD` of the ring is the number behind the last event.
    """

    def __init__(self, operations: Sequence[Operation[Asked, Answered]]) -> None:
        # At equal times calls come before returns: the two overlap then, which allows more.
        ordered = sorted(
            [(operation.called_ms, 0, at) for at, operation in enumerate(operations)]
            + [(operation.returned_ms, 1, at) for at, operation in enumerate(operations)]
        )
        count = len(ordered)
        self.head = count
        self.operation = [at for _, _, at in ordered]
        self.is_return = [kind == 1 for _, kind, _ in ordered]
        self.return_of = {at: event for event, (_, kind, at) in enumerate(ordered) if kind}
        self.following: list[int] = [*range(1, count + 1), 0]
        self.preceding: list[int] = [count, *range(count)]

    def first(self) -> int:
        """The earliest event of those that are left."""
        return self.following[self.head]

    def lift(self, call: int) -> None:
        """Take an operation out, by the number of its call."""
        for event in (self.return_of[self.operation[call]], call):
            before, after = self.preceding[event], self.following[event]
            self.following[before], self.preceding[after] = after, before

    def put_back(self, call: int) -> None:
        """Undo the last `lift`."""
        for event in (call, self.return_of[self.operation[call]]):
            before, after = self.preceding[event], self.following[event]
            self.following[before] = self.preceding[after] = event


def check(
    operations: Sequence[Operation[Asked, Answered]],
    model: Model[State, Asked, Answered],
    budget: int = BUDGET,
) -> Finding:
    """Search for an order that explains all operations on one key.

    An operation that never returned may stay out of it.
    """
    events = _Events(operations)
    returned = [not math.isinf(operation.returned_ms) for operation in operations]
    left = sum(returned)
    state = model.initial
    placed = 0
    """The operations placed so far, as a set of bits."""
    seen: set[tuple[int, State]] = set()
    trail: list[tuple[int, State, int]] = []
    stuck = -1
    steps = 0
    event = events.first()
    while left:
        steps += 1
        if steps > budget:
            return Finding(Verdict.UNKNOWN, steps, None if stuck < 0 else events.operation[stuck])
        at = events.operation[event]
        if not events.is_return[event]:
            asked, answered = operations[at][2:]
            after = model.step(state, asked, answered)
            if after is not None:
                now_placed = placed | 1 << at
                if (now_placed, after) not in seen:
                    seen.add((now_placed, after))
                    trail.append((event, state, placed))
                    state, placed = after, now_placed
                    left -= returned[at]
                    events.lift(event)
                    event = events.first()
                    continue
            event = events.following[event]
            continue
        # Something returned that could not be placed: the last choice was wrong.
        stuck = max(stuck, event)
        if not trail:
            return Finding(Verdict.NOT_LINEARIZABLE, steps, events.operation[stuck])
        event, state, placed = trail.pop()
        left += returned[events.operation[event]]
        events.put_back(event)
        event = events.following[event]
    return Finding(Verdict.LINEARIZABLE, steps)
