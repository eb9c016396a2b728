"""Private keys of routes, checked against the published vector of Standard Webhooks."""

import base64
import pickle
from datetime import UTC, datetime

import pytest
import standardwebhooks
import svix.webhooks
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from timemachine import limits
from timemachine.ed25519 import PrivateKey, parse_private_key
from timemachine.errors import InvalidSecret
from timemachine.receiver import Webhook
from timemachine.signing import Signer, parse_secret

PRIVATE = (
    "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
)
PUBLIC = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
TIMESTAMP_S = 1614265330
BODY = b'{"test": 2432232314}'
V1 = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
V1A = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="


def test_the_signature_is_that_of_the_reference_implementation() -> None:
    """Byte for byte; the public key is the one that belongs to it."""
    key = parse_private_key(PRIVATE)
    assert V1A == Signer([key]).header(ID, TIMESTAMP_S, BODY)
    assert (PUBLIC, PRIVATE) == (key.public_key, key.secret())


def test_the_same_seed_makes_the_same_key() -> None:
    """A made key comes back from its text, and signs what its public half verifies."""
    key = PrivateKey(bytes(range(32)))
    assert key.secret() == parse_private_key(key.secret()).secret()
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(key.public_key[5:]))
    public.verify(base64.b64decode(key.signature(b"content")[4:]), b"content")


@pytest.mark.parametrize("current_first", [True, False])
def test_both_kinds_share_a_header_the_current_one_first(*, current_first: bool) -> None:
    """While a route changes from one to the other, recipients of either verify."""
    keys: list[bytes | PrivateKey] = [parse_secret(SECRET), parse_private_key(PRIVATE)]
    expected = [V1, V1A]
    if not current_first:
        keys.reverse()
        expected.reverse()
    now_s = int(datetime.now(tz=UTC).timestamp())
    assert " ".join(expected) == Signer(keys).header(ID, TIMESTAMP_S, BODY)
    headers = {
        "webhook-id": ID,
        "webhook-timestamp": str(now_s),
        "webhook-signature": Signer(keys).header(ID, now_s, BODY),
    }
    expected_body = {"test": 2432232314}
    assert expected_body == Webhook(SECRET).verify(BODY, headers)
    assert expected_body == Webhook(PUBLIC).verify(BODY, headers)
    assert expected_body == standardwebhooks.Webhook(SECRET).verify(BODY, headers)
    svix.webhooks.Webhook(SECRET).verify(BODY, headers)


def test_a_header_of_a_route_with_all_its_old_keys_verifies() -> None:
    """Our receiver takes every header that we send: it took eight entries, a route has eleven."""
    keys = [PrivateKey(bytes([number]) * 32) for number in range(1 + limits.SECRETS_OLD_MAX)]
    found = {
        "webhook-id": ID,
        "webhook-timestamp": str(TIMESTAMP_S),
        "webhook-signature": Signer(keys).header(ID, TIMESTAMP_S, BODY),
    }
    for key in keys:
        webhook = Webhook(key.public_key, now=lambda: TIMESTAMP_S)
        assert {"test": 2432232314} == webhook.verify(BODY, found)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "prefix"),
        (PRIVATE[5:], "prefix"),
        (PUBLIC, "prefix"),
        (SECRET, "prefix"),
        (" " + PRIVATE, "prefix"),
        ("whsk_", "empty"),
        (PRIVATE + "\n", "base64"),
        (PRIVATE.rstrip("="), "base64"),
        (PRIVATE.replace("/", "_"), "base64"),
        ("whsk_é", "base64"),
        ("whsk_\ud800", "base64"),
        (PRIVATE[:-3] + "h==", "base64"),
        ("whsk_" + base64.b64encode(bytes(32)).decode(), "too_short"),
        ("whsk_" + base64.b64encode(bytes(63)).decode(), "too_short"),
        ("whsk_" + base64.b64encode(bytes(65)).decode(), "too_long"),
        ("whsk_" + base64.b64encode(bytes(64)).decode(), "mismatch"),
        (PRIVATE.replace("whsk_6", "whsk_7"), "mismatch"),
        (None, "type"),
    ],
)
def test_an_invalid_key_names_the_broken_rule(text: object, rule: str) -> None:
    """It is refused, with that rule and without the key; one whose halves do not fit, too."""
    with pytest.raises(InvalidSecret) as caught:
        parse_private_key(text)  # type: ignore[arg-type]
    assert rule == caught.value.rule
    if isinstance(text, str) and len(text) > 10:
        assert text[6:] not in f"{caught.value} {caught.value!r}"


def test_a_key_never_shows() -> None:
    """Neither its repr nor a copy of it tells more than the public half."""
    key = parse_private_key(PRIVATE)
    assert f"PrivateKey(<{PUBLIC}>)" == repr(key)
    with pytest.raises(TypeError):
        pickle.dumps(key)
