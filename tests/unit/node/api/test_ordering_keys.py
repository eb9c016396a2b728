"""Ordering keys over HTTP: where such jobs are found, and when they are sent."""

import asyncio
import re
from typing import Any

import pytest

from tests.unit.node.api.harness import FAR_MS, JOBS, Api
from tests.unit.node.api.test_jobs import post, settled
from tests.unit.node.api.three import three
from timemachine import limits
from timemachine.outbound import Outcome
from timemachine.replica.idfilter import IdFilter
from timemachine.ring import vnode_of

JOB = {"id": "a", "trigger_time": FAR_MS, "route": "hello", "meta": 1, "ordering_key": "cart/é 7"}
OK = Outcome(status=200, bytes_sent=True)
FAILED = Outcome(status=503, bytes_sent=True)
IDS = ["a", "b", "c", "d", "e", "f"]


async def test_a_job_with_a_key_is_found_by_its_id(api: Api) -> None:
    """Whatever its id: it lives in the vnode of its key, and every operation finds it there."""
    for job_id in IDS:
        made = await post(api, JOB | {"id": job_id})
        assert (201, "cart/é 7") == (made.status, made.json["ordering_key"])
        assert vnode_of("cart/é 7", 3) == made.json["vnode"]
        url = f"{JOBS}/{job_id}"
        assert made.json == (await api.ask("GET", url)).json
        changed = await api.ask("PATCH", url, {"tags": ["x"]})
        assert (200, 2, ["x"]) == (changed.status, changed.json["version"], changed.json["tags"])
        assert "cart/é 7" == changed.json["ordering_key"]
        put = await api.ask("PUT", url, JOB | {"id": job_id, "meta": 2})
        assert (200, 3, 2) == (put.status, put.json["version"], put.json["meta"])
        assert [] == (await api.ask("GET", f"{url}/attempts")).json["items"]
        told = (await api.ask("GET", f"{url}?explain=true")).json["explanation"]
        assert told["sentence"].startswith("It is due in")
    listed = (await api.ask("GET", f"{JOBS}?limit=50")).json["items"]
    assert IDS == [each["id"] for each in listed]
    assert {"cart/é 7"} == {each["ordering_key"] for each in listed}
    assert {vnode_of("cart/é 7", 3)} == {each["vnode"] for each in listed}
    for job_id in IDS:
        gone = await api.ask("DELETE", f"{JOBS}/{job_id}?purge=true")
        assert (200, "cancelled") == (gone.status, gone.json["outcome"])
        assert 404 == (await api.ask("GET", f"{JOBS}/{job_id}")).status


async def test_a_repeat_meets_the_job_that_it_made(api: Api) -> None:
    """By its id, by its Idempotency-Key, and with PUT as well."""
    first = await post(api, JOB, Idempotency_Key="k")
    again = await post(api, JOB, Idempotency_Key="k")
    assert (201, first.json) == (again.status, again.json)
    equal = await post(api, JOB)
    assert (200, first.json) == (equal.status, equal.json)
    nameless = {name: value for name, value in JOB.items() if name != "id"}
    made = [await post(api, nameless, Idempotency_Key="n") for _ in range(2)]
    assert made[0].json == made[1].json
    assert 422 == (await post(api, nameless | {"meta": 2}, Idempotency_Key="n")).status
    assert 409 == (await post(api, nameless | {"ordering_key": "o"}, Idempotency_Key="n")).status
    put = await api.ask("PUT", f"{JOBS}/a", JOB)
    assert (200, 1) == (put.status, put.json["version"])
    new = await api.ask("PUT", f"{JOBS}/new", JOB | {"id": "new"})
    assert (201, "cart/é 7") == (new.status, new.json["ordering_key"])
    assert (
        412
        == (
            await api.ask("PUT", f"{JOBS}/z", JOB | {"id": "z"}, headers={"If-Match": '"1"'})
        ).status
    )


@pytest.mark.parametrize("other", [None, "other"])
async def test_the_key_of_a_job_cannot_be_changed(api: Api, other: str | None) -> None:
    """Neither by PUT nor by PATCH; nor does a POST make another job of the id."""
    for job_id in IDS:
        url = f"{JOBS}/{job_id}"
        await post(api, JOB | {"id": job_id})
        for method in ("PUT", "PATCH"):
            reply = await api.ask(method, url, JOB | {"id": job_id, "ordering_key": other})
            assert (409, "ordering_key_fixed") == (reply.status, reply.code)
        reply = await post(api, JOB | {"id": job_id, "ordering_key": other})
        assert (409, "job_exists") == (reply.status, reply.code)
        assert 1 == (await api.ask("GET", url)).json["version"]
        assert 200 == (await api.ask("PATCH", url, {"ordering_key": "cart/é 7"})).status
        # Nor does one that has none get one.
        plain = f"plain-{job_id}"
        await post(api, JOB | {"id": plain, "ordering_key": None})
        for method in ("PUT", "PATCH"):
            reply = await api.ask(method, f"{JOBS}/{plain}", JOB | {"id": plain})
            assert (409, "ordering_key_fixed") == (reply.status, reply.code)
        assert (409, "job_exists") == ((r := await post(api, JOB | {"id": plain})).status, r.code)
        assert 200 == (await api.ask("PATCH", f"{JOBS}/{plain}", {"ordering_key": None})).status


@pytest.mark.parametrize("key", ["", "x" * 257, "a\nb", "é" * 129, "\x80"])
async def test_a_key_within_its_limits(api: Api, key: str) -> None:
    """1 to 256 bytes without control characters."""
    reply = await post(api, JOB | {"ordering_key": key})
    assert (400, "/ordering_key") == (reply.status, reply.pointers[0])
    assert (
        201 == (await post(api, JOB | {"ordering_key": "x" * limits.ORDERING_KEY_BYTES_MAX})).status
    )


async def test_jobs_of_a_batch_stay_in_their_order(api: Api) -> None:
    """Those with the same trigger time are sent as they stand in it."""
    jobs: list[Any] = [
        {"id": f"j{n}", "trigger_time": 1, "route": "hello", "meta": n, "ordering_key": "k"}
        for n in (5, 2, 9, 1, 7)
    ]
    # Of two jobs with one id, the one with a key is first.
    jobs.insert(2, {"id": "plain", "trigger_time": FAR_MS, "route": "hello"})
    jobs.insert(4, {"id": "plain", "trigger_time": FAR_MS, "route": "hello", "ordering_key": "k"})
    reply = await api.ask("POST", f"{JOBS}/batch", jobs)
    assert [201, 201, 409, 201, 201, 201, 201] == [each["status"] for each in reply.json["items"]]
    for number in (5, 2, 9, 1, 7):
        await settled(api, f"j{number}", "delivered")
    assert [b"5", b"2", b"9", b"1", b"7"] == [sent_meta(each) for each in api.recipient.received]


def sent_meta(request: Any) -> bytes:
    """The meta of a job, as it was sent."""
    found: bytes = re.search(rb'"meta":([^,}]*)', request.body)[1]  # type: ignore[index]
    return found


async def test_an_earlier_job_holds_up_those_behind_it() -> None:
    """Until it has ended; the explanation says so. On three nodes, asked at any of them."""
    async with three() as nodes:
        asked = nodes.apis[1]
        for number in (1, 2, 3):
            nodes.apis[number].recipient.answer = FAILED
        for number, job_id in enumerate(IDS):
            body = {"id": job_id, "trigger_time": 1 + number, "route": "hello", "ordering_key": "k"}
            reply = await nodes.apis[1 + number % 3].ask("POST", JOBS, body)
            assert 201 == reply.status
        first = await settled(asked, "a", "retrying")
        assert 1 == first["attempts"]
        for number, job_id in enumerate(IDS[1:]):
            job = (
                await nodes.apis[1 + number % 3].ask("GET", f"{JOBS}/{job_id}?explain=true")
            ).json
            assert ("scheduled", 0) == (job["state"], job["attempts"])
            told = job["explanation"]
            assert ("behind", "job a") in [(step["step"], step["detail"]) for step in told["steps"]]
            assert {"order"} == {each["reason"] for each in told["phases"] if each["reason"]}
        for api in nodes.apis.values():
            api.recipient.answer = OK
        assert 200 == (await nodes.apis[2].ask("POST", f"{JOBS}/a/run")).status
        for number, job_id in enumerate(IDS):
            await settled(nodes.apis[1 + number % 3], job_id, "delivered")
        last = (await asked.ask("GET", f"{JOBS}/f?explain=true")).json
        assert "job e" in str(last["explanation"]["steps"])
        assert 200 == (await nodes.apis[3].ask("DELETE", f"{JOBS}/f")).status
        assert 404 == (await nodes.apis[3].ask("GET", f"{JOBS}/other")).status


async def test_an_id_is_free_some_time_after_its_job_was_purged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The aliases of jobs that are there stay, wherever they are; asked at any node."""
    monkeypatch.setattr(limits, "ALIAS_KEPT_MS", 300)
    async with three() as nodes:
        for job_id in IDS:
            assert 201 == (await post(nodes.apis[1], JOB | {"id": job_id})).status
        for job_id in IDS[1:]:
            gone = await nodes.apis[2].ask("DELETE", f"{JOBS}/{job_id}?purge=true")
            assert 200 == gone.status
        plain = JOB | {"ordering_key": None}
        assert (409, "job_exists") == ((r := await post(nodes.apis[3], plain)).status, r.code)
        async with asyncio.timeout(30):
            for job_id in IDS[1:]:
                while 409 == (await post(nodes.apis[3], plain | {"id": job_id})).status:
                    await asyncio.sleep(0.1)
        assert 409 == (await post(nodes.apis[3], plain)).status
        for job_id in IDS:
            found = await nodes.apis[2].ask("GET", f"{JOBS}/{job_id}")
            key = "cart/é 7" if job_id == "a" else None
            assert (200, key) == (found.status, found.json["ordering_key"])


async def test_jobs_are_found_after_a_restart(api: Api) -> None:
    """What a node learns anew of which ids may be there knows those of aliases, too."""
    for job_id in IDS:
        await post(api, JOB | {"id": job_id})
    for group, vnode in api.engine.runtime.vnodes.items():
        if group[0]:
            vnode.machine.ids = IdFilter(complete=False)  # type: ignore[attr-defined]
            api.engine._learning.add(vnode)
    while not all(
        vnode.machine.ids.complete  # type: ignore[attr-defined]
        for group, vnode in api.engine.runtime.vnodes.items()
        if group[0]
    ):
        await asyncio.sleep(0.01)
    for job_id in IDS:
        assert 409 == (await post(api, JOB | {"id": job_id, "ordering_key": None})).status
