"""Whatever stands in a request that is not genuine, verifying it raises one error and no other."""

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from timemachine.receiver import Webhook, WebhookVerificationError

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PUBLIC = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="
ID, TIMESTAMP, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}'
GENUINE = (
    "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==",
)
VERIFIERS = [
    Webhook(keys, now=lambda: int(TIMESTAMP)) for keys in (SECRET, PUBLIC, [SECRET, PUBLIC])
]

# Of all text, and of what is nearly right.
TEXT = st.text(st.characters(), max_size=30)
BASE64 = st.text("ABCDwgQ+/= \n", max_size=90)


@st.composite
def nearly(draw: st.DrawFn, text: str) -> str:
    """A text with one piece of it replaced."""
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, min(len(text), start + 3)))
    return text[:start] + draw(st.one_of(st.text("Ag=,v1a +/", max_size=3), TEXT)) + text[end:]


ENTRIES = st.one_of(
    TEXT,
    st.sampled_from(GENUINE).flatmap(nearly),
    st.builds("{},{}".format, st.sampled_from(["v1", "v1a", "v2", ""]), BASE64),
)
SIGNATURES = st.one_of(
    st.lists(ENTRIES, max_size=40).map(" ".join), st.sampled_from([*GENUINE, " ".join(GENUINE)])
)


@given(
    verifier=st.sampled_from(VERIFIERS),
    webhook_id=st.one_of(st.just(ID), nearly(ID), TEXT),
    timestamp=st.one_of(st.just(TIMESTAMP), nearly(TIMESTAMP), TEXT),
    signature=SIGNATURES,
    body=st.one_of(st.just(BODY), st.binary(max_size=30), TEXT),
)
@example(VERIFIERS[2], ID, TIMESTAMP, "v1,*** v1a,***", BODY)
def test_what_is_not_genuine_raises_one_error(
    verifier: Webhook, webhook_id: str, timestamp: str, signature: str, body: bytes | str
) -> None:
    """No input of a stranger makes a recipient answer 500, or 2xx."""
    raw = body.encode(errors="replace") if isinstance(body, str) else body
    same = (webhook_id, timestamp, raw) == (ID, TIMESTAMP, BODY)
    assume(not (same and any(entry in GENUINE for entry in signature.split(" "))))
    with pytest.raises(WebhookVerificationError):
        verifier.verify(
            body,
            {
                "webhook-id": webhook_id,
                "webhook-timestamp": timestamp,
                "webhook-signature": signature,
            },
        )
