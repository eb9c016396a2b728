"""The paths of the original timeMachine, so that its clients keep working.

Two forms, told apart by the number of segments and the method. Each request does what one of the
API's own does, and is answered in the few words that those clients know:

    long    POST /job/{db}/{collection}      GET, PUT, DELETE /job/{db}/{collection}/{id}
            POST /route/{db}                 GET, PUT, DELETE /route/{db}/{id}
    short   POST /job/{collection}           GET, DELETE /job/{collection}/{id}
            POST /route, /route/             GET, DELETE /route/{id}

The short form means the database `default`, and calls a time `trigger_ms`.
"""

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

from node.api.answers import refused
from node.api.conventions import (
    Answer,
    Call,
    ask_job,
    checked_job_id,
    checked_name,
    checked_time,
    decoded,
    encode_json,
    idempotency_key,
    json_answer,
)
from node.api.databases import DatabaseHandlers
from node.api.job_bodies import JobPutBody
from node.api.jobs import JobHandlers
from node.api.lookups import find_collection, find_job, find_route_of, job_named
from node.api.metas import checked_meta
from node.api.operations import IDEMPOTENCY_KEY, Example, Told, flag, operation
from node.api.problems import invalid, refusal
from node.api.route_store import RouteStore
from node.api.route_views import shown_url
from node.engine import Engine
from timemachine.errors import TimeMachineError
from timemachine.model import JobRecord, Route
from timemachine.outbound import parse_target
from timemachine.replica.meta import DEFAULT_DATABASE

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_TYPES: Final = frozenset({"rest", "http", "webhook"})
_NO_HEADERS: Final[Mapping[str, str]] = {}
_KEPT_STATUSES: Final = frozenset({401, 429})
"""Refusals that say nothing of the request itself."""


class OriginalJobBody(msgspec.Struct):
    """A job as those clients send it. What else they send means nothing, and never did."""

    id: str | None = None
    trigger_time: Annotated[int | str | None, Meta(description="Either name is taken.")] = None
    trigger_ms: Annotated[int | str | None, Meta(description="Either name is taken.")] = None
    meta: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    route: Annotated[str | None, Meta(description="Needed.")] = None


class OriginalRouteBody(msgspec.Struct):
    """A route as those clients send it."""

    id: str | None = None
    type: str = "REST"
    webhook_url: str | None = None


class OriginalDone(msgspec.Struct):
    """It is done. The short form tells the version, too."""

    status: Annotated[str, Meta(extra_json_schema={"enum": ["ok"]})]
    offset: int | msgspec.UnsetType = msgspec.UNSET


class OriginalFailure(msgspec.Struct):
    """Why it is not done; the codes are those of problems."""

    error: str
    code: str


class OriginalJobView(msgspec.Struct, kw_only=True):
    """A job as those clients know it: `trigger_ms` in the short form."""

    id: str
    trigger_time: int | msgspec.UnsetType = msgspec.UNSET
    trigger_ms: int | msgspec.UnsetType = msgspec.UNSET
    meta: msgspec.Raw
    route: str


class OriginalRouteView(msgspec.Struct):
    """A route as those clients know it."""

    id: str
    type: str
    webhook_url: str


_decode_job = msgspec.json.Decoder(OriginalJobBody).decode
_decode_route = msgspec.json.Decoder(OriginalRouteBody).decode


def is_its_own(path: str) -> bool:
    """Whether a path, decoded, is one of the original's."""
    return path in ("/job", "/route") or path.startswith(("/job/", "/route/"))


def told(error: TimeMachineError) -> Answer:
    """A refusal in the original's words: 400, whatever was wrong with the request.

    Who has no token (401) or comes too often (429) is told so, and a fault of the node stays one.
    """
    if not 400 <= error.http_status < 500 or error.http_status in _KEPT_STATUSES:
        return refused(error)
    return json_answer(OriginalFailure(error.detail, error.specific_code), 400)


_Method = TypeVar("_Method", bound=Callable[..., Any])
_FAILED = Told(meaning="It is not done.", body=OriginalFailure)
_DONE = {200: Told(meaning="It is done.", body=OriginalDone), 400: _FAILED}
_JOB = {200: Told(meaning="The job.", body=OriginalJobView), 400: _FAILED}
_ROUTE = {200: Told(meaning="The route.", body=OriginalRouteView), 400: _FAILED}
_FORCE = flag("force", "Delete it although jobs are scheduled for it; those end dead.")
_JOB_EXAMPLE = {"id": "cart-77", "route": "hello", "meta": {"cart": 7}}
_ROUTE_EXAMPLE = {"id": "hello", "type": "REST", "webhook_url": "http://127.0.0.1:4000/callback"}


def _original(
    method: str, id: str, path: str, answers: Mapping[int, Told], **options: Any
) -> Callable[[_Method], _Method]:
    """An operation of the original: its refusals are 400, in a few words."""
    return operation(
        method,
        path,
        id=id,
        tag="Original paths",
        answers=answers,
        query=options.pop("query", None),
        refusals=["429 too_many_requests", *options.pop("refusals", ())],
        plain=True,
        **options,
    )


class OriginalHandlers:
    """Operations under the original's paths."""

    def __init__(
        self,
        engine: Engine,
        databases: DatabaseHandlers,
        routes: RouteStore,
        jobs: JobHandlers,
    ) -> None:
        self._engine = engine
        self._databases = databases
        self._routes = routes
        self._jobs = jobs

    # --- jobs ------------------------------------------------------------------------------

    @_original(
        "POST",
        "original_post_job_short",
        "/job/{collection}",
        _DONE,
        headers=(IDEMPOTENCY_KEY,),
        body=OriginalJobBody,
        refusals=["507 disk_full"],
        example=Example(body={**_JOB_EXAMPLE, "trigger_ms": 1_900_000_000_000}),
    )
    @_original(
        "POST",
        "original_post_job",
        "/job/{outer}/{inner}",
        _DONE,
        headers=(IDEMPOTENCY_KEY,),
        body=OriginalJobBody,
        refusals=["507 disk_full"],
        example=Example(
            path={"outer": "default", "inner": "carts"},
            body={**_JOB_EXAMPLE, "trigger_time": 1_900_000_000_000},
        ),
    )
    async def post_job(self, call: Call) -> Answer:
        """Create a job, or replace it."""
        short = len(call.names) == 1
        db, collection = [DEFAULT_DATABASE, *call.names][-2:]
        return await self._write_job(call, db, collection, None, short=short)

    @_original(
        "PUT",
        "original_put_job",
        "/job/{db}/{collection}/{id}",
        _DONE,
        headers=(IDEMPOTENCY_KEY,),
        body=OriginalJobBody,
        refusals=["507 disk_full"],
        example=Example(body={"route": "hello", "trigger_time": 1_900_000_000_000}),
    )
    async def put_job(self, call: Call) -> Answer:
        """Replace a job."""
        return await self._write_job(call, *call.names, short=False)

    async def _write_job(
        self, call: Call, db: str, collection: str, job_id: str | None, *, short: bool
    ) -> Answer:
        checked_name(db, "database")
        checked_name(collection, "collection")
        body = decoded(_decode_job, call.body)
        job_id = _the_id(body.id, job_id)
        times = [("trigger_time", body.trigger_time), ("trigger_ms", body.trigger_ms)]
        # Either name is taken in either form, that of the form first.
        name, time = next(
            (pair for pair in (times[::-1] if short else times) if pair[1] is not None),
            times[short],
        )
        if time is None:
            raise invalid(f"/{name}", "This member is required.")
        if body.route is None:
            raise invalid("/route", "This member is required.")
        meta = b"null" if isinstance(body.meta, msgspec.UnsetType) else bytes(body.meta)
        put = JobPutBody(
            trigger_time=checked_time(time, f"/{name}"),
            route=body.route,
            meta=msgspec.Raw(checked_meta(meta, "/meta")),
        )
        if job_id is not None:
            checked_job_id(job_id)
        # Before a collection is made for nothing.
        if (db, body.route) not in self._engine.meta.routes:
            raise refusal("route_not_found")
        await self._make_collection(db, collection)
        found = find_collection(self._engine, db, collection)
        if job_id is None:
            job_id = self._jobs.new_id(found, idempotency_key(call))
        command = self._jobs.replacing(call, found, job_id, put)
        result = await ask_job(self._engine, found, job_id, command)
        return _done(result.record, short=short)

    async def _make_collection(self, db: str, name: str) -> None:
        """Create a collection on its first use, and its database: the original knew no creating."""
        if (db, name) in self._engine.meta.collections:
            return
        if db not in self._engine.meta.databases:
            await self._databases.put_database(_put([db]))
        await self._databases.put_collection(_put([db, name]))

    @_original("GET", "original_get_job_short", "/job/{outer}/{inner}", _JOB)
    @_original("GET", "original_get_job", "/job/{db}/{collection}/{id}", _JOB)
    async def get_job(self, call: Call) -> Answer:
        """Read a job."""
        short = len(call.names) == 2
        names = [DEFAULT_DATABASE, *call.names][-3:]
        collection, job_id = job_named(self._engine, *names)
        record, meta = find_job(self._engine, collection, job_id)
        return json_answer(
            OriginalJobView(
                id=str(job_id),
                trigger_time=msgspec.UNSET if short else record.trigger_ms,
                trigger_ms=record.trigger_ms if short else msgspec.UNSET,
                meta=msgspec.Raw(meta),
                route=record.route,
            )
        )

    @_original(
        "DELETE",
        "original_delete_job_short",
        "/job/{outer}/{inner}",
        _DONE,
        headers=(IDEMPOTENCY_KEY,),
    )
    @_original(
        "DELETE",
        "original_delete_job",
        "/job/{db}/{collection}/{id}",
        _DONE,
        headers=(IDEMPOTENCY_KEY,),
    )
    async def delete_job(self, call: Call) -> Answer:
        """Cancel a job."""
        short = len(call.names) == 2
        names = [DEFAULT_DATABASE, *call.names][-3:]
        collection, job_id = job_named(self._engine, *names)
        command = self._jobs.cancelling(call, collection, job_id)
        result = await ask_job(self._engine, collection, job_id, command)
        return _done(result.record, short=short)

    # --- routes ----------------------------------------------------------------------------

    @_original(
        "POST",
        "original_post_route_short",
        "/route",
        _DONE,
        headers=(IDEMPOTENCY_KEY,),
        body=OriginalRouteBody,
        example=Example(body={**_ROUTE_EXAMPLE, "type": "http"}),
    )
    @_original(
        "POST",
        "original_post_route",
        "/route/{name}",
        _DONE,
        headers=(IDEMPOTENCY_KEY,),
        body=OriginalRouteBody,
        example=Example(path={"name": "default"}, body=_ROUTE_EXAMPLE),
    )
    async def post_route(self, call: Call) -> Answer:
        """Create a route, or replace it."""
        short = not call.names
        db = DEFAULT_DATABASE if short else call.names[0]
        return await self._write_route(call, db, None, short=short)

    @_original(
        "PUT",
        "original_put_route",
        "/route/{db}/{route}",
        _DONE,
        headers=(IDEMPOTENCY_KEY,),
        body=OriginalRouteBody,
        example=Example(body={"webhook_url": "http://127.0.0.1:4000/callback"}),
    )
    async def put_route(self, call: Call) -> Answer:
        """Replace a route."""
        return await self._write_route(call, *call.names, short=False)

    async def _write_route(self, call: Call, db: str, name: str | None, *, short: bool) -> Answer:
        body = decoded(_decode_route, call.body)
        name = _the_id(body.id, name)
        if name is None:
            raise invalid("/id", "This member is required.")
        checked_name(name, "route")
        if body.type.lower() not in _TYPES:
            raise invalid("/type", "This is `REST` or `http`.")
        if body.webhook_url is None:
            raise invalid("/webhook_url", "This member is required.")
        url = body.webhook_url
        if _SCHEME.match(url) is None:
            url = f"http://{url}"
        parse_target(url)
        if db not in self._engine.meta.databases:
            checked_name(db, "database")
            await self._databases.put_database(_put([db]))
        put = _put([db, name], call.headers, encode_json({"webhook_url": url}))
        result = await self._routes.write(put, patch=False)
        return _done(result.route, short=short)

    @_original("GET", "original_get_route_short", "/route/{name}", _ROUTE)
    @_original("GET", "original_get_route", "/route/{db}/{route}", _ROUTE)
    async def get_route(self, call: Call) -> Answer:
        """Read a route."""
        short = len(call.names) == 1
        names = [DEFAULT_DATABASE, *call.names][-2:]
        route = find_route_of(self._engine, *names)
        kind = "http" if short else "REST"
        return json_answer(OriginalRouteView(route.name, kind, shown_url(route)))

    @_original(
        "DELETE",
        "original_delete_route_short",
        "/route/{name}",
        _DONE,
        query=[_FORCE],
        headers=(IDEMPOTENCY_KEY,),
        example=Example(query={"force": True}),
    )
    @_original(
        "DELETE",
        "original_delete_route",
        "/route/{db}/{route}",
        _DONE,
        query=[_FORCE],
        headers=(IDEMPOTENCY_KEY,),
        example=Example(query={"force": True}),
    )
    async def delete_route(self, call: Call) -> Answer:
        """Delete a route."""
        short = len(call.names) == 1
        names = [DEFAULT_DATABASE, *call.names][-2:]
        result = await self._routes.delete(msgspec.structs.replace(call, names=names))
        return _done(result.route, short=short)


def _the_id(in_body: str | None, in_path: str | None) -> str | None:
    if None not in (in_body, in_path) and in_body != in_path:
        raise invalid("/id", "The id in the body is not the one in the path.")
    return in_body if in_path is None else in_path


def _put(names: list[str], headers: Any = _NO_HEADERS, body: bytes = b"") -> Call:
    """A request of the API's own; `headers` of the one behind it where they are meant for this."""
    return Call(
        method="PUT", operation="original", names=names, query={}, headers=headers, body=body
    )


def _done(written: JobRecord | Route | None, *, short: bool) -> Answer:
    assert written is not None
    return json_answer(OriginalDone("ok", written.version if short else msgspec.UNSET))
