"""How many jobs will be due when: from the counts by minute, and rows only where a minute is cut.

What is counted is the due index: next attempts, first ones and retries, of scheduled and retrying
jobs. What waits for its route is not in it.
"""

from collections.abc import Iterator

from timemachine.replica.duecounts import DueCounts
from timemachine.storage.api import Store
from timemachine.storage.keys import ReplicaKeys, u64

_MINUTE_MS = 60_000
_ROWS = 500


def forecast(
    store: Store,
    vnodes: list[tuple[ReplicaKeys, DueCounts]],
    from_ms: int,
    to_ms: int,
    bucket_ms: int,
) -> Iterator[list[tuple[int, int, int]] | None]:
    """Jobs due in each bucket of `bucket_ms` from `from_ms` on; the last one ends at `to_ms`.

    Yields None whenever the caller should let others run, and at last (from, to, count) of each.
    """
    starts = range(from_ms, to_ms, bucket_ms)
    stops = [min(start + bucket_ms, to_ms) for start in starts]
    totals = [0] * len(starts)
    whole = [
        (-(-start // _MINUTE_MS), stop // _MINUTE_MS)
        for start, stop in zip(starts, stops, strict=True)
    ]
    # Minutes of which a bucket has a part only.
    cut = sorted({edge // _MINUTE_MS for edge in (*starts, to_ms) if edge % _MINUTE_MS})
    for keys, counts in vnodes:
        if not counts.complete:
            # After a start, until all is counted: the rows themselves.
            yield from _count_rows(store, keys, from_ms, to_ms, bucket_ms, from_ms, totals)
            continue
        count = counts.count
        for number, (first, last) in enumerate(whole):
            totals[number] += count(first, last)
        yield None
        few: list[tuple[int, int]] = []
        rows = 0
        for minute in cut:
            here = count(minute, minute + 1)
            if not here:
                continue
            bounds = max(from_ms, minute * _MINUTE_MS), min(to_ms, (minute + 1) * _MINUTE_MS)
            if here > _ROWS:
                yield from _count_rows(store, keys, *bounds, bucket_ms, from_ms, totals)
                continue
            few.append(bounds)
            rows += here
            if rows >= _ROWS:
                _count_few(store, keys, few, bucket_ms, from_ms, totals)
                few, rows = [], 0
                yield None
        _count_few(store, keys, few, bucket_ms, from_ms, totals)
        yield None
    yield list(zip(starts, stops, totals, strict=True))


def _count_rows(
    store: Store,
    keys: ReplicaKeys,
    low_ms: int,
    high_ms: int,
    bucket_ms: int,
    from_ms: int,
    totals: list[int],
) -> Iterator[None]:
    at = len(keys.due)
    cursor, stop = keys.due + u64(low_ms), keys.due + u64(high_ms)
    while True:
        rows = store.scan(cursor, stop, _ROWS)
        for key, _ in rows:
            totals[(int.from_bytes(key[at : at + 8], "big") - from_ms) // bucket_ms] += 1
        if len(rows) < _ROWS:
            return
        cursor = rows[-1][0] + b"\0"
        yield None


def _count_few(
    store: Store,
    keys: ReplicaKeys,
    ranges: list[tuple[int, int]],
    bucket_ms: int,
    from_ms: int,
    totals: list[int],
) -> None:
    at = len(keys.due)
    found = store.keys_in([(keys.due + u64(low), keys.due + u64(high)) for low, high in ranges])
    for key in found:
        totals[(int.from_bytes(key[at : at + 8], "big") - from_ms) // bucket_ms] += 1
