"""Jobs over HTTP: the promises of the reference, one by one."""

import asyncio
from typing import Any
from urllib.parse import quote

import pytest

from node.api.paging import write_cursor
from tests.unit.node.api.harness import FAR_MS, JOBS, ROUTE, Api, Reply
from timemachine import limits
from timemachine.model import JobState
from timemachine.outbound import Outcome
from timemachine.smearing import smear_of

JOB = {"id": "a", "trigger_time": FAR_MS, "route": "hello", "meta": {"n": 1}, "tags": ["x"]}


async def post(api: Api, body: Any = JOB, **headers: str) -> Reply:
    """Create a job; underscores in the names of headers stand for hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await api.ask("POST", JOBS, body, headers=named)


async def settled(api: Api, job_id: str, state: str) -> dict[str, Any]:
    """The job once it is in a state."""
    while True:
        job: dict[str, Any] = (await api.ask("GET", f"{JOBS}/{job_id}")).json
        if job["state"] == state:
            return job
        await asyncio.sleep(0.005)


async def test_created_job_is_answered_in_full(api: Api) -> None:
    """POST answers 201 with every member of the reference, its version and its address."""
    reply = await post(api)
    assert 201 == reply.status
    assert '"1"' == reply.headers["etag"]
    assert f"{JOBS}/a" == reply.headers["location"]
    job = reply.json
    assert {
        "id": "a",
        "trigger_time": FAR_MS,
        "route": "hello",
        "meta": {"n": 1},
        "tags": ["x"],
        "ordering_key": None,
        "db": "default",
        "collection": "carts",
        "state": "scheduled",
        "version": 1,
        "attempts": 0,
        "next_attempt_time": FAR_MS,
        "last_error": None,
        "reason": None,
    }.items() <= job.items()
    assert job["vnode"] in range(3)
    assert 32 == len(job["uid"])
    assert 26 == len(job["webhook_id"])
    assert job["created_time"] == job["updated_time"]
    assert "past_due" not in job
    again = await api.ask("GET", f"{JOBS}/a")
    assert (200, job, '"1"') == (again.status, again.json, again.headers["etag"])


async def test_job_without_an_id_gets_one(api: Api) -> None:
    """An id is a UUID of version 7, or of version 8 made from the Idempotency-Key."""
    body = {"trigger_time": FAR_MS, "route": "hello"}
    first, second = (await post(api, body)).json["id"], (await post(api, body)).json["id"]
    assert "7" == first[14]
    assert first != second
    keyed = await post(api, body, Idempotency_Key="k")
    repeat = await post(api, body, Idempotency_Key="k")
    assert "8" == keyed.json["id"][14]
    assert (201, 201) == (keyed.status, repeat.status)
    assert keyed.json == repeat.json
    assert "idempotent-replayed" not in keyed.headers
    assert "true" == repeat.headers["idempotent-replayed"]


async def test_post_again(api: Api) -> None:
    """An equal POST is 200 with the stored job, in every state; any other 409 `job_exists`."""
    await post(api)
    repeat = await post(api)
    assert (200, "true") == (repeat.status, repeat.headers["idempotent-replayed"])
    changes: list[Any] = [{"trigger_time": FAR_MS + 1}, {"meta": {"n": 2}}, {"tags": []}]
    for change in changes:
        other = await post(api, JOB | change)
        assert (409, "job_exists") == (other.status, other.code)
    await api.ask("DELETE", f"{JOBS}/a")
    repeat = await post(api)
    assert (200, "cancelled") == (repeat.status, repeat.json["state"])


async def test_idempotency_key_answers_again(api: Api) -> None:
    """The first answer is given again, whatever happened since; another request is 422."""
    first = await post(api, Idempotency_Key="k")
    await api.ask("PUT", f"{JOBS}/a", JOB | {"meta": 2})
    repeat = await post(api, Idempotency_Key="k")
    assert (201, first.json) == (repeat.status, repeat.json)
    spelled = b'{"route":"hello", "trigger_time":%d,"id":"a","tags":["x"],"meta":{"n":1}}' % FAR_MS
    assert 201 == (await post(api, spelled, Idempotency_Key="k")).status
    reused = await post(api, JOB | {"meta": 3}, Idempotency_Key="k")
    assert (422, "idempotency_key_reused") == (reused.status, reused.code)
    assert 422 == (await api.ask("DELETE", f"{JOBS}/a", headers={"Idempotency-Key": "k"})).status
    # The scope is the job: another one may use the same key.
    assert 201 == (await post(api, JOB | {"id": "b"}, Idempotency_Key="k")).status


async def test_put(api: Api) -> None:
    """PUT creates, replaces, leaves alone what is equal; conditions hold."""
    put = {key: value for key, value in JOB.items() if key != "id"}
    path = f"{JOBS}/a"
    created = await api.ask("PUT", path, put)
    assert 201 == created.status
    equal = await api.ask("PUT", path, put)
    assert (200, 1) == (equal.status, equal.json["version"])
    # What was read can be sent back.
    equal = await api.ask("PUT", path, created.json)
    assert (200, 1) == (equal.status, equal.json["version"])
    changed = await api.ask("PUT", path, put | {"meta": [1]})
    assert (200, 2) == (changed.status, changed.json["version"])
    assert {"version": 1, "outcome": "replaced"} == changed.json["previous"]
    assert [] != changed.json["meta"]
    for condition in ('"1"', '"0"', '"1", "7"', 'W/"1"'):
        stale = await api.ask("PUT", path, put, headers={"If-Match": condition})
        assert (412, "precondition_failed") == (stale.status, stale.code)
    for condition in ("*", '"2"', '"7", "2"'):
        headers = {"If-Match": condition}
        good = await api.ask("PUT", path, put | {"meta": [1]}, headers=headers)
        assert 200 == good.status
    only_new = {"If-None-Match": "*"}
    assert 412 == (await api.ask("PUT", path, put, headers=only_new)).status
    assert 201 == (await api.ask("PUT", f"{JOBS}/b", put, headers=only_new)).status
    missing = await api.ask("PUT", f"{JOBS}/c", put, headers={"If-Match": "*"})
    assert 412 == missing.status
    bad = await api.ask("PUT", path, put, headers={"If-Match": "2"})
    assert 400 == bad.status
    other = await api.ask("PUT", path, JOB | {"id": "z"})
    assert (400, ["/id"]) == (other.status, other.pointers)


async def test_put_starts_a_new_life(api: Api) -> None:
    """A job that ended and differs starts again: a new uid, the version goes on."""
    first = (await post(api)).json
    await api.ask("DELETE", f"{JOBS}/a")
    again = (await api.ask("PUT", f"{JOBS}/a", JOB | {"meta": 9})).json
    assert first["uid"] != again["uid"]
    assert ("scheduled", 2) == (again["state"], again["version"])


async def test_patch(api: Api) -> None:
    """PATCH replaces the members that are given."""
    await post(api)
    path = f"{JOBS}/a"
    changed = await api.ask("PATCH", path, {"meta": None, "tags": []})
    assert (200, None, [], FAR_MS) == (
        changed.status,
        changed.json["meta"],
        changed.json["tags"],
        changed.json["trigger_time"],
    )
    moved = await api.ask("PATCH", path, {"trigger_time": FAR_MS + 5})
    assert FAR_MS + 5 == moved.json["trigger_time"]
    later = await api.ask("PATCH", path, {"delay_ms": 3_600_000})
    assert later.json["trigger_time"] == later.json["updated_time"] + 3_600_000
    bads: list[Any] = [{"state": "dead"}, {"trigger_time": None}, {"id": "b"}, {"route": 1}, []]
    for bad in bads:
        assert 400 == (await api.ask("PATCH", path, bad)).status
    gone = await api.ask("PATCH", path, {"route": "nowhere"})
    assert (409, "route_not_found") == (gone.status, gone.code)
    unknown = await api.ask("PATCH", f"{JOBS}/none", {"meta": 1})
    assert (404, "job_not_found") == (unknown.status, unknown.code)
    stale = await api.ask("PATCH", path, {"meta": 1}, headers={"If-Match": '"1"'})
    assert 412 == stale.status


async def test_delete(api: Api) -> None:
    """DELETE tells the outcome, the same one when repeated; `purge` forgets the job."""
    await post(api)
    first = await api.ask("DELETE", f"{JOBS}/a")
    assert (200, "cancelled", "cancelled") == (
        first.status,
        first.json["outcome"],
        first.json["state"],
    )
    assert "cancelled" == (await api.ask("DELETE", f"{JOBS}/a")).json["outcome"]
    assert 200 == (await api.ask("DELETE", f"{JOBS}/a?purge=true")).status
    gone = await api.ask("DELETE", f"{JOBS}/a")
    assert (404, "job_not_found") == (gone.status, gone.code)


async def test_a_route_smears_its_jobs(api: Api) -> None:
    """Each is due at its part of the time after its trigger time, and is listed by that."""
    await api.ask("PATCH", ROUTE, {"smear_ms": 86_400_000})
    assert 86_400_000 == (await api.ask("GET", ROUTE)).json["smear_ms"]
    for name in ("b", "a", "c"):
        body = {"id": name, "trigger_time": FAR_MS, "route": "hello"}
        job = (await post(api, body)).json
        smear_ms = smear_of(name, 86_400_000)
        assert (FAR_MS, smear_ms) == (job["trigger_time"], job["smear_ms"])
        assert FAR_MS + smear_ms == job["next_attempt_time"]
        again = await post(api, body)
        assert (200, FAR_MS + smear_ms) == (again.status, again.json["next_attempt_time"])
        assert job == (await api.ask("GET", f"{JOBS}/{name}")).json
        assert 200 == (await api.ask("PUT", f"{JOBS}/{name}", job)).status, "what was read is sent"
    listed = (await api.ask("GET", f"{JOBS}?from={FAR_MS}&to={FAR_MS + 1}")).json["items"]
    assert ["a", "b", "c"] == [each["id"] for each in listed]
    path = f"{JOBS.removesuffix('/jobs')}/forecast?from={FAR_MS}&to={FAR_MS + 172_800_000}"
    buckets = (await api.ask("GET", f"{path}&bucket_ms=86400000")).json["items"]
    assert 3 == sum(each["count"] for each in buckets)
    # Another route, or a time: PATCH keeps to what the route of the job says.
    moved = (await api.ask("PATCH", f"{JOBS}/a", {"trigger_time": FAR_MS + 5})).json
    assert FAR_MS + 5 + smear_of("a", 86_400_000) == moved["next_attempt_time"]
    await api.ask("PUT", f"{ROUTE}-plain", {"webhook_url": "http://one.example/x"})
    moved = (await api.ask("PATCH", f"{JOBS}/a", {"route": "hello-plain"})).json
    assert (FAR_MS + 5, False) == (moved["next_attempt_time"], "smear_ms" in moved)
    # What was given before goes by what the route said then.
    await api.ask("PATCH", ROUTE, {"smear_ms": 0})
    job = (await api.ask("GET", f"{JOBS}/b")).json
    assert FAR_MS + smear_of("b", 86_400_000) == job["next_attempt_time"]
    late = (await post(api, {"id": "d", "trigger_time": FAR_MS, "route": "hello"})).json
    assert (FAR_MS, False) == (late["next_attempt_time"], "smear_ms" in late)


async def test_a_smeared_job_is_past_due_when_its_own_time_is_over(api: Api) -> None:
    """Until then it waits, although its trigger time is past; `run` sends it at once."""
    await api.ask("PATCH", ROUTE, {"smear_ms": 86_400_000})
    now_ms = api.engine.now_ms()
    job = (await post(api, {"id": "a", "trigger_time": now_ms - 1_000, "route": "hello"})).json
    assert ("scheduled", False) == (job["state"], "past_due" in job)
    assert now_ms < job["next_attempt_time"]
    late = (await post(api, {"id": "b", "trigger_time": 1_000, "route": "hello"})).json
    assert late["past_due"]
    await settled(api, "b", "delivered")
    assert 200 == (await api.ask("POST", f"{JOBS}/a/run")).status
    assert 1 == (await settled(api, "a", "delivered"))["attempts"]


async def test_job_in_the_past_fires_at_once(api: Api) -> None:
    """A trigger time in the past is accepted and said to be past due, also to a repeat."""
    body = {"id": "p", "trigger_time": 1000, "route": "hello"}
    first = await post(api, body, Idempotency_Key="k")
    assert (201, True) == (first.status, first.json["past_due"])
    job = await settled(api, "p", "delivered")
    assert "past_due" not in job
    assert 1 == job["attempts"]
    assert True is (await post(api, body, Idempotency_Key="k")).json["past_due"]
    assert "past_due" not in (await post(api, body)).json
    page = (await api.ask("GET", f"{JOBS}/p/attempts")).json
    assert None is page["next_cursor"]
    attempt = page["items"][0]
    assert ("succeeded", 200, 1) == (
        attempt["status"],
        attempt["response_status"],
        attempt["attempt"],
    )
    delayed = await post(api, {"id": "d", "delay_ms": 0, "route": "hello"})
    assert "past_due" not in delayed.json
    await settled(api, "d", "delivered")


async def test_run_and_redrive(api: Api) -> None:
    """`run` fires now under the same webhook id; `redrive` fires what is dead again."""
    made = (await post(api)).json
    ran = await api.ask("POST", f"{JOBS}/a/run")
    assert (200, 1) == (ran.status, ran.json["version"])
    done = await settled(api, "a", "delivered")
    assert made["webhook_id"] == done["webhook_id"]
    finished = await api.ask("POST", f"{JOBS}/a/run", {})
    assert (409, "job_finished") == (finished.status, finished.code)
    refused = await api.ask("POST", f"{JOBS}/a/redrive")
    assert (409, "job_delivered") == (refused.status, refused.code)
    forced = await api.ask("POST", f"{JOBS}/a/redrive?force=true")
    assert (202, done["webhook_id"]) == (forced.status, forced.json["webhook_id"])
    await settled(api, "a", "delivered")
    api.recipient.answer = Outcome(status=410, bytes_sent=True)
    await post(api, {"id": "g", "trigger_time": 0, "route": "hello"})
    assert "gone" == (await settled(api, "g", "dead"))["reason"]
    assert 202 == (await api.ask("POST", f"{JOBS}/g/redrive")).status
    unknown = await api.ask("POST", f"{JOBS}/none/redrive")
    assert (404, "job_not_found") == (unknown.status, unknown.code)


async def test_run_takes_the_place_of_the_retry(api: Api) -> None:
    """R63: there is one next attempt, it is one of the budget, and success leaves none."""
    retry = {"retry": {"schedule_ms": [3_600_000], "max_attempts": 3, "jitter": 0.0}}
    assert 200 == (await api.ask("PATCH", ROUTE, retry)).status
    api.recipient.answer = Outcome(status=500, bytes_sent=True)
    for job_id in ("lost", "won"):
        await post(api, {"id": job_id, "trigger_time": 0, "route": "hello"})
        waiting = await settled(api, job_id, "retrying")
        assert 200 == (await api.ask("POST", f"{JOBS}/{job_id}/run")).status
        while (await settled(api, job_id, "retrying"))["attempts"] < 2:
            await asyncio.sleep(0.005)
        # The schedule goes on from the end of that attempt.
        again = await settled(api, job_id, "retrying")
        assert again["next_attempt_time"] >= waiting["next_attempt_time"]
    await api.ask("POST", f"{JOBS}/lost/run")
    lost = await settled(api, "lost", "dead")
    assert ("exhausted", 3) == (lost["reason"], lost["attempts"])
    api.recipient.answer = Outcome(status=200, bytes_sent=True)
    await api.ask("POST", f"{JOBS}/won/run")
    won = await settled(api, "won", "delivered")
    assert (3, None) == (won["attempts"], won["next_attempt_time"])
    assert 6 == len(api.recipient.received)
    keys = [vnode.keys for vnodes in api.engine._vnodes.values() for vnode in vnodes.values()]
    due = [each for k in keys for each in api.store.scan(k.due, k.due_stop)]
    assert [] == due, "nothing of them is left to fire"


async def test_a_job_is_redriven_to_a_route_that_is_stopped(api: Api) -> None:
    """R64: it is not refused but held, says so, and goes out when the route is started again."""
    api.recipient.answer = Outcome(status=410, bytes_sent=True)
    await post(api, {"id": "g", "trigger_time": 0, "route": "hello"})
    await settled(api, "g", "dead")
    assert "disabled" == (await api.ask("GET", ROUTE)).json["state"]
    assert 202 == (await api.ask("POST", f"{JOBS}/g/redrive")).status
    held = await settled(api, "g", "held")
    assert 1 == held["attempts"]
    api.recipient.answer = Outcome(status=200, bytes_sent=True)
    assert 200 == (await api.ask("POST", f"{ROUTE}/resume")).status
    assert 2 == (await settled(api, "g", "delivered"))["attempts"]
    assert 200 == (await api.ask("DELETE", f"{JOBS}/g?purge=true")).status
    gone = await api.ask("POST", f"{JOBS}/g/redrive?force=true")
    assert (404, "job_not_found") == (gone.status, gone.code), "a job goes with what it carries"


async def test_redriven_under_another_id(api: Api) -> None:
    """R62: on demand, as a new version that is the same but for its id; the old one is kept."""
    await post(api, {"id": "n", "trigger_time": 0, "route": "hello", "meta": {"n": 1}})
    before = await settled(api, "n", "delivered")
    refused = await api.ask("POST", f"{JOBS}/n/redrive?new_id=true")
    assert (409, "job_delivered") == (refused.status, refused.code)
    key = {"Idempotency-Key": "k"}
    told = [
        await api.ask("POST", f"{JOBS}/n/redrive?force=true&new_id=true", headers=key)
        for _ in range(2)
    ]
    assert [202, 202] == [each.status for each in told]
    again = told[0].json
    assert again["webhook_id"] == told[1].json["webhook_id"] != before["webhook_id"]
    assert (2, {"version": 1, "outcome": "already_delivered"}) == (
        again["version"],
        again["previous"],
    )
    after = await settled(api, "n", "delivered")
    same = ("id", "trigger_time", "meta", "route", "tags")
    assert [before[name] for name in same] == [after[name] for name in same]
    seen = [request.head for request in api.recipient.received]
    assert [1, 1] == [
        sum(b"webhook-id: " + each["webhook_id"].encode() in head for head in seen)
        for each in (before, after)
    ]
    attempts = (await api.ask("GET", f"{JOBS}/n/attempts")).json["items"]
    assert [("scheduled", 1), ("redrive", 2)] == [
        (each["trigger"], each["version"]) for each in attempts
    ]


STRANGE = [
    "_",
    "/",
    "a/b",
    ":",
    "ä ö",
    "日本",
    "%2F",
    "a+b",
    "?",
    "#",
    "batch",
    "cancel",
    "x" * 128,
]


@pytest.mark.parametrize("job_id", STRANGE)
async def test_strange_ids_work_everywhere(api: Api, job_id: str) -> None:
    """An id with any character works wherever an id works."""
    path = f"{JOBS}/{quote(job_id, safe='')}"
    body = {"trigger_time": FAR_MS, "route": "hello"}
    made = await api.ask("PUT", path, body)
    assert (201, job_id) == (made.status, made.json["id"])
    assert path == made.headers["location"]
    assert 200 == (await post(api, body | {"id": job_id})).status
    assert job_id == (await api.ask("GET", path)).json["id"]
    assert 200 == (await api.ask("PATCH", path, {"meta": 1})).status
    assert 200 == (await api.ask("GET", f"{path}/attempts")).status
    assert 200 == (await api.ask("POST", f"{path}/run")).status
    assert 200 == (await api.ask("DELETE", f"{path}?purge=true")).status


@pytest.mark.parametrize("job_id", ["", ".", "..", "a\nb", "\x00", "\x7f", "\x85", "x" * 129])
async def test_ids_that_are_refused(api: Api, job_id: str) -> None:
    """Ids that URL libraries change, or that are too long or not printable, are 400."""
    reply = await post(api, JOB | {"id": job_id})
    assert (400, ["/id"]) == (reply.status, reply.pointers)
    if job_id:
        reply = await api.ask("GET", f"{JOBS}/{quote(job_id, safe='').replace('.', '%2E')}")
        assert 400 == reply.status


@pytest.mark.parametrize("path", ["%ff", "%zz", "%", "%C3%28", "..", "%2e%2e"])
async def test_paths_that_are_refused(api: Api, path: str) -> None:
    """A path is strict percent-encoded UTF-8."""
    assert 400 == (await api.ask("GET", f"{JOBS}/{path}")).status


METAS = [
    b"1.0",
    b"-0",
    b"1E+2",
    b"123456789012345678901234567890",
    b"9" * 5000,
    b"1e999",
    b'[1.10,{"b": 1, "a":2,"a":3}]',
    b'"\\u00e4 \\/ \xc3\xa4"',
    b"true",
    b"[" * 64 + b"]" * 64,
    b'{"a":"' + b"[" * 100 + b'"}',
]


@pytest.mark.parametrize("meta", METAS)
async def test_meta_is_kept_byte_for_byte(api: Api, meta: bytes) -> None:
    """Whatever JSON came comes back, digit for digit, and so it reaches the recipient."""
    reply = await post(api, b'{"id":"m","delay_ms":0,"route":"hello","meta": %b }' % meta)
    assert 201 == reply.status
    assert b'"meta":' + meta + b"," in reply.body
    while not api.recipient.received:
        await asyncio.sleep(0.005)
    assert b'"meta":' + meta + b"," in (await api.ask("GET", f"{JOBS}/m")).body
    assert b'"meta":' + meta + b"," in api.recipient.received[0].body


BAD_METAS = [
    b"NaN",
    b"Infinity",
    b"[1e999,NaN]",
    b"01",
    b"'a'",
    b'"\xff"',
    b'"\\ud800"',
    b'[1e999,"\\ud800"]',
    b"[1,]",
    b"[" * 65 + b"]" * 65,
    b"[" * 100_000 + b"]" * 100_000,
    b'{"a":' * 70 + b"1" + b"}" * 70,
]


@pytest.mark.parametrize("meta", BAD_METAS, ids=range(len(BAD_METAS)))
async def test_meta_that_is_refused(api: Api, meta: bytes) -> None:
    """What is no JSON, no Unicode, or nested too deeply is 400, and nothing breaks."""
    reply = await post(api, b'{"delay_ms":0,"route":"hello","meta":%b}' % meta)
    assert (400, "invalid_request") == (reply.status, reply.code)


async def test_meta_within_its_limit(api: Api) -> None:
    """256 KiB of meta are taken; one byte more is 413 and names the limit."""
    fits = b'"%b"' % (b"x" * (limits.META_BYTES_MAX - 2))
    body = b'{"id":"%b","trigger_time":%d,"route":"hello","meta":%b}'
    assert 201 == (await post(api, body % (b"m", FAR_MS, fits))).status
    assert fits == api.engine.read_meta(api.engine.meta.collections["default", "carts"], "m")
    over = await post(api, body % (b"n", FAR_MS, fits[:-1] + b'x"'))
    assert (413, "too_large") == (over.status, over.code)
    assert "262144" in over.json["detail"]


BAD_BODIES: list[tuple[Any, str]] = [
    ({"route": "hello"}, "/trigger_time"),
    ({"trigger_time": 1, "delay_ms": 1}, "/route"),
    ({"trigger_time": 1, "delay_ms": 1, "route": "hello"}, "/delay_ms"),
    ({"trigger_time": True, "route": "hello"}, "/trigger_time"),
    ({"trigger_time": 1.5, "route": "hello"}, "/trigger_time"),
    ({"trigger_time": -1, "route": "hello"}, "/trigger_time"),
    ({"trigger_time": limits.TIME_MS_MAX + 1, "route": "hello"}, "/trigger_time"),
    ({"trigger_time": "2030-01-01T00:00:00", "route": "hello"}, "/trigger_time"),
    ({"trigger_time": "tomorrow", "route": "hello"}, "/trigger_time"),
    ({"trigger_time": "2030-02-30T00:00:00Z", "route": "hello"}, "/trigger_time"),
    ({"trigger_time": "2030-W01-1T00:00:00Z", "route": "hello"}, "/trigger_time"),
    ({"delay_ms": -1, "route": "hello"}, "/delay_ms"),
    ({"delay_ms": limits.TIME_MS_MAX, "route": "hello"}, "/delay_ms"),
    ({"delay_ms": "1", "route": "hello"}, "/delay_ms"),
    ({"delay_ms": 1, "route": ""}, "/route"),
    ({"delay_ms": 1, "route": "../x"}, "/route"),
    ({"delay_ms": 1, "route": 7}, "/route"),
    ({"delay_ms": 1, "route": "hello", "id": 7}, "/id"),
    ({"delay_ms": 1, "route": "hello", "tags": "x"}, "/tags"),
    ({"delay_ms": 1, "route": "hello", "tags": [""]}, "/tags/0"),
    ({"delay_ms": 1, "route": "hello", "tags": ["ok", 7]}, "/tags/1"),
    ({"delay_ms": 1, "route": "hello", "tags": ["x" * 65]}, "/tags/0"),
    ({"delay_ms": 1, "route": "hello", "tags": [str(n) for n in range(17)]}, "/tags"),
    ({"delay_ms": 1, "route": "hello", "ordering_key": ""}, "/ordering_key"),
    ({"delay_ms": 1, "route": "hello", "metta": 1}, "/metta"),
    ({"delay_ms": 1, "route": "hello", "a/b~c": 1}, "/a~1b~0c"),
    ({"delay_ms": 1, "route": "hello", "state": "dead"}, "/state"),
    ([], ""),
    (b"", ""),
    (b"{", ""),
    (b'{"route":"\xff"}', ""),
    (b'{"delay_ms":1,"route":"hello"}x', ""),
]


@pytest.mark.parametrize(("body", "pointer"), BAD_BODIES)
async def test_bad_bodies_are_pointed_at(api: Api, body: Any, pointer: str) -> None:
    """A body that is wrong is 400, with a JSON pointer to the member."""
    reply = await post(api, body)
    assert (400, "invalid_request", [pointer]) == (reply.status, reply.code, reply.pointers)


@pytest.mark.parametrize(
    ("text", "time_ms"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2022-11-05T14:42:22.626Z", 1_667_659_342_626),
        ("2022-11-05t16:42:22.6269999+02:00", 1_667_659_342_626),
        ("9999-12-31T23:59:59.999Z", limits.TIME_MS_MAX),
    ],
)
async def test_times_as_text(api: Api, text: str, time_ms: int) -> None:
    """RFC 3339 with an offset is taken wherever a time is."""
    reply = await api.ask("PUT", f"{JOBS}/t", {"trigger_time": text, "route": "hello"})
    assert (201, time_ms) == (reply.status, reply.json["trigger_time"])


async def test_missing_route(api: Api) -> None:
    """A job may name a route that does not exist only when it is told so."""
    body = {"id": "a", "trigger_time": FAR_MS, "route": "later"}
    refused = await post(api, body)
    assert (409, "route_not_found") == (refused.status, refused.code)
    made = await api.ask("POST", f"{JOBS}?allow_missing_route=true", body)
    assert (201, "later") == (made.status, made.json["route"])


async def test_unknown_places(api: Api) -> None:
    """404 says what is missing."""
    for path, code in (
        ("/v1/dbs/nope/collections/carts/jobs/a", "database_not_found"),
        ("/v1/dbs/default/collections/nope/jobs/a", "collection_not_found"),
        (f"{JOBS}/nope", "job_not_found"),
        (f"{JOBS}/nope/attempts", "job_not_found"),
        (f"{JOBS}/a/nope", "not_found"),
        (f"{JOBS}/", "job_not_found"),
    ):
        reply = await api.ask("GET", path)
        if path.endswith("/"):
            assert 400 == reply.status
        else:
            assert (404, code) == (reply.status, reply.code)


async def fill(api: Api) -> None:
    """Ten jobs in a known order, some of them ended."""
    await api.ask("PUT", ROUTE.replace("hello", "other"), {"webhook_url": "http://two.example/"})
    for number in range(10):
        route = "other" if number % 5 == 4 else "hello"
        body = {"id": f"j{number}", "trigger_time": FAR_MS + number // 2, "route": route}
        assert 201 == (await post(api, body)).status
    for number in (1, 4):
        await api.ask("DELETE", f"{JOBS}/j{number}")


async def listed(api: Api, query: str) -> list[str]:
    """The ids of a list, over all its pages."""
    found: list[str] = []
    cursor = ""
    while True:
        reply = await api.ask("GET", f"{JOBS}?{query}{cursor}")
        assert 200 == reply.status, reply.body
        found += [job["id"] for job in reply.json["items"]]
        if reply.json["next_cursor"] is None:
            return found
        cursor = f"&cursor={reply.json['next_cursor']}"


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("", range(10)),
        ("limit=1", range(10)),
        ("limit=5", range(10)),
        ("limit=3&state=scheduled", [0, 2, 3, 5, 6, 7, 8, 9]),
        ("state=cancelled", [1, 4]),
        ("state=cancelled,scheduled&limit=4", range(10)),
        ("route=other", [4, 9]),
        ("route=other&state=scheduled", [9]),
        ("route=other&state=cancelled", [4]),
        ("route=nobody", []),
        (f"from={FAR_MS + 1}&to={FAR_MS + 3}", [2, 3, 4, 5]),
        (f"from={FAR_MS + 1}&to={FAR_MS + 3}&route=hello&limit=1", [2, 3, 5]),
        ("from=2096-10-02T07:06:40.004Z&consistency=stale", [8, 9]),
    ],
)
async def test_lists(api: Api, query: str, numbers: list[int]) -> None:
    """Lists come in trigger order over all vnodes, filtered, page by page."""
    await fill(api)
    assert [f"j{number}" for number in numbers] == await listed(api, query)


async def test_route_filter_goes_by_name(api: Api) -> None:
    """Jobs of a route that was deleted are found under its name, also after it came back."""
    await fill(api)
    assert 409 == (await api.ask("DELETE", ROUTE)).status
    await api.ask("DELETE", f"{ROUTE}?force=true")
    await settled(api, "j0", "dead")
    assert 8 == len(await listed(api, "route=hello&limit=3"))
    await api.ask("PUT", ROUTE, {"webhook_url": "http://one.example/"})
    assert "route_deleted" == (await settled(api, "j0", "dead"))["reason"]
    assert "j0" in await listed(api, "route=hello&state=dead")
    assert [] == await listed(api, "route=hello&state=scheduled")


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=x",
        "state=",
        "state=sleeping",
        "state=scheduled,",
        "from=yesterday",
        "to=-1",
        "cursor=!",
        "cursor=AAAAAAAAAAAA",
        "tag=",
        "colour=red",
        "limit=1&limit=2",
        "consistency=maybe",
        "route=%ff",
    ],
)
async def test_bad_queries(api: Api, query: str) -> None:
    """A parameter that is unknown or wrong is 400 and named."""
    reply = await api.ask("GET", f"{JOBS}?{query}")
    assert 400 == reply.status
    assert query.partition("=")[0] in reply.json["detail"] or "query" in reply.json["detail"]


async def test_lists_by_tag_follow_what_becomes_of_a_job(api: Api) -> None:
    """Tags that were taken away, times that moved, states and routes beside the tag."""
    for number, tags in enumerate((["a"], ["a", "b"], ["b"], [], ["é x"])):
        body = {"id": f"j{number}", "trigger_time": FAR_MS + number, "route": "hello", "tags": tags}
        assert 201 == (await post(api, body)).status
    assert ["j0", "j1"] == await listed(api, "tag=a&limit=1")
    assert ["j1", "j2"] == await listed(api, "tag=b")
    assert ["j4"] == await listed(api, "tag=%C3%A9+x")
    assert ["j1"] == await listed(api, f"tag=a&route=hello&from={FAR_MS + 1}")
    assert [] == await listed(api, "tag=a&route=other")
    await api.ask("PATCH", f"{JOBS}/j0", {"trigger_time": FAR_MS + 9})
    assert ["j1", "j0"] == await listed(api, "tag=a")
    await api.ask("PATCH", f"{JOBS}/j1", {"tags": ["b", "c"]})
    assert ["j0"] == await listed(api, "tag=a")
    assert ["j1"] == await listed(api, "tag=c")
    await api.ask("DELETE", f"{JOBS}/j1")
    assert ["j1"] == await listed(api, "tag=b&state=cancelled")
    await api.ask("DELETE", f"{JOBS}/j2?purge=true")
    assert ["j1"] == await listed(api, "tag=b")


async def test_cursor_belongs_to_its_list(api: Api) -> None:
    """A cursor of one list is refused by another."""
    await fill(api)
    cursor = (await api.ask("GET", f"{JOBS}?limit=1")).json["next_cursor"]
    assert 200 == (await api.ask("GET", f"{JOBS}?limit=5&cursor={cursor}")).status
    other = await api.ask("GET", f"{JOBS}?limit=1&state=scheduled&cursor={cursor}")
    assert (400, ["?cursor"]) == (other.status, other.pointers)
    databases = await api.ask("GET", f"/v1/dbs?cursor={cursor}")
    assert 400 == databases.status


async def test_cursor_that_somebody_made_up_is_refused(api: Api) -> None:
    """No time is negative, and no place."""
    await fill(api)
    collection = api.engine.meta.collections["default", "carts"]
    scopes = {
        JOBS: (f"jobs/{collection.uid}/{[None] * 5}", (-1, "j1")),
        "/v1/tasks": ("tasks", (-1, "t")),
        f"{JOBS}/j1/attempts": (f"attempts/{collection.uid}/j1", (-1,)),
    }
    for path, (scope, position) in scopes.items():
        reply = await api.ask("GET", f"{path}?cursor={write_cursor(position, scope)}")
        assert (400, ["?cursor"]) == (reply.status, reply.pointers), path


async def test_counts_by_state(api: Api) -> None:
    """A collection tells how many jobs it has in each state."""
    await fill(api)
    counts = (await api.ask("GET", JOBS.removesuffix("/jobs"))).json["counts"]
    assert {state.text for state in JobState} == set(counts)
    assert (8, 2) == (counts["scheduled"], counts["cancelled"])


async def test_a_job_explains_why_it_was_late(api: Api) -> None:
    """Only when it is asked; with what happened by whom, and where the time went."""
    await api.ask("POST", f"{ROUTE}/pause")
    await api.ask("PUT", f"{JOBS}/late", {"trigger_time": 1, "route": "hello"})
    await settled(api, "late", "held")
    held = (await api.ask("GET", f"{JOBS}/late?explain=true")).json["explanation"]
    assert held["sentence"].endswith("passed before this version was created.")
    assert ("wait", "route") == tuple(held["phases"][-1][name] for name in ("phase", "reason"))
    await api.ask("POST", f"{ROUTE}/resume")
    job = await settled(api, "late", "delivered")
    assert "explanation" not in job
    explained = (await api.ask("GET", f"{JOBS}/late?explain=true")).json
    told = explained.pop("explanation")
    assert job == explained
    (attempt,) = (await api.ask("GET", f"{JOBS}/late/attempts")).json["items"]
    assert "route" == attempt["held_up"]
    names = ["due", "accepted", "claimed", "sent", "answered", "settled"]
    assert names == [each["step"] for each in told["steps"]]
    accepted, by = told["steps"][1], told["steps"][2:]
    assert {(attempt["node"], attempt["term"])} == {
        (each["node"], each["term"]) for each in (accepted, *by)
    }
    assert [attempt[f"{each}_time"] for each in ("claimed", "started", "ended", "settled")] == [
        each["time"] for each in by
    ]
    assert told["late_ms"] == attempt["started_time"] - 1
    assert ["accept", "wait"] == [each["phase"] for each in told["phases"]][:2]
    assert "route" == told["phases"][1]["reason"]
    reply = await api.ask("GET", f"{JOBS}/nobody?explain=true")
    assert (404, "job_not_found") == (reply.status, reply.code)
