"""Which vnode a job belongs to.

The ring is the range of a 32-bit hash, cut into `num_vnodes` equal, contiguous slices. The hash is
murmur3_x86_32 with seed 0 over the job id's UTF-8 bytes (Austin Appleby, MurmurHash3.cpp), the
slice is found by multiplying and shifting (Lemire, "Fast random integer generation in an
interval", 2019), which needs no division and keeps slices contiguous. *Hard*: every stored job
lies where this function said, so it never changes.
"""

from mmh3 import mmh3_32_uintdigest


def vnode_of(job_id: str, num_vnodes: int) -> int:
    """The vnode, from 0 to `num_vnodes - 1`, that holds the job `job_id`."""
    return (mmh3_32_uintdigest(job_id.encode()) * num_vnodes) >> 32
