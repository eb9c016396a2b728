"""How many jobs will be due when: from the counts by minute, and rows only where a minute is cut.

What is counted is the due index: next attempts, first ones and retries, of scheduled and retrying
jobs. What waits for its route is not in it.
"""

from collections.abc import Iterator
from struct import Struct

from timemachine.replica.duecounts import DueCounts
from timemachine.storage.api import Store
from timemachine.storage.keys import ReplicaKeys, u64

_MINUTE_MS = 60_000
_ROWS = 500
_due_ms = Struct(">Q").unpack_from


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

    def tally(keys: list[bytes], at: int) -> None:
        into, first_ms, step_ms = totals, from_ms, bucket_ms
        for key in keys:
            into[(_due_ms(key, at)[0] - first_ms) // step_ms] += 1

    def tally_all(cursor: bytes, stop: bytes, at: int) -> Iterator[None]:
        while True:
            rows = store.scan(cursor, stop, _ROWS)
            tally([key for key, _ in rows], at)
            if len(rows) < _ROWS:
                return
            cursor = rows[-1][0] + b"\0"
            yield None

    minutes, whole, cut = _segments(starts, to_ms)
    for keys, counts in vnodes:
        due, at = keys.due, len(keys.due)
        if not counts.complete:
            # After a start, until all is counted: the rows themselves.
            yield from tally_all(due + u64(from_ms), due + u64(to_ms), at)
            continue
        counted = counts.count_each(minutes)
        for segment, bucket in whole:
            totals[bucket] += counted[segment]
        few: list[tuple[bytes, bytes, int]] = []
        rows = 0
        for segment, low, high in cut:
            here = counted[segment]
            if here > _ROWS:
                yield from tally_all(due + low, due + high, at)
            elif here:
                few.append((due + low, due + high, here))
                rows += here
                if rows >= _ROWS:
                    tally(store.keys_in(few), at)
                    few, rows = [], 0
                    yield None
        tally(store.keys_in(few), at)
        yield None
    yield list(zip(starts, stops, totals, strict=True))


def _segments(
    starts: range, to_ms: int
) -> tuple[list[int], list[tuple[int, int]], list[tuple[int, bytes, bytes]]]:
    """What to count: minutes in order, and what lies between each of them and the next.

    That is either whole minutes of one bucket, (number of the segment, bucket), or a minute that
    buckets cut, (number of the segment, from, to), the times as they stand in keys.
    """
    edges = (*starts, to_ms)
    divided = {edge // _MINUTE_MS for edge in edges if edge % _MINUTE_MS}
    bounds = divided | {minute + 1 for minute in divided} | {edge // _MINUTE_MS for edge in edges}
    minutes = sorted(bounds)
    whole, cut = [], []
    for segment, minute in enumerate(minutes[:-1]):
        low_ms = minute * _MINUTE_MS
        if minute in divided:
            high_ms = low_ms + _MINUTE_MS
            cut.append((segment, u64(max(starts.start, low_ms)), u64(min(to_ms, high_ms))))
        else:
            whole.append((segment, (low_ms - starts.start) // starts.step))
    return minutes, whole, cut
