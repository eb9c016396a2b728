"""The token with which a node joins: `id.secret`, of which the cluster keeps the id and a hash.

The id is 12 hexadecimal digits, the secret 43 characters of unpadded URL-safe base64. Both are
made of random bytes, or derived from a secret of the cluster, so that a repeated request for a
token is answered with the same one.
"""

import base64
import hashlib
import re
from typing import Final, NamedTuple

_ID_BYTES: Final = 6
_SECRET_BYTES: Final = 32
SEED_BYTES: Final = _ID_BYTES + _SECRET_BYTES
"""What a token is made of."""

_FORM: Final = re.compile(r"([0-9a-f]{12})\.([A-Za-z0-9_-]{43})", re.ASCII)


class Token(NamedTuple):
    """A token as its bearer has it (`text`), and what the cluster keeps: SHA-256 of the secret."""

    text: str
    id: str
    secret_hash: bytes


def new_token(seed: bytes) -> Token:
    """The token made of `SEED_BYTES` unpredictable bytes."""
    assert len(seed) == SEED_BYTES
    secret = base64.urlsafe_b64encode(seed[_ID_BYTES:]).decode().rstrip("=")
    return read_token(f"{seed[:_ID_BYTES].hex()}.{secret}")


def read_token(text: str) -> Token:
    """The token that somebody typed, spaces around it ignored. Raises ValueError for what is none.

    The error does not repeat it: it may be nearly right.
    """
    text = text.strip()
    found = _FORM.fullmatch(text)
    if found is None:
        raise ValueError("this is no join token, such as 0123456789ab.(43 characters)")
    return Token(text, found[1], hashlib.sha256(found[2].encode()).digest())


JOIN_REFUSALS: Final = {
    "token_unknown": "The join token is not known: mistyped, or forgotten since it expired.",
    "token_used": "The join token was used by another node; ask for another one.",
    "token_expired": "The join token has expired; ask for another one.",
    "format_unknown": "The program does not know the format that the cluster has finalised.",
    "node_known": "A node of this id is in the cluster already; a copy of it cannot join.",
    "node_unknown": "The node that is to be replaced is not known.",
    "node_removed": "That node was removed from the cluster; it does not come back.",
    "limit_reached": "The cluster has as many nodes as it can have.",
}
"""Why meta refuses a node that wants to join: sentences for its codes."""
