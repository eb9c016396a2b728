"""Jobs and their attempts."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from timemachine.client.answers import Attempt, Batch, Job, Page
from timemachine.client.call import (
    Call,
    Time,
    collection_path,
    condition_of,
    job_body,
    job_path,
    optional_time_ms,
    query_of,
    texts,
    time_ms,
)
from timemachine.client.operations.fields import Consistency, NewJob

UNSET = msgspec.UNSET
Given = msgspec.UnsetType


def create_job(
    db: str,
    collection: str,
    *,
    route: str,
    trigger_time: Time | None = None,
    delay_ms: int | None = None,
    meta: Any = None,
    tags: Iterable[str] = (),
    ordering_key: str | None = None,
    id: str | None = None,
    allow_missing_route: bool = False,
    idempotency_key: str | None = None,
) -> Call[Job]:
    """Create a job: POST `meta` to `route` at `trigger_time`, or `delay_ms` from now.

    A job without `id` gets one of the client's; with an `idempotency_key` of your own the cluster
    makes the id from that key, so that a repeat of yours names the same job. ApiConflict
    (`job_exists`) when the id belongs to another job already. `meta` is any JSON; wrap ready
    bytes into `msgspec.Raw` to have them kept exactly.
    """
    body = job_body(
        trigger_time=trigger_time,
        delay_ms=delay_ms,
        route=route,
        meta=meta,
        tags=tags,
        ordering_key=ordering_key,
        id=id,
    )
    return Call(
        "POST",
        collection_path(db, collection, "jobs"),
        Job,
        query=query_of(allow_missing_route=allow_missing_route),
        body=body,
        idempotency_key=idempotency_key,
        new_ids=idempotency_key is None,
    )


def create_jobs(
    db: str,
    collection: str,
    jobs: Iterable[NewJob],
    *,
    allow_missing_route: bool = False,
    idempotency_key: str | None = None,
) -> Call[Batch]:
    """Create up to 10,000 jobs with one request. Each succeeds or fails by itself, in order."""
    body = [job_body(**msgspec.structs.asdict(job)) for job in jobs]
    return Call(
        "POST",
        collection_path(db, collection, "jobs", "batch"),
        Batch,
        query=query_of(allow_missing_route=allow_missing_route),
        body=body,
        idempotency_key=idempotency_key,
        new_ids=idempotency_key is None,
    )


def put_job(
    db: str,
    collection: str,
    id: str,
    *,
    route: str,
    trigger_time: Time | None = None,
    delay_ms: int | None = None,
    meta: Any = None,
    tags: Iterable[str] = (),
    ordering_key: str | None = None,
    allow_missing_route: bool = False,
    if_match: int | None = None,
    create_only: bool = False,
    idempotency_key: str | None = None,
) -> Call[Job]:
    """Create or replace the job `id`. `previous` in the answer tells what became of the old one."""
    body = job_body(
        trigger_time=trigger_time,
        delay_ms=delay_ms,
        route=route,
        meta=meta,
        tags=tags,
        ordering_key=ordering_key,
    )
    return Call(
        "PUT",
        job_path(db, collection, id),
        Job,
        query=query_of(allow_missing_route=allow_missing_route),
        body=body,
        headers=condition_of(if_match, create_only=create_only),
        idempotency_key=idempotency_key,
    )


def patch_job(
    db: str,
    collection: str,
    id: str,
    *,
    trigger_time: Time | Given = UNSET,
    delay_ms: int | Given = UNSET,
    route: str | Given = UNSET,
    meta: Any = UNSET,
    tags: Iterable[str] | Given = UNSET,
    if_match: int | None = None,
    allow_missing_route: bool = False,
    idempotency_key: str | None = None,
) -> Call[Job]:
    """Change the given fields of a job and leave the others as they are."""
    body: dict[str, Any] = {}
    if not isinstance(trigger_time, Given):
        body["trigger_time"] = time_ms(trigger_time)
    if not isinstance(tags, Given):
        body["tags"] = texts(tags)
    others = {"delay_ms": delay_ms, "route": route, "meta": meta}
    body.update((name, value) for name, value in others.items() if value is not UNSET)
    return Call(
        "PATCH",
        job_path(db, collection, id),
        Job,
        query=query_of(allow_missing_route=allow_missing_route),
        body=body,
        headers=condition_of(if_match),
        idempotency_key=idempotency_key,
    )


def get_job(
    db: str,
    collection: str,
    id: str,
    *,
    explain: bool = False,
    consistency: Consistency | None = None,
) -> Call[Job]:
    """A job; with `explain` it has an `explanation`: why it was late."""
    query = query_of(explain=explain, consistency=consistency)
    return Call("GET", job_path(db, collection, id), Job, query=query)


def delete_job(
    db: str,
    collection: str,
    id: str,
    *,
    purge: bool = False,
    if_match: int | None = None,
    idempotency_key: str | None = None,
) -> Call[Job]:
    """Cancel a job. `outcome` in the answer: cancelled, in_flight, already_delivered, already_dead.

    With `purge` the job is forgotten too, instead of being kept as history.
    """
    return Call(
        "DELETE",
        job_path(db, collection, id),
        Job,
        query=query_of(purge=purge),
        headers=condition_of(if_match),
        idempotency_key=idempotency_key,
    )


def run_job(db: str, collection: str, id: str, *, idempotency_key: str | None = None) -> Call[Job]:
    """Move the next attempt of a pending job to now. ApiConflict (`job_finished`) on others."""
    path = job_path(db, collection, id, "run")
    return Call("POST", path, Job, idempotency_key=idempotency_key)


def redrive_job(
    db: str,
    collection: str,
    id: str,
    *,
    force: bool = False,
    new_id: bool = False,
    idempotency_key: str | None = None,
) -> Call[Job]:
    """Deliver a dead job again under the same webhook id; with `force` also a delivered one.

    With `new_id` under another one: a recipient that has done it already does it once more.
    """
    path = job_path(db, collection, id, "redrive")
    query = query_of(force=force, new_id=new_id)
    return Call("POST", path, Job, query=query, idempotency_key=idempotency_key)


def list_jobs(
    db: str,
    collection: str,
    *,
    state: str | Sequence[str] | None = None,
    route: str | None = None,
    tag: str | None = None,
    from_time: Time | None = None,
    to_time: Time | None = None,
    limit: int | None = None,
    page_size: int | None = None,
    cursor: str | None = None,
    consistency: Consistency | None = None,
) -> Call[Page[Job]]:
    """Iterate over jobs in the order of their trigger times, `limit` of them at most.

    `state` is one or several, `from_time` is inclusive, `to_time` exclusive. Pages of `page_size`
    are fetched as needed; `.pages()` iterates over these. The iterator's `next_cursor`, given as
    `cursor`, goes on after the last page that was fetched.
    """
    query = query_of(
        state=state,
        route=route,
        tag=tag,
        from_=optional_time_ms(from_time),
        to=optional_time_ms(to_time),
        consistency=consistency,
        limit=page_size,
        cursor=cursor,
    )
    path = collection_path(db, collection, "jobs")
    return Call("GET", path, Page[Job], query=query, items_max=limit)


def attempts(
    db: str,
    collection: str,
    id: str,
    *,
    status: str | Sequence[str] | None = None,
    response: int | str | None = None,
    from_time: Time | None = None,
    to_time: Time | None = None,
    page_size: int | None = None,
    consistency: Consistency | None = None,
) -> Call[Page[Attempt]]:
    """All attempts of a job, the oldest first, each with its outcome; filters as for a route's."""
    path = job_path(db, collection, id, "attempts")
    query = query_of(
        status=status,
        response=response,
        from_=optional_time_ms(from_time),
        to=optional_time_ms(to_time),
        consistency=consistency,
        limit=page_size,
    )
    return Call("GET", path, Page[Attempt], query=query)


def delete_attempt_content(
    db: str,
    collection: str,
    id: str,
    attempt: int,
    *,
    version: int | None = None,
    idempotency_key: str | None = None,
) -> Call[None]:
    """Forget what the recipient answered to one attempt; that it was made stays known.

    With `version` only if the attempt was for that version of the job.
    """
    return Call(
        "DELETE",
        job_path(db, collection, id, "attempts", str(attempt), "content"),
        type(None),
        query=query_of(version=version),
        idempotency_key=idempotency_key,
    )
