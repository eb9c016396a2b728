"""The secrets of a route: sealed before they are stored, opened for who may see them."""

from node.api.problems import invalid
from node.engine import Engine
from node.secrets import open_value, seal_value
from timemachine import limits
from timemachine.errors import InvalidSecret
from timemachine.model import Route, SealedKey
from timemachine.signing import format_secret, parse_secret


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

    def new_secret(self, given: str | None) -> bytes:
        """A signing secret, sealed: the one that is given, or one that is made. May raise 400."""
        if given is None:
            given = format_secret(self._engine.random_bytes(limits.SECRET_BYTES_GENERATED))
        else:
            check_secret(given)
        return self.seal(given)


def check_secret(given: str) -> None:
    """Refuse what cannot be a signing secret."""
    try:
        parse_secret(given)
    except InvalidSecret as error:
        raise invalid("/secret", error.detail) from None


def unexpired(route: Route, now_ms: int) -> list[SealedKey]:
    """The current secret of a route, and then those of before that still sign."""
    return [each for each in route.secrets if each.expires_ms is None or each.expires_ms > now_ms]
