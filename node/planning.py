"""How much a plan copies, and how long that may take."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from node.gathering.questions import Group
from timemachine import limits
from timemachine.placement import Move

_CHANGE_MS: Final = 700
"""What a change of members takes beside the copy: two or three commits, and waits between them."""
_CHUNK_MS: Final = 30
"""What a chunk of an image takes until the next one is sent: the rest before it, its way, its sync
beside those of everything else, and its answer."""


class Cost(NamedTuple):
    """Of a plan: about how many bytes each move copies, and how long all of them take."""

    copied_bytes: tuple[int, ...]
    estimate_ms: int


def cost(moves: Sequence[Move], sizes: Mapping[Group, int], transfers: int) -> Cost:
    """What moves cost: as if one node sent everything, at the rate that it may send.

    Of one image one chunk is under way at a time, so several go faster than one.
    """
    copied = tuple(len(move.add) * sizes.get((move.uid, move.index), 0) for move in moves)
    chunks_ms = sum(copied) * _CHUNK_MS // limits.SNAPSHOT_CHUNK_BYTES
    copying_ms = max(
        sum(copied) * 1_000 // limits.SNAPSHOT_RATE_BYTES_DEFAULT,
        chunks_ms // max(1, min(transfers, len(moves))),
    )
    rounds = -(-len(moves) // transfers)
    return Cost(copied, copying_ms + rounds * _CHANGE_MS)
