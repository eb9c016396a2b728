"""What became of a route's jobs, over HTTP."""

import asyncio
from base64 import urlsafe_b64decode
from typing import Any

import msgspec
import pytest

from node.api.paging import write_cursor
from tests.unit.node.api.harness import JOBS, ROUTE, Api
from tests.unit.node.api.test_jobs import settled
from timemachine import limits
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


async def test_what_was_answered_is_not_shown_when_its_time_is_over(api: Api) -> None:
    """R97: from that moment on, in both lists; the attempts are."""
    await _fire(api, "bad", FAILURE, "retrying")
    for place in (f"{JOBS}/bad/attempts", f"{ROUTE}/attempts"):
        (shown,) = (await api.ask("GET", place)).json["items"]
        assert ("no", False) == (shown["response_body"], shown["content_removed"])
    await asyncio.sleep(0.01)
    retention = {"content_retention_ms": 0}
    assert 200 == (await api.ask("PUT", JOBS.removesuffix("/jobs"), retention)).status
    for place in (f"{JOBS}/bad/attempts", f"{ROUTE}/attempts"):
        (hidden,) = (await api.ask("GET", place)).json["items"]
        assert ("", {}, True, 500) == tuple(
            hidden[name]
            for name in ("response_body", "response_headers", "content_removed", "response_status")
        )


async def test_what_was_answered_is_forgotten_with_its_time(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R97: on the disk, too, while the attempt is kept."""
    monkeypatch.setattr(limits, "CONTENT_PASS_MS", 1)
    monkeypatch.setattr(limits, "FORGET_MARGIN_MS", 1)
    await _fire(api, "bad", FAILURE, "retrying")
    assert [key for key, row in api.store.scan(b"", b"\xff", 9_999) if b"x-why" in row]
    await api.ask("PUT", JOBS.removesuffix("/jobs"), {"content_retention_ms": 0})
    vnode = api.engine.vnode_of(api.engine.meta.collections["default", "carts"], "bad")
    keys = api.engine._vnodes[api.engine.meta.collections["default", "carts"].uid][vnode].keys
    rows = keys.attempts, keys.job
    while any(b"x-why" in row for start in rows for _, row in api.store.scan(start, start + b"~")):
        await asyncio.sleep(0.05)
    (kept,) = (await api.ask("GET", f"{JOBS}/bad/attempts")).json["items"]
    assert (500, True) == (kept["response_status"], kept["content_removed"])


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
    scope = f"route-attempts/{route.uid}/{[None] * 4}"
    page = (await api.ask("GET", f"{ROUTE}/attempts?limit=1")).json
    mark_bytes = 6
    given = urlsafe_b64decode(page["next_cursor"] + "==")[mark_bytes:]
    newer, row, uid, index, _ = msgspec.msgpack.decode(given)
    assert newer is False
    for place, status in ((1, 200), (1_000, 200), (2**63, 200), (2**64 - 1, 200), (-1, 400)):
        for way in (False, True):
            cursor = write_cursor((way, row, uid, index, place), scope)
            reply = await api.ask("GET", f"{ROUTE}/attempts?cursor={cursor}")
            assert status == reply.status, (place, reply.body)
    for made_up in ((False, b"", 0, 0, 0), (True, b"\xff" * 99, uid, index, 0)):
        reply = await api.ask("GET", f"{ROUTE}/attempts?cursor={write_cursor(made_up, scope)}")
        assert 200 == reply.status


async def _pages(api: Api, path: str, cursor: str | None, way: str) -> list[list[str]]:
    """The ids of each page on a way through a list, until there is no cursor or nothing more."""
    pages: list[list[str]] = []
    while cursor is not None:
        page = (await api.ask("GET", f"{path}&cursor={cursor}")).json
        if not page["items"]:
            break
        pages.append([each["id"] for each in page["items"]])
        cursor = page[way]
    return pages


async def test_a_cursor_leads_both_ways(api: Api) -> None:
    """The same pages back as there; and from the newest on to what has come since."""
    for number in range(7):
        await _fire(api, f"j{number}", Outcome(status=200, bytes_sent=True), "delivered")
    every = [each["id"] for each in await _all(api, f"{ROUTE}/attempts", 100)]
    path = f"{ROUTE}/attempts?limit=2"
    first = (await api.ask("GET", path)).json
    there = await _pages(api, path, first["next_cursor"], "next_cursor")
    assert every[2:] == [each for page in there for each in page]
    last = (await api.ask("GET", f"{ROUTE}/attempts?limit=2&cursor={first['next_cursor']}")).json
    assert every[2:4] == [each["id"] for each in last["items"]]
    back = await _pages(api, path, last["previous_cursor"], "previous_cursor")
    assert [every[0:2]] == back
    assert [] == await _pages(api, path, first["previous_cursor"], "previous_cursor")
    nothing = (await api.ask("GET", f"{path}&cursor={first['previous_cursor']}")).json
    assert every[:2] == (await _pages(api, path, nothing["next_cursor"], "next_cursor"))[0]
    for number in range(3):
        await _fire(api, f"k{number}", Outcome(status=200, bytes_sent=True), "delivered")
    since = await _pages(api, path, first["previous_cursor"], "previous_cursor")
    assert [2, 1] == [len(page) for page in since]
    newer = [each["id"] for each in await _all(api, f"{ROUTE}/attempts", 100)][:3]
    assert newer == since[1] + since[0]


async def test_the_way_back_through_the_attempts_of_a_job(api: Api) -> None:
    """Page by page, also where these have another length."""
    await _fire(api, "bad", FAILURE, "retrying")
    for count in range(2, 6):
        await api.ask("POST", f"{JOBS}/bad/run")
        while len((await api.ask("GET", f"{JOBS}/bad/attempts")).json["items"]) < count:
            await asyncio.sleep(0.005)
    path = f"{JOBS}/bad/attempts"
    page = (await api.ask("GET", f"{path}?limit=2")).json
    assert ([1, 2], None) == ([each["attempt"] for each in page["items"]], page["previous_cursor"])
    page = (await api.ask("GET", f"{path}?limit=3&cursor={page['next_cursor']}")).json
    assert [3, 4] == [each["attempt"] for each in page["items"]], "what the first page ended with"
    back = (await api.ask("GET", f"{path}?limit=2&cursor={page['previous_cursor']}")).json
    assert [1, 2] == [each["attempt"] for each in back["items"]]
    last = (await api.ask("GET", f"{path}?limit=9&cursor={page['next_cursor']}")).json
    assert ([5], None) == ([each["attempt"] for each in last["items"]], last["next_cursor"])


async def test_attempts_are_filtered(api: Api) -> None:
    """By how they ended, what was answered and when they were settled; of a route and of a job."""
    await _fire(api, "good", Outcome(status=204, bytes_sent=True), "delivered")
    await _fire(api, "bad", FAILURE, "retrying")
    refused = Outcome(error_code="connection_refused", error_message="no", error_phase="connect")
    await _fire(api, "off", refused, "retrying")
    every = (await api.ask("GET", f"{ROUTE}/attempts")).json["items"]
    at = {each["job_id"]: each["settled_time"] for each in every}
    assert at["good"] < at["bad"] < at["off"]
    for query, names in (
        ("status=succeeded", ["good"]),
        ("status=failed", ["off", "bad"]),
        ("status=failed,succeeded", ["off", "bad", "good"]),
        ("status=unknown", []),
        ("response=5xx", ["bad"]),
        ("response=204", ["good"]),
        ("response=2xx&status=failed", []),
        ("response=none", ["off"]),
        (f"from={at['bad']}", ["off", "bad"]),
        (f"to={at['bad']}", ["good"]),
        (f"from={at['bad']}&to={at['off']}", ["bad"]),
        (f"to={at['off']}&limit=1", ["bad"]),
    ):
        found = (await api.ask("GET", f"{ROUTE}/attempts?{query}")).json["items"]
        assert names == [each["job_id"] for each in found], query
        of_job = (await api.ask("GET", f"{JOBS}/bad/attempts?{query}")).json["items"]
        assert [name for name in names if name == "bad"] == [each["job_id"] for each in of_job]
    for query, pointer in (
        ("status=late", "?status"),
        ("status=", "?status"),
        ("response=0xx", "?response"),
        ("response=99", "?response"),
        ("response=%D9%A5xx", "?response"),
        ("from=soon", "?from"),
    ):
        for path in (f"{ROUTE}/attempts", f"{JOBS}/bad/attempts"):
            reply = await api.ask("GET", f"{path}?{query}")
            assert (400, pointer) == (reply.status, reply.json["errors"][0]["pointer"]), query
    page = (await api.ask("GET", f"{ROUTE}/attempts?limit=1&status=failed")).json
    other = f"{ROUTE}/attempts?limit=1&status=succeeded&cursor={page['next_cursor']}"
    assert 400 == (await api.ask("GET", other)).status, "a cursor keeps to its filters"


async def test_an_attempt_tells_all_of_it(api: Api) -> None:
    """Whose it was, why it was made, when it was due and settled, and which keys signed it."""
    await _fire(api, "good", Outcome(status=204, queue_ms=3.25, bytes_sent=True), "delivered")
    await _fire(api, "bad", FAILURE, "retrying")
    for _ in range(2):
        await api.ask("POST", f"{JOBS}/bad/run")
        await settled(api, "bad", "retrying")
    await api.ask("POST", f"{ROUTE}/secret/rotate")
    secrets = (await api.ask("GET", f"{ROUTE}/secret")).json
    await _fire(api, "again", Outcome(status=200, bytes_sent=True), "delivered")
    (good,) = (await api.ask("GET", f"{JOBS}/good/attempts")).json["items"]
    job = (await api.ask("GET", f"{JOBS}/good")).json
    assert (f"{job['webhook_id']}-1", job["webhook_id"], "good", "default", "carts", "hello") == (
        good["id"],
        good["webhook_id"],
        good["job_id"],
        good["db"],
        good["collection"],
        good["route"],
    )
    assert (1, 1, "scheduled", None, None) == (
        good["trigger_time"],
        good["due_time"],
        good["trigger"],
        good["retry_reason"],
        good["held_up"],
    )
    assert (3.25, good["term"]) == (good["phases_ms"]["queue"], good["settled_term"])
    assert good["started_time"] <= good["ended_time"] <= good["settled_time"]
    first, *others = (await api.ask("GET", f"{JOBS}/bad/attempts")).json["items"]
    assert ["scheduled"] + ["manual"] * len(others) == [
        each["trigger"] for each in (first, *others)
    ]
    assert 1 == first["due_time"] < others[0]["due_time"]
    assert {1} == {each["trigger_time"] for each in (first, *others)}
    (again,) = (await api.ask("GET", f"{JOBS}/again/attempts")).json["items"]
    old, new = secrets["previous"][0]["key_id"], secrets["key_id"]
    assert ([old], [new, old]) == (good["key_ids"], again["key_ids"])
    assert old != new
    assert 8 == len(old) == len(new)


async def test_attempts_of_former_versions_keep_their_own(api: Api) -> None:
    """Their webhook id, trigger time and route, whatever the job has become."""
    await _fire(api, "j", Outcome(status=200, bytes_sent=True), "delivered")
    before = (await api.ask("GET", f"{JOBS}/j")).json
    api.recipient.answer = FAILURE
    await api.ask("PUT", f"{JOBS}/j", {"trigger_time": 2, "route": "hello"})
    await settled(api, "j", "retrying")
    after = (await api.ask("GET", f"{JOBS}/j")).json
    attempts = (await api.ask("GET", f"{JOBS}/j/attempts")).json["items"]
    assert before["webhook_id"] != after["webhook_id"]
    assert [(before["webhook_id"], 1, 1), (after["webhook_id"], 2, 2)] == [
        (each["webhook_id"], each["version"], each["trigger_time"]) for each in attempts
    ]
    listed = (await api.ask("GET", f"{ROUTE}/attempts")).json["items"]
    assert attempts == listed[::-1]


async def test_the_end_of_a_list_is_not_looked_for_among_what_was_forgotten(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Backwards every read ends at a row that is there: before it may lie many deleted ones."""
    for number in range(3):
        await _fire(api, f"j{number}", Outcome(status=200, bytes_sent=True), "delivered")
    scan, starts = api.store.scan, []

    def watched(start: bytes, stop: bytes, limit: int = 1000, *, reverse: bool = False) -> Any:
        if reverse:
            starts.append(start)
        return scan(start, stop, limit, reverse=reverse)

    monkeypatch.setattr(api.store, "scan", watched)
    assert 3 == len((await api.ask("GET", f"{ROUTE}/attempts")).json["items"])
    assert starts
    assert all(api.store.get(start) is not None for start in starts)
