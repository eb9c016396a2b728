"""Sends one request with an example job to a route, so that its owner sees what recipients get."""

from collections.abc import Callable
from typing import Any

from node.env import World
from node.webhook import Member, Prepared, build_batch_request, build_request
from timemachine import limits
from timemachine.identifiers import batch_id, webhook_id
from timemachine.model import JobRecord, JobState, Queue, Route
from timemachine.outbound import Outcome, Sender


def send_example(
    world: World,
    sender: Sender,
    route: Route,
    prepared: Prepared,
    done: Callable[[dict[str, Any]], None],
) -> None:
    """Send one signed request; nothing is stored. `done` gets how it ended, for people."""
    now_ms = world.wall_ms()
    record = JobRecord(
        uid=world.random_bytes(16),
        version=1,
        state=int(JobState.FIRING),
        trigger_ms=now_ms,
        delay_ms=None,
        route=route.name,
        route_uid=route.uid,
        tags=(),
        created_ms=now_ms,
        updated_ms=now_ms,
        due_ms=now_ms,
        queue=int(Queue.NONE),
        retry_reason="example",
    )
    meta = b'{"example":true}'
    identity = webhook_id(record.uid, record.version, record.occurrence)
    if route.batched:
        batch = world.random_bytes(limits.BATCH_ID_BYTES)
        identity = batch_id(batch)
        request = build_batch_request(
            prepared,
            route,
            [Member("example", record, meta)],
            batch=batch,
            format=route.batch.format,
            body=route.body,
            db=route.db,
            collection="example",
            attempt=1,
            fence="0.0",
            now_ms=now_ms,
        )
    else:
        request = build_request(
            prepared,
            route,
            record,
            job_id="example",
            meta=meta,
            db=route.db,
            collection="example",
            attempt=1,
            fence="0.0",
            now_ms=now_ms,
        )

    def answered(outcome: Outcome) -> None:
        good = outcome.status is not None and 200 <= outcome.status <= 299
        done(
            {
                "status": "succeeded" if good else "failed",
                "response_status": outcome.status,
                "error_code": outcome.error_code,
                "error_message": outcome.error_message,
                "webhook_id": identity,
                "duration_ms": round(outcome.total_ms, 3),
            }
        )

    sender.send(request, answered)
