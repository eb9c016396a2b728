"""What a plan is said to copy, and how long it may take."""

from node.planning import cost
from timemachine import limits
from timemachine.placement import Move

MIB = 1024 * 1024
_MOVES = [Move(uid=7, index=index, version=1, add=(4,), remove=(1,)) for index in range(4)]


def test_only_what_is_added_is_copied() -> None:
    """Of a vnode whose size nobody knows, nothing is counted; members are changed all the same."""
    sizes = {(7, 0): MIB, (7, 1): 2 * MIB}
    only_removed = Move(uid=7, index=0, version=1, add=(), remove=(1,))
    twice = Move(uid=7, index=1, version=1, add=(4, 5), remove=(1,))
    found = cost([only_removed, twice, _MOVES[2]], sizes, 1)
    assert (0, 4 * MIB, 0) == found.copied_bytes
    assert cost([only_removed], sizes, 1).estimate_ms > 0


def test_several_at_once_are_faster_up_to_the_rate_of_a_node() -> None:
    """Of one image one chunk is under way at a time; all together keep to what a node may send."""
    sizes = {(7, index): 64 * MIB for index in range(4)}
    one, two, many = (cost(_MOVES, sizes, each).estimate_ms for each in (1, 2, 100))
    assert one > two > many
    at_full_rate_ms = 4 * 64 * MIB * 1_000 // limits.SNAPSHOT_RATE_BYTES_DEFAULT
    assert many >= at_full_rate_ms
    assert one > 4 * at_full_rate_ms
