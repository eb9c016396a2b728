"""Secrets at rest: sealed before they enter the replicated log, snapshots and backups.

A sealed secret is AES-256-GCM (NIST SP 800-38D) under a master key that never enters the log:

    marker (1) | id of the master key (4) | nonce (12) | ciphertext | tag (16)

The marker says which form follows; what it does not know is refused. Marker and key id are
authenticated together with the caller's `context`, which names the place that the secret belongs
to, so that a blob moved to another place does not open. Nonces are drawn at random by the caller,
one for each secret: the bound of 2^32 messages a key is far beyond the number of routes.

The master keys live in a text file, one base64 line each; the first is current, the rest are old
ones with which what they sealed can still be opened.
"""

import binascii
import hashlib
import hmac
from collections.abc import Iterable, Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from timemachine import limits
from timemachine.errors import ConfigError, SealError

MARKER_AES_256_GCM: Final = 0xA1
"""Sealed, version 1. *Hard*. No UTF-8 text starts with this byte, so none is taken for sealed."""

_KEY_ID_BYTES: Final = 4
_NONCE_START: Final = 1 + _KEY_ID_BYTES
_TEXT_START: Final = _NONCE_START + limits.SEAL_NONCE_BYTES
_TAG_BYTES: Final = 16
_DERIVED_LABEL: Final = b"timemachine derived secret 1\0"
_CHECK_LABEL: Final = b"timemachine master key check 1"


class MasterKey:
    """A key of 32 bytes that seals secrets. Only its `id` is ever shown."""

    __slots__ = ("_aead", "_key", "id")

    def __init__(self, key: bytes) -> None:
        if len(key) != limits.MASTER_KEY_BYTES:
            raise ConfigError(f"A master key has {limits.MASTER_KEY_BYTES} bytes, not {len(key)}.")
        self._key = bytes(key)
        self._aead = AESGCM(self._key)
        self.id = hashlib.sha256(self._key).hexdigest()[: 2 * _KEY_ID_BYTES]
        """The first 8 hex digits of the key's SHA-256."""

    def __repr__(self) -> str:
        """Without the key."""
        return f"MasterKey(id={self.id!r})"

    def __reduce__(self) -> str:
        """Refuse to be pickled or copied: a key leaves this object only into its file."""
        raise TypeError("a master key cannot be pickled")


def seal(key: MasterKey, plaintext: bytes, *, nonce: bytes, context: bytes) -> bytes:
    """The sealed form of `plaintext`.

    `nonce` are 12 random bytes, never used before with this key. `context` names where the secret
    belongs, for instance `b"route-secret:" + uid`; opening needs the same.
    """
    if len(nonce) != limits.SEAL_NONCE_BYTES:
        raise ValueError(f"a nonce has {limits.SEAL_NONCE_BYTES} bytes")
    head = bytes([MARKER_AES_256_GCM]) + bytes.fromhex(key.id)
    return head + nonce + key._aead.encrypt(nonce, plaintext, head + context)


def open_sealed(keys: Iterable[MasterKey], blob: bytes, *, context: bytes) -> bytes:
    """The plaintext of `blob`, opened with that one of `keys` which sealed it.

    Raises SealError when that key is not among them (its id is named), and when the blob is
    damaged or was sealed for another `context`.
    """
    needed = sealed_key_id(blob)
    for key in keys:
        if key.id == needed:
            head, nonce = blob[:_NONCE_START], blob[_NONCE_START:_TEXT_START]
            try:
                return key._aead.decrypt(nonce, blob[_TEXT_START:], head + context)
            except InvalidTag:
                raise SealError(
                    f"A secret sealed with the master key {needed} does not open: "
                    "it is damaged or belongs elsewhere."
                ) from None
    raise SealError(f"A sealed secret needs the master key {needed}, which is not at hand.")


def derived(key: MasterKey, count: int, *, context: bytes) -> bytes:
    """`count` bytes (1 to 64) that follow from `context`, for those only who have the key.

    The same again for the same, so that a repeated request gets the secret that it got at first.
    """
    return hmac.digest(key._key, _DERIVED_LABEL + context, "sha512")[:count]


def sealed_key_id(blob: bytes) -> str:
    """The id of the master key that sealed `blob`. Raises SealError when it is no sealed secret."""
    if len(blob) < _TEXT_START + _TAG_BYTES:
        raise SealError("This is no sealed secret: it is too short.")
    if blob[0] != MARKER_AES_256_GCM:
        raise SealError(f"This is no sealed secret of a known form (marker {blob[0]}).")
    return blob[1:_NONCE_START].hex()


# --- the key check -----------------------------------------------------------------------------


def key_check(key: MasterKey) -> bytes:
    """A value of 16 bytes to store with the node's identity; it tells nothing about the key."""
    return hmac.digest(key._key, _CHECK_LABEL, "sha256")[:16]


def find_checked_key(keys: Iterable[MasterKey], check: bytes) -> MasterKey | None:
    """That one of `keys` which `check` was made from; None means: the wrong key file, stop."""
    for key in keys:
        if hmac.compare_digest(key_check(key), check):
            return key
    return None


# --- the key file ------------------------------------------------------------------------------


def parse_key_file(text: str) -> list[MasterKey]:
    """The master keys of a key file, the current one first.

    One key a line, as the base64 of 32 bytes; empty lines and lines that start with `#` are
    skipped. Raises ConfigError, which names the line but never shows it.
    """
    keys: list[MasterKey] = []
    for number, raw_line in enumerate(text.splitlines(), start=1):
        line = raw_line.strip()
        if not line or line.startswith("#"):
            continue
        try:
            key = MasterKey(binascii.a2b_base64(line, strict_mode=True))
        except (ValueError, ConfigError):
            raise ConfigError(
                f"Line {number} of the key file is not the base64 of "
                f"{limits.MASTER_KEY_BYTES} bytes."
            ) from None
        if any(key.id == other.id for other in keys):
            raise ConfigError(f"Line {number} of the key file repeats the key {key.id}.")
        keys.append(key)
    if not keys:
        raise ConfigError("The key file holds no key.")
    if len(keys) > limits.MASTER_KEYS_MAX:
        raise ConfigError(
            f"The key file holds {len(keys)} keys; at most {limits.MASTER_KEYS_MAX} are allowed."
        )
    return keys


def format_key_file(keys: Sequence[MasterKey]) -> str:
    """The text of a key file for `keys`, the current one first; the reverse of `parse_key_file`."""
    lines = [
        "# TimeMachine master keys: the first seals, all open. Keep secret, keep a copy.",
        *(
            f"# {key.id}\n{binascii.b2a_base64(key._key, newline=False).decode('ascii')}"
            for key in keys
        ),
    ]
    return "\n".join(lines) + "\n"
