"""Bytes of what is stored and logged: one version byte, then MessagePack.

The version byte says which types wrote the rest. A reader that meets a version it does not know
raises CodecError: a newer format is proposed only when every node knows it, so this means foreign
bytes or a downgrade, and neither may be guessed at.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from timemachine.errors import CodecError

T = TypeVar("T")

VERSION = 1
_VERSION_BYTE = bytes((VERSION,))

_encoder = msgspec.msgpack.Encoder()


def encode(value: Any) -> bytes:
    """The stored form of a record: version byte and MessagePack."""
    return _VERSION_BYTE + _encoder.encode(value)


def decoder(kind: Any) -> Callable[[bytes], Any]:
    """A function that reads what `encode` wrote, as `kind`.

    It raises CodecError for another version, for cut or for foreign bytes, and for such as are
    nested without end.
    """
    read = msgspec.msgpack.Decoder(kind).decode

    def decode(data: bytes) -> Any:
        if data[:1] != _VERSION_BYTE:
            raise CodecError(f"format version {data[:1].hex() or 'none'} is not known here")
        try:
            return read(data[1:])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise CodecError(f"not a record of this kind: {error}") from error

    return decode
