"""Forecasts over HTTP: bounds, defaults, and what is counted."""

import pytest

from tests.unit.node.api.harness import FAR_MS, JOBS, ROUTE, Api
from timemachine import limits

FORECAST = JOBS.replace("/jobs", "/forecast")


async def _jobs(api: Api, *trigger_ms: int) -> None:
    jobs = [
        {"id": f"j{number}", "trigger_time": at, "route": "hello"}
        for number, at in enumerate(trigger_ms)
    ]
    assert len(jobs) == (await api.ask("POST", f"{JOBS}/batch", jobs)).json["created"]


async def test_jobs_are_counted_in_the_bucket_that_they_are_due_in(api: Api) -> None:
    """From the first to before the second bound; moved and cancelled ones where they are now."""
    await _jobs(api, FAR_MS, FAR_MS + 999, FAR_MS + 1_000, FAR_MS + 2_500, FAR_MS + 3_000)
    query = f"?from={FAR_MS}&to={FAR_MS + 2_600}&bucket_ms=1000"
    reply = await api.ask("GET", FORECAST + query)
    assert 200 == reply.status
    assert [
        {"from": FAR_MS, "to": FAR_MS + 1_000, "count": 2},
        {"from": FAR_MS + 1_000, "to": FAR_MS + 2_000, "count": 1},
        {"from": FAR_MS + 2_000, "to": FAR_MS + 2_600, "count": 1},
    ] == reply.json["items"]
    await api.ask("DELETE", f"{JOBS}/j0")
    await api.ask("PATCH", f"{JOBS}/j2", {"trigger_time": FAR_MS})
    reply = await api.ask("GET", FORECAST + query)
    assert [2, 0, 1] == [item["count"] for item in reply.json["items"]]


async def test_a_day_by_the_hour_unless_asked_otherwise(api: Api) -> None:
    """From now on."""
    now_ms = api.engine.now_ms()
    await _jobs(api, now_ms + 5_400_000, now_ms + 86_400_000 * 2)
    items = (await api.ask("GET", FORECAST)).json["items"]
    assert 24 == len(items)
    assert now_ms <= items[0]["from"]
    assert items[-1]["to"] == items[0]["from"] + 86_400_000
    assert [0, 1] == [item["count"] for item in items[:2]]
    assert 1 == sum(item["count"] for item in items)
    query = f"?from=2026-01-01T00:00:00Z&to={limits.TIME_MS_MAX}&bucket_ms={limits.TIME_MS_MAX}"
    items = (await api.ask("GET", FORECAST + query)).json["items"]
    assert 2 == items[0]["count"]


async def test_jobs_of_a_paused_route_are_not_due(api: Api) -> None:
    """What is held waits for its route, not for its time."""
    await api.ask("POST", f"{ROUTE}/pause")
    await _jobs(api, FAR_MS)
    query = f"?from={FAR_MS}&to={FAR_MS + 60_000}"
    assert 1 == (await api.ask("GET", FORECAST + query)).json["items"][0]["count"]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("from=1&to=1", "?to"),
        ("from=5&to=1", "?to"),
        ("from=x", "?from"),
        ("to=-1", "?to"),
        ("bucket_ms=0", "?bucket_ms"),
        ("bucket_ms=1h", "?bucket_ms"),
        ("from=0&to=1001&bucket_ms=1", "?bucket_ms"),
        ("route=hello", "?route"),
    ],
)
async def test_bad_queries(api: Api, query: str, pointer: str) -> None:
    """A refusal names the parameter."""
    reply = await api.ask("GET", f"{FORECAST}?{query}")
    assert (400, [pointer]) == (reply.status, reply.pointers)


async def test_there_must_be_a_collection(api: Api) -> None:
    """404 otherwise."""
    reply = await api.ask("GET", FORECAST.replace("carts", "boats"))
    assert (404, "collection_not_found") == (reply.status, reply.code)
