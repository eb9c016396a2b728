"""Forecasts against a count of all rows, whatever the buckets cut."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from node.forecast import forecast
from timemachine.replica.duecounts import DueCounts
from timemachine.storage.keys import ReplicaKeys, u64
from timemachine.storage.memory import MemoryStore

TIMES = st.integers(0, 400_000)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.lists(TIMES, max_size=30), min_size=1, max_size=3),
    TIMES,
    st.integers(1, 400_000),
    st.sampled_from([777, 5_000, 60_000, 61_000, 120_000, 1_000_000]),
    st.booleans(),
)
def test_buckets_hold_what_is_due_in_them(
    due: list[list[int]], from_ms: int, span_ms: int, bucket_ms: int, learned: bool
) -> None:
    """They join, from `from_ms` to `to_ms`, and each job is counted once, in its own."""
    to_ms = from_ms + span_ms
    store = MemoryStore()
    vnodes = []
    for number, times in enumerate(due):
        keys, counts = ReplicaKeys(number + 1), DueCounts(complete=learned)
        rows: dict[bytes, bytes | None] = {
            keys.due + u64(due_ms) + b"%d" % n: b"" for n, due_ms in enumerate(times)
        }
        for n, due_ms in enumerate(times):
            counts.add(due_ms, b"%d" % n)
        store.write(store.prepare(rows))
        vnodes.append((keys, counts))
    buckets = next(step for step in forecast(store, vnodes, from_ms, to_ms, bucket_ms) if step)
    assert from_ms == buckets[0][0]
    assert to_ms == buckets[-1][1]
    assert all(a[1] == b[0] for a, b in itertools.pairwise(buckets))
    every = [due_ms for times in due for due_ms in times]
    for start, stop, count in buckets:
        assert count == sum(start <= due_ms < stop for due_ms in every)
