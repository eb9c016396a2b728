"""With any key, id and body: what we sign foreign verifiers accept, and we what they sign."""

import base64
import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
import standardwebhooks
import svix.webhooks
from hypothesis import assume, example, given
from hypothesis import strategies as st

from node.secrets import parse_signing_key
from timemachine.ed25519 import PrivateKey
from timemachine.errors import InvalidSecret
from timemachine.receiver import Webhook, WebhookVerificationError
from timemachine.signing import Signer, format_secret

KEYS = st.binary(min_size=24, max_size=64)
IDS = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
BODIES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abc"), inner),
    max_leaves=10,
).map(lambda value: json.dumps(value, ensure_ascii=False))
FOREIGN: Any = (standardwebhooks.Webhook, svix.webhooks.Webhook)


@given(
    key=KEYS,
    others=st.lists(
        st.one_of(KEYS, st.builds(PrivateKey, st.binary(min_size=32, max_size=32))), max_size=10
    ),
    place=st.integers(0, 10),
    webhook_id=IDS,
    body=BODIES,
)
def test_what_we_send_verifies_there(
    key: bytes, others: list[bytes | PrivateKey], place: int, webhook_id: str, body: str
) -> None:
    """Wherever their key stands in a rotation, beside keys of both kinds; changed, it fails."""
    keys = [*others[:place], key, *others[place:]]
    now_s = int(time.time())
    headers = {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(now_s),
        "webhook-signature": Signer(keys).header(webhook_id, now_s, body.encode()),
    }
    secret = format_secret(key)
    for verifier in (*FOREIGN, Webhook):
        verifier(secret).verify(body.encode(), headers)
    for public in [each.public_key for each in others if isinstance(each, PrivateKey)]:
        assert json.loads(body) == Webhook(public).verify(body, headers)
        with pytest.raises(WebhookVerificationError):
            Webhook(public).verify(body + " ", headers)
    for verifier in FOREIGN:
        with pytest.raises(standardwebhooks.WebhookVerificationError):
            verifier(secret).verify(body + " ", headers)


@given(
    key=st.binary(min_size=16, max_size=200),
    webhook_id=IDS,
    body=BODIES,
    padded=st.booleans(),
    theirs=st.sampled_from(FOREIGN),
)
def test_what_they_sign_verifies_with_ours(
    key: bytes, webhook_id: str, body: str, *, padded: bool, theirs: Any
) -> None:
    """Also with secrets shorter and longer than those that we make, padded or not."""
    secret = "whsec_" + base64.b64encode(key).decode()
    secret = secret if padded else secret.rstrip("=")
    now = datetime.now(tz=UTC)
    headers = {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": theirs(secret).sign(webhook_id, now, body),
    }
    assert json.loads(body) == Webhook(secret).verify(body, headers)
    assert headers["webhook-signature"] == Webhook(secret).sign(webhook_id, now, body)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body + " ", headers)


@given(
    prefix=st.sampled_from(["whsec_", "whsk_", "whpk_", "WHSK_", ""]),
    rest=st.one_of(
        st.text(st.characters(), max_size=100),
        st.binary(max_size=100).map(lambda data: base64.b64encode(data).decode()),
        st.binary(min_size=64, max_size=64).map(lambda data: base64.b64encode(data).decode()),
    ),
)
@example("whsk_", "\ud800")
@example("whsec_", "")
def test_a_hostile_secret_is_refused_as_one(prefix: str, rest: str) -> None:
    """Whatever is given as a route's secret is a key, or raises our error, which hides it."""
    text = prefix + rest
    try:
        key = parse_signing_key(text)
    except InvalidSecret as error:
        refused = f"{error} {error!r} {error.__cause__!r}"
    else:
        refused = ""
        assert text == (format_secret(key) if isinstance(key, bytes) else key.secret())
    assume(len(rest) > 20)
    assert rest not in refused
