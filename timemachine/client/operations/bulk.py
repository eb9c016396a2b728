"""What is done to many jobs at once, as tasks, and how many jobs are due when."""

from collections.abc import Sequence
from typing import Any

from timemachine.client.answers import Bucket, Bulk, Page, Task
from timemachine.client.call import (
    Call,
    Time,
    collection_path,
    given,
    optional_time_ms,
    path_of,
    query_of,
    route_path,
    time_ms,
)
from timemachine.client.operations.fields import Consistency


def cancel_jobs(
    db: str,
    collection: str,
    *,
    state: str | Sequence[str] | None = None,
    route: str | None = None,
    tag: str | None = None,
    from_time: Time | None = None,
    to_time: Time | None = None,
    dry_run: bool = False,
    idempotency_key: str | None = None,
) -> Call[Bulk]:
    """Cancel all pending jobs that fit every filter given; without any, all of the collection.

    The answer holds the task that does it, for `wait_task`. With `dry_run` nothing is changed, and
    it holds how many jobs there are, and some of them. `state` is one or several of scheduled,
    firing, retrying and held; `from_time` is inclusive, `to_time` exclusive.
    """
    body = _filtered(state, route, tag, from_time, to_time, dry_run=dry_run)
    path = collection_path(db, collection, "jobs", "cancel")
    return Call("POST", path, Bulk, body=body, idempotency_key=idempotency_key)


def reschedule_jobs(
    db: str,
    collection: str,
    *,
    trigger_time: Time | None = None,
    shift_ms: int | None = None,
    state: str | Sequence[str] | None = None,
    route: str | None = None,
    tag: str | None = None,
    from_time: Time | None = None,
    to_time: Time | None = None,
    dry_run: bool = False,
    idempotency_key: str | None = None,
) -> Call[Bulk]:
    """Move all pending jobs that fit every filter given to `trigger_time`, or by `shift_ms`.

    Filters, the task and `dry_run` are those of `cancel_jobs`.
    """
    if (trigger_time is None) == (shift_ms is None):
        raise ValueError("jobs are moved either to trigger_time or by shift_ms")
    body = _filtered(state, route, tag, from_time, to_time, dry_run=dry_run)
    if trigger_time is not None:
        body["trigger_time"] = time_ms(trigger_time)
    else:
        body["shift_ms"] = shift_ms
    path = collection_path(db, collection, "jobs", "reschedule")
    return Call("POST", path, Bulk, body=body, idempotency_key=idempotency_key)


def forecast(
    db: str,
    collection: str,
    *,
    from_time: Time | None = None,
    to_time: Time | None = None,
    bucket_ms: int | None = None,
    consistency: Consistency | None = None,
) -> Call[Page[Bucket]]:
    """How many jobs are due when: counts of buckets of `bucket_ms`, in order.

    Without arguments: from now on, for a day, by the hour.
    """
    query = query_of(
        from_=optional_time_ms(from_time),
        to=optional_time_ms(to_time),
        bucket_ms=bucket_ms,
        consistency=consistency,
    )
    return Call("GET", collection_path(db, collection, "forecast"), Page[Bucket], query=query)


def redrive_route(
    db: str,
    route: str,
    *,
    from_time: Time | None = None,
    to_time: Time | None = None,
    dry_run: bool = False,
    idempotency_key: str | None = None,
) -> Call[Bulk]:
    """Deliver the dead jobs of a route again whose trigger times are in the window.

    The task and `dry_run` are those of `cancel_jobs`.
    """
    body = _window(from_time, to_time, dry_run=dry_run)
    path = route_path(db, route, "redrive")
    return Call("POST", path, Bulk, body=body, idempotency_key=idempotency_key)


def replay_missing(
    db: str,
    route: str,
    *,
    from_time: Time | None = None,
    to_time: Time | None = None,
    dry_run: bool = False,
    idempotency_key: str | None = None,
) -> Call[Bulk]:
    """Deliver those dead jobs of a route and a window that were never attempted.

    The task and `dry_run` are those of `cancel_jobs`.
    """
    body = _window(from_time, to_time, dry_run=dry_run)
    path = route_path(db, route, "replay-missing")
    return Call("POST", path, Bulk, body=body, idempotency_key=idempotency_key)


def get_task(task: Bulk | str, *, consistency: Consistency | None = None) -> Call[Task]:
    """How far a task is; `task` is its id, or the answer that named it."""
    query = query_of(consistency=consistency)
    return Call("GET", path_of("tasks", task_id(task)), Task, query=query)


def list_tasks(
    *,
    limit: int | None = None,
    page_size: int | None = None,
    cursor: str | None = None,
    consistency: Consistency | None = None,
) -> Call[Page[Task]]:
    """Iterate over the tasks that are kept, the newest first, `limit` of them at most."""
    query = query_of(consistency=consistency, limit=page_size, cursor=cursor)
    return Call("GET", path_of("tasks"), Page[Task], query=query, items_max=limit)


def cancel_task(task: Bulk | str, *, idempotency_key: str | None = None) -> Call[Task]:
    """Stop a task. What it has done already stays done."""
    path = path_of("tasks", task_id(task), "cancel")
    return Call("POST", path, Task, idempotency_key=idempotency_key)


def task_id(task: Bulk | str) -> str:
    """The id of a task, from itself or from the answer that named it."""
    if not isinstance(task, Bulk):
        return task
    if task.task is None:
        raise ValueError("a dry run starts no task")
    return task.task


def _window(from_time: Time | None, to_time: Time | None, *, dry_run: bool) -> dict[str, Any]:
    body = given({"from": optional_time_ms(from_time), "to": optional_time_ms(to_time)})
    return {**body, "dry_run": True} if dry_run else body


def _filtered(
    state: str | Sequence[str] | None,
    route: str | None,
    tag: str | None,
    from_time: Time | None,
    to_time: Time | None,
    *,
    dry_run: bool,
) -> dict[str, Any]:
    states = state if state is None or isinstance(state, str) else ",".join(state)
    fields = {"state": states, "route": route, "tag": tag}
    body: dict[str, Any] = {
        "filter": given(fields) | _window(from_time, to_time, dry_run=False),
    }
    return {**body, "dry_run": True} if dry_run else body
