"""The image of a replica: out as chunks, in under another incarnation.

An image holds every row of the machine, not those of the log: whoever installs it starts a log
behind `applied_index`. It is installed beside whatever is there, under a number of its own, and
switched to in one batch, so a crash half-way leaves either the old replica or the new one, and
some rows to erase (dissertation 5.1).

A chunk is self-contained: a checksum, then rows with their keys cut free of the prefix. The last
chunk says how many rows there were and what their running checksum is, so that a missing or
doubled chunk is noticed.
"""

import zlib
from collections.abc import Iterator

import msgspec

from timemachine import codec
from timemachine.errors import CodecError
from timemachine.storage.api import Batch, Row, Store
from timemachine.storage.keys import ReplicaKeys

_ROWS_PER_SCAN = 500


class ImageChunk(msgspec.Struct, frozen=True, array_like=True):
    """Some rows of an image, in key order. `number` counts from 0."""

    number: int
    rows: list[tuple[bytes, bytes]]


class ImageEnd(msgspec.Struct, frozen=True, array_like=True):
    """The end of an image: what the chunks before must add up to."""

    applied_index: int
    applied_term: int
    chunks: int
    rows: int
    checksum: int


_read_chunk = codec.decoder(ImageChunk)


def _sum(checksum: int, rows: list[Row]) -> int:
    for key, value in rows:
        checksum = zlib.crc32(value, zlib.crc32(key, checksum))
    return checksum


def image_out(
    store: Store, keys: ReplicaKeys, *, applied_index: int, applied_term: int, chunk_bytes: int
) -> Iterator[bytes | ImageEnd]:
    """The chunks of a replica's image, each about `chunk_bytes`, and at last an ImageEnd.

    The rows must not change meanwhile: the caller reads from a store that stands still, or from a
    view of it that does.
    """
    at = len(keys.prefix)
    cursor = keys.prefix
    pending: list[Row] = []
    size = number = count = checksum = 0

    def sealed() -> bytes:
        data = codec.encode(ImageChunk(number, pending))
        return zlib.crc32(data).to_bytes(4, "big") + data

    while True:
        rows = store.scan(cursor, keys.stop, _ROWS_PER_SCAN)
        for key, value in rows:
            table = key[at : at + 1]
            if table in (b"h", b"l"):
                continue
            row = (key[at:], value)
            pending.append(row)
            checksum = _sum(checksum, [row])
            count += 1
            size += len(key) + len(value)
            if size >= chunk_bytes:
                yield sealed()
                pending, size, number = [], 0, number + 1
        if len(rows) < _ROWS_PER_SCAN:
            break
        cursor = rows[-1][0] + b"\0"
    if pending:
        yield sealed()
        number += 1
    yield ImageEnd(applied_index, applied_term, number, count, checksum)


class ImageIn:
    """Takes an image chunk by chunk, as batches for another incarnation."""

    def __init__(self, keys: ReplicaKeys) -> None:
        self._keys = keys
        self._chunks = self._rows = self._checksum = 0

    def chunk(self, data: bytes) -> Batch:
        """The rows of the next chunk, to be written in one batch.

        Raises CodecError when the chunk is damaged or out of turn.
        """
        body = data[4:]
        if zlib.crc32(body).to_bytes(4, "big") != data[:4]:
            raise CodecError("A chunk of the image fails its checksum.")
        chunk: ImageChunk = _read_chunk(body)
        if chunk.number != self._chunks:
            raise CodecError(f"Chunk {chunk.number} came where {self._chunks} was due.")
        self._chunks += 1
        self._rows += len(chunk.rows)
        self._checksum = _sum(self._checksum, chunk.rows)
        prefix = self._keys.prefix
        return {prefix + key: value for key, value in chunk.rows}

    def finish(self, end: ImageEnd) -> None:
        """Check that everything arrived. Raises CodecError."""
        if (end.chunks, end.rows, end.checksum) != (self._chunks, self._rows, self._checksum):
            raise CodecError("The image is not complete.")
