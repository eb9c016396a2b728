"""What recipients rely on: genuine webhooks verify, everything else raises one error."""

import base64
import hashlib
import hmac
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks

from timemachine import signing
from timemachine.errors import TimeMachineError
from timemachine.receiver import (
    InvalidSecret,
    Webhook,
    WebhookError,
    WebhookPayloadError,
    WebhookVerificationError,
)

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
TIMESTAMP_S = 1614265330
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
WRONG = "v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc="
ROOT = Path(__file__).resolve().parents[3]


def webhook(*secrets: str | bytes, now_s: float = TIMESTAMP_S, tolerance_s: int = 300) -> Webhook:
    """A verifier whose clock stands at `now_s`."""
    return Webhook(list(secrets) or SECRET, now=lambda: now_s, tolerance_s=tolerance_s)


def headers(**changes: str | None) -> dict[str, str]:
    """The headers of the reference vector, some replaced (underscores for hyphens) or left out."""
    found = {
        "webhook-id": ID,
        "webhook-timestamp": str(TIMESTAMP_S),
        "webhook-signature": SIGNATURE,
    }
    for name, value in changes.items():
        key = name.replace("_", "-")
        if value is None:
            del found[key]
        else:
            found[key] = value
    return found


def signed(webhook_id: str, timestamp: str, body: bytes, secret: str = SECRET) -> dict[str, str]:
    """Headers with a good signature over any content, however odd."""
    content = f"{webhook_id}.{timestamp}.".encode() + body
    digest = hmac.new(signing.parse_secret(secret), content, hashlib.sha256).digest()
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": "v1," + base64.b64encode(digest).decode(),
    }


# --- genuine webhooks --------------------------------------------------------------------------


def test_genuine_webhook_returns_its_parsed_body() -> None:
    """A genuine webhook verifies and comes back as the JSON that it carries."""
    assert {"test": 2432232314} == webhook().verify(BODY, headers())


def test_body_may_be_text() -> None:
    """A body given as text is taken as UTF-8."""
    assert {"test": 2432232314} == webhook().verify(BODY.decode(), headers())


def test_without_parsing_nothing_is_returned() -> None:
    """With json_parse=False the answer is None, as in the reference library."""
    assert webhook().verify(BODY, headers(), json_parse=False) is None


def test_without_parsing_the_body_may_be_any_bytes() -> None:
    """Verification works on bytes: a body that is no text verifies too."""
    body = b"\xff\x00\xfe"
    found = headers(webhook_signature="v1,Hpm+Yu5hvZmVRErTZ3JGp/RT64YviODP3R7ixUqkLnc=")
    assert webhook().verify(body, found, json_parse=False) is None


@pytest.mark.parametrize("change", [str.upper, str.title, str.lower])
def test_header_names_are_case_insensitive(change: Any) -> None:
    """Frameworks spell header names as they like."""
    found = {change(name): value for name, value in headers().items()}
    assert {"test": 2432232314} == webhook().verify(BODY, found)


def test_other_headers_do_not_matter() -> None:
    """A request has many headers; odd ones among the others are not our business."""
    found: dict[Any, Any] = {**headers(), "x-odd": 7, 3: "odd"}
    assert {"test": 2432232314} == webhook().verify(BODY, found)


@pytest.mark.parametrize(
    "header",
    [
        f"{WRONG} v2,{SIGNATURE[3:]} {SIGNATURE} {WRONG}",
        f"{SIGNATURE} {SIGNATURE}",
        f" {SIGNATURE}",
        f"{WRONG}  {SIGNATURE}",
        f"no-comma {SIGNATURE}",
        f"v1,a,b {SIGNATURE}",
        f"v1,*** {SIGNATURE}",
        f"v1a,{'A' * 86}== {SIGNATURE}",
        " ".join([WRONG] * 31 + [SIGNATURE]),
    ],
)
def test_one_right_entry_among_others_is_enough(header: str) -> None:
    """Unknown versions, wrong and malformed entries are skipped; the right one counts."""
    assert {"test": 2432232314} == webhook().verify(BODY, headers(webhook_signature=header))


@pytest.mark.parametrize("age_s", [-300, -299, 0, 299, 300])
def test_tolerance_is_inclusive(age_s: int) -> None:
    """300 s before and after now are both still good."""
    assert webhook(now_s=TIMESTAMP_S + age_s).verify(BODY, headers()) is not None


@pytest.mark.parametrize("age_s", [-301, 301, 86_400])
def test_beyond_the_tolerance_is_refused(age_s: int) -> None:
    """One second more is too old or too new."""
    with pytest.raises(WebhookVerificationError):
        webhook(now_s=TIMESTAMP_S + age_s).verify(BODY, headers())


def test_tolerance_can_be_chosen() -> None:
    """Another tolerance holds in place of the 300 s."""
    assert webhook(now_s=TIMESTAMP_S + 3600, tolerance_s=3600).verify(BODY, headers())
    with pytest.raises(WebhookVerificationError):
        webhook(now_s=TIMESTAMP_S + 11, tolerance_s=10).verify(BODY, headers())


def test_the_default_clock_is_the_time_of_day() -> None:
    """Without a clock of its own, a verifier accepts what is signed now."""
    now = datetime.now(tz=UTC)
    found = headers(
        webhook_timestamp=str(int(now.timestamp())),
        webhook_signature=Webhook(SECRET).sign(ID, now, BODY),
    )
    assert {"test": 2432232314} == Webhook(SECRET).verify(BODY, found)


# --- several secrets ---------------------------------------------------------------------------


def test_any_of_several_secrets_verifies() -> None:
    """While a secret is being replaced, the old and the new one both verify."""
    assert webhook(OTHER_SECRET, SECRET).verify(BODY, headers())
    assert webhook(SECRET, OTHER_SECRET).verify(BODY, headers())


def test_holder_of_only_the_old_secret_verifies_a_rotation_header() -> None:
    """A header signed with new and old key verifies for recipients of either."""
    keys = [signing.parse_secret(OTHER_SECRET), signing.parse_secret(SECRET)]
    header = signing.Signer(keys).header(ID, TIMESTAMP_S, BODY)
    for secret in (SECRET, OTHER_SECRET):
        assert webhook(secret).verify(BODY, headers(webhook_signature=header))


def test_other_secret_does_not_verify() -> None:
    """A webhook signed with a secret that is not ours is refused."""
    with pytest.raises(WebhookVerificationError):
        webhook(OTHER_SECRET).verify(BODY, headers())


@pytest.mark.parametrize(
    "secret",
    [
        SECRET,
        SECRET.removeprefix("whsec_"),
        SECRET + "\n",
        base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    ],
)
def test_forms_of_a_secret(secret: str | bytes) -> None:
    """Prefix, no prefix, a line read from a file, and the key itself are the same secret."""
    assert webhook(secret).verify(BODY, headers())


@pytest.mark.parametrize("length", [16, 17, 18, 24, 64, 65, 200])
@pytest.mark.parametrize("padded", [True, False])
def test_foreign_secrets_from_16_bytes_on(length: int, padded: bool) -> None:
    """Other senders' secrets may be of any length from 16 bytes on, padded or not."""
    text = "whsec_" + base64.b64encode(bytes(range(length))).decode()
    text = text if padded else text.rstrip("=")
    moment = datetime.fromtimestamp(TIMESTAMP_S, tz=UTC)
    signature = standardwebhooks.Webhook(text).sign(ID, moment, BODY.decode())
    assert webhook(text).verify(BODY, headers(webhook_signature=signature))


@pytest.mark.parametrize(
    ("secret", "rule"),
    [
        ("", "empty"),
        ("whsec_", "empty"),
        (b"", "empty"),
        ([], "empty"),
        ("whsec_****", "base64"),
        (
            "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==",
            "prefix",
        ),
        ("whsec_é", "base64"),
        ("whsec_AAAAA", "base64"),
        (b"x" * 15, "too_short"),
        ("whsec_" + base64.b64encode(b"x" * 15).decode(), "too_short"),
        ([SECRET, None], "type"),
    ],
)
def test_unusable_secrets_are_refused_at_once(secret: Any, rule: str) -> None:
    """A wrong secret is noticed when the verifier is made, not with the first webhook."""
    with pytest.raises(InvalidSecret) as caught:
        Webhook(secret)
    assert rule == caught.value.rule


def test_keys_never_show() -> None:
    """Neither repr nor a refusal shows a secret."""
    assert "Webhook(<1 secrets>, tolerance_s=300)" == repr(webhook())
    assert "MfKQ" not in repr(webhook())


# --- hostile input -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
@pytest.mark.parametrize("value", [None, ""])
def test_each_header_is_needed(name: str, value: str | None) -> None:
    """A missing or empty header is a failed verification."""
    with pytest.raises(WebhookVerificationError):
        webhook().verify(BODY, headers(**{name.replace("-", "_"): value}))


@pytest.mark.parametrize(
    "signature",
    [
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OA=",
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OF=",
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE",
        "v1,",
        "v1",
        ",",
        " ",
        SIGNATURE[:8],
        SIGNATURE[3:],
        SIGNATURE + "\n",
        "V1" + SIGNATURE[2:],
        "v2" + SIGNATURE[2:],
        "v1a" + SIGNATURE[2:],
        SIGNATURE.replace(",", ",,"),
        SIGNATURE.replace(",", ", "),
        "v1,\ud800",
        "v1,é",
        "v1," + "A" * 100_000,
        WRONG,
    ],
)
def test_wrong_signatures_are_refused(signature: str) -> None:
    """Whatever else stands in the header raises a verification error, and nothing else."""
    with pytest.raises(WebhookVerificationError):
        webhook().verify(BODY, headers(webhook_signature=signature))


def test_too_many_entries_are_refused() -> None:
    """A header of more than 32 entries is refused, even with a right one among them."""
    header = " ".join([WRONG] * 32 + [SIGNATURE])
    with pytest.raises(WebhookVerificationError):
        webhook().verify(BODY, headers(webhook_signature=header))


@pytest.mark.parametrize(
    "timestamp",
    [
        "hello",
        "1614265330.0",
        " 1614265330 ",
        "1614265330\n",
        "+1614265330",
        "-1614265330",
        "1_614_265_330",
        "1e9",
        "0x60377c72",
        "nan",
        "١٦١٤٢٦٥٣٣٠",
        "9" * 13,
        "9" * 5000,
    ],
)
def test_timestamp_is_digits_only(timestamp: str) -> None:
    """A timestamp is one to twelve ASCII digits, even under a good signature."""
    with pytest.raises(WebhookVerificationError):
        webhook().verify(BODY, signed(ID, timestamp, BODY))


def test_the_timestamp_is_verified_as_it_was_sent() -> None:
    """The raw text is signed: leading zeros are neither lost nor added."""
    timestamp = f"00{TIMESTAMP_S}"
    assert webhook().verify(BODY, signed(ID, timestamp, BODY))
    with pytest.raises(WebhookVerificationError):
        webhook().verify(BODY, headers(webhook_timestamp=timestamp))


def test_moved_border_between_id_and_timestamp_is_refused() -> None:
    """A recorded webhook cannot be replayed under an id and a time taken out of its body."""
    later = TIMESTAMP_S + 86_400
    recorded = signed(ID, str(TIMESTAMP_S), b'{"a":"%d.5"}' % later)
    forged = {
        "webhook-id": ID + f'.{TIMESTAMP_S}.{{"a":"',
        "webhook-timestamp": str(later),
        "webhook-signature": recorded["webhook-signature"],
    }
    with pytest.raises(WebhookVerificationError):
        webhook(now_s=later).verify(b'5"}', forged)


def test_recorded_number_body_cannot_be_split() -> None:
    """The same with a body that is a bare number."""
    later = TIMESTAMP_S + 86_400
    recorded = signed(ID, str(TIMESTAMP_S), b"%d.5" % later)
    forged = {
        "webhook-id": f"{ID}.{TIMESTAMP_S}",
        "webhook-timestamp": str(later),
        "webhook-signature": recorded["webhook-signature"],
    }
    with pytest.raises(WebhookVerificationError):
        webhook(now_s=later).verify(b"5", forged)


def test_ids_of_other_senders_may_have_a_full_stop() -> None:
    """A full stop alone makes no id suspicious."""
    assert webhook().verify(BODY, signed("order.created.17", str(TIMESTAMP_S), BODY))


@pytest.mark.parametrize(
    "data", [b"", b"{}", BODY + b" ", BODY.replace(b" ", b""), b"\xff", "\ud800"]
)
def test_other_bodies_are_refused(data: bytes | str) -> None:
    """A body that differs in one byte is not the one that was signed."""
    with pytest.raises(WebhookVerificationError):
        webhook().verify(data, headers())


@pytest.mark.parametrize("webhook_id", ["msg_other", "\ud800", "é", ID + " "])
def test_other_ids_are_refused(webhook_id: str) -> None:
    """The id is signed too."""
    with pytest.raises(WebhookVerificationError):
        webhook().verify(BODY, headers(webhook_id=webhook_id))


class Pairs(Mapping[str, str]):
    """Headers that, like those of HTTP, may hold a name twice."""

    def __init__(self, *pairs: tuple[Any, Any]) -> None:
        self.pairs = pairs

    def __getitem__(self, name: str) -> str:
        return str(dict(self.pairs)[name])

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def items(self) -> Any:
        """All pairs."""
        return self.pairs


def test_a_header_twice_is_refused() -> None:
    """Two values of one header leave open which one is meant."""
    found = Pairs(*headers().items(), ("Webhook-Id", "other"))
    with pytest.raises(WebhookVerificationError):
        webhook().verify(BODY, found)


@pytest.mark.parametrize("value", [b"bytes", None, 7, ["list"]])
def test_header_values_that_are_no_text_are_refused(value: object) -> None:
    """Whatever a framework hands over, nothing but a verification error comes out."""
    found: dict[str, Any] = {**headers(), "webhook-id": value}
    with pytest.raises(WebhookVerificationError):
        webhook().verify(BODY, found)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no JSON",
        b'{"a":',
        b"\xff\x00\xfe",
        '{"a":1}'.encode("utf-16"),
        b"[" * 100_000,
        b"9" * 5000,
    ],
)
def test_genuine_body_that_is_no_json_has_its_own_error(body: bytes) -> None:
    """A good signature over a bad payload is no verification error."""
    found = signed(ID, str(TIMESTAMP_S), body)
    with pytest.raises(WebhookPayloadError):
        webhook().verify(body, found)
    assert webhook().verify(body, found, json_parse=False) is None


def test_errors_form_one_tree() -> None:
    """Both errors are WebhookErrors, neither is the other."""
    assert issubclass(WebhookError, TimeMachineError)
    assert issubclass(WebhookVerificationError, WebhookError)
    assert issubclass(WebhookPayloadError, WebhookError)
    assert not issubclass(WebhookPayloadError, WebhookVerificationError)


# --- signing -----------------------------------------------------------------------------------


def test_sign_vector() -> None:
    """`sign` gives the reference signature, for text and for bytes."""
    moment = datetime.fromtimestamp(TIMESTAMP_S, tz=UTC)
    assert SIGNATURE == webhook().sign(ID, moment, BODY)
    assert SIGNATURE == webhook().sign(ID, moment, BODY.decode())


@pytest.mark.parametrize(
    "moment",
    [
        datetime.fromtimestamp(TIMESTAMP_S, tz=timezone(timedelta(hours=5, minutes=30))),
        datetime.fromtimestamp(TIMESTAMP_S, tz=UTC) + timedelta(microseconds=999_999),
        datetime.fromtimestamp(TIMESTAMP_S, tz=UTC).replace(tzinfo=None),
    ],
)
def test_sign_takes_the_moment_not_the_wall_clock(moment: datetime) -> None:
    """Another zone is the same second, fractions are cut off, a naive time is UTC."""
    assert SIGNATURE == webhook().sign(ID, moment, BODY)


def test_sign_uses_the_first_secret() -> None:
    """Of several secrets the first is the current one."""
    moment = datetime.fromtimestamp(TIMESTAMP_S, tz=UTC)
    assert SIGNATURE == webhook(SECRET, OTHER_SECRET).sign(ID, moment, BODY)


# --- together with the reference library -------------------------------------------------------


def test_what_we_sign_the_reference_library_verifies() -> None:
    """A header of ours verifies with standardwebhooks, also during a rotation."""
    now_s = int(datetime.now(tz=UTC).timestamp())
    keys = [signing.parse_secret(OTHER_SECRET), signing.parse_secret(SECRET)]
    body = json.dumps({"n": "Zoë ✓"}, ensure_ascii=False).encode()
    found = {
        "webhook-id": ID,
        "webhook-timestamp": str(now_s),
        "webhook-signature": signing.Signer(keys).header(ID, now_s, body),
    }
    for secret in (SECRET, OTHER_SECRET):
        assert {"n": "Zoë ✓"} == standardwebhooks.Webhook(secret).verify(body, found)


def test_what_the_reference_library_signs_we_verify() -> None:
    """A signature by standardwebhooks verifies with ours."""
    moment = datetime.fromtimestamp(TIMESTAMP_S, tz=UTC)
    signature = standardwebhooks.Webhook(SECRET).sign(ID, moment, BODY.decode())
    assert webhook().verify(BODY, headers(webhook_signature=signature))


def test_import_needs_only_the_standard_library() -> None:
    """A recipient installs nothing else: the module imports without site-packages."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); import timemachine.receiver"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(ROOT)],
        env={**os.environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (0, "") == (done.returncode, done.stderr)


@pytest.mark.parametrize("data", [{"test": 1}, [1, 2], None, 7])
def test_what_a_framework_has_parsed_is_a_mistake(data: Any) -> None:
    """Handing over parsed JSON says what is wrong, rather than failing as a forgery."""
    with pytest.raises(TypeError, match="raw body"):
        webhook().verify(data, headers())


def test_the_secret_has_the_name_of_the_reference_library() -> None:
    """What is written for standardwebhooks runs with this one, also with arguments by name."""
    moment = datetime.fromtimestamp(TIMESTAMP_S, tz=UTC)
    ours, theirs = (
        kind(whsecret=SECRET).sign(msg_id=ID, timestamp=moment, data=BODY.decode())
        for kind in (Webhook, standardwebhooks.Webhook)
    )
    assert theirs == ours
