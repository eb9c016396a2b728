"""The ring compared with a plain murmur3, and what its slices promise."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from timemachine.limits import VNODES_PER_COLLECTION_MAX
from timemachine.ring import vnode_of

MASK = 0xFFFFFFFF
VNODES = st.integers(1, VNODES_PER_COLLECTION_MAX)


def murmur3(data: bytes) -> int:
    """MurmurHash3_x86_32 with seed 0, written down from its description."""

    def rotated(value: int, bits: int) -> int:
        return (value << bits | value >> 32 - bits) & MASK

    def mixed(block: bytes) -> int:
        k = int.from_bytes(block, "little") * 0xCC9E2D51 & MASK
        return rotated(k, 15) * 0x1B873593 & MASK

    h = 0
    whole = len(data) // 4 * 4
    for at in range(0, whole, 4):
        h = rotated(h ^ mixed(data[at : at + 4]), 13) * 5 + 0xE6546B64 & MASK
    h ^= mixed(data[whole:])
    h ^= len(data)
    h = (h ^ h >> 16) * 0x85EBCA6B & MASK
    h = (h ^ h >> 13) * 0xC2B2AE35 & MASK
    return h ^ h >> 16


@given(st.text(max_size=128), VNODES)
def test_vnode_is_the_slice_of_the_plain_hash(job_id: str, num_vnodes: int) -> None:
    """The fast hash and the plain one agree on every id."""
    hashed = murmur3(job_id.encode())
    vnode = vnode_of(job_id, num_vnodes)
    assert hashed * num_vnodes // 2**32 == vnode
    assert 0 <= vnode < num_vnodes


@given(st.lists(st.text(max_size=32), min_size=2, max_size=50), VNODES)
def test_slices_are_contiguous_ranges_of_the_hash(job_ids: list[str], num_vnodes: int) -> None:
    """Ids sorted by hash are sorted by vnode."""
    by_hash = sorted(job_ids, key=lambda job_id: murmur3(job_id.encode()))
    vnodes = [vnode_of(job_id, num_vnodes) for job_id in by_hash]
    assert sorted(vnodes) == vnodes


@given(VNODES)
def test_slices_are_equal(num_vnodes: int) -> None:
    """The ranges cover the ring without a gap, and their lengths differ by one at most."""
    starts = [-(-vnode * 2**32 // num_vnodes) for vnode in range(num_vnodes + 1)]
    lengths = {stop - start for start, stop in pairwise(starts)}
    assert (0, 2**32) == (starts[0], starts[-1])
    assert max(lengths) - min(lengths) <= 1
    assert all(start * num_vnodes >> 32 == vnode for vnode, start in enumerate(starts[:-1]))


def test_every_vnode_gets_its_share() -> None:
    """Ids that only count up still reach all vnodes, each within 10 % of its share."""
    counts = [0] * 12
    for number in range(120_000):
        counts[vnode_of(f"job-{number}", 12)] += 1
    assert all(9_000 < count < 11_000 for count in counts)


def test_all_vnodes_of_the_largest_collection_are_reachable() -> None:
    """No vnode of 1024 stays empty."""
    found = {vnode_of(f"job-{number}", 1024) for number in range(20_000)}
    assert set(range(1024)) == found
