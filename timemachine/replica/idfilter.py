"""Which job ids a vnode may hold: a Bloom filter, so that new ids need no look into the store.

Most creates bring an id that is not there. To ask LevelDB for it is dear in two ways: each level is
looked at, and each look in vain is charged to a file until that file is compacted ("seek
compaction", db/version_set.cc), which at millions of jobs writes the whole store again and again.

The filter is blocked (Putze, Sanders and Singler, "Cache-, Hash- and Space-Efficient Bloom
Filters", 2007): an id sets four bits in one word of 64. It grows by layers of eight times the size,
since it does not keep the ids that a larger array would need. Ids are never taken out: what is
forgotten costs a look in vain until the next start.
"""

from array import array
from typing import Final

from mmh3 import hash64

_WORDS_FIRST: Final = 256
_GROWTH: Final = 8
_IDS_PER_WORD: Final = 5
"""12.8 bits an id: about one look in a hundred is in vain."""

_GROWTHS_MAX: Final = 5
"""The largest layer has 8 Mi words, 64 MiB, for 40 million ids; further ones are as large."""

_TWO_BITS: Final = [1 << (number & 63) | 1 << (number >> 6) for number in range(4096)]


class IdFilter:
    """Holds ids, and never denies one that was added.

    `complete` tells that every id of the vnode was added: only then does a denial mean anything.
    """

    __slots__ = ("_layers", "_room", "complete")

    def __init__(self, *, complete: bool) -> None:
        self.complete = complete
        self._layers: list[tuple[array[int], int]] = []
        self._room = 0

    def add(self, raw_id: bytes) -> bool:
        """Take in an id; returns whether it may have been there already."""
        place, bits = hash64(raw_id, signed=False)
        pattern = _TWO_BITS[bits & 4095] | _TWO_BITS[bits >> 12 & 4095]
        for words, mask in self._layers:
            if words[place & mask] & pattern == pattern:
                return True
        if not self._room:
            self._grow()
        self._room -= 1
        words, mask = self._layers[0]
        words[place & mask] |= pattern
        return False

    def _grow(self) -> None:
        """Put a larger layer before the others."""
        size = _WORDS_FIRST * _GROWTH ** min(len(self._layers), _GROWTHS_MAX)
        self._layers.insert(0, (array("Q", bytes(8 * size)), size - 1))
        self._room = size * _IDS_PER_WORD
