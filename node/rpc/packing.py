"""The bytes of what is said before and beside the frames of the engine: MessagePack.

Without the version byte of what is stored (`timemachine.codec`): a hello must be understood by a
node of any version, or it could not say that the versions do not fit.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from timemachine.errors import CodecError

pack = msgspec.msgpack.Encoder().encode


def unpacker(kind: Any) -> Callable[[bytes], Any]:
    """A function that reads what `pack` wrote, as `kind`; CodecError for anything else."""
    read = msgspec.msgpack.Decoder(kind).decode

    def unpack(data: bytes) -> Any:
        try:
            return read(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise CodecError(f"not a record of this kind: {error}") from error

    return unpack
