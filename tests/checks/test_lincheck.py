"""The linearizability checker: histories that are known to be good or bad, and brute force."""

import itertools
import math
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.checks.jobmodel import (
    Absent,
    Answered,
    Asked,
    Delete,
    Deleted,
    Found,
    Get,
    Job,
    JobModel,
    Patch,
    Put,
    Redrive,
    Refused,
    Written,
)
from tests.checks.lincheck import UNKNOWN, Operation, Unknown, Verdict, check

NEVER = math.inf
MODEL = JobModel()
Call = Operation[Asked, Answered]


def op(
    called: float, returned: float, asked: Asked, answered: Answered | Unknown = UNKNOWN
) -> Call:
    """One operation."""
    return Operation(called, returned, asked, answered)


def replaced(version: int) -> Written:
    """The answer to the write that made `version` of the one before."""
    return Written(version, (version - 1, "replaced"))


GOOD: dict[str, list[Call]] = {
    "nothing happened": [],
    "one write": [op(0, 1, Put("a"), Written(1))],
    "a write is read": [op(0, 1, Put("a"), Written(1)), op(2, 3, Get(), Found(1, "a"))],
    "a job that nobody made is absent": [op(0, 1, Get(), Absent())],
    "a read beside a write sees what was before": [
        op(0, 9, Put("a"), Written(1)),
        op(1, 2, Get(), Absent()),
    ],
    "a read beside a write sees it already": [
        op(0, 9, Put("a"), Written(1)),
        op(1, 2, Get(), Found(1, "a")),
    ],
    "two writes at once, in the order of their versions": [
        op(0, 9, Put("a"), replaced(2)),
        op(0, 9, Put("b"), Written(1)),
        op(10, 11, Get(), Found(2, "a")),
    ],
    "calls that touch in time overlap": [
        op(0, 5, Put("a"), Written(1)),
        op(5, 6, Get(), Absent()),
    ],
    "an unknown write that was lost": [
        op(0, 1, Put("a"), Written(1)),
        op(2, NEVER, Put("b")),
        op(8, 9, Get(), Found(1, "a")),
    ],
    "an unknown write that happened": [
        op(0, 1, Put("a"), Written(1)),
        op(2, NEVER, Put("b")),
        op(8, 9, Get(), Found(2, "b")),
    ],
    "an unknown write that surfaces later": [
        op(0, 1, Put("a"), Written(1)),
        op(2, NEVER, Put("b")),
        op(3, 4, Get(), Found(1, "a")),
        op(5, 6, Put("c"), replaced(2)),
        op(7, 8, Get(), Found(2, "c")),
        op(9, 10, Get(), Found(3, "b")),
    ],
    "the next version shows that an unknown write happened": [
        op(0, NEVER, Put("a")),
        op(2, 3, Put("b"), replaced(2)),
    ],
    "an unknown delete that surfaces later": [
        op(0, 1, Put("a"), Written(1)),
        op(2, NEVER, Delete(purge=True)),
        op(3, 4, Get(), Found(1, "a")),
        op(5, 6, Get(), Absent()),
    ],
    "a deleted job is shown, and not pending": [
        op(0, 1, Put("a"), Written(1)),
        op(2, 3, Delete(), Deleted(1, "cancelled")),
        op(4, 5, Get(), Found(1, "a", pending=False)),
    ],
    "a second delete repeats the first outcome": [
        op(0, 1, Put("a"), Written(1)),
        op(2, 3, Delete(), Deleted(1, "in_flight")),
        op(4, 5, Delete(), Deleted(1, "in_flight")),
    ],
    "a new life goes on counting": [
        op(0, 1, Put("a"), Written(1)),
        op(2, 3, Delete(), Deleted(1, "cancelled")),
        op(4, 5, Put("b"), replaced(2)),
        op(6, 7, Get(), Found(2, "b", pending=True)),
    ],
    "a purged job begins at one again": [
        op(0, 1, Put("a"), Written(1)),
        op(2, 3, Delete(purge=True), Deleted(1, "cancelled")),
        op(4, 5, Get(), Absent()),
        op(6, 7, Put("b"), Written(1)),
    ],
    "an equal write changes nothing": [
        op(0, 1, Put("a", 100), Written(1)),
        op(2, 3, Put("a", 100), Written(1)),
        op(4, 5, Get(), Found(1, "a", 100)),
    ],
    "a delay starts anew": [
        op(0, 1, Put("a"), Written(1, due_ms=70)),
        op(2, 3, Put("a"), Written(2, (1, "replaced"), due_ms=90)),
        op(4, 5, Get(), Found(2, "a", 90)),
    ],
    "conditions that hold and that do not": [
        op(0, 1, Put("a", if_absent=True), Written(1)),
        op(2, 3, Put("b", if_absent=True), Refused("precondition_failed")),
        op(4, 5, Put("b", if_match=1), replaced(2)),
        op(6, 7, Put("c", if_match=1), Refused("precondition_failed")),
        op(8, 9, Delete(if_match=1), Refused("precondition_failed")),
    ],
    "a POST repeats itself or is refused": [
        op(0, 1, Put("a", 5, create_only=True), Written(1)),
        op(2, 3, Put("a", 5, create_only=True), Written(1)),
        op(4, 5, Put("b", 5, create_only=True), Refused("job_exists")),
    ],
    "a PATCH keeps what it does not name": [
        op(0, 1, Put("a", 5), Written(1)),
        op(2, 3, Patch(due_ms=9), replaced(2)),
        op(4, 5, Patch("b"), replaced(3)),
        op(6, 7, Patch("b"), Written(3)),
        op(8, 9, Get(), Found(3, "b", 9)),
        op(10, 11, Patch("c"), Refused("job_finished")),
    ],
    "a PATCH of nothing": [op(0, 1, Patch("a"), Absent()), op(0, 1, Delete(), Absent())],
}

BAD: dict[str, list[Call]] = {
    "a stale read": [
        op(0, 1, Put("a"), Written(1)),
        op(2, 3, Put("b"), replaced(2)),
        op(4, 5, Get(), Found(1, "a")),
    ],
    "a read that goes back": [
        op(0, 1, Put("a"), Written(1)),
        op(2, 20, Put("b"), replaced(2)),
        op(3, 4, Get(), Found(2, "b")),
        op(5, 6, Get(), Found(1, "a")),
    ],
    "a lost write": [op(0, 1, Put("a"), Written(1)), op(2, 3, Get(), Absent())],
    "a lost write, noticed by the next": [
        op(0, 1, Put("a"), Written(1)),
        op(2, 3, Put("b"), Written(1)),
    ],
    "a read of a value never written": [
        op(0, 1, Put("a"), Written(1)),
        op(2, 3, Get(), Found(1, "b")),
    ],
    "a read of a version never written": [
        op(0, 1, Put("a"), Written(1)),
        op(2, 3, Get(), Found(2, "a")),
    ],
    "a read from the future": [
        op(0, 1, Get(), Found(1, "a")),
        op(2, 3, Put("a"), Written(1)),
    ],
    "a write done twice": [
        op(0, 1, Put("a"), Written(1)),
        op(2, 3, Put("b"), replaced(2)),
        op(4, 5, Get(), Found(3, "b")),
    ],
    "an unknown write done twice": [
        op(0, 1, Put("a"), Written(1)),
        op(2, NEVER, Put("b")),
        op(4, 5, Get(), Found(2, "b")),
        op(6, 7, Put("c"), replaced(3)),
        op(8, 9, Get(), Found(4, "b")),
    ],
    "two writes that both made one version": [
        op(0, 9, Put("a"), Written(1)),
        op(0, 9, Put("b"), Written(1)),
    ],
    "an unknown write that happened before it was asked for": [
        op(0, 1, Put("a"), Written(1)),
        op(2, 3, Get(), Found(2, "b")),
        op(4, NEVER, Put("b")),
    ],
    "a job that rises again after a delete": [
        op(0, 1, Put("a"), Written(1)),
        op(2, 3, Delete(), Deleted(1, "cancelled")),
        op(4, 5, Get(), Found(1, "a", pending=True)),
    ],
    "a job that rises again after an unknown delete was seen": [
        op(0, 1, Put("a"), Written(1)),
        op(2, NEVER, Delete(purge=True)),
        op(3, 4, Get(), Absent()),
        op(5, 6, Get(), Found(1, "a")),
    ],
    "a purged job that is read": [
        op(0, 1, Put("a"), Written(1)),
        op(2, 3, Delete(purge=True), Deleted(1, "cancelled")),
        op(4, 5, Get(), Found(1, "a")),
    ],
    "a delete of what was replaced": [
        op(0, 1, Put("a"), Written(1)),
        op(2, 3, Put("b"), replaced(2)),
        op(4, 5, Delete(), Deleted(1, "cancelled")),
    ],
    "a second delete with another outcome": [
        op(0, 1, Put("a"), Written(1)),
        op(2, 3, Delete(), Deleted(1, "in_flight")),
        op(4, 5, Delete(), Deleted(1, "cancelled")),
    ],
    "a job that was there is not found": [
        op(0, 1, Put("a"), Written(1)),
        op(2, 3, Delete(), Absent()),
    ],
    "a write that replaced another than it says": [
        op(0, 1, Put("a"), Written(1)),
        op(2, 3, Put("b"), Written(2, (0, "replaced"))),
    ],
    "an equal write that made a version": [
        op(0, 1, Put("a", 100), Written(1)),
        op(2, 3, Put("a", 100), replaced(2)),
    ],
    "a job at another time than was written": [
        op(0, 1, Put("a", 100), Written(1)),
        op(2, 3, Get(), Found(1, "a", 101)),
    ],
    "a condition that was not kept": [
        op(0, 1, Put("a"), Written(1)),
        op(2, 3, Put("b", if_match=7), replaced(2)),
    ],
    "a condition that did hold": [
        op(0, 1, Put("a"), Written(1)),
        op(2, 3, Put("b", if_match=1), Refused("precondition_failed")),
    ],
    "a POST that changed a job": [
        op(0, 1, Put("a", 5, create_only=True), Written(1)),
        op(2, 3, Put("b", 5, create_only=True), replaced(2)),
    ],
    "a POST refused for a job that is not there": [
        op(0, 1, Put("a", 5, create_only=True), Refused("job_exists")),
    ],
    "a PATCH of a deleted job": [
        op(0, 1, Put("a", 5), Written(1)),
        op(2, 3, Delete(), Deleted(1, "cancelled")),
        op(4, 5, Patch("b"), replaced(2)),
    ],
}


@pytest.mark.parametrize("name", GOOD)
def test_good_history(name: str) -> None:
    """It has an order."""
    assert Verdict.LINEARIZABLE is check(GOOD[name], MODEL).verdict


@pytest.mark.parametrize("name", BAD)
def test_bad_history(name: str) -> None:
    """It has none."""
    assert Verdict.NOT_LINEARIZABLE is check(BAD[name], MODEL).verdict


def test_order_of_the_list_does_not_matter() -> None:
    """A history is a set of operations."""
    for history in GOOD.values():
        assert Verdict.LINEARIZABLE is check(history[::-1], MODEL).verdict
    for history in BAD.values():
        assert Verdict.NOT_LINEARIZABLE is check(history[::-1], MODEL).verdict


def test_redrives_are_not_judged() -> None:
    """The model takes them as they come."""
    history = [op(0, 1, Put("a"), Written(1)), op(2, 3, Redrive(), Refused("job_not_dead"))]
    assert Verdict.LINEARIZABLE is check(history, MODEL).verdict


def test_says_where_it_got_stuck() -> None:
    """The stale read is named, not what came after it."""
    history = [*BAD["a stale read"], op(6, 7, Put("c"), replaced(3))]
    assert 2 == check(history, MODEL).stuck


def test_budget_bounds_the_search() -> None:
    """Unknown is reported as such: many writes at once, and nobody knows what became of them."""
    history = [op(0, NEVER, Put(number)) for number in range(20)]
    history.append(op(1, 2, Get(), Found(30, "x")))
    finding = check(history, MODEL, budget=1_000)
    assert Verdict.UNKNOWN is finding.verdict
    assert 1_001 == finding.steps


def test_long_history_of_one_job_is_cheap() -> None:
    """Three callers at a time: steps grow with the history, not beyond."""
    history = []
    for number in range(1_000):
        answered = replaced(number + 1) if number else Written(1)
        history.append(op(number, number + 2.5, Put(number), answered))
    finding = check(history, MODEL)
    assert Verdict.LINEARIZABLE is finding.verdict
    assert finding.steps < 20_000


# --- against brute force -----------------------------------------------------------------------


def orders(history: Sequence[Call]) -> Iterator[tuple[Call, ...]]:
    """Every order that real time allows, of all that returned and any of what did not."""
    known = [each for each in history if each.returned_ms < NEVER]
    unknown = [each for each in history if each.returned_ms == NEVER]
    for count in range(len(unknown) + 1):
        for chosen in itertools.combinations(unknown, count):
            for order in itertools.permutations([*known, *chosen]):
                pairs = itertools.combinations(order, 2)
                if all(first.called_ms <= second.returned_ms for first, second in pairs):
                    yield order


def explains(order: Sequence[Call]) -> bool:
    """Whether the model gives these answers in this order."""
    state: Job | None = MODEL.initial
    for each in order:
        assert state is not None
        state = MODEL.step(state, each.asked, each.answered)
        if state is None:
            return False
    return True


ASKED: st.SearchStrategy[Asked] = st.sampled_from(
    [Put("a"), Put("b"), Put("a", 5), Get(), Delete(), Delete(purge=True), Put("c", if_match=1)]
)
ANSWERED: st.SearchStrategy[Answered] = st.sampled_from(
    [
        Absent(),
        Written(1),
        replaced(2),
        replaced(3),
        Found(1, "a"),
        Found(2, "b"),
        Found(1, "a", 5, pending=True),
        Deleted(1, "cancelled"),
        Deleted(2, "in_flight"),
        Refused("precondition_failed"),
    ]
)


def right_answer(job: Job, asked: Asked) -> Answered:
    """What the model would answer, found by trying."""
    candidates: list[Answered] = [
        Absent(),
        Refused("precondition_failed"),
        Written(job.version),
        Written(1),
        replaced(job.version + 1),
        Found(job.version, job.content, job.due_ms),
        Deleted(job.version, job.outcome if job.outcome in ("cancelled", "in_flight") else "x"),
        Deleted(job.version, "cancelled"),
    ]
    return next(each for each in candidates if MODEL.step(job, asked, each) is not None)


@st.composite
def histories(draw: st.DrawFn) -> list[Call]:
    """Up to five calls in a right order, each stretched in time, one answer perhaps made wrong."""
    state: Job | None = MODEL.initial
    history = []
    for moment in range(draw(st.integers(1, 5))):
        asked = draw(ASKED)
        assert state is not None
        called = max(0, 2 * moment - draw(st.integers(0, 5)))
        if draw(st.integers(0, 3)) == 0:
            history.append(op(called, NEVER, asked))
            if draw(st.booleans()):
                state = MODEL.step(state, asked, UNKNOWN)
            continue
        answered = right_answer(state, asked)
        state = MODEL.step(state, asked, answered)
        if draw(st.integers(0, 9)) == 0:
            answered = draw(ANSWERED)
        history.append(op(called, 2 * moment + draw(st.integers(0, 5)), asked, answered))
    return draw(st.permutations(history))


@given(histories())
@settings(max_examples=300, deadline=None)
def test_finds_what_brute_force_finds(history: list[Call]) -> None:
    """The same verdict as trying every order."""
    expected = any(explains(order) for order in orders(history))
    found = check(history, MODEL).verdict
    assert (Verdict.LINEARIZABLE if expected else Verdict.NOT_LINEARIZABLE) is found
