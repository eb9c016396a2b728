"""Every node is asked everything, and answers as the leader would."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from tests.unit.node.api.harness import FAR_MS, JOBS, Reply
from tests.unit.node.api.three import COLLECTION, NUMBERS, Three, three

JOB = {"route": "hello", "trigger_time": FAR_MS, "meta": {"n": 1}}


@pytest.fixture
async def nodes() -> AsyncIterator[Three]:
    """A cluster to ask."""
    async with three() as made:
        yield made


async def _same(nodes: Three, method: str, path: str, **more: Any) -> Reply:
    """What all nodes answer to a read."""
    replies = [await nodes.apis[number].ask(method, path, **more) for number in NUMBERS]
    assert 1 == len({(reply.status, reply.body) for reply in replies}), replies
    assert 1 == len({reply.headers.get("etag") for reply in replies})
    return replies[0]


async def test_every_node_does_everything_with_a_job(nodes: Three) -> None:
    """Whoever leads its vnode; and every other node reads at once what was written."""
    leaders = set()
    for number in NUMBERS:
        api = nodes.apis[number]
        for other in range(6):
            job = f"{number}-{other}"
            path = f"{JOBS}/{job}"
            leaders.add(await nodes.led(nodes.group(job)))
            made = await api.ask("POST", JOBS, {"id": job, **JOB})
            assert (201, path) == (made.status, made.headers["location"])
            assert 200 == (await api.ask("POST", JOBS, {"id": job, **JOB})).status
            assert 409 == (await api.ask("POST", JOBS, {"id": job, **JOB, "meta": 2})).status
            assert made.json == (await _same(nodes, "GET", path)).json
            put = await api.ask("PUT", path, {**JOB, "meta": 2}, headers={"If-Match": '"1"'})
            assert (200, 2, "replaced") == (
                put.status,
                put.json["version"],
                put.json["previous"]["outcome"],
            )
            stale = await api.ask("PUT", path, JOB, headers={"If-Match": '"1"'})
            assert (412, "precondition_failed") == (stale.status, stale.code)
            assert 3 == (await api.ask("PATCH", path, {"tags": ["x"]})).json["version"]
            assert '"3"' == (await _same(nodes, "GET", path)).headers["etag"]
            gone = await api.ask("DELETE", path)
            assert (200, "cancelled") == (gone.status, gone.json["outcome"])
            assert "cancelled" == (await _same(nodes, "GET", path)).json["state"]
    assert set(NUMBERS) == leaders
    never = await _same(nodes, "GET", f"{JOBS}/never")
    assert (404, "job_not_found") == (never.status, never.code)
    counts = (await _same(nodes, "GET", COLLECTION)).json["counts"]
    assert 18 == counts["cancelled"]


async def test_a_job_is_run_and_its_attempts_are_read_anywhere(nodes: Three) -> None:
    """The leader sends it, once."""
    for number in NUMBERS:
        api = nodes.apis[number]
        job = f"run-{number}"
        await api.ask("PUT", f"{JOBS}/{job}", JOB)
        assert 200 == (await api.ask("POST", f"{JOBS}/{job}/run")).status
        while (await api.ask("GET", f"{JOBS}/{job}")).json["state"] != "delivered":
            pass
        attempts = (await _same(nodes, "GET", f"{JOBS}/{job}/attempts")).json["items"]
        assert [(1, "succeeded")] == [(each["attempt"], each["status"]) for each in attempts]
        refused = await api.ask("POST", f"{JOBS}/{job}/run")
        assert (409, "job_finished") == (refused.status, refused.code)
        forced = await api.ask("POST", f"{JOBS}/{job}/redrive?force=true")
        assert 202 == forced.status
        removed = await api.ask("DELETE", f"{JOBS}/{job}/attempts/1/content")
        assert 204 == removed.status
    sent = [request for api in nodes.apis.values() for request in api.recipient.received]
    assert len(sent) >= 3


async def test_every_node_takes_batches(nodes: Three) -> None:
    """JSON and NDJSON, items in order, each for itself."""
    for number in NUMBERS:
        api = nodes.apis[number]
        jobs = [{"id": f"b{number}-{each}", **JOB} for each in range(50)]
        jobs[7] = {"id": "x", "route": "nobody", "trigger_time": 1}
        reply = await api.ask("POST", f"{JOBS}/batch", jobs)
        assert (49, 1) == (reply.json["created"], reply.json["failed"])
        assert "route_not_found" == reply.json["items"][7]["error"]["code"]
        ids = [item["job"]["id"] for item in reply.json["items"] if "job" in item]
        assert [job["id"] for job in jobs if job["id"] != "x"] == ids
        lines = b"\n".join(msgspec.json.encode(job) for job in jobs)
        again = await api.ask(
            "POST", f"{JOBS}/batch", lines, headers={"Content-Type": "application/x-ndjson"}
        )
        statuses = [msgspec.json.decode(line)["status"] for line in again.body.splitlines()]
        assert [200] * 7 + [409] + [200] * 42 == statuses
    listed = (await _same(nodes, "GET", f"{JOBS}?limit=1000")).json["items"]
    assert 147 == len(listed)


async def test_a_key_is_known_by_every_node_and_after_a_change_of_leader(nodes: Three) -> None:
    """The first answer is given again, wherever one asks; another request is refused."""
    key = {"Idempotency-Key": "k"}
    asked: list[tuple[str, str, Any, int]] = [
        ("POST", JOBS, JOB, 201),
        ("PUT", f"{JOBS}/a", {"route": "hello", "delay_ms": 3_600_000}, 201),
        ("PATCH", f"{JOBS}/a", {"meta": 7}, 200),
        ("POST", f"{JOBS}/a/run", None, 200),
        ("DELETE", f"{JOBS}/a", None, 200),
        ("PUT", "/v1/dbs/shop", {}, 201),
        ("PUT", "/v1/dbs/shop/collections/c", {"num_vnodes": 1}, 201),
        ("PUT", "/v1/dbs/shop/routes/r", {"webhook_url": "http://one.example/x"}, 201),
    ]
    first = []
    for place, (method, path, body, status) in enumerate(asked):
        headers = {"Idempotency-Key": f"k{place}"}
        reply = await nodes.apis[1 + place % 3].ask(method, path, body, headers=headers)
        assert (status, False) == (reply.status, "idempotent-replayed" in reply.headers), path
        first.append(reply)
    for change in (False, True):
        if change:
            for group in list(nodes.apis[1].engine.runtime.vnodes):
                leader = await nodes.led(group)
                api = nodes.apis[leader]
                to = nodes.others(leader)[group[1] % 2]
                vnode = api.engine.runtime.vnodes[group]
                api.engine.hand_over(vnode, to, lambda _: None)
        for place, (method, path, body, status) in enumerate(asked):
            headers = {"Idempotency-Key": f"k{place}"}
            for number in NUMBERS:
                reply = await nodes.apis[number].ask(method, path, body, headers=headers)
                assert (status, "true") == (reply.status, reply.headers["idempotent-replayed"])
                assert (
                    first[place].json["version" if "version" in reply.json else "name"]
                    == (reply.json["version" if "version" in reply.json else "name"])
                )
    other = await nodes.apis[2].ask("PUT", f"{JOBS}/b", JOB, headers=key)
    assert 201 == other.status
    reused = await nodes.apis[3].ask("PUT", f"{JOBS}/b", {**JOB, "meta": 3}, headers=key)
    assert (422, "idempotency_key_reused") == (reused.status, reused.code)


async def test_what_one_node_makes_of_meta_every_other_uses_at_once(nodes: Three) -> None:
    """Databases, collections, routes, settings, tasks; whichever node was asked before."""
    for number in NUMBERS:
        api, next_, last = (nodes.apis[1 + (number + step) % 3] for step in range(3))
        db = f"/v1/dbs/db{number}"
        assert 201 == (await api.ask("PUT", db)).status
        assert 200 == (await next_.ask("GET", db)).status
        assert 201 == (await next_.ask("PUT", f"{db}/collections/c", {"num_vnodes": 2})).status
        route = {"webhook_url": "http://one.example/x"}
        assert 201 == (await last.ask("PUT", f"{db}/routes/r", route)).status
        job = {"id": "j", "route": "r", "trigger_time": FAR_MS}
        assert 201 == (await api.ask("POST", f"{db}/collections/c/jobs", job)).status
        batch = await next_.ask("POST", f"{db}/collections/c/jobs/batch", [{**job, "id": "k"}])
        assert 1 == batch.json["created"]
        paused = await last.ask("POST", f"{db}/routes/r/pause")
        assert 200 == paused.status
        assert "paused" == (await _same(nodes, "GET", f"{db}/routes/r")).json["state"]
        begun = await api.ask("POST", f"{db}/collections/c/jobs/cancel", {"filter": {}})
        assert 202 == begun.status
        task = f"/v1/tasks/{begun.json['task']}"
        while (await next_.ask("GET", task)).json["state"] == "running":
            pass
        assert 2 == (await last.ask("GET", task)).json["result"]["cancelled"]
        assert 200 == (await api.ask("DELETE", f"{db}?force=true")).status
        gone = await _same(nodes, "GET", f"{db}/collections/c")
        assert (404, "database_not_found") == (gone.status, gone.code)
        settings = {"allowed_private_cidrs": [f"10.{number}.0.0/16"], "allowed_ports": [number]}
        assert 200 == (await next_.ask("PUT", "/v1/cluster/settings", settings)).status
        assert settings == (await _same(nodes, "GET", "/v1/cluster/settings")).json


async def test_the_original_paths_are_served_by_every_node(nodes: Three) -> None:
    """Collections are made on their first use, by whichever node was asked."""
    for number in NUMBERS:
        api, other = nodes.apis[number], nodes.apis[1 + number % 3]
        route = {"id": f"r{number}", "type": "REST", "webhook_url": "http://one.example/x"}
        assert 200 == (await api.ask("POST", "/route/default", route)).status
        job = {"id": "j", "route": f"r{number}", "trigger_time": FAR_MS, "meta": 1}
        path = f"/job/default/new{number}"
        assert 200 == (await other.ask("POST", path, job)).status
        assert 200 == (await api.ask("POST", path, {**job, "meta": 2})).status
        found = (await _same(nodes, "GET", f"{path}/j")).json
        assert (2, "j") == (found["meta"], found["id"])
        assert 200 == (await api.ask("DELETE", f"{path}/j")).status
        unnamed = {"route": f"r{number}", "trigger_time": FAR_MS}
        assert 200 == (await other.ask("POST", path, unnamed)).status


async def test_messagepack_goes_through_every_node(nodes: Three) -> None:
    """In and out, for what is answered here and elsewhere."""
    kind = {"Content-Type": "application/msgpack", "Accept": "application/msgpack"}
    for number in NUMBERS:
        api = nodes.apis[number]
        for job in ("a", "b", "c", "d"):
            body = msgspec.msgpack.encode({**JOB, "meta": [number]})
            reply = await api.ask("PUT", f"{JOBS}/{job}", body, headers=kind)
            assert [number] == msgspec.msgpack.decode(reply.body)["meta"]
