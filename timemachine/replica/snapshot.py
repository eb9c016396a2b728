"""The image of a replica: out as chunks, in under another incarnation.

An image holds every row of the machine, not those of the log nor of the group's membership:
whoever installs it starts a log behind `applied_index`, with the members that the snapshot's
metadata names. It is installed beside whatever is there, under a number of its own, and
switched to in one batch, so a crash half-way leaves either the old replica or the new one, and
some rows to erase (dissertation 5.1).

A chunk is self-contained: a checksum, then rows with their keys cut free of the prefix. The last
chunk says how many rows there were and what their running checksum is, so that a missing or
doubled chunk is noticed.
"""

import zlib
from collections.abc import Iterator

import msgspec

from timemachine import codec, limits
from timemachine.errors import CodecError
from timemachine.storage.api import Row, View
from timemachine.storage.keys import ReplicaKeys, u64

_NOT_IN_AN_IMAGE = frozenset((b"b", b"h", b"l"))


class ImageChunk(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Some rows of an image, in key order. `number` counts from 0."""

    number: int
    rows: list[tuple[bytes, bytes]]


class ImageEnd(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The end of an image: what the chunks before must add up to."""

    applied_index: int
    applied_term: int
    chunks: int
    rows: int
    checksum: int


class _StateHead(msgspec.Struct, frozen=True, array_like=True):
    """How the state rows of both machines begin.

    The third number is the offset only in a job machine's; a meta machine has no due index.
    """

    applied_index: int = 0
    applied_term: int = 0
    offset_due_ms: int = 0


_read_chunk = codec.decoder(ImageChunk)
_read_state_head = codec.decoder(_StateHead)


def _state_head(view: View, keys: ReplicaKeys) -> _StateHead:
    row = view.get(keys.state)
    head: _StateHead = _StateHead() if row is None else _read_state_head(row)
    return head


def applied_in(view: View, keys: ReplicaKeys) -> tuple[int, int]:
    """(index, term) of the last entry that a view shows applied; (0, 0) if there is none."""
    head = _state_head(view, keys)
    return head.applied_index, head.applied_term


def _ranges(keys: ReplicaKeys, offset_due_ms: int) -> list[tuple[bytes, bytes]]:
    """What belongs to an image. Where rows are deleted from the front it is not walked over."""
    prefix = keys.prefix
    return [
        (prefix, keys.members),
        (keys.record, keys.due),
        (keys.due + u64(offset_due_ms), keys.hard_state),
        (prefix + b"i", keys.log),
        (keys.log_stop, keys.fence),
    ]


def image_out(view: View, keys: ReplicaKeys, *, chunk_bytes: int) -> Iterator[bytes | ImageEnd]:
    """The chunks of a replica's image, each about `chunk_bytes`, and at last an ImageEnd.

    What was applied is what the view shows, see `applied_in`. Each step reads one chunk and no
    more; of small rows at most SNAPSHOT_CHUNK_ROWS_MAX. Raises StoreError when the view cannot be
    read.
    """
    head = _state_head(view, keys)
    at = len(keys.prefix)
    pending: list[Row] = []
    size = number = count = checksum = 0

    def sealed() -> bytes:
        nonlocal checksum, count, number
        data = codec.encode(ImageChunk(number, pending))
        checksum = zlib.crc32(data, checksum)
        count += len(pending)
        number += 1
        return zlib.crc32(data).to_bytes(4, "big") + data

    for start, stop in _ranges(keys, head.offset_due_ms):
        cursor = start
        while True:
            room = limits.SNAPSHOT_CHUNK_ROWS_MAX - len(pending)
            rows = view.scan(cursor, stop, room, bytes_max=chunk_bytes - size)
            pending += [(key[at:], value) for key, value in rows]
            size += sum([len(key) + len(value) for key, value in rows])
            if len(rows) < room and size < chunk_bytes:
                break
            yield sealed()
            pending, size = [], 0
            cursor = rows[-1][0] + b"\0"
    if pending:
        yield sealed()
    yield ImageEnd(head.applied_index, head.applied_term, number, count, checksum)


class ImageIn:
    """Takes an image chunk by chunk, as batches for another incarnation."""

    def __init__(self, keys: ReplicaKeys) -> None:
        self._keys = keys
        self._chunks = self._rows = self._checksum = 0

    def chunk(self, data: bytes) -> dict[bytes, bytes]:
        """The rows of the next chunk, to be written in one batch.

        Raises CodecError when the chunk is damaged or out of turn; it is not taken then.
        """
        body = data[4:]
        if zlib.crc32(body).to_bytes(4, "big") != data[:4]:
            raise CodecError("A chunk of the image fails its checksum.")
        chunk: ImageChunk = _read_chunk(body)
        if chunk.number != self._chunks:
            raise CodecError(f"Chunk {chunk.number} came where {self._chunks} was due.")
        if not _NOT_IN_AN_IMAGE.isdisjoint([key[:1] for key, _ in chunk.rows]):
            raise CodecError("An image holds rows of the log or of the membership.")
        self._chunks += 1
        self._rows += len(chunk.rows)
        self._checksum = zlib.crc32(body, self._checksum)
        prefix = self._keys.prefix
        return {prefix + key: value for key, value in chunk.rows}

    def finish(self, end: ImageEnd) -> None:
        """Check that everything arrived. Raises CodecError."""
        if (end.chunks, end.rows, end.checksum) != (self._chunks, self._rows, self._checksum):
            raise CodecError("The image is not complete.")
