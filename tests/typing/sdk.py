"""The SDK as its users write it. Only type-checked, never run."""

from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

import msgspec

from timemachine.client import (
    ApiConflict,
    ApiNotFound,
    AsyncItems,
    Attempt,
    Batch,
    Client,
    ClientError,
    Cluster,
    Collection,
    Database,
    Items,
    Job,
    NewJob,
    NoAnswer,
    Route,
    RouteSecret,
    SyncClient,
    TimeMachineError,
)
from timemachine.receiver import (
    Dedupe,
    Done,
    InProgress,
    New,
    Store,
    Webhook,
    WebhookError,
    WebhookPayloadError,
    WebhookVerificationError,
    fingerprint,
)
from timemachine.receiver.sqlite import SQLiteStore, connect


async def asynchronous() -> None:
    """The async client."""
    async with Client("http://127.0.0.1:8001", "http://127.0.0.1:8002", token="secret") as tm:
        assert_type(await tm.put_database("shop"), Database)
        assert_type(await tm.list_databases(), list[Database])
        assert_type(await tm.put_collection("shop", "carts", num_vnodes=12), Collection)
        route = await tm.put_route(
            "shop",
            "hello",
            webhook_url="http://127.0.0.1:4000/callback",
            headers={"x-team": "games"},
            retry={"schedule_ms": [1000, 2000], "max_attempts": 3},
            delivery="at_most_once",
            if_match=3,
        )
        assert_type(route, Route)
        assert_type(await tm.patch_route("shop", "hello", enabled=False), Route)
        assert_type(await tm.get_route_secret("shop", "hello"), RouteSecret)
        job = await tm.create_job(
            "shop",
            "carts",
            trigger_time=datetime.now(tz=UTC) + timedelta(hours=1),
            route="hello",
            meta={"cart": 7},
            tags=["cart"],
            ordering_key="customer-1",
        )
        assert_type(job, Job)
        assert_type(job.meta, Any)
        assert_type(job.trigger_time, int)
        raw = msgspec.Raw(b"1.0")
        await tm.put_job("shop", "carts", "nxz", delay_ms=5_000, route="hello", meta=raw)
        await tm.patch_job("shop", "carts", job.id, meta=None, if_match=job.version)
        batch = await tm.create_jobs("shop", "carts", [NewJob(route="hello", delay_ms=1)])
        assert_type(batch, Batch)
        jobs = tm.list_jobs("shop", "carts", state=["dead", "held"], from_time=0)
        assert_type(jobs, AsyncItems[Job])
        async for each in jobs:
            assert_type(each, Job)
        assert_type(jobs.next_cursor, str | None)
        assert_type(await tm.attempts("shop", "carts", job.id), list[Attempt])
        assert_type(await tm.delete_job("shop", "carts", job.id, purge=True), Job)
        assert_type(await tm.cluster(), Cluster)
        await tm.delete_collection("shop", "carts", force=True)

        # What mypy must find: each of these lines is wrong.
        await tm.get_job("shop", "carts", 7)  # type: ignore[arg-type]
        await tm.put_route("shop", "hello", webhook_uri="x")  # type: ignore[call-arg]
        await tm.create_job("shop", "carts", route="a", trigger_time="now")  # type: ignore[arg-type]
        await tm.create_job("shop", "carts", delay_ms=1)  # type: ignore[call-arg]
        job.state = "dead"  # type: ignore[misc]


def synchronous() -> int:
    """The sync client, and its errors."""
    with SyncClient("http://127.0.0.1:8001") as tm:
        try:
            job = tm.get_job("default", "carts", "nxz123bnj")
        except ApiNotFound:
            return 404
        except ApiConflict as error:
            assert_type(error.code, str)
            assert_type(error.status, int | None)
            assert_type(error.errors, list[tuple[str, str]])
            raise
        except NoAnswer as error:
            assert_type(error.maybe_done, bool)
            raise
        except ClientError as error:
            raise RuntimeError(error.detail) from error
        jobs = tm.list_jobs("default", "carts", page_size=10)
        assert_type(jobs, Items[Job])
        return len(list(jobs)) + job.version


def receive(body: bytes, headers: Mapping[str, str]) -> int:
    """A recipient."""
    webhook = Webhook(["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", b"x" * 32], tolerance_s=60)
    try:
        event = webhook.verify(body, headers)
    except WebhookVerificationError:
        return 401
    except WebhookPayloadError:
        return 400
    except TimeMachineError:
        return 500
    assert_type(event, Any)
    assert_type(webhook.sign("id", datetime.now(tz=UTC), body), str)
    return 200


def receive_once(body: bytes, headers: Mapping[str, str]) -> int:
    """A recipient that recognises repeats."""
    with closing(connect("app.db", busy_timeout_ms=1_000)) as connection:
        store: Store = SQLiteStore(connection)
        dedupe = Dedupe(store, ttl_s=30 * 86_400, lease_s=60)
        try:
            done = dedupe.once(headers["webhook-id"], fingerprint(body), lambda: "paid")
        except WebhookError as error:
            assert_type(error.http_status, int)
            return error.http_status
        assert_type(done, Done)
        assert_type(done.result, str | None)
        dedupe.once("id", "print", lambda: None)

        # What mypy must find: the result is text, and there is an effect.
        dedupe.once("id", "print", lambda: 7)  # type: ignore[arg-type,return-value]
        dedupe.once("id", "print")  # type: ignore[call-arg]
        dedupe.commit(done)  # type: ignore[arg-type]
    return 200


def receive_long(dedupe: Dedupe, body: bytes, webhook_id: str) -> int:
    """A recipient that works for long."""
    match dedupe.begin(webhook_id, fingerprint(body)):
        case Done():
            return 200
        case InProgress():
            return 409
        case New() as claim:
            assert_type(claim.taken_over, bool)
            with dedupe.transaction():
                dedupe.commit(claim, "paid")
            return 200
