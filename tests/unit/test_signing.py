"""Signatures and secrets, checked against the published vectors of Standard Webhooks."""

import base64
import hmac

import pytest

from timemachine.errors import InvalidRequest, InvalidSecret
from timemachine.signing import Signer, format_secret, parse_secret, sign_v1

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SECRET_RUST = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
TIMESTAMP_S = 1614265330
BODY = b'{"test": 2432232314}'


@pytest.mark.parametrize(
    ("secret", "webhook_id", "timestamp_s", "body", "expected"),
    [
        pytest.param(
            SECRET,
            ID,
            TIMESTAMP_S,
            BODY,
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            id="the vector of the python, go, js, php, ruby, c# and java libraries",
        ),
        pytest.param(
            SECRET_RUST,
            "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
            1649367553,
            b'{"email":"test@example.com","username":"test_user"}',
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
            id="the vector of the rust library",
        ),
        pytest.param(
            SECRET,
            ID,
            TIMESTAMP_S,
            b"",
            "v1,v48jdbgvh29KJz2Qc+ghw8G6vG3nAKnujWBg8oM/62A=",
            id="empty body",
        ),
        pytest.param(
            SECRET,
            ID,
            TIMESTAMP_S,
            '{"n":"Zoë ✓"}'.encode(),
            "v1,iuxDDq8XItef877sYP/8Lelsv29y9iarNx/OK2/RJA8=",
            id="UTF-8 body",
        ),
        pytest.param(
            SECRET,
            ID,
            TIMESTAMP_S,
            b"\xff\x00\xfe",
            "v1,Hpm+Yu5hvZmVRErTZ3JGp/RT64YviODP3R7ixUqkLnc=",
            id="body that is no text",
        ),
    ],
)
def test_signature_vectors(
    secret: str, webhook_id: str, timestamp_s: int, body: bytes, expected: str
) -> None:
    """A signature is byte for byte what the reference libraries make."""
    assert expected == sign_v1(parse_secret(secret), webhook_id, timestamp_s, body)


@pytest.mark.parametrize("size", [1, 24, 63, 64, 65, 200])
def test_signature_is_an_hmac_for_keys_of_any_size(size: int) -> None:
    """As the standard library computes it, also where the key is longer than a block."""
    key = bytes(range(size))
    content = f"{ID}.{TIMESTAMP_S}.".encode() + BODY
    mac = hmac.digest(key, content, "sha256")
    assert "v1," + base64.b64encode(mac).decode() == sign_v1(key, ID, TIMESTAMP_S, BODY)


def test_header_of_two_keys_has_the_current_key_first() -> None:
    """While a secret is rotated the header carries both signatures, the current key's first."""
    keys = [parse_secret(SECRET), parse_secret(SECRET_RUST)]
    expected = (
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE= "
        "v1,78nXHjpFP0tVJQW5D0SBwmVyyW87BV/rL6MgfM/Bw44="
    )
    assert expected == Signer(keys).header(ID, TIMESTAMP_S, BODY)


def test_header_of_one_key_has_exactly_one_signature() -> None:
    """After the old key's expiry the header is one signature again."""
    key = parse_secret(SECRET)
    assert sign_v1(key, ID, TIMESTAMP_S, BODY) == Signer([key]).header(ID, TIMESTAMP_S, BODY)


def test_nothing_is_sent_unsigned() -> None:
    """A header without any key is a bug of the caller."""
    with pytest.raises(AssertionError):
        Signer([]).header(ID, TIMESTAMP_S, BODY)


@pytest.mark.parametrize("length", [24, 25, 26, 32, 63, 64])
def test_secret_of_allowed_length_round_trips(length: int) -> None:
    """A secret of 24 to 64 bytes is accepted, and its text comes back as it was."""
    key = bytes(range(length))
    text = format_secret(key)
    assert text == "whsec_" + base64.b64encode(key).decode()
    assert key == parse_secret(text)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "prefix"),
        ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "prefix"),
        ("WHSEC_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "prefix"),
        ("whsk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "prefix"),
        (" whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "prefix"),
        ("whsec_", "empty"),
        ("whsec_not base64 at all, but long enough", "base64"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n", "base64"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS_", "base64"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSë", "base64"),
        ("whsec_====", "base64"),
        ("whsec_" + "A" * 43, "base64"),
        ("whsec_" + "A" * 42 + "B=", "base64"),
        ("whsec_" + base64.b64encode(bytes(23)).decode(), "too_short"),
        ("whsec_" + base64.b64encode(bytes(65)).decode(), "too_long"),
        (None, "type"),
        (b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "type"),
    ],
)
def test_invalid_secret_names_the_broken_rule(text: object, rule: str) -> None:
    """A secret that breaks a rule is refused, with that rule and without the secret."""
    with pytest.raises(InvalidSecret) as caught:
        parse_secret(text)  # type: ignore[arg-type]
    assert rule == caught.value.rule
    assert isinstance(caught.value, InvalidRequest)
    assert isinstance(caught.value, ValueError)
    assert caught.value.__cause__ is None
    if isinstance(text, str) and len(text) > 6:
        assert text[6:] not in str(caught.value)
