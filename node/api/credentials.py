"""API tokens: who may ask. They come from a file, and are sent as bearer tokens (RFC 6750)."""

import hmac
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

from timemachine import limits
from timemachine.errors import ConfigError, Unauthorized

_FILE_BYTES_MAX = 1024 * 1024
_TOKEN = re.compile(
    rf"[!-~]{{{limits.API_TOKEN_CHARACTERS_MIN},{limits.API_TOKEN_CHARACTERS_MAX}}}"
)
_BEARER = re.compile(r"bearer +([!-~]+) *", re.IGNORECASE)

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""What everybody may ask: whoever watches over a node need not be one of its clients."""


class Credentials:
    """The tokens of one file. Only their digests are kept: what is not there cannot be told.

    Raises ConfigError for a file that cannot be read or is not right, without a word of it.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._digests = _read(path)

    def __repr__(self) -> str:
        return f"Credentials({self._path!r}: {len(self._digests)} tokens)"

    def reload(self) -> None:
        """Read the file again; what was in force stays so when this raises ConfigError."""
        self._digests = _read(self._path)

    def check(self, headers: Any) -> None:
        """Raise Unauthorized where the headers of a request carry none of the tokens."""
        given = _BEARER.fullmatch(headers.get("Authorization", ""))
        if given is None:
            raise Unauthorized("Send `Authorization: Bearer TOKEN`; this node wants an API token.")
        digest = sha256(given[1].encode()).digest()
        known = False
        # All of them, and each in constant time: how long it takes tells nothing.
        for each in self._digests:
            known |= hmac.compare_digest(digest, each)
        if not known:
            raise Unauthorized("The API token is not one that this node knows.")


def _read(path: str) -> tuple[bytes, ...]:
    try:
        with Path(path).open("rb") as file:
            data = file.read(_FILE_BYTES_MAX + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"api_token_file: {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"api_token_file: {path} is no text in UTF-8.") from None
    if len(data) > _FILE_BYTES_MAX:
        raise ConfigError(f"api_token_file: {path} has more than {_FILE_BYTES_MAX} bytes.")
    digests = []
    for number, line in enumerate(text.split("\n"), 1):
        token = line.strip()
        if not token or token.startswith("#"):
            continue
        if _TOKEN.fullmatch(token) is None:
            raise ConfigError(
                f"api_token_file: line {number} of {path} is no token: one has"
                f" {limits.API_TOKEN_CHARACTERS_MIN} to {limits.API_TOKEN_CHARACTERS_MAX} visible"
                " ASCII characters."
            )
        digests.append(sha256(token.encode()).digest())
    if not digests:
        raise ConfigError(f"api_token_file: {path} has no token.")
    if len(digests) > limits.API_TOKENS_MAX:
        raise ConfigError(f"api_token_file: {path} has more than {limits.API_TOKENS_MAX} tokens.")
    return tuple(digests)
