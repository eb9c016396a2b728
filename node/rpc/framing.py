"""The bytes on a connection between two nodes: one frame after the other.

    length (4, big-endian) | kind (1) | payload

The length counts kind and payload. What nodes send each other is not looked into here.
"""

import struct
from enum import IntEnum
from typing import Final

from timemachine import limits
from timemachine.errors import CodecError

HEADER_BYTES: Final = 5
_LENGTH_BYTES: Final = 4
_HEADER: Final = struct.Struct(">IB")


class Kind(IntEnum):
    """What a payload is. The numbers stay, whatever the version of the protocol."""

    HELLO = 1
    """Who dials, and whom: see `node.rpc.hello`."""
    WELCOME = 2
    """The answer: accepted or not."""
    PING = 3
    """Are you there? From who dialled; empty."""
    PONG = 4
    """Yes; also told unasked, now and then, to who sends much."""
    FRAME = 5
    """A frame of the engine, complete."""
    PART = 6
    """A part of one that is bulk, with more to follow; others may come between."""
    LAST_PART = 7
    """The last part of one that is bulk."""
    JOIN_ASK = 8
    """Somebody who is no node yet wants to join: see `node.rpc.joinwords`."""
    JOIN_CHALLENGE = 9
    JOIN_REQUEST = 10
    JOIN_ANSWER = 11
    JOIN_REFUSED = 12


def header(kind: Kind, payload_bytes: int) -> bytes:
    """What stands before a payload of so many bytes."""
    return _HEADER.pack(payload_bytes + 1, kind)


def write(kind: Kind, payload: bytes = b"") -> bytes:
    """A whole frame."""
    return _HEADER.pack(len(payload) + 1, kind) + payload


class FrameReader:
    """Cuts what is received into frames. `bytes_max` bounds a payload, and may be changed."""

    __slots__ = ("_held", "_needed", "bytes_max")

    def __init__(self, bytes_max: int = limits.RPC_HELLO_BYTES_MAX) -> None:
        self.bytes_max = bytes_max
        self._held = bytearray()
        self._needed = HEADER_BYTES

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The frames, as (kind, payload), that are complete with this data.

        Raises CodecError at a length that cannot be; nothing after it can be made sense of.
        """
        held = self._held
        if not held:
            found, at = self._cut(data)
            if at < len(data):
                held += memoryview(data)[at:]
            return found
        held += data
        if len(held) < self._needed:
            return []
        found, at = self._cut(held)
        del held[:at]
        return found

    def _cut(self, source: bytes | bytearray) -> tuple[list[tuple[int, bytes]], int]:
        """The complete frames of `source`, and where the next one begins."""
        found: list[tuple[int, bytes]] = []
        at, end = 0, len(source)
        with memoryview(source) as view:
            while end - at >= HEADER_BYTES:
                length, kind = _HEADER.unpack_from(source, at)
                if not 1 <= length <= self.bytes_max + 1:
                    raise CodecError(f"a frame of {length} bytes cannot be")
                following = at + _LENGTH_BYTES + length
                if following > end:
                    self._needed = following - at
                    return found, at
                found.append((kind, bytes(view[at + HEADER_BYTES : following])))
                at = following
        self._needed = HEADER_BYTES
        return found, at
