"""The receiver as its users write it. Only type-checked, never run."""

from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, assert_type

import psycopg
import redis

from timemachine.client import TimeMachineError
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
from timemachine.receiver.postgres import PostgresStore
from timemachine.receiver.redis import RedisStore
from timemachine.receiver.sqlite import SQLiteStore, connect


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


def stores(
    connection: psycopg.Connection[dict[str, Any]], cluster: redis.RedisCluster
) -> list[Store]:
    """The stores on servers, with what applications have."""
    webhook = Webhook("whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=")
    assert_type(webhook.verify(b"{}", {}), Any)
    store = PostgresStore(connection, lock_timeout_ms=1_000)
    store.create_table()
    return [store, RedisStore(redis.Redis()), RedisStore(cluster, prefix="shop:")]


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
