"""The secrets of a route: sealed before they are stored, opened for who may see them."""

from node.api.problems import invalid
from node.engine import Engine
from node.secrets import open_value, parse_signing_key, seal_value
from timemachine import limits
from timemachine.ed25519 import PRIVATE_PREFIX, SEED_BYTES, PrivateKey, parse_private_key
from timemachine.errors import InvalidSecret
from timemachine.model import Route, SealedKey
from timemachine.signing import format_secret

V1, V1A = "v1", "v1a"
"""The kinds of signatures (Standard Webhooks): by a shared secret, by a private key."""


class Seals:
    """Seals and opens what is secret of one route."""

    def __init__(self, engine: Engine, db: str, name: str) -> None:
        self._engine = engine
        self._db = db
        self._name = name

    def open(self, sealed: bytes) -> str:
        """The text that was sealed."""
        return open_value(self._engine.master_keys, sealed, db=self._db, name=self._name)

    def seal(self, text: str) -> bytes:
        """A text, sealed with the newest key."""
        engine = self._engine
        return seal_value(
            engine.master_keys[0],
            text,
            nonce=engine.random_bytes(limits.SEAL_NONCE_BYTES),
            db=self._db,
            name=self._name,
        )

    def seal_again(self, text: str, stored: bytes | None) -> bytes:
        """`stored` where it seals this text, else a new seal."""
        if stored is not None and self.open(stored) == text:
            return stored
        return self.seal(text)

    def made_secret(self, kind: str) -> str:
        """A signing secret that is made here, for signatures of that kind."""
        draw = self._engine.random_bytes
        if kind == V1A:
            return PrivateKey(draw(SEED_BYTES)).secret()
        return format_secret(draw(limits.SECRET_BYTES_GENERATED))


def kind_of(secret: str) -> str:
    """Which signatures a secret makes."""
    return V1A if secret.startswith(PRIVATE_PREFIX) else V1


def public_key_of(secret: str) -> str | None:
    """What recipients verify its signatures with, where that is not the secret itself."""
    return parse_private_key(secret).public_key if kind_of(secret) == V1A else None


def check_secret(given: str) -> None:
    """Refuse what cannot be a signing secret."""
    try:
        parse_signing_key(given)
    except InvalidSecret as error:
        raise invalid("/secret", error.detail) from None


def unexpired(route: Route, now_ms: int) -> list[SealedKey]:
    """The current secret of a route, and then those of before that still sign."""
    return [each for each in route.secrets if each.expires_ms is None or each.expires_ms > now_ms]
