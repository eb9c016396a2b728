"""A vnode's jobs as pages: what the leader sends, what a file holds, what a restore takes.

A page is self-contained: some jobs in the order of their ids, with the metas that have rows of
their own and with all of their attempts. Records stand there as they are stored, so no job is
looked into while a backup is taken. A checksum stands before each page.
"""

import zlib
from bisect import bisect_right
from collections.abc import Generator, Iterator
from typing import Final

import msgspec

from timemachine import codec, limits
from timemachine.errors import CodecError
from timemachine.replica.records import MachineState, read_state
from timemachine.storage.api import Row, View
from timemachine.storage.keys import ReplicaKeys, after_prefix

_CHECKSUM_BYTES: Final = 4
_SERIAL_BYTES: Final = 5
"""With the NUL before it."""


class Position(msgspec.Struct, frozen=True, array_like=True):
    """Where in its log a vnode was read, and the last entry by then that may have changed a job.

    The jobs that it held follow from that entry alone.
    """

    uid: int
    index: int
    applied_index: int
    applied_term: int
    changed_index: int

    @property
    def text(self) -> str:
        """As a manifest records it."""
        return f"{self.uid}.{self.index}.{self.applied_term}.{self.applied_index}"

    @property
    def content(self) -> str:
        """What names the jobs that it held: the same as long as none has changed."""
        return f"{self.uid}.{self.index}.{self.changed_index}"


class PartHead(msgspec.Struct, frozen=True, array_like=True):
    """What the first page says of all. `counts` are jobs by the number of their state."""

    position: Position
    offset_due_ms: int
    counts: list[int]


class Page(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Some jobs. `number` counts from 0; the first one has the `head`.

    jobs      id and JobRecord
    metas     id and meta, of those whose record does not have it
    attempts  id, NUL and serial (4 bytes), and AttemptRecord
    last      no further page follows
    unchanged the content is the one that was named, so there is nothing to read
    """

    number: int
    head: PartHead | None
    jobs: list[tuple[bytes, bytes]]
    metas: list[tuple[bytes, bytes]]
    attempts: list[tuple[bytes, bytes]]
    last: bool = False
    unchanged: bool = False


_read_page = codec.decoder(Page)


def written_page(page: Page) -> bytes:
    """A page as bytes, with its checksum."""
    body = codec.encode(page)
    return zlib.crc32(body).to_bytes(_CHECKSUM_BYTES, "big") + body


def read_page(data: bytes) -> Page:
    """The page of such bytes. Raises CodecError for damage and for what is not known here."""
    body = memoryview(data)[_CHECKSUM_BYTES:]
    if zlib.crc32(body).to_bytes(_CHECKSUM_BYTES, "big") != data[:_CHECKSUM_BYTES]:
        raise CodecError("A page of the backup fails its checksum.")
    page: Page = _read_page(bytes(body))
    return page


def read_in_turn(data: bytes, number: int) -> Page:
    """The page of such bytes, which is the one of that number. Raises CodecError for another."""
    page = read_page(data)
    if page.number != number or (page.head is None) != (number > 0):
        raise CodecError("A page came out of turn.")
    return page


def head_of(view: View, keys: ReplicaKeys, group: tuple[int, int]) -> PartHead:
    """What a view shows of a vnode as a whole. Raises StoreError."""
    row = view.get(keys.state)
    state = MachineState() if row is None else read_state(row)
    position = Position(*group, state.applied_index, state.applied_term, state.changed_index)
    return PartHead(position, state.offset_due_ms, state.counts)


def unchanged_page(head: PartHead) -> bytes:
    """What is told of a vnode that is where it was."""
    return written_page(Page(0, head, [], [], [], last=True, unchanged=True))


def pages_of(view: View, keys: ReplicaKeys, head: PartHead) -> Iterator[tuple[bytes, bool] | None]:
    """The pages of a vnode, and whether each is the last; a None where others may have their turn.

    Raises StoreError.
    """
    cursor, stop = keys.job, after_prefix(keys.job)
    at = len(keys.job)
    number = 0
    first: PartHead | None = head
    while True:
        jobs: list[Row] = []
        size = 0
        full = False
        while not full:
            rows = view.scan(cursor, stop, limits.SCAN_ROWS_MAX, bytes_max=limits.BACKUP_SCAN_BYTES)
            if not rows:
                break
            jobs += [(key[at:], value) for key, value in rows]
            size += sum([len(value) for _, value in rows])
            cursor = rows[-1][0] + b"\0"
            full = size >= limits.BACKUP_PAGE_BYTES or len(jobs) >= limits.BACKUP_PAGE_JOBS_MAX
            yield None
        last = not full
        while True:
            metas, upto = yield from _beside(view, keys.meta, jobs, several=False)
            attempts, upto = yield from _beside(view, keys.attempts, jobs[:upto], several=True)
            end = last and upto == len(jobs)
            page = Page(
                number,
                first,
                jobs[:upto],
                [row for row in metas if row[0] <= jobs[upto - 1][0]],
                attempts,
                last=end,
            )
            yield written_page(page), end
            number, first = number + 1, None
            jobs = jobs[upto:]
            if end:
                return
            if not jobs:
                break


def _beside(
    view: View, table: bytes, jobs: list[Row], *, several: bool
) -> Generator[None, None, tuple[list[Row], int]]:
    """The rows of another table for some jobs, and for how many of these they are all there.

    `several`: a job may have several, whose keys go on behind its id. Some large ones fill a page;
    then the other jobs come with a later one.
    """
    found: list[Row] = []
    if not jobs:
        return found, 0
    at = len(table)
    cursor = table + jobs[0][0] + (b"\0" if several else b"")
    stop = table + jobs[-1][0] + (b"\1" if several else b"\0")
    size = 0
    while True:
        rows = view.scan(cursor, stop, limits.SCAN_ROWS_MAX, bytes_max=limits.BACKUP_SCAN_BYTES)
        if not rows:
            return found, len(jobs)
        found += [(key[at:], value) for key, value in rows]
        size += sum([len(value) for _, value in rows])
        cursor = rows[-1][0] + b"\0"
        yield None
        if size < limits.BACKUP_PAGE_BYTES:
            continue
        behind = found[-1][0][:-_SERIAL_BYTES] if several else found[-1][0]
        # A job that has several may have more: it is all there once one behind it came by.
        upto = bisect_right(jobs, behind, key=_id_of) - (1 if several else 0)
        if upto > 0:
            break
    if several:
        end = jobs[upto - 1][0] + b"\1"
        found = [row for row in found if row[0] < end]
    return found, upto


def _id_of(row: Row) -> bytes:
    return row[0]
