"""What became of a route's jobs, over HTTP."""

import asyncio
from base64 import urlsafe_b64decode
from typing import Any

import msgspec

from node.api.paging import write_cursor
from tests.unit.node.api.harness import JOBS, ROUTE, Api
from tests.unit.node.api.test_jobs import settled
from timemachine.outbound import Outcome

FAILURE = Outcome(status=500, body=b"no", headers={"x-why": "db"}, bytes_sent=True)


async def _fire(api: Api, job_id: str, outcome: Outcome, state: str) -> dict[str, Any]:
    api.recipient.answer = outcome
    body = {"trigger_time": 1, "route": "hello"}
    assert 201 == (await api.ask("PUT", f"{JOBS}/{job_id}", body)).status
    job = await settled(api, job_id, state)
    # Of attempts that end in one millisecond, none is the newer.
    ended_ms = api.world.wall_ms()
    while api.world.wall_ms() == ended_ms:
        await asyncio.sleep(0)
    return job


async def _all(api: Api, path: str, limit: int) -> list[Any]:
    items: list[Any] = []
    cursor = ""
    while True:
        page = (await api.ask("GET", f"{path}?limit={limit}{cursor}")).json
        items += page["items"]
        if page["next_cursor"] is None:
            return items
        assert limit == len(page["items"])
        cursor = f"&cursor={page['next_cursor']}"


async def test_stats_say_what_waits_and_how_it_went(api: Api) -> None:
    """Counts since the start, the last success and the last failure."""
    before = (await api.ask("GET", f"{ROUTE}/stats")).json
    assert ("active", 0, 0, 0) == tuple(
        before[name] for name in ("state", "pending", "succeeded", "failed")
    )
    assert before["last_success_time"] is before["last_failure"] is None
    await _fire(api, "good", Outcome(status=200, bytes_sent=True), "delivered")
    await _fire(api, "bad", FAILURE, "retrying")
    stats = (await api.ask("GET", f"{ROUTE}/stats")).json
    assert (1, 1, 1, 0) == tuple(
        stats[name] for name in ("succeeded", "failed", "pending", "in_flight")
    )
    assert "The recipient answered 500." == stats["last_failure"]
    assert stats["since_time"] <= stats["last_success_time"] <= stats["last_failure_time"]
    await api.ask("POST", f"{ROUTE}/pause")
    assert "paused" == (await api.ask("GET", f"{ROUTE}/stats")).json["state"]
    reply = await api.ask("GET", ROUTE.replace("hello", "nobody") + "/stats")
    assert (404, "route_not_found") == (reply.status, reply.code)


async def test_attempts_of_a_route_come_newest_first_by_pages(api: Api) -> None:
    """Those of all vnodes and jobs, each once, with the job that it was for."""
    for number in range(7):
        await _fire(api, f"j{number}", Outcome(status=200, bytes_sent=True), "delivered")
    await _fire(api, "bad", FAILURE, "retrying")
    every = await _all(api, f"{ROUTE}/attempts", 100)
    names = ["bad", *(f"j{number}" for number in reversed(range(7)))]
    assert names == [attempt["job_id"] for attempt in every]
    assert ("failed", 500, "no") == tuple(
        every[0][name] for name in ("status", "response_status", "response_body")
    )
    job = (await api.ask("GET", f"{JOBS}/j6")).json
    assert (job["webhook_id"], "default", "carts") == tuple(
        every[1][name] for name in ("webhook_id", "db", "collection")
    )
    for limit in (1, 3):
        assert every == await _all(api, f"{ROUTE}/attempts", limit)
    assert 200 == (await api.ask("DELETE", f"{JOBS}/j3?purge=true")).status
    left = await _all(api, f"{ROUTE}/attempts", 2)
    assert [name for name in names if name != "j3"] == [each["job_id"] for each in left]


async def test_attempts_of_many_at_once_are_parted_by_pages(api: Api) -> None:
    """Those that were settled together too."""
    jobs = [{"id": f"j{number}", "trigger_time": 1, "route": "hello"} for number in range(60)]
    await api.ask("POST", f"{JOBS}/batch", jobs)
    for number in range(60):
        await settled(api, f"j{number}", "delivered")
    every = [each["job_id"] for each in await _all(api, f"{ROUTE}/attempts", 1000)]
    assert {job["id"] for job in jobs} == set(every)
    assert 60 == len(every)
    for limit in (1, 7):
        paged = await _all(api, f"{ROUTE}/attempts", limit)
        assert every == [each["job_id"] for each in paged]


async def test_attempts_are_forgotten_with_their_time(api: Api) -> None:
    """No row of them is left when their jobs are forgotten."""
    await _fire(api, "j", Outcome(status=200, bytes_sent=True), "delivered")
    keys = [vnode.keys for vnodes in api.engine._vnodes.values() for vnode in vnodes.values()]

    def rows() -> int:
        return sum(len(api.store.scan(k.route_attempts, k.prefix + b"z", 10)) for k in keys)

    assert 1 == rows()
    await api.ask("PUT", JOBS.removesuffix("/jobs"), {"history_retention_ms": 1})
    while rows():
        await asyncio.sleep(0.05)
    assert [] == (await api.ask("GET", f"{ROUTE}/attempts")).json["items"]


async def test_what_was_answered_can_be_removed(api: Api) -> None:
    """Of one attempt; that it was made stays known."""
    await _fire(api, "bad", FAILURE, "retrying")
    await api.ask("POST", f"{JOBS}/bad/run")
    while len(attempts := (await api.ask("GET", f"{JOBS}/bad/attempts")).json["items"]) < 2:
        await asyncio.sleep(0.005)
    assert ["no", "no"] == [attempt["response_body"] for attempt in attempts]
    path = f"{JOBS}/bad/attempts/1/content"
    reply = await api.ask("DELETE", path)
    assert (204, b"") == (reply.status, reply.body)
    first, second = (await api.ask("GET", f"{JOBS}/bad/attempts")).json["items"]
    assert ("", {}, True, 500) == tuple(
        first[name]
        for name in ("response_body", "response_headers", "content_removed", "response_status")
    )
    assert ("no", {"x-why": "db"}, False) == tuple(
        second[name] for name in ("response_body", "response_headers", "content_removed")
    )
    assert 204 == (await api.ask("DELETE", path)).status, "again is as well"
    for other, code in (
        (path.replace("/1/", "/9/"), "attempt_not_found"),
        (path.replace("/1/", "/x/"), "attempt_not_found"),
        (f"{path}?version=2", "attempt_not_found"),
        (path.replace("bad", "nobody"), "job_not_found"),
    ):
        reply = await api.ask("DELETE", other)
        assert (404, code) == (reply.status, reply.code), other


async def test_a_number_that_no_attempt_can_have_is_not_found(api: Api) -> None:
    """However long it is: Python makes no integer of thousands of digits."""
    await _fire(api, "bad", FAILURE, "retrying")
    for number in ("9" * 5_000, "9" * 19, "0", "01", "-1", "%D9%A1"):
        reply = await api.ask("DELETE", f"{JOBS}/bad/attempts/{number}/content")
        assert (404, "attempt_not_found") == (reply.status, reply.code), number


async def test_a_cursor_that_somebody_made_up_breaks_nothing(api: Api) -> None:
    """It is refused, or leads to attempts that are there."""
    await _fire(api, "j0", Outcome(status=200, bytes_sent=True), "delivered")
    await _fire(api, "j1", Outcome(status=200, bytes_sent=True), "delivered")
    route = api.engine.meta.routes["default", "hello"]
    scope = f"route-attempts/{route.uid}"
    page = (await api.ask("GET", f"{ROUTE}/attempts?limit=1")).json
    mark_bytes = 6
    given = urlsafe_b64decode(page["next_cursor"] + "==")[mark_bytes:]
    row, uid, index, _ = msgspec.msgpack.decode(given)
    for place, status in ((1, 200), (1_000, 200), (2**63, 200), (-1, 400)):
        cursor = write_cursor((row, uid, index, place), scope)
        reply = await api.ask("GET", f"{ROUTE}/attempts?cursor={cursor}")
        assert status == reply.status, (place, reply.body)
    for made_up in ((b"", 0, 0, 0), (b"\xff" * 99, uid, index, 0)):
        reply = await api.ask("GET", f"{ROUTE}/attempts?cursor={write_cursor(made_up, scope)}")
        assert 200 == reply.status
