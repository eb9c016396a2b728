"""Whether two sets of jobs are the same, however they are spread over vnodes.

Of each job that is hashed which nothing but its creator changes: id, uid, version, trigger time,
route, tags, ordering key and meta. The hashes are added up, so the order does not matter and parts
can be summed.
"""

import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec

from timemachine.backup.pages import Page
from timemachine.model import JobRecord
from timemachine.replica.records import read_job
from timemachine.ring import vnode_of

_BITS: Final = 128
_encode = msgspec.msgpack.Encoder().encode


class Digest:
    """Of the jobs of one vnode: how many, and the sum of their hashes."""

    __slots__ = ("_sum", "jobs")

    def __init__(self) -> None:
        self.jobs = 0
        self._sum = 0

    def add(self, raw_id: bytes, record: JobRecord, meta: bytes) -> None:
        """Take in a job."""
        what = (raw_id, record.uid, record.version, record.trigger_ms, record.route, record.tags)
        if record.order is not None:
            what += (record.order.key,)  # type: ignore[assignment]
        hashed = hashlib.blake2b(_encode(what), digest_size=_BITS // 8)
        hashed.update(meta)
        self.jobs += 1
        self._sum = (self._sum + int.from_bytes(hashed.digest(), "big")) & (1 << _BITS) - 1

    def merge(self, other: "Digest") -> None:
        """Take in the jobs of another one."""
        self.jobs += other.jobs
        self._sum = (self._sum + other._sum) & (1 << _BITS) - 1

    @property
    def text(self) -> str:
        """The sum, for people and manifests."""
        return f"{self._sum:032x}"

    def __eq__(self, other: object) -> bool:
        """Whether these are the same jobs."""
        return isinstance(other, Digest) and (self.jobs, self._sum) == (other.jobs, other._sum)

    __hash__ = None  # type: ignore[assignment]


def digests(num_vnodes: int) -> list[Digest]:
    """One for each vnode of a collection."""
    return [Digest() for _ in range(num_vnodes)]


def take(page: Page, into: Sequence[Digest]) -> None:
    """Add the jobs of a page to those of their vnodes."""
    metas = dict(page.metas)
    for raw_id, row in page.jobs:
        record = read_job(row)
        meta = metas.get(raw_id, b"") if record.meta is None else record.meta
        into[vnode_of(record.home(raw_id.decode()), len(into))].add(raw_id, record, meta)
