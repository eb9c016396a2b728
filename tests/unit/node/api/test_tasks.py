"""Bulk operations over HTTP: what they find, what they do, how they are watched and ended."""

import asyncio
from typing import Any

import pytest

from tests.unit.node.api.harness import FAR_MS, JOBS, ROUTE, Api
from timemachine import limits
from timemachine.outbound import Outcome

CANCEL, RESCHEDULE, TASKS = f"{JOBS}/cancel", f"{JOBS}/reschedule", "/v1/tasks"
ROUTE_2 = ROUTE + "2"


async def _fill(api: Api) -> None:
    """Twenty jobs: ten of each route, every fourth with the tag `cart`, a second apart."""
    assert 201 == (await api.ask("PUT", ROUTE_2, {"webhook_url": "http://two.example/"})).status
    jobs = [
        {
            "id": f"j{number:02}",
            "trigger_time": FAR_MS + number * 1_000,
            "route": "hello2" if number % 2 else "hello",
            "tags": ["cart", "x"] if number % 4 == 0 else ["x"],
        }
        for number in range(20)
    ]
    reply = await api.ask("POST", f"{JOBS}/batch", jobs)
    assert 20 == reply.json["created"], reply.body


async def _ended(api: Api, task: str) -> Any:
    while True:
        shown = (await api.ask("GET", f"{TASKS}/{task}")).json
        if shown["state"] != "running":
            return shown
        await asyncio.sleep(0.005)


async def _by_state(api: Api, state: str) -> set[str]:
    reply = await api.ask("GET", f"{JOBS}?state={state}")
    return {job["id"] for job in reply.json["items"]}


def _ids(*numbers: int) -> set[str]:
    return {f"j{number:02}" for number in numbers}


FILTERS = [
    ({}, range(20)),
    ({"route": "hello"}, range(0, 20, 2)),
    ({"tag": "cart"}, range(0, 20, 4)),
    ({"from": FAR_MS + 3_000, "to": FAR_MS + 6_000}, (3, 4, 5)),
    ({"route": "hello2", "tag": "x", "from": FAR_MS + 15_000}, (15, 17, 19)),
    ({"state": "scheduled,held", "tag": "cart", "to": "2096-10-02T07:06:40Z"}, ()),
    ({"state": ["retrying"]}, ()),
    ({"route": "nobody"}, ()),
]


@pytest.mark.parametrize(("wanted", "found"), FILTERS)
async def test_cancel_ends_what_its_filter_means(
    api: Api, wanted: dict[str, Any], found: Any
) -> None:
    """A dry run counts it and shows some of it; the task cancels just that."""
    await _fill(api)
    dry = await api.ask("POST", CANCEL, {"filter": wanted, "dry_run": True})
    assert 200 == dry.status
    assert len(found) == dry.json["count"]
    assert min(len(found), limits.TASK_SAMPLE_JOBS) == len(dry.json["sample"])
    assert {job["id"] for job in dry.json["sample"]} <= _ids(*found)
    assert set() == await _by_state(api, "cancelled")
    reply = await api.ask("POST", CANCEL, {"filter": wanted})
    assert 202 == reply.status
    assert f"{TASKS}/{reply.json['task']}" == reply.headers["location"]
    task = await _ended(api, reply.json["task"])
    assert ("done", "cancel", None) == (task["state"], task["kind"], task["error"])
    assert ({"cancelled": len(found)} if found else {}) == task["result"]
    assert len(found) == task["progress"]["done"]
    assert task["created_time"] <= task["finished_time"]
    assert _ids(*found) == await _by_state(api, "cancelled")
    again = await api.ask("DELETE", f"{JOBS}/j00")
    assert "cancelled" == again.json["outcome"]


async def test_reschedule_to_a_time_and_by_a_shift(api: Api) -> None:
    """Each job moves once, gets a new version, and says so to who reads it."""
    await _fill(api)
    wanted = {"tag": "cart"}
    reply = await api.ask("POST", RESCHEDULE, {"filter": wanted, "shift_ms": 90_000})
    assert {"rescheduled": 5} == (await _ended(api, reply.json["task"]))["result"]
    job = (await api.ask("GET", f"{JOBS}/j04")).json
    assert (FAR_MS + 94_000, 2) == (job["trigger_time"], job["version"])
    assert FAR_MS + 1_000 == (await api.ask("GET", f"{JOBS}/j01")).json["trigger_time"]
    at = "2097-01-01T00:00:00Z"
    reply = await api.ask("POST", RESCHEDULE, {"filter": wanted, "trigger_time": at})
    assert {"rescheduled": 5} == (await _ended(api, reply.json["task"]))["result"]
    reply = await api.ask("POST", RESCHEDULE, {"filter": wanted, "trigger_time": at})
    assert {} == (await _ended(api, reply.json["task"]))["result"], "they are there already"
    job = (await api.ask("GET", f"{JOBS}/j04")).json
    assert (4_007_836_800_000, 3) == (job["trigger_time"], job["version"])
    reply = await api.ask("POST", RESCHEDULE, {"filter": {}, "shift_ms": limits.TIME_MS_MAX})
    assert {"skipped": 20} == (await _ended(api, reply.json["task"]))["result"]
    reply = await api.ask(
        "POST", RESCHEDULE, {"filter": {}, "trigger_time": FAR_MS, "dry_run": True}
    )
    assert 20 == reply.json["count"]


BAD = [
    (CANCEL, {}, "/filter"),
    (CANCEL, {"filter": {"status": "x"}}, "/filter/status"),
    (CANCEL, {"filter": {"state": "delivered"}}, "/filter/state"),
    (CANCEL, {"filter": {"state": ""}}, "/filter/state"),
    (CANCEL, {"filter": {"state": []}}, "/filter/state"),
    (CANCEL, {"filter": {"route": "no such/name"}}, "/filter/route"),
    (CANCEL, {"filter": {"tag": ""}}, "/filter/tag"),
    (CANCEL, {"filter": {"from": -1}}, "/filter/from"),
    (CANCEL, {"filter": {"to": "tomorrow"}}, "/filter/to"),
    (CANCEL, {"filter": {}, "dry_run": "yes"}, "/dry_run"),
    (CANCEL, {"filter": {}, "shift_ms": 1}, "/shift_ms"),
    (RESCHEDULE, {"filter": {}}, "/trigger_time"),
    (RESCHEDULE, {"filter": {}, "trigger_time": 1, "shift_ms": 1}, "/trigger_time"),
    (RESCHEDULE, {"filter": {}, "shift_ms": limits.TIME_MS_MAX + 1}, "/shift_ms"),
    (f"{ROUTE}/redrive", {"since": 1}, "/since"),
    (f"{ROUTE}/replay-missing", {"from": "x"}, "/from"),
]


@pytest.mark.parametrize(("path", "body", "pointer"), BAD)
async def test_bad_requests_name_the_member(
    api: Api, path: str, body: dict[str, Any], pointer: str
) -> None:
    """And nothing begins."""
    reply = await api.ask("POST", path, body)
    assert (400, [pointer]) == (reply.status, reply.pointers)
    assert [] == (await api.ask("GET", TASKS)).json["items"]


async def test_what_is_not_there(api: Api) -> None:
    """404 with the code of what is missing."""
    elsewhere = JOBS.replace("carts", "boats")
    for method, path, code in (
        ("POST", f"{elsewhere}/cancel", "collection_not_found"),
        ("POST", ROUTE.replace("hello", "nobody") + "/redrive", "route_not_found"),
        ("GET", f"{TASKS}/nothing", "task_not_found"),
        ("POST", f"{TASKS}/nothing/cancel", "task_not_found"),
    ):
        body: Any = {"filter": {}} if path.endswith("jobs/cancel") else None
        reply = await api.ask(method, path, body)
        assert (404, code) == (reply.status, reply.code), path


async def test_a_repeat_with_its_key_begins_nothing(api: Api) -> None:
    """The same task is named; another request under that key is refused."""
    await _fill(api)
    named = {"Idempotency-Key": "k1"}
    shift = {"filter": {}, "shift_ms": 1_000}
    first = await api.ask("POST", RESCHEDULE, shift, headers=named)
    await _ended(api, first.json["task"])
    again = await api.ask("POST", RESCHEDULE, shift, headers=named)
    assert (202, first.json) == (again.status, again.json)
    assert "true" == again.headers["idempotent-replayed"]
    other = await api.ask("POST", RESCHEDULE, {**shift, "shift_ms": 5}, headers=named)
    assert (422, "idempotency_key_reused") == (other.status, other.code)
    assert FAR_MS + 2_000 == (await api.ask("GET", f"{JOBS}/j01")).json["trigger_time"]


async def test_dead_jobs_are_redriven_by_their_window(api: Api) -> None:
    """A second call finds nothing more to send; jobs that were never attempted, on their own."""
    api.recipient.answer = Outcome(status=410, bytes_sent=True)
    for number in range(3):
        await api.ask("PUT", f"{JOBS}/j{number}", {"trigger_time": number, "route": "hello"})
        while (await api.ask("GET", f"{JOBS}/j{number}")).json["state"] != "dead":
            await asyncio.sleep(0.005)
        await api.ask("POST", f"{ROUTE}/resume")
    sent = len(api.recipient.received)
    missing = await api.ask("POST", f"{ROUTE}/replay-missing", {"dry_run": True})
    assert {"count": 0, "sample": []} == missing.json
    dry = await api.ask("POST", f"{ROUTE}/redrive", {"from": 1, "to": 2, "dry_run": True})
    assert (1, "j1") == (dry.json["count"], dry.json["sample"][0]["id"])
    api.recipient.answer = Outcome(status=200, bytes_sent=True)
    reply = await api.ask("POST", f"{ROUTE}/redrive", {"from": 1})
    assert {"redriven": 2} == (await _ended(api, reply.json["task"]))["result"]
    while await _by_state(api, "delivered") != {"j1", "j2"}:
        await asyncio.sleep(0.005)
    assert sent + 2 == len(api.recipient.received)
    reply = await api.ask("POST", f"{ROUTE}/redrive", {"from": 1})
    assert {} == (await _ended(api, reply.json["task"]))["result"]
    assert {"j0"} == await _by_state(api, "dead")


async def test_jobs_of_a_route_that_was_deleted_are_replayed(api: Api) -> None:
    """They ended without an attempt; a new route of that name takes them up."""
    await _fill(api)
    assert 200 == (await api.ask("DELETE", f"{ROUTE_2}?force=true")).status
    while len(await _by_state(api, "dead")) < 10:
        await asyncio.sleep(0.005)
    assert 404 == (await api.ask("POST", f"{ROUTE_2}/replay-missing")).status
    assert 201 == (await api.ask("PUT", ROUTE_2, {"webhook_url": "http://two.example/"})).status
    reply = await api.ask("POST", f"{ROUTE_2}/replay-missing", {"to": FAR_MS + 8_000})
    assert {"redriven": 4} == (await _ended(api, reply.json["task"]))["result"]
    while await _by_state(api, "delivered") != _ids(1, 3, 5, 7):
        await asyncio.sleep(0.005)


async def test_tasks_are_listed_newest_first_and_end_when_told(api: Api) -> None:
    """Cancelling one that has ended changes nothing."""
    tasks = [
        (await api.ask("POST", CANCEL, {"filter": {"tag": f"t{n}"}})).json["task"] for n in range(5)
    ]
    for task in tasks:
        await _ended(api, task)
    shown: list[tuple[int, str]] = []
    cursor = ""
    while True:
        page = (await api.ask("GET", f"{TASKS}?limit=2{cursor}")).json
        shown += [(task["created_time"], task["id"]) for task in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert sorted(tasks) == sorted(task for _, task in shown)
    assert shown == sorted(shown, reverse=True)
    reply = await api.ask("POST", f"{TASKS}/{tasks[0]}/cancel")
    assert (200, "done") == (reply.status, reply.json["state"])


async def test_so_many_run_and_no_more(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """429 with Retry-After; a running one can be cancelled, and then its place is free."""
    await _fill(api)
    monkeypatch.setattr(limits, "TASKS_RUNNING_MAX", 2)
    api.engine.space_low = True  # what reschedules waits then
    body = {"filter": {}, "shift_ms": 5}
    first, second = [(await api.ask("POST", RESCHEDULE, body)).json["task"] for _ in range(2)]
    reply = await api.ask("POST", RESCHEDULE, body, headers={"Idempotency-Key": "late"})
    assert (429, "too_many_tasks") == (reply.status, reply.code)
    assert int(reply.headers["retry-after"]) >= 1
    assert "running" == (await api.ask("GET", f"{TASKS}/{second}")).json["state"]
    reply = await api.ask("POST", f"{TASKS}/{second}/cancel")
    assert (200, "cancelled", {}) == (reply.status, reply.json["state"], reply.json["result"])
    reply = await api.ask("POST", RESCHEDULE, body, headers={"Idempotency-Key": "late"})
    assert 202 == reply.status
    await api.ask("POST", f"{TASKS}/{first}/cancel")
    api.engine.space_low = False
    assert {"rescheduled": 20} == (await _ended(api, reply.json["task"]))["result"]
    assert FAR_MS + 1_005 == (await api.ask("GET", f"{JOBS}/j01")).json["trigger_time"]
