"""Signatures of outgoing webhooks, after the Standard Webhooks specification 1.0.0.

What is signed is `id + "." + timestamp + "." + body`, byte for byte what is sent. A signature is
`v1,` and the base64 of its HMAC-SHA256; the key is what a secret `whsec_<base64>` decodes to. The
header `webhook-signature` carries one signature for each valid key, the current key's first, so
that a recipient who still holds the old secret goes on verifying while a secret is rotated. Keys
of `v1a` are in `timemachine.ed25519`, since recipients import this module without dependencies.
"""

import binascii
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from timemachine import limits
from timemachine.errors import InvalidSecret

SECRET_PREFIX: Final = "whsec_"
# Keeps these hashes apart from any other use of SHA-256 over the same bytes.
_KEY_ID_DOMAIN: Final = b"timemachine key id\0"


def sign_v1(key: bytes, webhook_id: str, timestamp_s: int, body: bytes) -> str:
    """One signature, `v1,<base64>`.

    `webhook_id` must be without a full stop (`identifiers.webhook_id` is): the full stop is what
    keeps id and timestamp apart in the signed content.
    """
    return Signer([key]).header(webhook_id, timestamp_s, body)


class PrivateKey(Protocol):
    """A key of another version than `v1`."""

    def signature(self, content: bytes) -> str:
        """One signature of the signed content, its version first."""
        ...


class Signer:
    """Signs with each of `keys`, the current key first. Kept for as long as the keys hold.

    Bytes are a key of `v1`.
    """

    __slots__ = ("_sign_each",)

    def __init__(self, keys: Sequence[bytes | PrivateKey]) -> None:
        assert keys, "a webhook is never sent unsigned"
        self._sign_each = [
            _hmac_sha256(key) if isinstance(key, bytes) else key.signature for key in keys
        ]

    def header(self, webhook_id: str, timestamp_s: int, body: bytes) -> str:
        """The value of `webhook-signature`."""
        content = b"%b.%d.%b" % (webhook_id.encode(), timestamp_s, body)
        if len(self._sign_each) == 1:
            return self._sign_each[0](content)
        return " ".join([sign(content) for sign in self._sign_each])


# HMAC by its definition (RFC 2104), from two hashes that have taken up the key: to copy these
# costs half of what it costs to copy an object of `hmac`, and a third of taking up the key anew.
_Hash = Any
_BLOCK_BYTES: Final = 64
_INNER: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER: Final = bytes(byte ^ 0x5C for byte in range(256))


def _hmac_sha256(key: bytes) -> Callable[[bytes], str]:
    """Makes signatures `v1,<base64>` of contents."""
    if len(key) > _BLOCK_BYTES:
        key = hashlib.sha256(key).digest()
    block = key.ljust(_BLOCK_BYTES, b"\0")
    inner_begun: _Hash = hashlib.sha256(block.translate(_INNER))
    outer_begun: _Hash = hashlib.sha256(block.translate(_OUTER))

    def signature(content: bytes) -> str:
        inner = inner_begun.copy()
        inner.update(content)
        outer = outer_begun.copy()
        outer.update(inner.digest())
        return "v1," + binascii.b2a_base64(outer.digest(), newline=False).decode("ascii")

    return signature


def key_id(key: bytes) -> int:
    """A number of 32 bits that tells keys apart and says nothing of them.

    The first bytes of a SHA-256 over a domain and the key; attempts record which keys signed them.
    """
    return int.from_bytes(hashlib.sha256(_KEY_ID_DOMAIN + key).digest()[:4], "big")


def key_id_text(number: int) -> str:
    """A `key_id` as users see it: eight hexadecimal digits."""
    return f"{number:08x}"


def parse_secret(text: str) -> bytes:
    """The key that a route's secret stands for.

    A secret is `whsec_` and the standard, padded base64 of 24 to 64 bytes. Raises InvalidSecret,
    whose `rule` names what is broken: `type`, `prefix`, `empty`, `base64`, `too_short`, `too_long`.
    """
    return decode_secret(text, SECRET_PREFIX, limits.SECRET_BYTES_MIN, limits.SECRET_BYTES_MAX)


def decode_secret(text: str, prefix: str, bytes_min: int, bytes_max: int) -> bytes:
    """The bytes of a secret with that prefix, so many of them. Raises InvalidSecret."""
    if not isinstance(text, str):
        raise InvalidSecret("The secret must be a string.", rule="type")
    if not text.startswith(prefix):
        raise InvalidSecret(f"The secret must start with '{prefix}'.", rule="prefix")
    encoded = text[len(prefix) :]
    if not encoded:
        raise InvalidSecret(f"The secret is empty after '{prefix}'.", rule="empty")
    try:
        key = binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError:
        key = b""
    # Encoding again refuses what decoders disagree about: bits after the last byte.
    if not key or binascii.b2a_base64(key, newline=False) != encoded.encode():
        raise InvalidSecret(
            f"The secret must be standard, padded base64 after '{prefix}'.", rule="base64"
        ) from None
    if len(key) < bytes_min:
        raise InvalidSecret(
            f"The secret holds {len(key)} bytes; at least {bytes_min} are needed.",
            rule="too_short",
        )
    if len(key) > bytes_max:
        raise InvalidSecret(
            f"The secret holds {len(key)} bytes; at most {bytes_max} are allowed.",
            rule="too_long",
        )
    return key


def format_secret(key: bytes) -> str:
    """The secret's text, `whsec_<base64>`; the reverse of `parse_secret`."""
    return SECRET_PREFIX + binascii.b2a_base64(key, newline=False).decode("ascii")
