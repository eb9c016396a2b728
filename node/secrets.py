"""A route's secrets, sealed before they enter the log and opened only to be used."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field

from timemachine.ed25519 import PRIVATE_PREFIX, PrivateKey, parse_private_key
from timemachine.errors import InvalidSecret
from timemachine.model import Route
from timemachine.sealing import MasterKey, open_sealed, seal
from timemachine.signing import SECRET_PREFIX, key_id, parse_secret


def route_context(db: str, name: str) -> bytes:
    """What a sealed value is bound to: it cannot be moved to another route."""
    return f"route:{db}/{name}".encode()


def seal_value(key: MasterKey, text: str, *, nonce: bytes, db: str, name: str) -> bytes:
    """Seal one secret text of a route."""
    return seal(key, text.encode(), nonce=nonce, context=route_context(db, name))


def open_value(keys: Sequence[MasterKey], sealed: bytes, *, db: str, name: str) -> str:
    """Open what `seal_value` sealed. Raises SealError."""
    return open_sealed(keys, sealed, context=route_context(db, name)).decode()


def parse_signing_key(text: str) -> bytes | PrivateKey:
    """The key that a secret of a route stands for: bytes sign `v1`. Raises InvalidSecret."""
    if text.startswith(PRIVATE_PREFIX):
        return parse_private_key(text)
    if not text.startswith(SECRET_PREFIX):
        raise InvalidSecret(
            f"The secret must start with '{SECRET_PREFIX}' or '{PRIVATE_PREFIX}'.", rule="prefix"
        )
    return parse_secret(text)


def signing_key_id(key: bytes | PrivateKey) -> int:
    """What attempts name a key by; see `timemachine.signing.key_id`."""
    return key.key_id() if isinstance(key, PrivateKey) else key_id(key)


@dataclass(frozen=True, repr=False)
class RouteSecrets:
    """The opened secrets of one route, for signing and sending."""

    signing_keys: list[bytes | PrivateKey]
    headers: dict[str, str] = field(default_factory=dict)
    authorization: str | None = None
    client_key_pem: str | None = None
    expires_ms: int | None = None
    """When the first of the signing keys expires, and the route has to be opened again."""


def open_route(keys: Sequence[MasterKey], route: Route, now_ms: int) -> RouteSecrets:
    """Open all secrets of a route; signing keys that expired are left out. Raises SealError."""

    def opened(sealed: bytes) -> str:
        return open_value(keys, sealed, db=route.db, name=route.name)

    kept = [each for each in route.secrets if each.expires_ms is None or each.expires_ms > now_ms]
    userinfo = None if route.basic_auth is None else opened(route.basic_auth)
    return RouteSecrets(
        signing_keys=[parse_signing_key(opened(secret.sealed)) for secret in kept],
        headers={name: opened(value) for name, value in route.headers.items()},
        authorization=(
            None if userinfo is None else "Basic " + b64encode(userinfo.encode()).decode()
        ),
        client_key_pem=None if route.client_key_pem is None else opened(route.client_key_pem),
        expires_ms=min([each.expires_ms for each in kept if each.expires_ms], default=None),
    )
