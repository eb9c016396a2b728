"""Public keys of senders, which verify signatures `v1a` of the Standard Webhooks specification.

The one module of the receiver that needs the package cryptography. `Webhook` imports it when it is
given a public key.
"""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


class PublicKey:
    """A public key of Ed25519 (RFC 8032), from its 32 bytes."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = Ed25519PublicKey.from_public_bytes(key)

    def verifies(self, signature: bytes, content: bytes) -> bool:
        """Is this the signature of the content, by the private key that belongs to this one?"""
        try:
            self._key.verify(signature, content)
        except InvalidSignature:
            return False
        return True
