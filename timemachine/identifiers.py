"""The identifiers that TimeMachine makes: webhook ids and job ids.

All of them are functions of what they are made from; time and chance are arguments.
"""

import base64
import hashlib
from struct import Struct
from typing import Final

_BASE32: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_PAIRS: Final = [a + b for a in _BASE32 for b in _BASE32]
"""Two base32 characters for each number of 10 bits: twice as fast as base64.b32encode.

Three for each of 15 bits look faster, but 2 MB of them drive each other out of the cache.
"""

# Keeps these hashes apart from any other use of SHA-256 over the same bytes.
_WEBHOOK_DOMAIN: Final = b"timemachine webhook-id\0"
_JOB_DOMAIN: Final = b"timemachine job-id\0"

_unpack_halves = Struct(">QQ").unpack_from
_pack_version = Struct(">QQ").pack
_pack_scope = Struct(">QI").pack

UID_BYTES: Final = 16
UUID7_RANDOM_BYTES: Final = 10


def webhook_id(uid: bytes, version: int, occurrence: int) -> str:
    """The `webhook-id` of one fire: 26 characters `[A-Z2-7]`, the same on every attempt.

    It is the unpadded base32 (RFC 4648) of the first 128 bits of a SHA-256 over the 16-byte `uid`
    of the job's life, the job's `version` and the `occurrence` within it. Never of names: a job
    that was purged and created again is another event to its recipient. It has no full stop,
    which would be ambiguous in the signed content. *Hard*: recipients remember these ids.
    """
    assert len(uid) == UID_BYTES
    hashed = hashlib.sha256(_WEBHOOK_DOMAIN + uid + _pack_version(version, occurrence)).digest()
    # 12 times 10 bits make 24 characters, the last 8 bits and two zeros the other two.
    a, b = _unpack_halves(hashed)
    two = _PAIRS
    return (
        f"{two[a >> 54]}{two[a >> 44 & 1023]}{two[a >> 34 & 1023]}{two[a >> 24 & 1023]}"
        f"{two[a >> 14 & 1023]}{two[a >> 4 & 1023]}{two[(a & 15) << 6 | b >> 58]}"
        f"{two[b >> 48 & 1023]}{two[b >> 38 & 1023]}{two[b >> 28 & 1023]}"
        f"{two[b >> 18 & 1023]}{two[b >> 8 & 1023]}{two[(b & 255) << 2]}"
    )


def batch_id(batch: bytes) -> str:
    """The `webhook-id` of a batch, from the random bytes that name it: 26 characters `[A-Z2-7]`."""
    return base64.b32encode(batch).decode("ascii").rstrip("=")


def uuid7(now_ms: int, random_bytes: bytes) -> str:
    """A UUID of version 7 (RFC 9562, 5.7) as text: 48 bits of `now_ms`, then 74 random bits.

    `random_bytes` are 10 bytes. Ids of different milliseconds sort by time; within one
    millisecond their order is random.
    """
    assert len(random_bytes) == UUID7_RANDOM_BYTES
    assert 0 <= now_ms < 1 << 48
    return _uuid_text(now_ms << 80 | int.from_bytes(random_bytes, "big"), version=7)


def uuid8(collection_uid: int, idempotency_key: str, item_index: int = 0) -> str:
    """The id of a job that came without one but with an Idempotency-Key, as text.

    A UUID of version 8 (RFC 9562, 5.8 and B.2): the first 128 bits of a SHA-256 over the
    collection's uid, the key and the item's index in a batch. So a repeat of the request names
    the same job, and is met by the same vnode. *Hard*: a repeat may come after an upgrade.
    """
    scope = _pack_scope(collection_uid, item_index)
    hashed = hashlib.sha256(_JOB_DOMAIN + scope + idempotency_key.encode()).digest()
    return _uuid_text(int.from_bytes(hashed[:16], "big"), version=8)


def _uuid_text(value: int, *, version: int) -> str:
    """`value` (128 bits) with the version and variant of RFC 9562, in the usual form."""
    value = value & ~(0xF << 76) | version << 76
    value = value & ~(0b11 << 62) | 0b10 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
