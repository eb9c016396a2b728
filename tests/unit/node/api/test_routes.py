"""Routes over HTTP: what is stored, shown, masked, kept and refused."""

import asyncio
import datetime
from typing import Any

import pytest
import trustme

from node.secrets import open_route
from tests.unit.node.api.harness import FAR_MS, JOBS, KEY, ROUTE, Api
from timemachine import limits
from timemachine.model import Route
from timemachine.outbound import Outcome
from timemachine.receiver import Webhook
from timemachine.replica import meta as m
from timemachine.signing import parse_secret

URL = {"webhook_url": "http://one.example/x"}
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwAAAAAAAA"
PRIVATE = (
    "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
)
PUBLIC = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="


def stored(api: Api, name: str = "hello") -> Route:
    """The route as the engine knows it."""
    return api.engine.meta.routes["default", name]


async def test_defaults_are_shown(api: Api) -> None:
    """Only webhook_url is required; GET shows what the others became."""
    reply = await api.ask("GET", ROUTE)
    assert (200, '"1"') == (reply.status, reply.headers["etag"])
    expected = {
        "db": "default",
        "name": "hello",
        "type": "webhook",
        "webhook_url": "http://one.example/x",
        "https_only": False,
        "headers": {},
        "body": "job",
        "timeout_ms": 15000,
        "delivery": "at_least_once",
        "retry": {
            "schedule_ms": [
                5000,
                300000,
                1800000,
                7200000,
                18000000,
                36000000,
                50400000,
                72000000,
                86400000,
            ],
            "max_attempts": 10,
            "max_age_ms": 345600000,
            "jitter": 0.2,
        },
        "non_retryable_status": [],
        "smear_ms": 0,
        "max_in_flight": 64,
        "rate": {"count": None, "period_ms": 1000},
        "breaker": {
            "failure_ratio": 0.7,
            "min_requests": 100,
            "window_ms": 300000,
            "open_ms": 30000,
            "half_open_requests": 3,
        },
        "disable_after_ms": 432000000,
        "alert_route": None,
        "batch": {"max_jobs": 1, "max_bytes": 262144, "max_wait_ms": 0, "format": "jobs"},
        "ca_pem": None,
        "client_cert_pem": None,
        "client_key_pem": None,
        "dangerous_skip_tls_verify": False,
        "enabled": True,
        "paused": False,
        "disabled": None,
        "state": "active",
        "state_reason": None,
        "state_since_time": None,
        "state_until_time": None,
        "version": 1,
    }
    assert expected.items() <= reply.json.items()
    assert "secret" not in reply.json


async def test_what_was_read_can_be_sent_back(api: Api) -> None:
    """GET, then PUT: nothing changes, masked values keep what is stored."""
    body = URL | {
        "webhook_url": "https://user:p%40ss@one.example:8443/x?y=1",
        "headers": {"X-Team": "games", "Authorization": "Bearer abc"},
        "rate": {"count": 5, "period_ms": 60000},
        "retry": {"schedule_ms": [], "max_attempts": 1, "max_age_ms": 0, "jitter": 0},
    }
    made = await api.ask("PUT", ROUTE, body)
    assert (200, 2) == (made.status, made.json["version"])
    assert "https://***@one.example:8443/x?y=1" == made.json["webhook_url"]
    assert {"X-Team": "***", "Authorization": "***"} == made.json["headers"]
    again = await api.ask("PUT", ROUTE, made.json)
    assert (200, made.json) == (again.status, again.json)
    assert 2 == (await api.ask("PUT", ROUTE, body)).json["version"]
    opened = open_route([KEY], stored(api), 0)
    assert {"X-Team": "games", "Authorization": "Bearer abc"} == opened.headers
    assert "Basic dXNlcjpwQHNz" == opened.authorization
    everything = repr(api.store.image())
    for secret in ("games", "Bearer", "p@ss", "p%40ss"):
        assert secret not in everything


async def test_a_route_names_who_is_told_of_it(api: Api) -> None:
    """One that is there; what was named before may be sent back when it is not any more."""
    ops = ROUTE.rpartition("/")[0] + "/ops"
    assert 201 == (await api.ask("PUT", ops, URL)).status
    made = await api.ask("PUT", ROUTE, URL | {"alert_route": "ops"})
    assert (200, "ops") == (made.status, made.json["alert_route"])
    await api.ask("DELETE", ops)
    again = await api.ask("PUT", ROUTE, made.json)
    assert (200, "ops") == (again.status, again.json["alert_route"])
    assert "ops" == (await api.ask("PATCH", ROUTE, {"timeout_ms": 2000})).json["alert_route"]
    assert None is (await api.ask("PATCH", ROUTE, {"alert_route": None})).json["alert_route"]
    assert 400 == (await api.ask("PATCH", ROUTE, {"alert_route": "ops"})).status


async def test_masks_without_anything_behind_them(api: Api) -> None:
    """A mask that stands for nothing stored is refused, never stored."""
    for body, pointer in (
        (URL | {"headers": {"x-team": "***"}}, "/headers/x-team"),
        ({"webhook_url": "http://***@one.example/"}, "/webhook_url"),
        (URL | {"client_cert_pem": "x", "client_key_pem": "***"}, "/client_key_pem"),
    ):
        reply = await api.ask("PUT", ROUTE, body)
        assert (400, [pointer]) == (reply.status, reply.pointers)


async def test_put_takes_defaults_and_patch_keeps(api: Api) -> None:
    """PUT replaces, with defaults for what is absent; PATCH keeps, and `retry` merges."""
    full = URL | {"timeout_ms": 2000, "max_in_flight": 3, "retry": {"max_attempts": 5}}
    await api.ask("PUT", ROUTE, full)
    patched = (await api.ask("PATCH", ROUTE, {"retry": {"jitter": 0.5}})).json
    assert (2000, 3, 5, 0.5) == (
        patched["timeout_ms"],
        patched["max_in_flight"],
        patched["retry"]["max_attempts"],
        patched["retry"]["jitter"],
    )
    replaced = (await api.ask("PUT", ROUTE, URL | {"retry": {"jitter": 0.5}})).json
    assert (15000, 64, 10, 0.5) == (
        replaced["timeout_ms"],
        replaced["max_in_flight"],
        replaced["retry"]["max_attempts"],
        replaced["retry"]["jitter"],
    )
    await api.ask("PATCH", ROUTE, {"batch": {"max_jobs": 100, "max_wait_ms": 50}})
    merged = (await api.ask("PATCH", ROUTE, {"batch": {"format": "cloudevents"}})).json["batch"]
    assert {
        "max_jobs": 100,
        "max_bytes": 262144,
        "max_wait_ms": 50,
        "format": "cloudevents",
    } == merged
    assert 1 == (await api.ask("PUT", ROUTE, URL)).json["batch"]["max_jobs"]
    unknown = await api.ask("PATCH", f"{ROUTE}x", {"timeout_ms": 2000})
    assert (404, "route_not_found") == (unknown.status, unknown.code)
    missing = await api.ask("PUT", ROUTE, {})
    assert (400, ["/webhook_url"]) == (missing.status, missing.pointers)


async def test_a_secret_is_rotated_and_the_old_one_signs_for_a_while(api: Api) -> None:
    """New ones are generated or given; a repeat with its key rotates nothing; ten old at most."""
    rotate = f"{ROUTE}/secret/rotate"
    first = (await api.ask("GET", f"{ROUTE}/secret")).json["secret"]
    before_ms = api.engine.now_ms()
    keyed = {"Idempotency-Key": "once"}
    reply = await api.ask("POST", rotate, {"secret": SECRET}, headers=keyed)
    assert (200, SECRET, '"2"') == (reply.status, reply.json["secret"], reply.headers["etag"])
    (previous,) = reply.json["previous"]
    assert first == previous["secret"]
    assert previous["expires_time"] >= before_ms + limits.SECRET_GRACE_MS_DEFAULT
    again = await api.ask("POST", rotate, {"secret": SECRET}, headers=keyed)
    assert (reply.json, "true") == (again.json, again.headers["idempotent-replayed"])
    assert reply.json == (await api.ask("GET", f"{ROUTE}/secret")).json
    await api.ask("POST", JOBS, {"trigger_time": 1, "route": "hello"})
    while not api.recipient.received:
        await asyncio.sleep(0.005)
    head = api.recipient.received[0].head.decode()
    assert 2 == head.partition("webhook-signature: ")[2].partition("\r\n")[0].count("v1,")
    reply = await api.ask("POST", rotate, {"grace_period_ms": 0})
    third = reply.json["secret"]
    assert third not in (first, SECRET)
    assert [first] == [each["secret"] for each in reply.json["previous"]]
    for number in range(9):
        assert 200 == (await api.ask("POST", rotate)).status, number
    reply = await api.ask("POST", rotate)
    assert (400, "limit_reached") == (reply.status, reply.code)
    kept = (await api.ask("GET", f"{ROUTE}/secret")).json["previous"]
    assert str(min(each["expires_time"] for each in kept)) in reply.json["detail"]
    for body, pointer in (
        ({"secret": "short"}, "/secret"),
        ({"grace_period_ms": -1}, "/grace_period_ms"),
        ({"grace_period_ms": limits.SECRET_GRACE_MS_MAX + 1}, "/grace_period_ms"),
        ({"grace": 1}, "/grace"),
    ):
        reply = await api.ask("POST", rotate, body)
        assert (400, [pointer]) == (reply.status, reply.pointers)
    assert 404 == (await api.ask("POST", rotate.replace("hello", "nobody"))).status


async def test_secret(api: Api) -> None:
    """A secret is generated or given, kept when absent, and only readable at /secret."""
    first = (await api.ask("GET", f"{ROUTE}/secret")).json
    assert [] == first["previous"]
    assert 32 == len(parse_secret(first["secret"]))
    await api.ask("PUT", ROUTE, URL | {"timeout_ms": 3000})
    assert first == (await api.ask("GET", f"{ROUTE}/secret")).json
    given = await api.ask("PATCH", ROUTE, {"secret": SECRET})
    assert "secret" not in given.json
    assert SECRET == (await api.ask("GET", f"{ROUTE}/secret")).json["secret"]
    assert SECRET not in repr(api.store.image())
    version = given.json["version"]
    assert version == (await api.ask("PATCH", ROUTE, {"secret": SECRET})).json["version"]
    for bad in ("", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_AAAA", "whsec_!!!"):
        reply = await api.ask("PUT", ROUTE, URL | {"secret": bad})
        assert (400, ["/secret"]) == (reply.status, reply.pointers)


async def test_a_route_signs_with_a_private_key(api: Api) -> None:
    """`whsk_`: recipients get the public key; refused where its halves do not fit; sealed."""
    for bad in (PRIVATE[:-4], PRIVATE.replace("whsk_6", "whsk_7"), "whsk_", PUBLIC, f"{PRIVATE} "):
        for method, path in (("PUT", ROUTE), ("PATCH", ROUTE), ("POST", f"{ROUTE}/secret/rotate")):
            body = URL | {"secret": bad} if method == "PUT" else {"secret": bad}
            reply = await api.ask(method, path, body)
            assert (400, ["/secret"]) == (reply.status, reply.pointers)
            assert len(bad) < 10 or bad[6:].encode() not in reply.body
    reply = await api.ask("PUT", ROUTE, URL | {"secret": PRIVATE})
    assert 200 == reply.status
    found = (await api.ask("GET", f"{ROUTE}/secret")).json
    assert 8 == len(found.pop("key_id"))
    assert {"secret": PRIVATE, "public_key": PUBLIC, "previous": []} == found
    assert PRIVATE not in repr(api.store.image())
    same = await api.ask("PUT", ROUTE, URL | {"secret": PRIVATE})
    assert reply.json["version"] == same.json["version"]


async def test_a_route_changes_between_the_kinds_of_secrets(api: Api) -> None:
    """One of either is made on demand; meanwhile both sign, the current one first."""
    rotate = f"{ROUTE}/secret/rotate"
    old = (await api.ask("GET", f"{ROUTE}/secret")).json
    assert old["public_key"] is None
    new = (await api.ask("POST", rotate, {"type": "v1a"})).json
    assert new["secret"].startswith("whsk_")
    assert [(old["secret"], None)] == [
        (each["secret"], each["public_key"]) for each in new["previous"]
    ]
    await api.ask("POST", JOBS, {"trigger_time": 1, "route": "hello"})
    while not api.recipient.received:
        await asyncio.sleep(0.005)
    request = api.recipient.received[0]
    headers = dict(line.split(": ", 1) for line in request.head.decode().split("\r\n")[1:-2])
    versions = [entry.split(",")[0] for entry in headers["webhook-signature"].split(" ")]
    assert ["v1a", "v1"] == versions
    for key in (new["public_key"], old["secret"]):
        assert "hello" == Webhook(key).verify(request.body, headers)["route"]
    # What is made anew is of the kind that it replaces, unless said otherwise.
    kept = (await api.ask("POST", rotate, {"grace_period_ms": 0})).json
    assert kept["public_key"] not in (None, new["public_key"])
    back = (await api.ask("POST", rotate, {"type": "v1"})).json
    assert (None, kept["public_key"]) == (back["public_key"], back["previous"][0]["public_key"])
    for wrong in ({"type": "v2"}, {"type": "v1", "secret": PRIVATE}, {"type": 1}):
        reply = await api.ask("POST", rotate, wrong)
        assert (400, ["/type"]) == (reply.status, reply.pointers)


async def test_each_route_gets_a_secret_of_its_own(api: Api) -> None:
    """Who knows that of one route can sign for no other."""
    await api.ask("PUT", f"{ROUTE}-too", URL)
    first, other = [
        (await api.ask("GET", f"{path}/secret")).json["secret"] for path in (ROUTE, f"{ROUTE}-too")
    ]
    assert first != other


BAD: list[tuple[dict[str, Any], str]] = [
    ({"webhook_url": "ftp://one.example/"}, "/webhook_url"),
    ({"webhook_url": "one.example"}, "/webhook_url"),
    ({"webhook_url": "http:///x"}, "/webhook_url"),
    ({"webhook_url": "http://one.example/#x"}, "/webhook_url"),
    ({"webhook_url": "http://one.example/a b"}, "/webhook_url"),
    ({"webhook_url": "http://one.example/" + "x" * 2048}, "/webhook_url"),
    ({"webhook_url": "http://blocked.example/"}, "/webhook_url"),
    ({"https_only": True}, "/webhook_url"),
    ({"type": "carrier pigeon"}, "/type"),
    ({"body": "nothing"}, "/body"),
    ({"delivery": "exactly_once"}, "/delivery"),
    ({"timeout_ms": 999}, "/timeout_ms"),
    ({"timeout_ms": 60001}, "/timeout_ms"),
    ({"timeout_ms": True}, "/timeout_ms"),
    ({"max_in_flight": 0}, "/max_in_flight"),
    ({"retry": {"max_attempts": 0}}, "/retry/max_attempts"),
    ({"retry": {"max_attempts": 1001}}, "/retry/max_attempts"),
    ({"retry": {"schedule_ms": [1] * 101}}, "/retry/schedule_ms"),
    ({"retry": {"schedule_ms": [1, 2592000001]}}, "/retry/schedule_ms/1"),
    ({"retry": {"schedule_ms": [1, "x"]}}, "/retry/schedule_ms/1"),
    ({"retry": {"jitter": 1.1}}, "/retry/jitter"),
    ({"retry": {"attempts": 1}}, "/retry/attempts"),
    ({"rate": {"count": 0}}, "/rate/count"),
    ({"rate": {"count": 1, "period_ms": 0}}, "/rate/period_ms"),
    ({"non_retryable_status": [200]}, "/non_retryable_status/0"),
    ({"breaker": {"open_ms": 1}}, "/breaker/open_ms"),
    ({"breaker": {"failure_ratio": 0}}, "/breaker/failure_ratio"),
    ({"breaker": {"min_requests": 0}}, "/breaker/min_requests"),
    ({"breaker": {"window_ms": 3600001}}, "/breaker/window_ms"),
    ({"breaker": {"half_open_requests": 101}}, "/breaker/half_open_requests"),
    ({"breaker": {"opens_ms": 1000}}, "/breaker/opens_ms"),
    ({"disable_after_ms": -1}, "/disable_after_ms"),
    ({"smear_ms": -1}, "/smear_ms"),
    ({"smear_ms": 86_400_001}, "/smear_ms"),
    ({"smear_ms": 1.5}, "/smear_ms"),
    ({"alert_route": "nobody"}, "/alert_route"),
    ({"alert_route": ROUTE.rpartition("/")[2]}, "/alert_route"),
    ({"alert_route": "a b"}, "/alert_route"),
    ({"alert_route": 1}, "/alert_route"),
    ({"batch": {"max_jobs": 0}}, "/batch/max_jobs"),
    ({"batch": {"max_jobs": 251}}, "/batch/max_jobs"),
    ({"batch": {"max_bytes": 1023}}, "/batch/max_bytes"),
    ({"batch": {"max_wait_ms": 60001}}, "/batch/max_wait_ms"),
    ({"batch": {"format": "xml"}}, "/batch/format"),
    ({"batch": {"max_jobs": 2}, "body": "meta"}, "/batch/format"),
    ({"batch": {"jobs": 2}}, "/batch/jobs"),
    ({"headers": {"Webhook-Id": "x"}}, "/headers/Webhook-Id"),
    ({"headers": {"TimeMachine-Attempt": "x"}}, "/headers/TimeMachine-Attempt"),
    ({"headers": {"Proxy-Authorization": "x"}}, "/headers/Proxy-Authorization"),
    ({"headers": {"HOST": "x"}}, "/headers/HOST"),
    ({"headers": {"Content-Type": "x"}}, "/headers/Content-Type"),
    ({"headers": {"a b": "x"}}, "/headers/a b"),
    ({"headers": {"": "x"}}, "/headers/"),
    ({"headers": {"x-a": "a\r\nb: c"}}, "/headers/x-a"),
    ({"headers": {"x-a": "a\x00"}}, "/headers/x-a"),
    ({"headers": {"x-a": " a"}}, "/headers/x-a"),
    ({"headers": {"x-a": "日本"}}, "/headers/x-a"),
    ({"headers": {"x-a": "x" * 4097}}, "/headers/x-a"),
    ({"headers": {"x-a": "1", "X-A": "2"}}, "/headers/X-A"),
    ({"headers": {"x-a": 1}}, "/headers"),
    ({"headers": {f"x-{number}": "1" for number in range(33)}}, "/headers"),
    ({"ca_pem": "no pem"}, "/ca_pem"),
    ({"ca_pem": "\u00cb\U00068edd"}, "/ca_pem"),
    ({"client_cert_pem": "\u00cb", "client_key_pem": "\u00cb"}, "/client_cert_pem"),
    ({"client_cert_pem": "no pem"}, "/client_key_pem"),
    ({"client_key_pem": "no pem"}, "/client_cert_pem"),
    ({"client_key_pem": "-----BEGIN ENCRYPTED PRIVATE KEY-----"}, "/client_key_pem"),
    ({"enabled": "yes"}, "/enabled"),
    ({"webhookurl": "x"}, "/webhookurl"),
]


@pytest.mark.parametrize(("change", "pointer"), BAD)
async def test_bad_routes_are_pointed_at(api: Api, change: dict[str, Any], pointer: str) -> None:
    """What a route cannot be is 400 with a pointer, on PUT and on PATCH, and changes nothing."""
    before = stored(api)
    for method, body in (("PUT", URL | change), ("PATCH", change)):
        reply = await api.ask(method, ROUTE, body)
        assert (400, [pointer]) == (reply.status, reply.pointers)
        assert reply.code == "invalid_request"
    assert before == stored(api)


async def test_addresses_are_checked_on_every_write(api: Api) -> None:
    """Also a PATCH of something else asks whether the target is still allowed."""
    before = len(api.targets)
    await api.ask("PATCH", ROUTE, {"timeout_ms": 5000})
    assert before + 1 == len(api.targets)
    api.refused_host = "one.example"
    refused = await api.ask("PATCH", ROUTE, {"timeout_ms": 6000})
    assert 400 == refused.status
    assert "--allow-private" in refused.json["detail"]


def pems(*, days: int = 30) -> tuple[str, str, str]:
    """(authority, certificate, key) made for a test."""
    authority = trustme.CA()
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    leaf = authority.issue_cert("client.example", not_after=until)
    return (
        authority.cert_pem.bytes().decode(),
        leaf.cert_chain_pems[0].bytes().decode(),
        leaf.private_key_pem.bytes().decode(),
    )


async def test_tls_of_a_route(api: Api) -> None:
    """Authorities and client certificates are tried when they are given; the key is sealed."""
    authority, certificate, key = pems()
    _, _, other_key = pems()
    body = {
        "webhook_url": "https://one.example/",
        "ca_pem": authority,
        "client_cert_pem": certificate,
        "client_key_pem": key,
    }
    mismatch = await api.ask("PUT", ROUTE, body | {"client_key_pem": other_key})
    assert (400, ["/client_key_pem"]) == (mismatch.status, mismatch.pointers)
    made = await api.ask("PUT", ROUTE, body)
    assert (200, "***", certificate) == (
        made.status,
        made.json["client_key_pem"],
        made.json["client_cert_pem"],
    )
    assert key[40:80] not in repr(api.store.image())
    again = await api.ask("PUT", ROUTE, made.json)
    assert made.json == again.json
    removed = await api.ask("PATCH", ROUTE, {"client_cert_pem": None, "client_key_pem": None})
    assert (200, None) == (removed.status, removed.json["client_key_pem"])
    _, old, old_key = pems(days=-1)
    expired = await api.ask(
        "PUT", ROUTE, body | {"client_cert_pem": old, "client_key_pem": old_key}
    )
    assert (400, ["/client_cert_pem"]) == (expired.status, expired.pointers)


async def test_conditions(api: Api) -> None:
    """If-Match and If-None-Match guard PUT, PATCH and DELETE."""
    for method, body in (("PUT", URL), ("PATCH", {"timeout_ms": 2000}), ("DELETE", None)):
        for condition in ('"7"', '"0"'):
            reply = await api.ask(method, ROUTE, body, headers={"If-Match": condition})
            assert (412, "precondition_failed") == (reply.status, reply.code)
    assert 200 == (await api.ask("PATCH", ROUTE, {}, headers={"If-Match": "*"})).status
    assert 412 == (await api.ask("PUT", f"{ROUTE}2", URL, headers={"If-Match": "*"})).status
    only_new = {"If-None-Match": "*"}
    assert 412 == (await api.ask("PUT", ROUTE, URL, headers=only_new)).status
    assert 201 == (await api.ask("PUT", f"{ROUTE}2", URL, headers=only_new)).status
    good = await api.ask("DELETE", ROUTE, headers={"If-Match": '"1"'})
    assert (200, "hello") == (good.status, good.json["name"])


async def test_writes_with_a_key_are_repeatable(api: Api) -> None:
    """The first answer again, also where the first request made its condition false."""
    key = {"Idempotency-Key": "k"}
    made = await api.ask("PUT", f"{ROUTE}2", URL, headers=key | {"If-None-Match": "*"})
    again = await api.ask("PUT", f"{ROUTE}2", URL, headers=key | {"If-None-Match": "*"})
    assert (201, 201, made.json) == (made.status, again.status, again.json)
    assert "true" == again.headers["idempotent-replayed"]
    reused = await api.ask("PUT", f"{ROUTE}2", URL | {"timeout_ms": 2000}, headers=key)
    assert (422, "idempotency_key_reused") == (reused.status, reused.code)
    changed = {"timeout_ms": 2000}
    headers = {"Idempotency-Key": "l", "If-Match": '"1"'}
    first = await api.ask("PATCH", f"{ROUTE}2", changed, headers=headers)
    repeat = await api.ask("PATCH", f"{ROUTE}2", changed, headers=headers)
    assert (200, 200, first.json) == (first.status, repeat.status, repeat.json)
    gone = [await api.ask("DELETE", f"{ROUTE}2", headers={"Idempotency-Key": "m"}) for _ in "ab"]
    assert [200, 200] == [reply.status for reply in gone]
    unknown = await api.ask("DELETE", f"{ROUTE}2")
    assert (404, "route_not_found") == (unknown.status, unknown.code)


async def test_writes_at_the_same_time_are_all_kept(api: Api) -> None:
    """Each PATCH merges with what is stored when it is written, not when it was read."""
    changes = [{"timeout_ms": 2000}, {"max_in_flight": 7}, {"body": "meta"}, {"smear_ms": 0}]
    replies = await asyncio.gather(*(api.ask("PATCH", ROUTE, change) for change in changes))
    assert [200] * 4 == [reply.status for reply in replies]
    route = stored(api)
    assert (2000, 7, "meta", 4) == (
        route.timeout_ms,
        route.max_in_flight,
        route.body,
        route.version,
    )


async def test_pause_and_resume(api: Api) -> None:
    """A paused route holds its jobs, and PUT does not resume it."""
    paused = await api.ask("POST", f"{ROUTE}/pause")
    assert (200, True, "paused") == (paused.status, paused.json["paused"], paused.json["state"])
    await api.ask("POST", JOBS, {"id": "a", "delay_ms": 0, "route": "hello"})
    while "held" != (await api.ask("GET", f"{JOBS}/a")).json["state"]:
        await asyncio.sleep(0.005)
    assert True is (await api.ask("PUT", ROUTE, URL)).json["paused"]
    resumed = await api.ask("POST", f"{ROUTE}/resume", {})
    assert (200, False, "active") == (
        resumed.status,
        resumed.json["paused"],
        resumed.json["state"],
    )
    while "delivered" != (await api.ask("GET", f"{JOBS}/a")).json["state"]:
        await asyncio.sleep(0.005)
    assert 400 == (await api.ask("POST", f"{ROUTE}/pause", {"for_ms": 1})).status
    assert 404 == (await api.ask("POST", f"{ROUTE}x/pause")).status


async def disable(api: Api) -> None:
    """As the system does after 410."""
    done = asyncio.Event()
    command = m.DisableRoute(
        now_ms=api.engine.now_ms(),
        uid=stored(api).uid,
        version=stored(api).version,
        reason="gone",
    )
    api.engine.propose_meta(command, lambda _: done.set())
    await done.wait()


async def test_enabling_again_what_the_system_disabled(api: Api) -> None:
    """`enabled: true` and `resume` clear it; sending back what was read does not."""
    await disable(api)
    read = (await api.ask("GET", ROUTE)).json
    assert (False, "gone") == (read["enabled"], read["disabled"])
    assert ("disabled", "gone") == (read["state"], read["state_reason"])
    assert read["updated_time"] == read["state_since_time"]
    assert "gone" == (await api.ask("PUT", ROUTE, read)).json["disabled"]
    assert "gone" == (await api.ask("PATCH", ROUTE, {"timeout_ms": 2000})).json["disabled"]
    open_again = (await api.ask("PATCH", ROUTE, {"enabled": True})).json
    assert (True, None, "active") == (
        open_again["enabled"],
        open_again["disabled"],
        open_again["state"],
    )
    await disable(api)
    assert "active" == (await api.ask("POST", f"{ROUTE}/resume")).json["state"]
    closed = (await api.ask("PATCH", ROUTE, {"enabled": False})).json
    assert (False, None) == (closed["enabled"], closed["disabled"])
    assert False is (await api.ask("PATCH", ROUTE, {"timeout_ms": 3000})).json["enabled"]


async def test_delete_needs_force_where_jobs_came_before_their_route(api: Api) -> None:
    """Bound to no route until they are due, they are scheduled for this one all the same."""
    for name in ("later", "another"):
        job = {"id": name, "trigger_time": FAR_MS, "route": name}
        assert 201 == (await api.ask("POST", f"{JOBS}?allow_missing_route=true", job)).status
    later = "/v1/dbs/default/routes/later"
    await api.ask("PUT", later, URL)
    refused = await api.ask("DELETE", later)
    assert (409, "route_in_use") == (refused.status, refused.code)
    assert refused.json["detail"].startswith("1 jobs are scheduled")
    assert 200 == (await api.ask("DELETE", ROUTE)).status
    await api.ask("DELETE", f"{JOBS}/later")
    assert 200 == (await api.ask("DELETE", later)).status


async def test_delete_with_jobs_needs_force(api: Api) -> None:
    """A route with scheduled jobs is deleted only with force; they end dead, and say why."""
    await api.ask("POST", JOBS, {"id": "a", "trigger_time": FAR_MS, "route": "hello"})
    refused = await api.ask("DELETE", ROUTE)
    assert (409, "route_in_use") == (refused.status, refused.code)
    assert 200 == (await api.ask("DELETE", f"{ROUTE}?force=true")).status
    while "dead" != (job := (await api.ask("GET", f"{JOBS}/a")).json)["state"]:
        await asyncio.sleep(0.005)
    assert "route_deleted" == job["reason"]
    redriven = await api.ask("POST", f"{JOBS}/a/redrive")
    assert (409, "route_not_found") == (redriven.status, redriven.code)
    await api.ask("PUT", ROUTE, URL)
    assert 202 == (await api.ask("POST", f"{JOBS}/a/redrive")).status


async def test_list(api: Api) -> None:
    """Routes are listed by name, page by page, masked like everywhere."""
    for name in ("b", "a", "c"):
        path = f"/v1/dbs/default/routes/{name}"
        await api.ask("PUT", path, URL | {"headers": {"x-key": "secret"}})
    page = (await api.ask("GET", "/v1/dbs/default/routes?limit=3")).json
    assert ["a", "b", "c"] == [route["name"] for route in page["items"]]
    assert {"x-key": "***"} == page["items"][0]["headers"]
    rest = f"/v1/dbs/default/routes?limit=3&cursor={page['next_cursor']}"
    page = (await api.ask("GET", rest)).json
    assert (["hello"], None) == ([route["name"] for route in page["items"]], page["next_cursor"])


async def test_send_example(api: Api) -> None:
    """One signed request leaves, and nothing is stored."""
    reply = await api.ask("POST", f"{ROUTE}/send-example")
    assert (200, "succeeded", 200) == (
        reply.status,
        reply.json["status"],
        reply.json["response_status"],
    )
    assert 1 == len(api.recipient.received)
    counts = (await api.ask("GET", JOBS.removesuffix("/jobs"))).json["counts"]
    assert {0} == set(counts.values())
    await api.ask("PATCH", ROUTE, {"batch": {"max_jobs": 2}})
    await api.ask("POST", f"{ROUTE}/send-example")
    request = api.recipient.received[-1]
    assert b"\r\nTimeMachine-Batch-Size: 1\r\n" in request.head
    assert request.body.startswith(b'[{"webhook_id":"')


@pytest.mark.parametrize("name", ["_x", "-x", ".x", "a%20b", "x" * 64, "%C3%A4"])
async def test_names(api: Api, name: str) -> None:
    """Names follow one rule everywhere."""
    for path in (f"/v1/dbs/default/routes/{name}", f"/v1/dbs/default/collections/{name}"):
        assert 400 == (await api.ask("PUT", path, {})).status
    assert 400 == (await api.ask("PUT", f"/v1/dbs/{name}")).status


async def test_the_breaker_is_changed_member_by_member(api: Api) -> None:
    """PATCH keeps what is absent, PUT takes defaults; null switches it off."""
    made = (await api.ask("PATCH", ROUTE, {"breaker": {"open_ms": 500}})).json["breaker"]
    assert (500, 100, 0.7) == (made["open_ms"], made["min_requests"], made["failure_ratio"])
    made = (await api.ask("PATCH", ROUTE, {"breaker": {"min_requests": 2}})).json["breaker"]
    assert (500, 2) == (made["open_ms"], made["min_requests"])
    assert (await api.ask("PATCH", ROUTE, {"breaker": None})).json["breaker"] is None
    assert (await api.ask("PATCH", ROUTE, {"timeout_ms": 2000})).json["breaker"] is None
    made = (await api.ask("PATCH", ROUTE, {"breaker": {}})).json["breaker"]
    assert (30_000, 100) == (made["open_ms"], made["min_requests"])
    put = (await api.ask("PUT", ROUTE, URL | {"breaker": {"min_requests": 3}})).json["breaker"]
    assert (30_000, 3) == (put["open_ms"], put["min_requests"])
    assert 0 == (await api.ask("PATCH", ROUTE, {"disable_after_ms": 0})).json["disable_after_ms"]


async def test_a_route_shows_that_its_breaker_is_open(api: Api) -> None:
    """In the route, in the list and in its stats alike, with its reason and until when."""
    settings = {"min_requests": 1, "open_ms": 60_000}
    await api.ask("PATCH", ROUTE, {"breaker": settings, "retry": {"schedule_ms": [1]}})
    api.recipient.answer = Outcome(status=500, bytes_sent=True)
    await api.ask("PUT", f"{JOBS}/a", {"trigger_time": 1, "route": "hello"})
    while (shown := (await api.ask("GET", ROUTE)).json)["state"] == "active":
        await asyncio.sleep(0.005)
    assert ("breaker_open", "attempts_failed") == (shown["state"], shown["state_reason"])
    assert shown["state_since_time"] < shown["state_until_time"]
    stats = (await api.ask("GET", f"{ROUTE}/stats")).json
    (listed,) = (await api.ask("GET", ROUTE.rpartition("/")[0])).json["items"]
    for name in ("state", "state_reason"):
        assert shown[name] == stats[name] == listed[name]
