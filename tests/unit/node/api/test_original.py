"""Clients of the original timeMachine, in both of their forms."""

from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from tests.unit.node.api.harness import FAR_MS, JOBS, Api, Reply
from timemachine import limits
from timemachine.errors import TooManyRequests
from timemachine.outbound import Outcome

LONG = {"id": "a", "trigger_time": FAR_MS, "meta": {"n": 1}, "route": "hello"}
SHORT = {"id": "a", "trigger_ms": FAR_MS, "meta": {"n": 1}, "route": "hello"}
OK = {"status": "ok"}


def failed(reply: Reply, code: str) -> None:
    """The reply is a failure in the original's words."""
    assert (400, "application/json") == (reply.status, reply.headers["content-type"])
    assert {"error", "code"} == set(reply.json)
    assert code == reply.json["code"]
    assert reply.json["error"]


async def job(api: Api, job_id: str = "a") -> dict[str, Any]:
    """The job as the API shows it."""
    answer: dict[str, Any] = (await api.ask("GET", f"{JOBS}/{quote(job_id, safe='')}")).json
    return answer


# --- the long form ---------------------------------------------------------------------------


async def test_long_jobs(api: Api) -> None:
    """Create, read, replace, delete under /job/{db}/{collection}."""
    place = "/job/default/carts"
    made = await api.ask("POST", place, LONG)
    assert (200, OK) == (made.status, made.json)
    read = await api.ask("GET", f"{place}/a")
    assert (200, LONG) == (read.status, read.json)
    assert "scheduled" == (await job(api))["state"]
    assert OK == (await api.ask("PUT", f"{place}/a", LONG | {"meta": 2})).json
    assert OK == (await api.ask("PUT", f"{place}/b", {"trigger_time": 1, "route": "hello"})).json
    assert 2 == (await api.ask("GET", f"{place}/a")).json["meta"]
    deleted = await api.ask("DELETE", f"{place}/a")
    assert (200, OK) == (deleted.status, deleted.json)
    assert "cancelled" == (await job(api))["state"]
    assert OK == (await api.ask("DELETE", f"{place}/a")).json
    failed(await api.ask("DELETE", f"{place}/none"), "job_not_found")
    failed(await api.ask("GET", f"{place}/none"), "job_not_found")


async def test_long_routes(api: Api) -> None:
    """Create, read, replace, delete under /route/{db}."""
    route = {"id": "r", "type": "REST", "webhook_url": "https://one.example/x?a=b"}
    assert OK == (await api.ask("POST", "/route/default", route)).json
    assert route == (await api.ask("GET", "/route/default/r")).json
    changed = route | {"webhook_url": "http://two.example/"}
    assert OK == (await api.ask("PUT", "/route/default/r", changed)).json
    assert changed == (await api.ask("GET", "/route/default/r")).json
    assert OK == (await api.ask("DELETE", "/route/default/r")).json
    failed(await api.ask("GET", "/route/default/r"), "route_not_found")
    failed(await api.ask("DELETE", "/route/default/r"), "route_not_found")


# --- the short form --------------------------------------------------------------------------


async def test_short_jobs(api: Api) -> None:
    """Create, read, delete under /job/{collection}; `offset` is the version."""
    assert OK | {"offset": 1} == (await api.ask("POST", "/job/carts", SHORT)).json
    assert SHORT == (await api.ask("GET", "/job/carts/a")).json
    assert OK | {"offset": 2} == (await api.ask("POST", "/job/carts", SHORT | {"meta": 2})).json
    assert OK | {"offset": 2} == (await api.ask("POST", "/job/carts", SHORT | {"meta": 2})).json
    deleted = await api.ask("DELETE", "/job/carts/a")
    assert OK | {"offset": (await job(api))["version"]} == deleted.json
    failed(await api.ask("GET", "/job/carts/none"), "job_not_found")


@pytest.mark.parametrize("path", ["/route", "/route/"])
async def test_short_routes(api: Api, path: str) -> None:
    """Create, read, delete under /route, with and without a slash at the end."""
    route = {"id": "r", "type": "http", "webhook_url": "http://one.example/x"}
    assert OK | {"offset": 1} == (await api.ask("POST", path, route)).json
    assert route == (await api.ask("GET", "/route/r")).json
    changed = route | {"webhook_url": "http://two.example/"}
    assert OK | {"offset": 2} == (await api.ask("POST", path, changed)).json
    assert OK | {"offset": 2} == (await api.ask("DELETE", "/route/r")).json
    failed(await api.ask("DELETE", "/route/r"), "route_not_found")


async def test_segments_and_method_tell_them_apart(api: Api) -> None:
    """The same path is a collection for one method and a job for another."""
    await api.ask("POST", "/job/carts", SHORT | {"id": "default"})
    # Two segments: POST creates in db `default`, GET reads a job of collection `default`.
    assert OK == (await api.ask("POST", "/job/default/default", LONG)).json
    assert SHORT == (await api.ask("GET", "/job/default/a")).json
    assert "default" == (await api.ask("GET", "/job/carts/default")).json["id"]
    # One: POST /route/{db} is long, GET /route/{id} short.
    route = {"id": "default", "webhook_url": "http://one.example/"}
    assert OK == (await api.ask("POST", "/route/default", route)).json
    assert "http" == (await api.ask("GET", "/route/default")).json["type"]
    for method, path in (
        ("PUT", "/job/carts/a"),
        ("PUT", "/route/hello"),
        ("PATCH", "/job/default/carts/a"),
        ("POST", "/job/default/carts/a"),
        ("GET", "/job/carts"),
        ("GET", "/route"),
    ):
        failed(await api.ask(method, path, LONG), "method_not_allowed")
    head = await api.ask("HEAD", "/job/carts/default")
    assert (200, b"") == (head.status, head.body)


# --- what both promise -----------------------------------------------------------------------


async def test_either_name_of_the_time(api: Api) -> None:
    """Each form has its name; the other's is understood where its own is missing."""
    own, other = FAR_MS, FAR_MS + 1
    for path, mine, theirs in (
        ("/job/default/carts", "trigger_time", "trigger_ms"),
        ("/job/carts", "trigger_ms", "trigger_time"),
    ):
        base = {"id": "a", "route": "hello"}
        for times, expected in (
            ({mine: own}, own),
            ({theirs: other}, other),
            ({mine: own, theirs: other}, own),
            ({mine: "2030-01-01T00:00:00Z"}, 1_893_456_000_000),
        ):
            assert 200 == (await api.ask("POST", path, base | times)).status
            assert expected == (await job(api))["trigger_time"]
        reply = await api.ask("POST", path, base)
        failed(reply, "invalid_request")
        assert mine in reply.json["error"]


async def test_post_overwrites(api: Api) -> None:
    """Also a job that has ended: it starts a new life."""
    await api.ask("POST", "/job/carts", SHORT)
    first = await job(api)
    await api.ask("DELETE", "/job/carts/a")
    assert 200 == (await api.ask("POST", "/job/carts", SHORT | {"meta": 9})).status
    again = await job(api)
    assert ("scheduled", 9) == (again["state"], again["meta"])
    assert first["uid"] != again["uid"]


async def test_jobs_fire(api: Api) -> None:
    """What was created there is delivered as everything else."""
    api.recipient.answer = Outcome(status=200, bytes_sent=True)
    await api.ask("POST", "/job/carts", SHORT | {"trigger_ms": 1})
    while "delivered" != (await job(api))["state"]:
        assert (await job(api))["state"] != "dead"
    assert b'"id":"a"' in api.recipient.received[0].body


async def test_collections_are_made(api: Api) -> None:
    """By the first job, and their database too; not by a job that is refused, nor by reading."""
    for method, path in (("GET", "/job/new/a"), ("DELETE", "/job/new/a")):
        failed(await api.ask(method, path), "collection_not_found")
    failed(await api.ask("POST", "/job/new", SHORT | {"route": "none"}), "route_not_found")
    failed(await api.ask("POST", "/job/new", {}), "invalid_request")
    failed(await api.ask("POST", "/job/n%20w", SHORT), "invalid_request")
    failed(await api.ask("POST", "/job//x", LONG), "invalid_request")
    names = [each["name"] for each in await _items(api, "/v1/dbs/default/collections")]
    assert ["carts"] == names
    assert 200 == (await api.ask("POST", "/job/new", SHORT)).status
    created = (await api.ask("GET", "/v1/dbs/default/collections/new")).json
    assert limits.VNODES_DEFAULT == created["num_vnodes"]
    route = {"id": "r", "webhook_url": "one.example"}
    failed(await api.ask("POST", "/route/shop", route | {"webhook_url": ""}), "invalid_request")
    assert ["default"] == [each["name"] for each in await _items(api, "/v1/dbs")]
    assert OK == (await api.ask("POST", "/route/shop", route)).json
    assert OK == (await api.ask("POST", "/job/shop/orders", LONG | {"route": "r"})).json
    assert "a" == (await api.ask("GET", "/job/shop/orders/a")).json["id"]


async def _items(api: Api, path: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await api.ask("GET", path)).json["items"]
    return items


async def test_a_collection_keeps_what_it_has(api: Api) -> None:
    """A job does not put a collection that exists back to defaults."""
    place = JOBS.removesuffix("/jobs")
    await api.ask("PUT", place, {"history_retention_ms": 1234})
    await api.ask("POST", "/job/carts", SHORT)
    read = (await api.ask("GET", place)).json
    assert (1234, 3) == (read["history_retention_ms"], read["num_vnodes"])


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("one.example", "http://one.example"),
        ("one.example:8080/x?u=http://y", "http://one.example:8080/x?u=http://y"),
        ("127.0.0.1:4000/", "http://127.0.0.1:4000/"),
        ("https://one.example/", "https://one.example/"),
        ("HTTP://one.example/", "HTTP://one.example/"),
    ],
)
async def test_urls(api: Api, given: str, shown: str) -> None:
    """A URL without a scheme is http."""
    assert 200 == (await api.ask("POST", "/route", {"id": "r", "webhook_url": given})).status
    assert shown == (await api.ask("GET", "/route/r")).json["webhook_url"]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"type": "kafka"}, "type"),
        ({"type": 7}, "type"),
        ({"id": None}, "id"),
        ({"id": "a b"}, "route"),
        ({"webhook_url": None}, "webhook_url"),
        ({"webhook_url": "ftp://one.example/"}, "http://"),
        ({"webhook_url": "http://blocked.example/"}, "--allow-private"),
    ],
)
async def test_bad_routes(api: Api, change: dict[str, Any], word: str) -> None:
    """They are refused with a sentence that names what is wrong."""
    route = {"id": "r", "type": "http", "webhook_url": "http://one.example/"} | change
    reply = await api.ask("POST", "/route", {name: v for name, v in route.items() if v is not None})
    failed(reply, "invalid_request")
    assert word in reply.json["error"]


@pytest.mark.parametrize("kind", ["REST", "http", "rest", "HTTP", "webhook"])
async def test_types(api: Api, kind: str) -> None:
    """All names of the one kind of route are understood in both forms."""
    route = {"id": "r", "type": kind, "webhook_url": "http://one.example/"}
    assert 200 == (await api.ask("POST", "/route", route)).status
    assert 200 == (await api.ask("POST", "/route/default", route)).status


@pytest.mark.parametrize("job_id", ["a/b", "a:b", "_", "é ü", "%41", "a?b#c", "日本", "x" * 128])
async def test_ids(api: Api, job_id: str) -> None:
    """Ids that need quoting work as they do everywhere."""
    quoted = quote(job_id, safe="")
    assert OK == (await api.ask("POST", "/job/default/carts", LONG | {"id": job_id})).json
    assert job_id == (await api.ask("GET", f"/job/default/carts/{quoted}")).json["id"]
    assert job_id == (await api.ask("GET", f"/job/carts/{quoted}")).json["id"]
    assert 200 == (await api.ask("PUT", f"/job/default/carts/{quoted}", LONG | {"id": None})).status
    assert 200 == (await api.ask("DELETE", f"/job/carts/{quoted}")).status
    assert "cancelled" == (await job(api, job_id))["state"]


@pytest.mark.parametrize("job_id", ["", "..", "x" * 129, "\x00"])
async def test_bad_ids(api: Api, job_id: str) -> None:
    """What is no id anywhere is none here."""
    failed(await api.ask("POST", "/job/carts", SHORT | {"id": job_id}), "invalid_request")


async def test_a_job_without_an_id_gets_one(api: Api) -> None:
    """The client does not hear of it, but the job fires; with a key a repeat finds it again."""
    body = {"trigger_ms": FAR_MS, "route": "hello"}
    assert OK | {"offset": 1} == (await api.ask("POST", "/job/carts", body)).json
    for _ in range(2):
        key = {"Idempotency-Key": "k"}
        assert 200 == (await api.ask("POST", "/job/fresh", body, headers=key)).status
    assert 1 == len(await _items(api, JOBS))
    assert 1 == len(await _items(api, JOBS.replace("carts", "fresh")))


async def test_unknown_members_mean_nothing(api: Api) -> None:
    """Old clients send what they always sent."""
    extra = {"colour": 1, "offset": 7, "meta_type": None}
    assert 200 == (await api.ask("POST", "/job/carts?x=y&z", SHORT | extra)).status
    route = {"id": "r", "webhook_url": "http://one.example/"} | extra
    assert 200 == (await api.ask("POST", "/route?x=y", route)).status
    assert 200 == (await api.ask("GET", "/job/carts/a?pretty")).status


async def test_meta_is_kept_as_it_came(api: Api) -> None:
    """Its bytes come back, and its limits hold."""
    meta = b'{ "one": 1.0, "big": 123456789012345678901234567890, "one": 2 }'
    body = b'{"id":"a","trigger_ms":%d,"route":"hello","meta":%b}' % (FAR_MS, meta)
    assert 200 == (await api.ask("POST", "/job/carts", body)).status
    assert b'"meta":' + meta in (await api.ask("GET", "/job/carts/a")).body
    large = SHORT | {"meta": "x" * limits.META_BYTES_MAX}
    failed(await api.ask("POST", "/job/carts", large), "too_large")


async def test_other_failures_are_400(api: Api) -> None:
    """Whatever is wrong with a request, the old clients know one status for it."""
    text = {"Content-Type": "text/plain"}
    failed(await api.ask("POST", "/job/carts", SHORT, headers=text), "unsupported_media_type")
    failed(await api.ask("POST", "/job/carts", b"{broken"), "invalid_request")
    failed(await api.ask("POST", "/job/carts", b"[]"), "invalid_request")
    failed(await api.ask("POST", "/job/carts", SHORT | {"route": None}), "invalid_request")
    failed(await api.ask("PUT", "/job/default/carts/b", LONG), "invalid_request")
    failed(await api.ask("GET", "/job/carts/%ff"), "invalid_request")
    failed(await api.ask("GET", "/job/a/b/c/d"), "not_found")
    failed(await api.ask("GET", "/job"), "not_found")
    if_new = {"If-None-Match": "*"}
    await api.ask("POST", "/job/carts", SHORT)
    failed(await api.ask("POST", "/job/carts", SHORT, headers=if_new), "precondition_failed")
    await api.ask("POST", "/job/carts", SHORT | {"id": "pending"})
    failed(await api.ask("DELETE", "/route/hello"), "route_in_use")
    assert 200 == (await api.ask("DELETE", "/route/hello?force=true")).status


async def test_overload_stays_what_it_is(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever should come again later is told when."""

    def full(*arguments: Any) -> None:
        arguments[3](TooManyRequests(retry_after_s=3))

    monkeypatch.setattr(api.engine, "propose_job", full)
    reply = await api.ask("POST", "/job/carts", SHORT)
    assert (429, "3", "too_many_requests") == (
        reply.status,
        reply.headers["retry-after"],
        reply.code,
    )
    assert {"error", "code"} <= set(reply.json)


async def test_faults_stay_faults(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of the node is not the client's."""

    def fail(*_: Any) -> None:
        raise RuntimeError("a secret of the machine")

    monkeypatch.setattr(api.engine, "propose_job", fail)
    reply = await api.ask("POST", "/job/carts", SHORT)
    assert (500, "internal") == (reply.status, reply.code)


async def test_in_messagepack(api: Api) -> None:
    """Bodies and answers may be MessagePack here too."""
    kinds = {"Content-Type": "application/msgpack", "Accept": "application/msgpack"}
    reply = await api.ask("POST", "/job/carts", msgspec.msgpack.encode(SHORT), headers=kinds)
    assert OK | {"offset": 1} == msgspec.msgpack.decode(reply.body)
    reply = await api.ask("GET", "/job/carts/none", headers=kinds)
    assert (400, {"error", "code"}) == (reply.status, set(msgspec.msgpack.decode(reply.body)))
