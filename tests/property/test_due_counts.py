"""Counts of due jobs by minute against a dumb twin, and after a start in the middle of writing."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from timemachine.replica.duecounts import DueCounts

DAY_MS = 86_400_000
MINUTE_MS = 60_000
TIMES = st.one_of(
    st.integers(0, 3 * DAY_MS),
    st.sampled_from([0, MINUTE_MS - 1, MINUTE_MS, DAY_MS - 1, DAY_MS, 253_402_300_799_999]),
)
MINUTES = st.integers(0, 4 * 1440)


def _twin(rows: set[tuple[int, bytes]], start: int, stop: int) -> int:
    return sum(1 for due_ms, _ in rows if start <= due_ms // MINUTE_MS < stop)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(TIMES, st.sampled_from([0, 1, 20, 63, 64, 400])), max_size=30),
    MINUTES,
    MINUTES,
    st.sets(MINUTES, min_size=1),
)
def test_counts_are_those_of_the_rows(
    moments: list[tuple[int, int]], start: int, stop: int, edges: set[int]
) -> None:
    """Sparse days, days that become dense, and days that empty again."""
    counts, rows = DueCounts(complete=True), set()
    for number, (due_ms, copies) in enumerate(moments):
        for copy in range(copies):
            row = due_ms, b"%d/%d" % (number, copy)
            rows.add(row)
            counts.add(*row)
    assert _twin(rows, start, stop) == counts.count(start, stop)
    minutes = sorted(edges)
    each = [_twin(rows, low, high) for low, high in itertools.pairwise(minutes)]
    assert each == counts.count_each(minutes)
    assert len(rows) == counts.count(0, 253_402_300_799_999 // MINUTE_MS + 1)
    for row in sorted(rows)[::2]:
        counts.remove(*row)
        rows.remove(row)
    assert _twin(rows, start, stop) == counts.count(start, stop)
    for row in rows:
        counts.remove(*row)
    assert not counts._days


@settings(max_examples=100, deadline=None)
@given(
    st.sets(st.tuples(st.integers(0, 50), st.sampled_from([b"a", b"b"])), max_size=40),
    st.lists(st.tuples(st.integers(0, 50), st.sampled_from([b"a", b"b"])), max_size=60),
    st.integers(1, 7),
)
def test_rows_that_come_and_go_while_it_counts(
    rows: set[tuple[int, bytes]], changes: list[tuple[int, bytes]], chunk: int
) -> None:
    """After a start the rows are counted in pieces; what is written meanwhile is counted once."""
    rows = {(due * 7_000, raw) for due, raw in rows}
    counts = DueCounts(complete=False)
    todo = [(due * 7_000, raw) for due, raw in changes]
    while not counts.complete or todo:
        for row in todo[:2]:
            if row in rows:
                rows.remove(row)
                counts.remove(*row)
            else:
                rows.add(row)
                counts.add(*row)
        todo = todo[2:]
        if not counts.complete:
            following = sorted(row for row in rows if row >= counts.covered)[:chunk]
            last = following[-1] if len(following) == chunk else None
            counts.cover(following, None if last is None else (last[0], last[1] + b"\0"))
    for minute in range(8):
        assert _twin(rows, minute, minute + 2) == counts.count(minute, minute + 2)


def test_a_day_with_more_jobs_than_two_bytes_count() -> None:
    """A hundred thousand in one minute."""
    counts = DueCounts(complete=True)
    for number in range(100_000):
        counts.add(5 * MINUTE_MS, b"%d" % number)
    assert 100_000 == counts.count(5, 6) == counts.count(0, 60) == counts.count(0, 1441)
    for number in range(100_000):
        counts.remove(5 * MINUTE_MS, b"%d" % number)
    assert 0 == counts.count(0, 1441)
