"""The operations of the API, one function each: what is asked, and what type answers.

These functions are the methods of `Client` and `SyncClient`; their docstrings are written for the
users of those. They do no I/O: each returns a Call that the client carries through.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict, Unpack

import msgspec

from timemachine.client.answers import (
    Attempt,
    Batch,
    Cluster,
    Collection,
    Database,
    Job,
    Page,
    Route,
    RouteSecret,
)
from timemachine.client.call import (
    Call,
    Time,
    condition_of,
    job_body,
    optional_time_ms,
    path_of,
    query_of,
    time_ms,
)

UNSET = msgspec.UNSET
Given = msgspec.UnsetType


class NewJob(msgspec.Struct, frozen=True, kw_only=True):
    """One job of a batch; either `trigger_time` or `delay_ms`."""

    route: str
    trigger_time: Time | None = None
    delay_ms: int | None = None
    meta: Any = None
    tags: tuple[str, ...] = ()
    ordering_key: str | None = None
    id: str | None = None


class RetryFields(TypedDict, total=False):
    """When and how often a failed delivery is tried again."""

    schedule_ms: Sequence[int]
    max_attempts: int
    max_age_ms: int
    jitter: float


class RateFields(TypedDict, total=False):
    """At most `count` attempts per `period_ms`; no limit when `count` is None."""

    count: int | None
    period_ms: int


class RouteFields(TypedDict, total=False):
    """The settings of a route. What is left out has its default, or with PATCH stays."""

    webhook_url: str
    type: str
    https_only: bool
    headers: Mapping[str, str]
    body: str
    secret: str
    timeout_ms: int
    delivery: str
    retry: RetryFields
    non_retryable_status: Sequence[int]
    smear_ms: int
    max_in_flight: int
    rate: RateFields
    breaker: Mapping[str, Any]
    disable_after_ms: int
    batch: Mapping[str, Any]
    ca_pem: str | None
    client_cert_pem: str | None
    client_key_pem: str | None
    dangerous_skip_tls_verify: bool
    enabled: bool


# --- databases ---------------------------------------------------------------------------------


def put_database(db: str) -> Call[Database]:
    """Create a database, if it is not there yet."""
    return Call("PUT", path_of("dbs", db), Database)


def get_database(db: str) -> Call[Database]:
    """A database."""
    return Call("GET", path_of("dbs", db), Database)


def list_databases(*, page_size: int | None = None) -> Call[Page[Database]]:
    """All databases."""
    return Call("GET", path_of("dbs"), Page[Database], query=query_of(limit=page_size))


def delete_database(db: str, *, force: bool = False) -> Call[None]:
    """Delete a database; one that is not empty only with `force`."""
    return Call("DELETE", path_of("dbs", db), type(None), query=query_of(force=force))


# --- collections -------------------------------------------------------------------------------


def put_collection(
    db: str,
    collection: str,
    *,
    num_vnodes: int | None = None,
    replicas: int | None = None,
    history_retention_ms: int | None = None,
) -> Call[Collection]:
    """Create a collection, or change one. `num_vnodes` cannot be changed later."""
    fields = {
        "num_vnodes": num_vnodes,
        "replicas": replicas,
        "history_retention_ms": history_retention_ms,
    }
    body = {name: value for name, value in fields.items() if value is not None}
    return Call("PUT", _collection(db, collection), Collection, body=body)


def get_collection(db: str, collection: str) -> Call[Collection]:
    """A collection, with its counts of jobs by state."""
    return Call("GET", _collection(db, collection), Collection)


def list_collections(db: str, *, page_size: int | None = None) -> Call[Page[Collection]]:
    """All collections of a database."""
    query = query_of(limit=page_size)
    return Call("GET", path_of("dbs", db, "collections"), Page[Collection], query=query)


def delete_collection(db: str, collection: str, *, force: bool = False) -> Call[None]:
    """Delete a collection; one that is not empty only with `force`."""
    query = query_of(force=force)
    return Call("DELETE", _collection(db, collection), type(None), query=query)


# --- routes ------------------------------------------------------------------------------------


def put_route(
    db: str,
    route: str,
    *,
    if_match: int | None = None,
    create_only: bool = False,
    **fields: Unpack[RouteFields],
) -> Call[Route]:
    """Create or replace a route. Only `webhook_url` is needed; the rest has defaults.

    `if_match` makes the change conditional on the route's version, `create_only` on there being
    no such route yet; ApiPreconditionFailed otherwise.
    """
    headers = condition_of(if_match, create_only=create_only)
    return Call("PUT", _route(db, route), Route, body=_route_body(fields), headers=headers)


def get_route(db: str, route: str) -> Call[Route]:
    """A route. Header values are masked; its secret is at `get_route_secret`."""
    return Call("GET", _route(db, route), Route)


def patch_route(
    db: str, route: str, *, if_match: int | None = None, **fields: Unpack[RouteFields]
) -> Call[Route]:
    """Change the given fields of a route and leave the others as they are."""
    headers = condition_of(if_match)
    return Call("PATCH", _route(db, route), Route, body=_route_body(fields), headers=headers)


def delete_route(
    db: str, route: str, *, force: bool = False, if_match: int | None = None
) -> Call[None]:
    """Delete a route; one with pending jobs only with `force`, and these jobs end dead."""
    query, headers = query_of(force=force), condition_of(if_match)
    return Call("DELETE", _route(db, route), type(None), query=query, headers=headers)


def list_routes(db: str, *, page_size: int | None = None) -> Call[Page[Route]]:
    """All routes of a database."""
    query = query_of(limit=page_size)
    return Call("GET", path_of("dbs", db, "routes"), Page[Route], query=query)


def get_route_secret(db: str, route: str) -> Call[RouteSecret]:
    """The signing secret of a route, which its recipient verifies with."""
    return Call("GET", _route(db, route, "secret"), RouteSecret)


def pause_route(db: str, route: str) -> Call[Route]:
    """Start no more sends to a route; its due jobs are held."""
    return Call("POST", _route(db, route, "pause"), Route)


def resume_route(db: str, route: str) -> Call[Route]:
    """Send to a paused route again, what was held first."""
    return Call("POST", _route(db, route, "resume"), Route)


def send_example(db: str, route: str) -> Call[Any]:
    """Send one example webhook to a route now, and say how it went."""
    return Call("POST", _route(db, route, "send-example"), Any)


# --- jobs --------------------------------------------------------------------------------------


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
        _collection(db, collection, "jobs"),
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
    body = [
        job_body(
            trigger_time=job.trigger_time,
            delay_ms=job.delay_ms,
            route=job.route,
            meta=job.meta,
            tags=job.tags,
            ordering_key=job.ordering_key,
            id=job.id,
        )
        for job in jobs
    ]
    return Call(
        "POST",
        _collection(db, collection, "jobs", "batch"),
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
        _job(db, collection, id),
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
        body["tags"] = list(tags)
    others = {"delay_ms": delay_ms, "route": route, "meta": meta}
    body.update((name, value) for name, value in others.items() if value is not UNSET)
    return Call(
        "PATCH",
        _job(db, collection, id),
        Job,
        query=query_of(allow_missing_route=allow_missing_route),
        body=body,
        headers=condition_of(if_match),
        idempotency_key=idempotency_key,
    )


def get_job(db: str, collection: str, id: str, *, stale: bool = False) -> Call[Job]:
    """A job. With `stale` the answering node says what it knows, without asking the leader."""
    query = query_of(consistency="stale" if stale else None)
    return Call("GET", _job(db, collection, id), Job, query=query)


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
        _job(db, collection, id),
        Job,
        query=query_of(purge=purge),
        headers=condition_of(if_match),
        idempotency_key=idempotency_key,
    )


def run_job(db: str, collection: str, id: str, *, idempotency_key: str | None = None) -> Call[Job]:
    """Move the next attempt of a pending job to now. ApiConflict (`job_finished`) on others."""
    path = _job(db, collection, id, "run")
    return Call("POST", path, Job, idempotency_key=idempotency_key)


def redrive_job(
    db: str,
    collection: str,
    id: str,
    *,
    force: bool = False,
    idempotency_key: str | None = None,
) -> Call[Job]:
    """Deliver a dead job again under the same webhook id; with `force` also a delivered one."""
    path = _job(db, collection, id, "redrive")
    query = query_of(force=force)
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
    stale: bool = False,
    page_size: int | None = None,
    cursor: str | None = None,
) -> Call[Page[Job]]:
    """Iterate over jobs in the order of their trigger times.

    `from_time` is inclusive, `to_time` exclusive. Pages of `page_size` are fetched as needed; the
    iterator's `next_cursor`, given as `cursor`, goes on after the last page that was fetched.
    """
    query = query_of(
        state=state,
        route=route,
        tag=tag,
        from_=optional_time_ms(from_time),
        to=optional_time_ms(to_time),
        consistency="stale" if stale else None,
        limit=page_size,
        cursor=cursor,
    )
    return Call("GET", _collection(db, collection, "jobs"), Page[Job], query=query)


def attempts(
    db: str, collection: str, id: str, *, page_size: int | None = None
) -> Call[Page[Attempt]]:
    """All attempts of a job, each with its outcome."""
    path = _job(db, collection, id, "attempts")
    return Call("GET", path, Page[Attempt], query=query_of(limit=page_size))


# --- the cluster -------------------------------------------------------------------------------


def cluster() -> Call[Cluster]:
    """The cluster and its nodes, as the answering node sees them."""
    return Call("GET", path_of("cluster"), Cluster)


def request(
    method: str,
    path: str,
    *,
    query: Mapping[str, str] | None = None,
    json: Any = None,
    idempotency_key: str | None = None,
) -> Call[Any]:
    """Any other operation of the API: `path` begins with /v1, the answer is plain JSON."""
    if not path.startswith("/") or not all("!" <= character <= "~" for character in path):
        raise ValueError("a path begins with / and is percent-encoded")
    return Call(
        method,
        path,
        Any,
        query=tuple((query or {}).items()),
        body=json,
        idempotency_key=idempotency_key,
    )


def _collection(db: str, collection: str, *rest: str) -> str:
    return path_of("dbs", db, "collections", collection, *rest)


def _route(db: str, route: str, *rest: str) -> str:
    return path_of("dbs", db, "routes", route, *rest)


def _job(db: str, collection: str, id: str, *rest: str) -> str:
    return _collection(db, collection, "jobs", id, *rest)


def _route_body(fields: RouteFields) -> dict[str, Any]:
    """The settings given. A misspelt one is refused here, before it travels."""
    unknown = fields.keys() - RouteFields.__annotations__.keys()
    if unknown:
        raise TypeError(f"a route has no setting named {', '.join(sorted(unknown))}")
    return dict(fields)
