"""How a node gives the space of deleted rows back: in which steps, how far apart.

LevelDB rewrites tables, level by level, and drops deleted rows as it merges them into the lowest
level that has any of their range. Two things about that decide how it is asked here:

* **It never rewrites the lowest level by itself.** Rows that were put and deleted before they were
  first written to a table stand there side by side, in a level that nothing lies above, and are
  never merged; so are those that were kept for a view. So before each step its two bounds are
  *touched*: written once more as they are. That makes a small table over the whole step, in a
  level above, which has to be merged with all that lies under it.
* **It does not stop within a call**, so a call is about a part of the keys. And it does more than
  that: it first writes out what is in memory, rows of all vnodes. That makes a table which reaches
  over all keys, and which is merged, level by level, with what lies under it: up to ten tables of
  64 MiB a level. Small steps would rewrite the same tables again and again. With steps of 64 MiB
  a store of 248 MB under load read and wrote 2.0 to 2.4 GB; hence larger ones.

In between the node rests, so that it reads and writes no more bytes a second than it may, and so
that level 0 does not fill up with what is written meanwhile (`pacing.py`).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from timemachine import limits
from timemachine.storage.keys import after_prefix, replica_prefix

_KEY_BYTES: Final = 48
"""Where steps are cut: ids that share more than that are not parted."""


class Span(NamedTuple):
    """A range of keys, from `start` on, before `stop`."""

    start: bytes
    stop: bytes


def spans(incarnations: Iterable[int]) -> list[Span]:
    """The ranges of replicas by the numbers of their incarnations; neighbours share one."""
    found: list[Span] = []
    for number in sorted(set(incarnations)):
        prefix = replica_prefix(number)
        if found and found[-1].stop == prefix:
            found[-1] = Span(found[-1].start, after_prefix(prefix))
        else:
            found.append(Span(prefix, after_prefix(prefix)))
    return found


def steps(
    ranges: Iterable[Span], size_of: Callable[[bytes, bytes], int], step_bytes: int
) -> list[Span]:
    """Ranges, each cut into steps of about so many bytes, none of them over 1.5 times as many.

    Or by more than a row, or than the keys that cannot be told apart by their first bytes.
    `size_of` says about how many bytes there are between two keys.
    """
    return [step for span in ranges for step in _cut(span, size_of, step_bytes)]


def _cut(span: Span, size_of: Callable[[bytes, bytes], int], step_bytes: int) -> Iterator[Span]:
    start, end = span.start, _number(span.stop)
    # No small one at the end.
    while size_of(start, span.stop) > step_bytes * 3 // 2:
        low, high = _number(start), end
        while high - low > 1:
            middle = (low + high) // 2
            if size_of(start, _key(middle)) > step_bytes:
                high = middle
            else:
                low = middle
        if high == end:
            break
        yield Span(start, _key(high))
        start = _key(high)
    yield Span(start, span.stop)


def _number(key: bytes) -> int:
    return int.from_bytes(key[:_KEY_BYTES].ljust(_KEY_BYTES, b"\0"), "big")


def _key(number: int) -> bytes:
    return number.to_bytes(_KEY_BYTES, "big").rstrip(b"\0")


def rest_ms(compacted_bytes: int, took_ms: float, bytes_per_s: int) -> float:
    """How long to rest after a step that has read and written so much in that time."""
    return max(0.0, compacted_bytes * 1_000 / bytes_per_s - took_ms)


def estimate_ms(sizes: Sequence[int], bytes_per_s: int, at_once: int) -> int:
    """About how long nodes take with ranges of so many bytes, so many nodes at once.

    As if each step read and wrote its own keys, and as many others as it may.
    """
    each = [_cost(size) * 1_000 // bytes_per_s for size in sizes]
    return max(sum(each) // at_once, max(each, default=0))


def _cost(size: int) -> int:
    beside = -(-size // limits.COMPACT_STEP_BYTES) * min(size, limits.COMPACT_STEP_BESIDE_BYTES)
    return 2 * (size + beside)
