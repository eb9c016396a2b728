"""Tell a torn tail of a LevelDB log from damage in its middle.

After a power loss the end of the log may be garbage: those writes were never acknowledged, and
the log is cut where the last whole record ends. Damage with valid records behind it is something
else: acknowledged writes are gone, and LevelDB by default skips over them without a word.

Format: blocks of 32 KiB; each record is a masked CRC-32C (4 bytes), a length (2), a type (1:
full, first, middle, last) and its data (LevelDB, `doc/log_format.md`).
"""

import struct
from typing import NamedTuple

import google_crc32c

_BLOCK_BYTES = 32_768
_HEADER = struct.Struct("<IHB")
_MASK_DELTA = 0xA282EAD8
_ENDS_A_WRITE = (1, 4)


class WalState(NamedTuple):
    """What a log file looks like.

    `damaged` when valid records follow what cannot be read; otherwise everything up to
    `good_end_bytes` is whole, and what follows is a torn tail.
    """

    damaged: bool
    good_end_bytes: int
    size_bytes: int


def _record_end(data: bytes, position: int) -> int | None:
    """Where the record at `position` ends, or None if there is no whole record."""
    left = _BLOCK_BYTES - position % _BLOCK_BYTES
    if left < _HEADER.size or position + _HEADER.size > len(data):
        return None
    stored, length, kind = _HEADER.unpack_from(data, position)
    end = position + _HEADER.size + length
    if kind not in (1, 2, 3, 4) or length > left - _HEADER.size or end > len(data):
        return None
    crc = google_crc32c.value(data[position + 6 : end])
    masked = ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF
    return end if masked == stored else None


def check_wal(data: bytes) -> WalState:
    """Judge the bytes of one log file."""
    position = good_end = 0
    size = len(data)
    while position < size:
        left = _BLOCK_BYTES - position % _BLOCK_BYTES
        if left < _HEADER.size:
            position += left
            continue
        end = _record_end(data, position)
        if end is None:
            return WalState(_valid_after(data, position), good_end, size)
        if data[position + 6] in _ENDS_A_WRITE:
            good_end = end
        position = end
    return WalState(False, good_end, size)


def _valid_after(data: bytes, position: int) -> bool:
    """Whether a whole record lies behind the broken one at `position`.

    Inside the broken block every offset is tried; later blocks begin with a record.
    """
    block_end = min(len(data), position - position % _BLOCK_BYTES + _BLOCK_BYTES)
    for candidate in range(position + 1, block_end):
        length = data[candidate + 4 : candidate + 6]
        if length != b"\0\0" and _record_end(data, candidate) is not None:
            return True
    return any(
        _record_end(data, start) is not None for start in range(block_end, len(data), _BLOCK_BYTES)
    )
