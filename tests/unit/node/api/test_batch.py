"""Batches: items stand for themselves, in order, as JSON or line by line."""

from typing import Any

import msgspec
import pytest

from tests.unit.node.api.harness import FAR_MS, JOBS, Api, Reply
from timemachine import limits

BATCH = f"{JOBS}/batch"


def job(number: int, **change: Any) -> dict[str, Any]:
    """One item."""
    return {"id": f"j{number}", "trigger_time": FAR_MS, "route": "hello", **change}


async def send(api: Api, items: list[Any], **headers: str) -> Reply:
    """A batch as JSON."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await api.ask("POST", BATCH, items, headers=named)


async def test_items_are_independent(api: Api) -> None:
    """Each item has its own status and job or problem, in the order they came."""
    await api.ask("POST", JOBS, job(9))
    items = [
        job(0),
        job(1, route="nowhere"),
        job(2, meta="x" * limits.META_BYTES_MAX),
        job(9),
        job(9, meta=1),
        job(0),
        {"colour": 1},
        7,
        {"delay_ms": 1000, "route": "hello"},
    ]
    reply = await send(api, items)
    assert 200 == reply.status
    statuses = [item["status"] for item in reply.json["items"]]
    assert [201, 409, 413, 200, 409, 200, 400, 400, 201] == statuses
    assert (2, 5) == (reply.json["created"], reply.json["failed"])
    codes = [item["error"]["code"] for item in reply.json["items"] if "error" in item]
    assert [
        "route_not_found",
        "too_large",
        "job_exists",
        "invalid_request",
        "invalid_request",
    ] == codes
    assert "/6/colour" == reply.json["items"][6]["error"]["errors"][0]["pointer"]
    assert "j0" == reply.json["items"][0]["job"]["id"]


async def test_lines_in_lines_out(api: Api) -> None:
    """NDJSON is answered with NDJSON, one line for each that is not blank."""
    lines = [msgspec.json.encode(job(number)) for number in range(3)]
    body = b"\n".join([*lines, b"", b"{broken", b""])
    reply = await api.ask("POST", BATCH, body, headers={"Content-Type": "application/x-ndjson"})
    assert (200, "application/x-ndjson") == (reply.status, reply.headers["content-type"])
    answers = [msgspec.json.decode(line) for line in reply.body.splitlines()]
    assert [201, 201, 201, 400] == [answer["status"] for answer in answers]
    assert ["j0", "j1", "j2"] == [answer["job"]["id"] for answer in answers[:3]]


async def test_repeats_are_harmless(api: Api) -> None:
    """With a key, a repeated batch gives the same answers and makes nothing new."""
    items = [job(0), {"delay_ms": 50_000, "route": "hello"}, {"delay_ms": 50_000, "route": "hello"}]
    first = await send(api, items, Idempotency_Key="k")
    again = await send(api, items, Idempotency_Key="k")
    assert [201] * 3 == [item["status"] for item in again.json["items"]]
    assert first.json == again.json
    assert 3 == len({item["job"]["id"] for item in first.json["items"]})
    items[1]["delay_ms"] = 1
    changed = await send(api, items, Idempotency_Key="k")
    assert [201, 422, 201] == [item["status"] for item in changed.json["items"]]


async def test_empty_and_large(api: Api) -> None:
    """No item is fine; 10,000 are; one more is 413 and names the limit."""
    assert {"items": [], "created": 0, "failed": 0} == (await send(api, [])).json
    most = await send(api, [job(number) for number in range(limits.BATCH_JOBS_MAX)])
    assert limits.BATCH_JOBS_MAX == most.json["created"]
    over = await send(api, [0] * (limits.BATCH_JOBS_MAX + 1))
    assert (413, "too_large") == (over.status, over.code)
    assert "10000" in over.json["detail"]


@pytest.mark.parametrize("body", [b"", b"{}", b"[1,", b"[" * 100_000, b"null"])
async def test_what_is_no_batch(api: Api, body: bytes) -> None:
    """A body that is no array is 400."""
    assert 400 == (await api.ask("POST", BATCH, body)).status


async def test_missing_routes_may_be_allowed(api: Api) -> None:
    """The flag of POST holds for all items."""
    reply = await api.ask("POST", f"{BATCH}?allow_missing_route=true", [job(0, route="later")])
    assert 1 == reply.json["created"]
    assert 400 == (await api.ask("POST", f"{BATCH}?force=true", [])).status


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"\n" * 1_000_000, "application/x-ndjson", 413),
        (b'{"route":"hello"}\n' * 5 * limits.BATCH_JOBS_MAX, "application/x-ndjson", 413),
        (b"[" + b"0," * 1_000_000 + b"0]", "application/json", 400),
        (b"[" + b'{"route":"hello"},' * 100_000 + b"{}]", "application/json", 413),
        (b"[" + b'{"route":"hello"},' * limits.BATCH_JOBS_MAX + b"{}]", "application/json", 413),
    ],
    ids=["blank lines", "lines", "numbers", "jobs", "one too many"],
)
async def test_far_too_many_items(api: Api, body: bytes, kind: str, status: int) -> None:
    """They are refused as one, and never made."""
    reply = await api.ask("POST", BATCH, body, headers={"Content-Type": kind})
    assert status == reply.status


async def test_large_metas_are_not_taken_for_items(api: Api) -> None:
    """A batch within the limits may hold a million commas."""
    items = [{**job(number), "meta": [0] * 100_000} for number in range(3)]
    reply = await api.ask("POST", BATCH, items)
    assert (200, 3) == (reply.status, reply.json["created"])
