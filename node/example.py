"""Sends one request with an example job to a route, so that its owner sees what recipients get."""

from collections.abc import Callable
from typing import Any

from node.env import World
from node.webhook import Prepared, build_request
from timemachine.identifiers import webhook_id
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
    request = build_request(
        prepared,
        route,
        record,
        job_id="example",
        meta=b'{"example":true}',
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
                "webhook_id": webhook_id(record.uid, record.version, record.occurrence),
                "duration_ms": round(outcome.total_ms, 3),
            }
        )

    sender.send(request, answered)
