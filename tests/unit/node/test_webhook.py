"""The request that a recipient gets: R1 to R13 of the delivery requirements, without a network."""

import re
from functools import partial
from typing import Any

import msgspec
import pytest

from node.api.route_checks import check_header_name
from node.secrets import RouteSecrets, open_route, seal_value
from node.webhook import Prepared, build_request
from timemachine import __version__
from timemachine.ed25519 import PrivateKey
from timemachine.errors import InvalidRequest
from timemachine.model import JobRecord, JobState, Queue, Route, SealedKey
from timemachine.outbound import Request, parse_target
from timemachine.receiver import Webhook
from timemachine.sealing import MasterKey
from timemachine.signing import format_secret

NOW_MS = 1_700_000_000_999
KEYS: list[bytes | PrivateKey] = [b"s" * 32]
META = b'{"b": 1.0,\n "a": "Zo\xc3\xab \xe2\x9c\x93", "n": 12345678901234567890}'
ROUTE = Route(
    uid=1,
    db="default",
    name="hook",
    version=1,
    webhook_url="http://user.example:8080/x?y=1",
    created_ms=0,
    updated_ms=0,
    secrets=(),
)
JOB = JobRecord(
    uid=b"u" * 16,
    version=1,
    state=int(JobState.FIRING),
    trigger_ms=NOW_MS - 5_000,
    delay_ms=None,
    route="hook",
    route_uid=1,
    tags=(),
    created_ms=0,
    updated_ms=0,
    due_ms=NOW_MS,
    queue=int(Queue.DUE),
)


def built(
    *,
    secrets: RouteSecrets | None = None,
    attempt: int = 1,
    now_ms: int = NOW_MS,
    body: str = "job",
    **changes: Any,
) -> Request:
    """The request of one attempt; changes are those of the job."""
    route = msgspec.structs.replace(ROUTE, body=body)
    target, _ = parse_target(route.webhook_url)
    prepared = Prepared(route, target, secrets or RouteSecrets(signing_keys=KEYS))
    return build_request(
        prepared,
        route,
        msgspec.structs.replace(JOB, **changes),
        job_id="a/ö",
        meta=META,
        db="default",
        collection="jobs",
        attempt=attempt,
        fence="1.7",
        now_ms=now_ms,
    )


def headers_of(request: Request) -> dict[str, str]:
    """Names in lower case; each is there once."""
    _, *lines = request.head.decode("ascii").removesuffix("\r\n\r\n").split("\r\n")
    pairs = [line.split(": ", 1) for line in lines]
    names = [name.lower() for name, _ in pairs]
    assert len(names) == len(set(names)), "a header is there twice"
    return {name.lower(): value for name, value in pairs}


def test_the_bytes_of_the_meta_are_what_is_sent() -> None:
    """R1: order, white space, digits and characters as they came, alone or within the job."""
    assert META == built(body="meta").body
    assert META in built().body
    assert built().body == built(attempt=7, now_ms=NOW_MS + 90_000_000).body


def test_the_id_is_that_of_the_firing() -> None:
    """R2: the same on every attempt, another for each version and life, and without a full stop."""
    first = headers_of(built())["webhook-id"]
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", first)
    again = built(attempt=9, now_ms=NOW_MS + 1_000, retry_reason="refused", smear_ms=7)
    assert first == headers_of(again)["webhook-id"]
    others = [built(version=2), built(uid=b"v" * 16), built(occurrence=1)]
    assert 4 == len({first, *(headers_of(each)["webhook-id"] for each in others)})


@pytest.mark.parametrize("kind", ["v1", "v1a"])
def test_each_attempt_is_signed_for_its_second(kind: str) -> None:
    """R3 to R5, R8: digits of this attempt's second, and a signature that holds for these."""
    private = PrivateKey(b"p" * 32)
    key = format_secret(b"s" * 32) if kind == "v1" else private.public_key
    secrets = RouteSecrets(signing_keys=KEYS if kind == "v1" else [private])
    signatures = set()
    for now_ms in (NOW_MS, NOW_MS + 1, NOW_MS + 61_000):
        request = built(secrets=secrets, now_ms=now_ms)
        headers = headers_of(request)
        assert str(now_ms // 1000) == headers["webhook-timestamp"]
        verifier = Webhook(key, now=partial(float, now_ms / 1000))
        assert JOB.trigger_ms == verifier.verify(request.body, headers)["trigger_time"]
        signatures.add(headers["webhook-signature"])
    assert 3 == len(signatures)
    assert all(re.fullmatch(rf"{kind},[A-Za-z0-9+/]+=*", each) for each in signatures)


def test_an_old_secret_signs_until_it_expires_and_no_longer() -> None:
    """R7: the current key's signature first, then one for each that is not expired."""
    master = MasterKey(b"m" * 32)
    texts = [PrivateKey(b"1" * 32).secret(), format_secret(b"2" * 32), format_secret(b"3" * 32)]
    expiries = [None, NOW_MS + 10, NOW_MS + 20]
    sealed = tuple(
        SealedKey(
            sealed=seal_value(master, text, nonce=b"n" * 12, db="default", name="hook"),
            expires_ms=expires_ms,
        )
        for text, expires_ms in zip(texts, expiries, strict=True)
    )
    route = msgspec.structs.replace(ROUTE, secrets=sealed)
    for now_ms, versions in (
        (NOW_MS, ["v1a", "v1", "v1"]),
        (NOW_MS + 10, ["v1a", "v1"]),
        (NOW_MS + 20, ["v1a"]),
    ):
        secrets = open_route([master], route, now_ms)
        entries = headers_of(built(secrets=secrets))["webhook-signature"].split(" ")
        assert versions == [entry.partition(",")[0] for entry in entries]
        assert secrets.expires_ms == min(
            [each for each in expiries if each and each > now_ms], default=None
        )


def test_what_every_request_says() -> None:
    """R9, R11, R12: type, product, length, no compression; what is ours has our prefix."""
    request = built(attempt=3, retry_reason="timeout")
    headers = headers_of(request)
    assert b"POST /x?y=1 HTTP/1.1\r\nHost: user.example:8080\r\n" == request.head[:47]
    assert {
        "content-type": "application/json",
        "user-agent": f"TimeMachine/{__version__}",
        "content-length": str(len(request.body)),
        "accept-encoding": "identity",
        "idempotency-key": f'"{headers["webhook-id"]}"',
        "timemachine-attempt": "3",
        "timemachine-trigger-time": str(JOB.trigger_ms),
        "timemachine-job-id": "a%2F%C3%B6",
        "timemachine-fence": "1.7",
        "timemachine-retry-reason": "timeout",
    }.items() <= headers.items()
    assert "transfer-encoding" not in headers
    assert "timemachine-retry-reason" not in headers_of(built())


@pytest.mark.parametrize(
    "name",
    [
        *("Webhook-Id", "webhook-anything", "Host", "Content-Length", "content-type"),
        *("Content-Encoding", "Transfer-Encoding", "TE", "Trailer", "trailers", "Upgrade"),
        *("Connection", "Keep-Alive", "Proxy-Authorization", "proxy-x", "User-Agent"),
        *("TimeMachine-Attempt", "Idempotency-Key", "Accept-Encoding", "Expect"),
        *("", "a b", "a:b", "a\r\nb", "ä"),
    ],
)
def test_no_header_of_a_route_is_one_of_ours(name: str) -> None:
    """R10: what frames, signs or names the request is never a route's to set."""
    with pytest.raises(InvalidRequest):
        check_header_name(name, "/headers")


def test_user_and_password_are_basic_authorization() -> None:
    """R13: an Authorization header of the route's own wins, in whichever case it is written."""
    secrets = RouteSecrets(signing_keys=KEYS, authorization="Basic dTpw")
    assert "Basic dTpw" == headers_of(built(secrets=secrets))["authorization"]
    own = {"AUTHORIZATION": "Bearer x"}
    secrets = RouteSecrets(signing_keys=KEYS, authorization="Basic dTpw", headers=own)
    assert "Bearer x" == headers_of(built(secrets=secrets))["authorization"]
