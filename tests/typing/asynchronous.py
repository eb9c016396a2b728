"""The async client as its users write it. Only type-checked, never run."""

from collections.abc import AsyncGenerator, AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

import msgspec

from timemachine.client import (
    ApiError,
    AsyncBatcher,
    AsyncItems,
    Attempt,
    Batch,
    BatchItem,
    Bucket,
    Bulk,
    Client,
    ClientError,
    Cluster,
    Collection,
    Compaction,
    CreateResult,
    Database,
    Example,
    Finalised,
    Job,
    JoinToken,
    MasterKey,
    NewJob,
    Page,
    Plan,
    Ready,
    Resealed,
    Route,
    RouteSecret,
    RouteStats,
    Settings,
    Task,
    Version,
    Vnode,
)


async def places() -> None:
    """Databases and collections."""
    async with Client("http://127.0.0.1:8001", "http://127.0.0.1:8002", token="secret") as tm:
        assert_type(await tm.put_database("shop", idempotency_key="mine"), Database)
        assert_type(await tm.get_database("shop"), Database)
        assert_type(await tm.list_databases(), list[Database])
        assert_type(await tm.put_collection("shop", "carts", num_vnodes=12), Collection)
        collection = await tm.get_collection("shop", "carts", consistency="stale")
        assert_type(collection, Collection)
        assert_type(collection.counts, dict[str, int])
        assert_type(await tm.list_collections("shop", page_size=10), list[Collection])
        assert_type(await tm.delete_collection("shop", "carts", force=True), None)
        assert_type(await tm.delete_database("shop"), None)

        # What a type checker must find: each of these lines is wrong.
        await tm.put_collection("shop", "carts", num_vnodes="12")  # type: ignore[arg-type]
        await tm.get_collection("shop")  # type: ignore[call-arg]
        await tm.get_collection("shop", "carts", consistency="weak")  # type: ignore[arg-type]
        await tm.delete_database("shop", True)  # type: ignore[call-arg]


async def routes(tm: Client) -> None:
    """Routes."""
    route = await tm.put_route(
        "shop",
        "hello",
        webhook_url="http://127.0.0.1:4000/callback",
        headers={"x-team": "games"},
        retry={"schedule_ms": [1000, 2000], "max_attempts": 3},
        rate={"count": 10, "period_ms": 1000},
        delivery="at_most_once",
        body="meta",
        if_match=3,
    )
    assert_type(route, Route)
    assert_type(route.retry.schedule_ms, tuple[int, ...])
    assert_type(await tm.get_route("shop", "hello"), Route)
    assert_type(await tm.patch_route("shop", "hello", enabled=False, ca_pem=None), Route)
    assert_type(await tm.list_routes("shop"), list[Route])
    assert_type(await tm.get_route_secret("shop", "hello"), RouteSecret)
    secret = await tm.rotate_route_secret("shop", "hello", grace_period_ms=60_000)
    assert_type(secret, RouteSecret)
    assert_type(await tm.pause_route("shop", "hello"), Route)
    assert_type(await tm.resume_route("shop", "hello"), Route)
    assert_type(await tm.send_example("shop", "hello"), Example)
    stats = await tm.route_stats("shop", "hello")
    assert_type(stats, RouteStats)
    assert_type(stats.pending, int)
    attempts = tm.route_attempts("shop", "hello", limit=10)
    assert_type(attempts, AsyncItems[Attempt])
    assert_type(await anext(attempts), Attempt)
    assert_type(await tm.redrive_route("shop", "hello", from_time=0), Bulk)
    assert_type(await tm.replay_missing("shop", "hello", dry_run=True), Bulk)
    assert_type(await tm.delete_route("shop", "hello", force=True), None)

    # What a type checker must find: each of these lines is wrong.
    await tm.put_route("shop", "hello", webhook_uri="x")  # type: ignore[call-arg]
    await tm.put_route("shop", "hello", delivery="twice")  # type: ignore[arg-type]
    await tm.put_route("shop", "hello", retry={"attempts": 3})  # type: ignore[typeddict-unknown-key]
    await tm.rotate_route_secret("shop", "hello", secret=b"x")  # type: ignore[arg-type]
    secret.secret = "other"  # type: ignore[misc]


async def jobs(tm: Client) -> None:
    """Jobs."""
    job = await tm.create_job(
        "shop",
        "carts",
        trigger_time=datetime.now(tz=UTC) + timedelta(hours=1),
        route="hello",
        meta={"cart": 7},
        tags=["cart"],
        ordering_key=None,
    )
    assert_type(job, Job)
    assert_type(job.meta, Any)
    assert_type(job.trigger_time, int)
    assert_type(job.trigger_at, datetime)
    assert_type(job.next_attempt_at, datetime | None)
    assert_type(job.tags, tuple[str, ...])
    raw = msgspec.Raw(b"1.0")
    assert_type(await tm.put_job("shop", "carts", "x", delay_ms=5, route="hello", meta=raw), Job)
    assert_type(await tm.patch_job("shop", "carts", job.id, meta=None, if_match=job.version), Job)
    assert_type(await tm.get_job("shop", "carts", job.id), Job)
    assert_type(await tm.run_job("shop", "carts", job.id), Job)
    assert_type(await tm.redrive_job("shop", "carts", job.id, force=True), Job)
    assert_type(await tm.delete_job("shop", "carts", job.id, purge=True), Job)
    assert_type(await tm.attempts("shop", "carts", job.id), list[Attempt])
    assert_type(await tm.delete_attempt_content("shop", "carts", job.id, 1), None)
    batch = await tm.create_jobs("shop", "carts", [NewJob(route="hello", delay_ms=1)])
    assert_type(batch, Batch)
    assert_type(batch.items, tuple[BatchItem, ...])
    assert_type(batch.items[0].error, ApiError | None)
    assert_type(batch.items[0].result(), Job)

    # What a type checker must find: each of these lines is wrong.
    await tm.get_job("shop", "carts", 7)  # type: ignore[arg-type]
    await tm.create_job("shop", "carts", route="a", trigger_time="now")  # type: ignore[arg-type]
    await tm.create_job("shop", "carts", route="a", delay_ms=timedelta(1))  # type: ignore[arg-type]
    await tm.create_job("shop", "carts", delay_ms=1)  # type: ignore[call-arg]
    await tm.create_jobs("shop", "carts", [{"route": "a"}])  # type: ignore[list-item]
    await tm.patch_job("shop", "carts", "x", trigger_time=None)  # type: ignore[arg-type]
    print(tm.get_job("shop", "carts", "x").state)  # type: ignore[attr-defined]
    job.state = "dead"  # type: ignore[misc]
    print(job.trigger_at + 1)  # type: ignore[operator]


async def lists(tm: Client) -> None:
    """Lists that are long."""
    found = tm.list_jobs("shop", "carts", state=["dead", "held"], from_time=0, limit=50)
    assert_type(found, AsyncItems[Job])
    async for job in found:
        assert_type(job, Job)
    assert_type(found.next_cursor, str | None)
    async for page in tm.list_jobs("shop", "carts", tag="a", consistency="stale").pages():
        assert_type(page, Page[Job])
        assert_type(page.items, tuple[Job, ...])
    assert_type([task async for task in tm.list_tasks()], list[Task])

    # What a type checker must find: each of these lines is wrong.
    print(list(tm.list_jobs("shop", "carts")))  # type: ignore[call-overload]
    await tm.list_jobs("shop", "carts")  # type: ignore[misc]
    tm.list_jobs("shop", "carts", state=7)  # type: ignore[arg-type]
    tm.list_jobs("shop", "carts", limit="7")  # type: ignore[arg-type]


async def many(tm: Client, source: AsyncIterator[NewJob]) -> None:
    """Many jobs."""
    results = tm.create_many("shop", "carts", source, max_jobs=500, max_in_flight=2)
    assert_type(results, AsyncGenerator[CreateResult, None])
    async for result in results:
        assert_type(result.result(), Job)
        assert_type(result.error, ClientError | None)
    tm.create_many("shop", "carts", [NewJob(route="hello", delay_ms=1)])

    def hear(result: CreateResult) -> None:
        assert_type(result.number, int)

    async with tm.batcher("shop", "carts", on_result=hear) as batch:
        assert_type(batch, AsyncBatcher)
        assert_type(await batch.add(route="hello", delay_ms=1), str)
        assert_type(await batch.add(NewJob(route="hello", delay_ms=1)), str)
        assert_type(await batch.flush(), None)
        assert_type(batch.failed, int)

        # What a type checker must find: each of these lines is wrong.
        await batch.add(delay_ms=1)  # type: ignore[call-overload]
        await batch.add({"route": "hello"})  # type: ignore[call-overload]
        await batch.add(route="hello", delay=1)  # type: ignore[call-overload]
    tm.create_many("shop", "carts", ["x"])  # type: ignore[list-item]
    tm.batcher("shop", "carts", on_result=7)  # type: ignore[arg-type]
    async for result in results:
        print(result.result().nothing)  # type: ignore[attr-defined]


async def tasks(tm: Client) -> None:
    """Tasks, forecasts, the cluster."""
    begun = await tm.cancel_jobs("shop", "carts", state="scheduled", tag="a", to_time=9)
    assert_type(begun, Bulk)
    assert_type(begun.task, str | None)
    assert_type(begun.sample, tuple[Job, ...])
    assert_type(await tm.wait_task(begun), Task)
    assert_type(await tm.wait_task("id", timeout_ms=5), Task)
    assert_type(await tm.get_task(begun), Task)
    assert_type(await tm.cancel_task("id"), Task)
    assert_type(await tm.reschedule_jobs("shop", "carts", shift_ms=-5, dry_run=True), Bulk)
    buckets = await tm.forecast("shop", "carts", bucket_ms=60_000)
    assert_type(buckets, list[Bucket])
    assert_type(buckets[0].from_at, datetime)
    assert_type(await tm.cluster(), Cluster)
    assert_type(await tm.vnodes(), list[Vnode])
    planned = await tm.make_plan("drain", nodes=["n2"], transfers=4)
    assert_type(planned, Plan)
    assert_type(planned.moves.done, int)
    assert_type(planned.vnodes[0].add, tuple[str, ...])
    compacting = (await tm.make_plan("compact", vnodes=[0, 3], bytes_per_s=1 << 20)).compaction
    assert_type(compacting, Compaction | None)
    assert_type(await tm.get_plan(planned), Plan)
    assert_type([plan async for plan in tm.list_plans(limit=3)], list[Plan])
    assert_type(await tm.confirm_plan(planned), Plan)
    assert_type(await tm.pause_plan("id"), Plan)
    assert_type(await tm.resume_plan("id"), Plan)
    assert_type(await tm.cancel_plan("id"), Plan)
    assert_type(await tm.finalise(cluster_version=2), Finalised)
    assert_type(await tm.master_keys(), list[MasterKey])
    assert_type(await tm.reseal(), Resealed)
    assert_type(await tm.issue_join_token(ttl_ms=60_000), JoinToken)
    assert_type(await tm.get_settings(), Settings)
    assert_type(await tm.put_settings(allowed_private_cidrs=["10.0.0.0/8"]), Settings)
    assert_type(await tm.put_settings(allowed_private_cidrs=[], allowed_ports=[81]), Settings)
    assert_type(await tm.ready(), Ready)
    assert_type(await tm.version(), Version)
    assert_type(await tm.request("GET", "/v1/cluster"), Any)
    assert_type(await tm.close(), None)

    # What a type checker must find: each of these lines is wrong.
    await tm.cancel_jobs("shop", "carts", filter={})  # type: ignore[call-arg]
    await tm.wait_task(7)  # type: ignore[arg-type]
    await tm.make_plan("shrink")  # type: ignore[arg-type]
    await tm.reschedule_jobs("shop", "carts", trigger_time=1.5)  # type: ignore[arg-type]
    await tm.put_settings()  # type: ignore[call-arg]
    Client(timeout_ms="5")  # type: ignore[arg-type]
