"""Which vnode a job belongs to.

The ring is the range of a 32-bit hash, cut into `num_vnodes` equal, contiguous slices. The hash is
murmur3_x86_32 with seed 0 over the job id's UTF-8 bytes (Austin Appleby, MurmurHash3.cpp), the
slice is found by multiplying and shifting (Lemire, "Fast random integer generation in an
interval", 2019), which needs no division and keeps slices contiguous. *Hard*: every stored job
lies where this function said, so it never changes.

A job that has an ordering key lies in the vnode of that key instead, hashed in the same way. In the
vnode of its id stands an alias, which says the key.
"""

from typing import Self

from mmh3 import mmh3_32_uintdigest


class OrderedId(str):
    """A job id of which is known that its job lies in the vnode of the ordering key `key`."""

    __slots__ = ("key",)

    key: str

    def __new__(cls, job_id: str, key: str) -> Self:
        """The same id, with its key."""
        made = super().__new__(cls, job_id)
        made.key = key
        return made


def home_of(job_id: str) -> str:
    """What the vnode of a job is found by, as far as it is known."""
    return job_id.key if isinstance(job_id, OrderedId) else job_id


def key_of(job_id: str) -> str | None:
    """The ordering key that the job is known to have."""
    return job_id.key if isinstance(job_id, OrderedId) else None


def vnode_of(job_id: str, num_vnodes: int) -> int:
    """The vnode, from 0 to `num_vnodes - 1`, that holds the job `job_id`."""
    return (mmh3_32_uintdigest(job_id.encode()) * num_vnodes) >> 32
