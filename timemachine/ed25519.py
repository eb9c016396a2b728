"""Private keys that webhooks are signed with: `v1a` of the Standard Webhooks specification.

A key is `whsk_` and the base64 of its 32 secret bytes (the seed) and the 32 bytes of its public
key, as Ed25519 (RFC 8032) makes the one from the other. A signature is `v1a,` and the base64 of 64
bytes, over the same content as with `v1`. Recipients verify it with the public key alone, `whpk_`
and base64: who can verify cannot sign.
"""

import binascii
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from timemachine.errors import InvalidSecret
from timemachine.signing import decode_secret, key_id

PRIVATE_PREFIX: Final = "whsk_"
PUBLIC_PREFIX: Final = "whpk_"
SEED_BYTES: Final = 32
_KEY_BYTES: Final = 64


class PrivateKey:
    """A key that signs. Its public half, `public_key`, is shown; the other is not."""

    __slots__ = ("_key", "_seed", "public_key")

    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public_key = PUBLIC_PREFIX + _base64(self._public_half())

    def signature(self, content: bytes) -> str:
        """One signature of the signed content, `v1a,<base64>`."""
        return "v1a," + _base64(self._key.sign(content))

    def secret(self) -> str:
        """The key's text; the reverse of `parse_private_key`."""
        return PRIVATE_PREFIX + _base64(self._seed + self._public_half())

    def key_id(self) -> int:
        """What attempts name it by; see `signing.key_id`."""
        return key_id(self._public_half())

    def __repr__(self) -> str:
        """Without what is secret of it."""
        return f"PrivateKey(<{self.public_key}>)"

    def _public_half(self) -> bytes:
        return self._key.public_key().public_bytes_raw()


def parse_private_key(text: str) -> PrivateKey:
    """The key that `whsk_<base64>` stands for.

    Raises InvalidSecret, whose `rule` names what is broken: those of `signing.parse_secret`, and
    `mismatch` where the public half is not the one that belongs to the seed: whoever had verified
    with it would refuse every webhook.
    """
    both = decode_secret(text, PRIVATE_PREFIX, _KEY_BYTES, _KEY_BYTES)
    key = PrivateKey(both[:SEED_BYTES])
    if key.secret() != text:
        raise InvalidSecret(
            "The last 32 bytes of the secret are not the public key of the first 32.",
            rule="mismatch",
        )
    return key


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode("ascii")
