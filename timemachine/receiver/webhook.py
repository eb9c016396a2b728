"""Is this webhook genuine? Verification after the Standard Webhooks specification 1.0.0."""

import binascii
import hmac
import json
import re
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol

from timemachine import limits
from timemachine.errors import InvalidSecret, WebhookPayloadError, WebhookVerificationError
from timemachine.signing import SECRET_PREFIX

if TYPE_CHECKING:
    from timemachine.receiver.ed25519 import PublicKey

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TIMESTAMP: Final = re.compile(r"[0-9]{1,%d}" % limits.TIMESTAMP_DIGITS_MAX)

# `id.timestamp.body` does not say where the id ends. Who has recorded one webhook could move that
# border and so forge an id and a time; every such id contains the recorded time between full stops.
_AMBIGUOUS_ID: Final = re.compile(r"\.[0-9]{9,%d}(?:\.|\Z)" % limits.TIMESTAMP_DIGITS_MAX)

_PUBLIC_PREFIX: Final = "whpk_"
_PRIVATE_PREFIX: Final = "whsk_"
_PUBLIC_KEY_BYTES: Final = 32

# 64 bytes in base64, which leave four bits of the last character: they are zero, so that only one
# spelling of a signature is right.
_V1A: Final = re.compile(rb"v1a,([A-Za-z0-9+/]{85}[AQgw]==)")

_ID, _TIME, _SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"


class Headers(Protocol):
    """The headers of a request, as any framework hands them over; a dict will do."""

    def items(self) -> Iterable[tuple[str, str]]:
        """All pairs of name and value."""
        ...


class Webhook:
    """Verifies webhooks with the secret shared with their sender, or with its public key.

    `whsecret` is `whsec_<base64>` (the prefix and the padding may be missing), the key itself as
    bytes, a public key `whpk_<base64>`, or several of these while one is being replaced; a webhook
    signed with any one of them is genuine. Keys of other senders are accepted from 16 bytes on;
    InvalidSecret otherwise. Public keys need the package cryptography: ModuleNotFoundError.

    `tolerance_s` is how old or how far in the future a webhook may be, inclusive. `now` returns
    the seconds since the Unix epoch.
    """

    def __init__(
        self,
        whsecret: str | bytes | Iterable[str | bytes],
        *,
        tolerance_s: int = limits.SIGNATURE_TOLERANCE_S,
        now: Callable[[], float] = time.time,
    ) -> None:
        secrets = [whsecret] if isinstance(whsecret, str | bytes) else list(whsecret)
        if not secrets:
            raise InvalidSecret("There is no secret.", rule="empty")
        public = [each for each in secrets if _is_public(each)]
        self._keys = [_key_of(each) for each in secrets if not _is_public(each)]
        self._public_keys = [_public_key_of(each) for each in public]
        self._tolerance_s = tolerance_s
        self._now = now

    def verify(self, data: bytes | str, headers: Headers, *, json_parse: bool = True) -> Any:
        """Return the parsed body of a genuine webhook, or None when `json_parse` is False.

        `data` is the raw body, `headers` the request's headers, their names in any case. Raises
        WebhookVerificationError when the webhook is not proven genuine and recent, and
        WebhookPayloadError when it is, but its body is not JSON. TypeError when `data` is what a
        framework has parsed already: that cannot be verified.
        """
        if not isinstance(data, bytes | bytearray | memoryview | str):
            raise TypeError(f"data must be the raw body, bytes or str, not {type(data).__name__}")
        found = _webhook_headers(headers)
        webhook_id, timestamp = found[_ID], found[_TIME]
        self._check_time(timestamp)
        if _AMBIGUOUS_ID.search(webhook_id):
            raise WebhookVerificationError(f"The header {_ID} could be read in two ways.")
        body = _utf8(data) if isinstance(data, str) else bytes(data)
        content = b".".join((_utf8(webhook_id), timestamp.encode("ascii"), body))
        self._check_signature(content, found[_SIGNATURE])
        return _parse(body) if json_parse else None

    def sign(self, msg_id: str, timestamp: datetime, data: bytes | str) -> str:
        """The signature `v1,<base64>` by the first secret, for tests and for sending.

        A naive `timestamp` is taken as UTC, as by `standardwebhooks`. InvalidSecret when there are
        only public keys, which cannot sign.
        """
        if not self._keys:
            raise InvalidSecret(
                "There is no secret to sign with: public keys verify.", rule="empty"
            )
        moment = timestamp if timestamp.tzinfo is not None else timestamp.replace(tzinfo=UTC)
        timestamp_s = (moment - _EPOCH) // timedelta(seconds=1)
        body = data.encode() if isinstance(data, str) else data
        content = b".".join((msg_id.encode(), b"%d" % timestamp_s, body))
        return _signature(self._keys[0], content).decode("ascii")

    def __repr__(self) -> str:
        """Without the keys."""
        public = f", {len(self._public_keys)} public keys" if self._public_keys else ""
        return f"Webhook(<{len(self._keys)} secrets{public}>, tolerance_s={self._tolerance_s})"

    def _check_time(self, timestamp: str) -> None:
        if not _TIMESTAMP.fullmatch(timestamp):
            raise WebhookVerificationError(f"The header {_TIME} is no whole number of seconds.")
        age_s = int(self._now()) - int(timestamp)
        if age_s > self._tolerance_s:
            raise WebhookVerificationError("The webhook is too old.")
        if age_s < -self._tolerance_s:
            raise WebhookVerificationError("The webhook is from the future.")

    def _check_signature(self, content: bytes, header: str) -> None:
        if header.count(" ") >= limits.SIGNATURE_ENTRIES_MAX:
            raise WebhookVerificationError(f"The header {_SIGNATURE} has too many entries.")
        # The base64 text is compared, not what it decodes to: nothing to decode, nothing to fail,
        # and only one spelling of a signature is right. Entries of other versions equal no
        # expected text. Every entry is compared with every key, whatever was found before.
        entries = [_utf8(entry) for entry in header.split(" ")]
        genuine = False
        for key in self._keys:
            expected = _signature(key, content)
            for entry in entries:
                genuine |= hmac.compare_digest(expected, entry)
        if not genuine and not self._is_signed_publicly(content, entries):
            raise WebhookVerificationError("No signature matches.")

    def _is_signed_publicly(self, content: bytes, entries: list[bytes]) -> bool:
        """Does a public key verify one of the entries? Nothing secret is in this."""
        if not self._public_keys:
            return False
        found = [match[1] for entry in entries if (match := _V1A.fullmatch(entry))]
        if len(found) > limits.SIGNATURE_ENTRIES_ED25519_MAX:
            raise WebhookVerificationError(f"The header {_SIGNATURE} has too many entries.")
        signatures = [binascii.a2b_base64(each) for each in found]
        return any(key.verifies(each, content) for key in self._public_keys for each in signatures)


def _signature(key: bytes, content: bytes) -> bytes:
    # Not signing.sign_v1: the content here has the raw text of headers in it, not an int.
    return b"v1," + binascii.b2a_base64(hmac.digest(key, content, "sha256"), newline=False)


def _webhook_headers(headers: Headers) -> dict[str, str]:
    """The three headers of a webhook, each there exactly once and not empty."""
    found: dict[str, str] = {}
    pairs: Iterable[tuple[Any, Any]] = headers.items()
    for name, value in pairs:
        lower = name.lower() if isinstance(name, str) else ""
        if lower not in (_ID, _TIME, _SIGNATURE):
            continue
        if lower in found:
            raise WebhookVerificationError(f"The header {lower} is there twice.")
        if not isinstance(value, str):
            raise WebhookVerificationError(f"The header {lower} is no text.")
        found[lower] = value
    for name in (_ID, _TIME, _SIGNATURE):
        if not found.get(name):
            raise WebhookVerificationError(f"The header {name} is missing.")
    return found


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise WebhookVerificationError("The webhook is no valid text.") from None


def _parse(body: bytes) -> Any:
    try:
        # Decoded here, since json.loads(bytes) would accept UTF-16 and UTF-32 too.
        return json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError):
        raise WebhookPayloadError from None


def _is_public(secret: object) -> bool:
    return isinstance(secret, str) and secret.strip().startswith(_PUBLIC_PREFIX)


def _public_key_of(text: str | bytes) -> "PublicKey":
    """The public key of a sender."""
    assert isinstance(text, str)
    key = _decoded(text.strip().removeprefix(_PUBLIC_PREFIX), "public key")
    if not key:
        raise InvalidSecret("The public key is empty.", rule="empty")
    if len(key) != _PUBLIC_KEY_BYTES:
        raise InvalidSecret(
            f"The public key holds {len(key)} bytes, not {_PUBLIC_KEY_BYTES}.",
            rule="too_short" if len(key) < _PUBLIC_KEY_BYTES else "too_long",
        )
    try:
        # A recipient without public keys needs nothing but the standard library.
        from timemachine.receiver.ed25519 import PublicKey  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"Public keys ({_PUBLIC_PREFIX}) need the package cryptography:"
            " pip install 'timemachine[ed25519]'",
            name=error.name,
        ) from error
    return PublicKey(key)


def _decoded(text: str, what: str) -> bytes:
    """What base64 stands for, whose padding may be missing."""
    encoded = text.rstrip("=")
    try:
        return binascii.a2b_base64(encoded + "=" * (-len(encoded) % 4), strict_mode=True)
    except ValueError:
        raise InvalidSecret(f"The {what} is not base64.", rule="base64") from None


def _key_of(secret: str | bytes) -> bytes:
    """The key of a secret, ours or another sender's."""
    if isinstance(secret, bytes):
        # As an HMAC's key it would be one that everybody knows.
        if secret.startswith(_PUBLIC_PREFIX.encode()):
            raise InvalidSecret("A public key must be text.", rule="type")
        key = secret
    elif isinstance(secret, str):
        text = secret.strip()
        if text.startswith(_PRIVATE_PREFIX):
            raise InvalidSecret(
                f"{_PRIVATE_PREFIX} is a sender's private key, which its recipients do not need:"
                f" give the public one, {_PUBLIC_PREFIX}.",
                rule="prefix",
            )
        key = _decoded(text.removeprefix(SECRET_PREFIX), "secret")
    else:
        raise InvalidSecret("The secret must be text or bytes.", rule="type")
    if not key:
        raise InvalidSecret("The secret is empty.", rule="empty")
    if len(key) < limits.FOREIGN_SECRET_BYTES_MIN:
        raise InvalidSecret(
            f"The secret holds {len(key)} bytes; at least "
            f"{limits.FOREIGN_SECRET_BYTES_MIN} are needed.",
            rule="too_short",
        )
    return key
