"""Webhooks signed with a sender's private key: `v1a` verifies with the public one, and only so."""

import base64
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.unit.project import ROOT
from timemachine import limits
from timemachine.receiver import (
    InvalidSecret,
    Webhook,
    WebhookPayloadError,
    WebhookVerificationError,
)

# The vector of the reference implementation, and of the specification's own example.
PUBLIC = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="
PRIVATE = (
    "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
)
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
TIMESTAMP_S = 1614265330
BODY = b'{"test": 2432232314}'
SIGNATURE = (
    "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="
)

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SECRET_SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_PUBLIC = "whpk_" + base64.b64encode(OTHER.public_key().public_bytes_raw()).decode()

ORDER = 2**252 + 27742317777372353535851937790883648493
"""Of the group of Ed25519: a second scalar for each signature, where that is not refused."""


def webhook(*keys: str | bytes, now_s: float = TIMESTAMP_S) -> Webhook:
    """A verifier whose clock stands at `now_s`."""
    return Webhook(list(keys) or PUBLIC, now=lambda: now_s)


def headers(signature: str = SIGNATURE, **changes: str) -> dict[str, str]:
    """The headers of the reference vector, some replaced."""
    found = {
        "webhook-id": ID,
        "webhook-timestamp": str(TIMESTAMP_S),
        "webhook-signature": signature,
    }
    return found | {name.replace("_", "-"): value for name, value in changes.items()}


def signed(content: bytes, key: Ed25519PrivateKey = OTHER) -> str:
    """One entry over any content."""
    return "v1a," + base64.b64encode(key.sign(content)).decode()


def wrong(number: int) -> str:
    """An entry that has the form of a signature."""
    return "v1a," + base64.b64encode(bytes([number]) * 64).decode()


# --- genuine webhooks --------------------------------------------------------------------------


@pytest.mark.parametrize("form", [str, lambda text: f" {text}\n", lambda text: text.rstrip("=")])
def test_the_reference_vector_verifies(form: Callable[[str], str]) -> None:
    """With the public key as it is written, as a line of a file, and without padding."""
    assert {"test": 2432232314} == webhook(form(PUBLIC)).verify(BODY, headers())


def test_the_vector_is_what_its_private_key_signs() -> None:
    """The three belong together: seed, public key and signature."""
    private = base64.b64decode(PRIVATE.removeprefix("whsk_"))
    key = Ed25519PrivateKey.from_private_bytes(private[:32])
    assert PUBLIC == "whpk_" + base64.b64encode(private[32:]).decode()
    assert SIGNATURE == signed(f"{ID}.{TIMESTAMP_S}.".encode() + BODY, key)


@pytest.mark.parametrize("keys", [(PUBLIC, SECRET), (SECRET, PUBLIC)])
@pytest.mark.parametrize(
    "signature",
    [SIGNATURE, SECRET_SIGNATURE, f"{SECRET_SIGNATURE} {SIGNATURE}", f"{SIGNATURE} v1,x"],
)
def test_public_keys_and_secrets_stand_beside_each_other(
    keys: tuple[str, str], signature: str
) -> None:
    """A sender may change from one to the other: either signature is enough."""
    assert {"test": 2432232314} == webhook(*keys).verify(BODY, headers(signature))


def test_any_of_several_public_keys_verifies() -> None:
    """While a key is being replaced, the old and the new one both verify."""
    assert webhook(OTHER_PUBLIC, PUBLIC).verify(BODY, headers())
    other = signed(f"{ID}.{TIMESTAMP_S}.".encode() + BODY)
    assert webhook(PUBLIC, OTHER_PUBLIC).verify(BODY, headers(f"{wrong(1)} {other}"))


def test_entries_up_to_the_bound_are_looked_at() -> None:
    """Those of other versions and forms do not count."""
    others = ["v1,x", "v1a,", "v1a," + "A" * 88, "v2," + SIGNATURE[4:]]
    most = [wrong(each) for each in range(limits.SIGNATURE_ENTRIES_ED25519_MAX - 1)]
    assert webhook().verify(BODY, headers(" ".join([*others, *most, SIGNATURE])))


def test_a_genuine_body_that_is_no_json_has_its_own_error() -> None:
    """As with secrets."""
    found = headers(signed(f"{ID}.{TIMESTAMP_S}.".encode() + b"\xff"))
    with pytest.raises(WebhookPayloadError):
        webhook(OTHER_PUBLIC).verify(b"\xff", found)
    assert webhook(OTHER_PUBLIC).verify(b"\xff", found, json_parse=False) is None


# --- hostile input -----------------------------------------------------------------------------


def _last_bits(number: int) -> str:
    """The signature with other bits after its last byte, which decoders disagree about."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = SIGNATURE[-3]
    return SIGNATURE[:-3] + alphabet[alphabet.index(last) + number] + "=="


def _second_scalar() -> str:
    """The same signature, for who does not refuse a scalar above the order of the group."""
    raw = base64.b64decode(SIGNATURE[4:])
    scalar = int.from_bytes(raw[32:], "little") + ORDER
    return "v1a," + base64.b64encode(raw[:32] + scalar.to_bytes(32, "little")).decode()


@pytest.mark.parametrize(
    "signature",
    [
        _second_scalar(),
        *map(_last_bits, (1, 7, 15)),
        SIGNATURE[:-1],
        SIGNATURE[:-2],
        SIGNATURE + "=",
        SIGNATURE + "\n",
        SIGNATURE.replace("/", "_"),
        SIGNATURE.replace("+", "-"),
        SIGNATURE.replace(",", ", "),
        SIGNATURE.replace(",", ",,"),
        "v1a," + base64.b64encode(bytes(63)).decode(),
        "v1a," + base64.b64encode(bytes(64)).decode(),
        "v1a," + base64.b64encode(bytes(65)).decode(),
        "v1a," + base64.b64encode(b"\xff" * 64).decode(),
        "v1a," + "*" * 86 + "==",
        "v1a," + "A" * 100_000,
        "v1a,\ud800",
        "v1a,é",
        "v1a,",
        "v1a",
        "v1" + SIGNATURE[3:],
        "V1A" + SIGNATURE[3:],
        "v2a" + SIGNATURE[3:],
        SIGNATURE[4:],
        SECRET_SIGNATURE,
    ],
)
def test_wrong_signatures_are_refused(signature: str) -> None:
    """One spelling is right; whatever else stands there raises one error, and nothing else."""
    with pytest.raises(WebhookVerificationError):
        webhook().verify(BODY, headers(signature))


@pytest.mark.parametrize(
    "change",
    [{"webhook_id": "msg_other"}, {"webhook_timestamp": str(TIMESTAMP_S + 1)}, {}],
)
def test_other_content_is_refused(change: dict[str, str]) -> None:
    """Id, time and body are all signed."""
    with pytest.raises(WebhookVerificationError):
        webhook().verify(BODY if change else BODY + b" ", headers(**change))


def test_it_may_be_too_old() -> None:
    """The tolerance is that of secrets."""
    assert webhook(now_s=TIMESTAMP_S + 300).verify(BODY, headers())
    with pytest.raises(WebhookVerificationError):
        webhook(now_s=TIMESTAMP_S + 301).verify(BODY, headers())


def test_another_key_does_not_verify() -> None:
    """Neither the public key of another sender nor a secret."""
    for keys in ((OTHER_PUBLIC,), (SECRET,), (OTHER_PUBLIC, SECRET)):
        with pytest.raises(WebhookVerificationError):
            webhook(*keys).verify(BODY, headers())


def test_a_public_key_is_no_secret() -> None:
    """Who knows it, as everybody may, cannot sign with it as the key of an HMAC."""
    moment = datetime.fromtimestamp(TIMESTAMP_S, tz=UTC)
    for key in (base64.b64decode(PUBLIC[5:]), PUBLIC[5:].encode()):
        forged = Webhook(key).sign(ID, moment, BODY)
        for keys in ((PUBLIC,), (PUBLIC, SECRET)):
            for header in (forged, forged.replace("v1,", "v1a,")):
                with pytest.raises(WebhookVerificationError):
                    webhook(*keys).verify(BODY, headers(header))


def test_too_many_signatures_are_refused() -> None:
    """Each costs a calculation over the body, by anybody: so there are fewer than of others."""
    most = [wrong(each) for each in range(limits.SIGNATURE_ENTRIES_ED25519_MAX)]
    with pytest.raises(WebhookVerificationError, match="many"):
        webhook().verify(BODY, headers(" ".join([*most, SIGNATURE])))


# --- keys --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "rule"),
    [
        ("whpk_", "empty"),
        ("whpk_****", "base64"),
        ("whpk_" + SIGNATURE, "base64"),
        ("whpk_é", "base64"),
        ("whpk_" + base64.b64encode(bytes(31)).decode(), "too_short"),
        ("whpk_" + base64.b64encode(bytes(33)).decode(), "too_long"),
        (PUBLIC.encode(), "type"),
        (PRIVATE, "prefix"),
        ([SECRET, "whpk_"], "empty"),
    ],
)
def test_unusable_keys_are_refused_at_once(key: Any, rule: str) -> None:
    """A wrong key is noticed when the verifier is made; a private one is not ours to have."""
    with pytest.raises(InvalidSecret) as caught:
        Webhook(key)
    assert rule == caught.value.rule


def test_signing_needs_a_secret() -> None:
    """The first one, wherever it stands; public keys verify."""
    moment = datetime.fromtimestamp(TIMESTAMP_S, tz=UTC)
    assert SECRET_SIGNATURE == webhook(PUBLIC, SECRET).sign(ID, moment, BODY)
    with pytest.raises(InvalidSecret, match="public"):
        webhook(PUBLIC).sign(ID, moment, BODY)


def test_repr_tells_how_many() -> None:
    """And shows none."""
    assert "Webhook(<1 secrets, 2 public keys>, tolerance_s=300)" == repr(
        webhook(PUBLIC, SECRET, OTHER_PUBLIC)
    )


def test_without_cryptography_only_public_keys_are_refused() -> None:
    """It says what to install; secrets need nothing."""
    program = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from timemachine.receiver import Webhook\n"
        f"Webhook({SECRET!r})\n"
        f"Webhook([{SECRET!r}, {PUBLIC!r}])\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (
        "ModuleNotFoundError: Public keys (whpk_) need the package cryptography:"
        " pip install 'timemachine[ed25519]'" == run.stderr.splitlines()[-1]
    )
    assert 1 == run.stderr.count("line 4, in <module>")
