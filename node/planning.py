"""How much a plan copies, how long that may take, and how busy the cluster is meanwhile."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from node.gathering.questions import Burden, Group
from timemachine import limits
from timemachine.placement import Move

_CHANGE_MS: Final = 1_500
"""What a change of members takes beside the copy: two or three commits, and waits between them."""


class Cost(NamedTuple):
    """Of a plan: about how many bytes each move copies, and how long all of them take."""

    copied_bytes: tuple[int, ...]
    estimate_ms: int


def cost(moves: Sequence[Move], sizes: Mapping[Group, int], transfers: int) -> Cost:
    """What moves cost: as if one node sent everything, at the rate that it may send."""
    copied = tuple(len(move.add) * sizes.get((move.uid, move.index), 0) for move in moves)
    copying_ms = sum(copied) * 1_000 // limits.SNAPSHOT_RATE_BYTES_DEFAULT
    rounds = -(-len(moves) // transfers)
    return Cost(copied, copying_ms + rounds * _CHANGE_MS)


class Traffic(NamedTuple):
    """Commands of creators, and sends, a second."""

    writes_per_s: float
    fires_per_s: float


def traffic(before: Burden, after: Burden, elapsed_ms: float) -> Traffic:
    """What was done between two looks at the same nodes; one that began anew counts from there."""
    per_s = 1_000.0 / max(elapsed_ms, 1.0)
    return Traffic(
        round(max(0, after.writes - before.writes) * per_s, 1),
        round(max(0, after.fires - before.fires) * per_s, 1),
    )
