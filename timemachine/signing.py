"""Signatures of outgoing webhooks, after the Standard Webhooks specification 1.0.0.

What is signed is `id + "." + timestamp + "." + body`, byte for byte what is sent. A signature is
`v1,` and the base64 of its HMAC-SHA256; the key is what a secret `whsec_<base64>` decodes to. The
header `webhook-signature` carries one signature for each valid key, the current key's first, so
that a recipient who still holds the old secret goes on verifying while a secret is rotated.
"""

import binascii
import hashlib
from collections.abc import Sequence
from typing import Any, Final

from timemachine import limits
from timemachine.errors import InvalidSecret

SECRET_PREFIX: Final = "whsec_"


def sign_v1(key: bytes, webhook_id: str, timestamp_s: int, body: bytes) -> str:
    """One signature, `v1,<base64>`.

    `webhook_id` must be without a full stop (`identifiers.webhook_id` is): the full stop is what
    keeps id and timestamp apart in the signed content.
    """
    return Signer([key]).header(webhook_id, timestamp_s, body)


class Signer:
    """Signs with each of `keys`, the current key first. Kept for as long as the keys hold."""

    __slots__ = ("_keyed",)

    def __init__(self, keys: Sequence[bytes]) -> None:
        assert keys, "a webhook is never sent unsigned"
        self._keyed = [_keyed(key) for key in keys]

    def header(self, webhook_id: str, timestamp_s: int, body: bytes) -> str:
        """The value of `webhook-signature`."""
        content = b"%b.%d.%b" % (webhook_id.encode(), timestamp_s, body)
        if len(self._keyed) == 1:
            return _signature(*self._keyed[0], content)
        return " ".join([_signature(inner, outer, content) for inner, outer in self._keyed])


# HMAC by its definition (RFC 2104), from two hashes that have taken up the key: to copy these
# costs half of what it costs to copy an object of `hmac`, and a third of taking up the key anew.
_Hash = Any
_BLOCK_BYTES: Final = 64
_INNER: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER: Final = bytes(byte ^ 0x5C for byte in range(256))


def _keyed(key: bytes) -> tuple[_Hash, _Hash]:
    """The inner and the outer hash of an HMAC-SHA256, with the key in them."""
    if len(key) > _BLOCK_BYTES:
        key = hashlib.sha256(key).digest()
    block = key.ljust(_BLOCK_BYTES, b"\0")
    return hashlib.sha256(block.translate(_INNER)), hashlib.sha256(block.translate(_OUTER))


def _signature(inner: _Hash, outer: _Hash, content: bytes) -> str:
    inner = inner.copy()
    inner.update(content)
    outer = outer.copy()
    outer.update(inner.digest())
    return "v1," + binascii.b2a_base64(outer.digest(), newline=False).decode("ascii")


def parse_secret(text: str) -> bytes:
    """The key that a route's secret stands for.

    A secret is `whsec_` and the standard, padded base64 of 24 to 64 bytes. Raises InvalidSecret,
    whose `rule` names what is broken: `type`, `prefix`, `empty`, `base64`, `too_short`, `too_long`.
    """
    if not isinstance(text, str):
        raise InvalidSecret("The secret must be a string.", rule="type")
    if not text.startswith(SECRET_PREFIX):
        raise InvalidSecret(f"The secret must start with '{SECRET_PREFIX}'.", rule="prefix")
    encoded = text[len(SECRET_PREFIX) :]
    if not encoded:
        raise InvalidSecret(f"The secret is empty after '{SECRET_PREFIX}'.", rule="empty")
    try:
        key = binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError:
        key = b""
    # Encoding again refuses what decoders disagree about: bits after the last byte.
    if not key or binascii.b2a_base64(key, newline=False) != encoded.encode():
        raise InvalidSecret(
            f"The secret must be standard, padded base64 after '{SECRET_PREFIX}'.", rule="base64"
        ) from None
    if len(key) < limits.SECRET_BYTES_MIN:
        raise InvalidSecret(
            f"The secret holds {len(key)} bytes; at least {limits.SECRET_BYTES_MIN} are needed.",
            rule="too_short",
        )
    if len(key) > limits.SECRET_BYTES_MAX:
        raise InvalidSecret(
            f"The secret holds {len(key)} bytes; at most {limits.SECRET_BYTES_MAX} are allowed.",
            rule="too_long",
        )
    return key


def format_secret(key: bytes) -> str:
    """The secret's text, `whsec_<base64>`; the reverse of `parse_secret`."""
    return SECRET_PREFIX + binascii.b2a_base64(key, newline=False).decode("ascii")
