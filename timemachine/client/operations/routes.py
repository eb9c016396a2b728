"""Routes."""

from collections.abc import Sequence
from typing import Literal, Unpack

from timemachine.client.answers import (
    Attempt,
    Example,
    Page,
    Route,
    RouteSecret,
    RouteStats,
)
from timemachine.client.call import (
    Call,
    Time,
    condition_of,
    given,
    optional_time_ms,
    path_of,
    query_of,
    route_path,
)
from timemachine.client.operations.fields import Consistency, RouteFields, route_body


def put_route(
    db: str,
    route: str,
    *,
    if_match: int | None = None,
    create_only: bool = False,
    idempotency_key: str | None = None,
    **fields: Unpack[RouteFields],
) -> Call[Route]:
    """Create or replace a route. Only `webhook_url` is needed; the rest has defaults.

    `if_match` makes the change conditional on the route's version, `create_only` on there being
    no such route yet; ApiPreconditionFailed otherwise.
    """
    return Call(
        "PUT",
        route_path(db, route),
        Route,
        body=route_body(fields),
        headers=condition_of(if_match, create_only=create_only),
        idempotency_key=idempotency_key,
    )


def get_route(db: str, route: str, *, consistency: Consistency | None = None) -> Call[Route]:
    """A route. Header values are masked; its secret is at `get_route_secret`."""
    return Call("GET", route_path(db, route), Route, query=query_of(consistency=consistency))


def patch_route(
    db: str,
    route: str,
    *,
    if_match: int | None = None,
    idempotency_key: str | None = None,
    **fields: Unpack[RouteFields],
) -> Call[Route]:
    """Change the given fields of a route and leave the others as they are."""
    return Call(
        "PATCH",
        route_path(db, route),
        Route,
        body=route_body(fields),
        headers=condition_of(if_match),
        idempotency_key=idempotency_key,
    )


def delete_route(
    db: str,
    route: str,
    *,
    force: bool = False,
    if_match: int | None = None,
    idempotency_key: str | None = None,
) -> Call[None]:
    """Delete a route; one with pending jobs only with `force`, and these jobs end dead."""
    return Call(
        "DELETE",
        route_path(db, route),
        type(None),
        query=query_of(force=force),
        headers=condition_of(if_match),
        idempotency_key=idempotency_key,
    )


def list_routes(
    db: str, *, page_size: int | None = None, consistency: Consistency | None = None
) -> Call[Page[Route]]:
    """All routes of a database."""
    query = query_of(consistency=consistency, limit=page_size)
    return Call("GET", path_of("dbs", db, "routes"), Page[Route], query=query)


def get_route_secret(
    db: str, route: str, *, consistency: Consistency | None = None
) -> Call[RouteSecret]:
    """The signing secret of a route, which its recipient verifies with."""
    query = query_of(consistency=consistency)
    return Call("GET", route_path(db, route, "secret"), RouteSecret, query=query)


def rotate_route_secret(
    db: str,
    route: str,
    *,
    secret: str | None = None,
    type: Literal["v1", "v1a"] | None = None,
    grace_period_ms: int | None = None,
    idempotency_key: str | None = None,
) -> Call[RouteSecret]:
    """Give a route another secret, a generated one or yours.

    Until `grace_period_ms` is over webhooks are signed with the old one too. `type` says what to
    generate: a shared secret (`v1`), or a private key (`v1a`), which recipients verify with its
    public one.
    """
    fields = {"secret": secret, "type": type, "grace_period_ms": grace_period_ms}
    return Call(
        "POST",
        route_path(db, route, "secret", "rotate"),
        RouteSecret,
        body=given(fields),
        idempotency_key=idempotency_key,
    )


def pause_route(db: str, route: str, *, idempotency_key: str | None = None) -> Call[Route]:
    """Start no more sends to a route; its due jobs are held.

    `pending_vnodes` of the answer may still start a send; call again until there are none.
    """
    path = route_path(db, route, "pause")
    return Call("POST", path, Route, idempotency_key=idempotency_key)


def resume_route(db: str, route: str, *, idempotency_key: str | None = None) -> Call[Route]:
    """Send to a paused route again, what was held first."""
    path = route_path(db, route, "resume")
    return Call("POST", path, Route, idempotency_key=idempotency_key)


def send_example(db: str, route: str, *, idempotency_key: str | None = None) -> Call[Example]:
    """Send one example webhook to a route now, and say how it went. Nothing is stored."""
    path = route_path(db, route, "send-example")
    return Call("POST", path, Example, idempotency_key=idempotency_key)


def route_stats(db: str, route: str, *, consistency: Consistency | None = None) -> Call[RouteStats]:
    """How a route does: its jobs that have not ended, and what became of its attempts."""
    query = query_of(consistency=consistency)
    return Call("GET", route_path(db, route, "stats"), RouteStats, query=query)


def route_attempts(
    db: str,
    route: str,
    *,
    status: str | Sequence[str] | None = None,
    response: int | str | None = None,
    from_time: Time | None = None,
    to_time: Time | None = None,
    limit: int | None = None,
    page_size: int | None = None,
    cursor: str | None = None,
    consistency: Consistency | None = None,
) -> Call[Page[Attempt]]:
    """Iterate over the attempts of a route, the newest first, `limit` at most.

    `status` is one or several of succeeded, failed and unknown; `response` a status, a class of
    them such as "5xx", or "none". `from_time` and `to_time` are about when they were settled. Each
    of `.pages()` has a `previous_cursor` too, which leads to newer ones: also to those that come
    later.
    """
    query = query_of(
        status=status,
        response=response,
        from_=optional_time_ms(from_time),
        to=optional_time_ms(to_time),
        consistency=consistency,
        limit=page_size,
        cursor=cursor,
    )
    path = route_path(db, route, "attempts")
    return Call("GET", path, Page[Attempt], query=query, items_max=limit)
