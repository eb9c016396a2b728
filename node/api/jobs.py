"""Jobs: create, replace, change, read, delete, run, redrive, attempts, lists."""

import asyncio
from typing import Any
from urllib.parse import quote

import msgspec

from node.api.conventions import (
    Answer,
    Call,
    ask,
    checked_job_id,
    checked_time,
    encode_json,
    idempotency_key,
    if_match,
    if_none_match,
    json_answer,
    query_limit,
    query_time,
    read_cursor,
    request_of,
    write_cursor,
)
from node.api.databases import find_collection
from node.api.problems import from_validation, invalid, refusal, too_large
from node.api.views import Previous, attempt_view, job_view
from node.engine import Engine
from timemachine import limits
from timemachine.errors import Conflict, NotFound
from timemachine.identifiers import uuid7, uuid8
from timemachine.model import STATES_BY_TEXT, Collection, JobRecord
from timemachine.replica import commands as c
from timemachine.replica.results import JobResult

_decode_any = msgspec.json.Decoder().decode
_UNSET = msgspec.UNSET
_Maybe = msgspec.UnsetType
_STATUS = {
    "created": 201,
    "replaced": 200,
    "unchanged": 200,
    "changed": 200,
    "deleted": 200,
    "moved": 200,
    "redriven": 202,
}


class JobBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A job as sent. What GET shows beside it is ignored, so that what was read can be sent."""

    id: str | _Maybe = _UNSET
    trigger_time: int | str | _Maybe = _UNSET
    delay_ms: int | _Maybe = _UNSET
    route: str | _Maybe = _UNSET
    meta: msgspec.Raw | _Maybe = _UNSET
    tags: tuple[str, ...] | _Maybe = _UNSET
    ordering_key: str | None = None
    db: msgspec.Raw | None = None
    collection: msgspec.Raw | None = None
    uid: msgspec.Raw | None = None
    state: msgspec.Raw | None = None
    version: msgspec.Raw | None = None
    vnode: msgspec.Raw | None = None
    created_time: msgspec.Raw | None = None
    updated_time: msgspec.Raw | None = None
    attempts: msgspec.Raw | None = None
    next_attempt_time: msgspec.Raw | None = None
    last_error: msgspec.Raw | None = None
    webhook_id: msgspec.Raw | None = None
    reason: msgspec.Raw | None = None
    past_due: msgspec.Raw | None = None
    previous: msgspec.Raw | None = None
    outcome: msgspec.Raw | None = None


decode_job = msgspec.json.Decoder(JobBody).decode


def checked_meta(raw: bytes, pointer: str = "/meta") -> bytes:
    """The bytes of a meta value as they came, or a 4xx."""
    if len(raw) > limits.META_BYTES_MAX:
        raise too_large(pointer, f"The meta has at most {limits.META_BYTES_MAX} bytes.")
    try:
        _decode_any(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise from_validation(error, pointer) from None
    if raw.count(b"[") + raw.count(b"{") > limits.META_DEPTH_MAX and _depth(raw) > (
        limits.META_DEPTH_MAX
    ):
        raise invalid(pointer, f"The meta is nested at most {limits.META_DEPTH_MAX} levels deep.")
    return raw


def _depth(raw: bytes) -> int:
    """How deep valid JSON is nested."""
    depth = deepest = 0
    in_string = escaped = False
    for byte in raw:
        if in_string:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                in_string = False
        elif byte == 0x22:
            in_string = True
        elif byte in (0x5B, 0x7B):
            depth += 1
            deepest = max(deepest, depth)
        elif byte in (0x5D, 0x7D):
            depth -= 1
    return deepest


def _checked_tags(tags: tuple[str, ...], prefix: str) -> tuple[str, ...]:
    if len(tags) > limits.TAGS_COUNT_MAX:
        raise invalid(f"{prefix}/tags", f"A job has at most {limits.TAGS_COUNT_MAX} tags.")
    for tag in tags:
        if not 1 <= len(tag.encode()) <= limits.TAG_BYTES_MAX or not tag.isprintable():
            raise invalid(
                f"{prefix}/tags", f"A tag has 1 to {limits.TAG_BYTES_MAX} printable bytes."
            )
    return tags


class JobHandlers:
    """Operations on jobs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # --- building commands -----------------------------------------------------------------

    def _trigger(
        self, body: JobBody, now_ms: int, prefix: str, *, required: bool
    ) -> tuple[int | None, int | None]:
        """(trigger_ms, delay_ms) of a body; exactly one of its two members is given."""
        has_time = body.trigger_time is not _UNSET
        has_delay = body.delay_ms is not _UNSET
        if has_time and has_delay:
            raise invalid(f"{prefix}/delay_ms", "Give trigger_time or delay_ms, not both.")
        if has_time:
            return checked_time(body.trigger_time, f"{prefix}/trigger_time"), None
        if has_delay:
            delay_ms = body.delay_ms
            if not isinstance(delay_ms, int) or delay_ms < 0:
                raise invalid(f"{prefix}/delay_ms", "A delay is not negative.")
            if now_ms + delay_ms > limits.TIME_MS_MAX:
                raise invalid(f"{prefix}/delay_ms", "The job would be due after the year 9999.")
            return now_ms + delay_ms, delay_ms
        if required:
            raise invalid(f"{prefix}/trigger_time", "Give trigger_time or delay_ms.")
        return None, None

    def _route_uid(self, collection: Collection, name: str, *, allow_missing: bool) -> int:
        route = self._engine.meta.routes.get((collection.db, name))
        if route is not None:
            return route.uid
        if not allow_missing:
            raise Conflict(
                f"There is no route {name!r} in database {collection.db!r}."
                " Create it first, or send ?allow_missing_route=true.",
                code="route_not_found",
            )
        if len(name) > limits.NAME_CHARACTERS_MAX:
            raise invalid("/route", "This is no name of a route.")
        return 0

    def build_put(
        self,
        collection: Collection,
        job_id: str,
        body: JobBody,
        *,
        create_only: bool,
        key: str | None,
        content: bytes,
        allow_missing: bool,
        prefix: str = "",
        condition: int | None = None,
        absent: bool = False,
    ) -> c.PutJob:
        """The command for a body that was sent. Raises what is wrong with it."""
        engine = self._engine
        now_ms = engine.now_ms()
        trigger_ms, delay_ms = self._trigger(body, now_ms, prefix, required=True)
        assert trigger_ms is not None
        route = body.route
        if not isinstance(route, str):
            raise invalid(f"{prefix}/route", "This member is required.")
        if body.ordering_key is not None:
            raise invalid(f"{prefix}/ordering_key", "Ordering keys are not supported yet.")
        meta = b"null"
        if not isinstance(body.meta, _Maybe):
            meta = checked_meta(bytes(body.meta), f"{prefix}/meta")
        tags: tuple[str, ...] = ()
        if not isinstance(body.tags, _Maybe):
            tags = _checked_tags(body.tags, prefix)
        request = None
        if key is not None:
            scope = f"{collection.uid}/{job_id}"
            request = request_of(key, scope, b"put\0" + content)
        return c.PutJob(
            now_ms=now_ms,
            job_id=job_id,
            uid=engine.random_bytes(16),
            trigger_ms=trigger_ms,
            delay_ms=delay_ms,
            route=route,
            route_uid=self._route_uid(collection, route, allow_missing=allow_missing),
            meta=meta,
            tags=tags,
            create_only=create_only,
            if_match=condition,
            if_none_match=absent,
            request=request,
            revoked=None if create_only else engine.revoke(collection, job_id),
        )

    def new_id(self, collection: Collection, key: str | None, item: int = 0) -> str:
        """An id for a job that came without one: from its key, or random and rising in time."""
        if key is not None:
            return uuid8(collection.uid, key, item)
        return uuid7(self._engine.now_ms(), self._engine.random_bytes(10))

    def decode(self, content: bytes | msgspec.Raw, prefix: str = "") -> JobBody:
        """The body of a job, or a 400 that points at what is wrong."""
        try:
            return decode_job(content)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise from_validation(error, prefix) from None

    # --- answers ---------------------------------------------------------------------------

    def view(
        self,
        collection: Collection,
        job_id: str,
        result: JobResult,
        meta: bytes | None,
        now_ms: int = 0,
    ) -> Any:
        """The job of a result, as answered."""
        record = result.record
        assert record is not None
        if meta is None:
            meta = result.meta
        if meta is None:
            meta = self._engine.read_meta(collection, job_id)
        view = job_view(collection, self._engine.vnode_of(collection, job_id), job_id, record, meta)
        if now_ms and record.trigger_ms < now_ms:
            view.past_due = True
        if result.previous is not None:
            view.previous = Previous(*result.previous)
        if result.outcome is not None:
            view.outcome = result.outcome
        return view

    def _answer(
        self,
        collection: Collection,
        job_id: str,
        result: JobResult,
        meta: bytes | None,
        now_ms: int = 0,
    ) -> Answer:
        if result.kind == "refused":
            raise refusal(result.code or "conflict")
        view = self.view(collection, job_id, result, meta, now_ms)
        headers = {"ETag": f'"{view.version}"'}
        if result.replayed:
            headers["Idempotent-Replayed"] = "true"
        return Answer(status=_STATUS[result.kind], body=encode_json(view), headers=headers)

    async def _propose(self, collection: Collection, job_id: str, command: Any) -> JobResult:
        result: JobResult = await ask(
            lambda done: self._engine.propose_job(collection, job_id, command, done)
        )
        return result

    # --- operations ------------------------------------------------------------------------

    async def post_job(self, call: Call) -> Answer:
        """POST .../jobs."""
        if call.query:
            call.only("allow_missing_route")
        collection = find_collection(self._engine, *call.names)
        body = self.decode(call.body)
        key = idempotency_key(call)
        job_id = (
            self.new_id(collection, key) if isinstance(body.id, _Maybe) else checked_job_id(body.id)
        )
        command = self.build_put(
            collection,
            job_id,
            body,
            create_only=True,
            key=key,
            content=call.body,
            allow_missing=call.flag("allow_missing_route"),
        )
        result = await self._propose(collection, job_id, command)
        answer = self._answer(collection, job_id, result, command.meta, command.now_ms)
        if result.kind == "created" and not result.replayed:
            db, name = collection.db, collection.name
            answer.headers["Location"] = f"/v1/dbs/{db}/collections/{name}/jobs/{_quoted(job_id)}"
        return answer

    async def put_job(self, call: Call) -> Answer:
        """PUT .../jobs/{id}."""
        call.only("allow_missing_route")
        collection = find_collection(self._engine, *call.names[:2])
        job_id = checked_job_id(call.names[2])
        body = self.decode(call.body)
        if not isinstance(body.id, _Maybe) and body.id != job_id:
            raise invalid("/id", "The id in the body is not the one in the path.")
        condition, absent = if_match(call), if_none_match(call)
        if condition == 0:
            condition = self._any_version(collection, job_id)
        command = self.build_put(
            collection,
            job_id,
            body,
            create_only=False,
            key=idempotency_key(call),
            content=call.body,
            allow_missing=call.flag("allow_missing_route"),
            condition=condition,
            absent=absent,
        )
        result = await self._propose(collection, job_id, command)
        return self._answer(collection, job_id, result, command.meta, command.now_ms)

    def _any_version(self, collection: Collection, job_id: str) -> int:
        """What `If-Match: *` stands for: the version that is there, or one that never is."""
        found = self._engine.read_job(collection, job_id)
        return 0 if found is None else found[0].version

    async def patch_job(self, call: Call) -> Answer:
        """PATCH .../jobs/{id}."""
        call.only("allow_missing_route")
        engine = self._engine
        collection = find_collection(engine, *call.names[:2])
        job_id = checked_job_id(call.names[2])
        body = self.decode(call.body)
        if not isinstance(body.id, _Maybe) and body.id != job_id:
            raise invalid("/id", "The id of a job cannot change.")
        if body.ordering_key is not None:
            raise invalid("/ordering_key", "Ordering keys are not supported yet.")
        now_ms = engine.now_ms()
        trigger_ms, delay_ms = self._trigger(body, now_ms, "", required=False)
        condition = if_match(call)
        if condition == 0:
            condition = self._any_version(collection, job_id)
        route = None if isinstance(body.route, _Maybe) else body.route
        route_uid = 0
        if route is not None:
            missing = call.flag("allow_missing_route")
            route_uid = self._route_uid(collection, route, allow_missing=missing)
        command = c.PatchJob(
            now_ms=now_ms,
            job_id=job_id,
            trigger_ms=trigger_ms,
            delay_ms=delay_ms,
            route=route,
            route_uid=route_uid,
            meta=None if isinstance(body.meta, _Maybe) else checked_meta(bytes(body.meta)),
            tags=None if isinstance(body.tags, _Maybe) else _checked_tags(body.tags, ""),
            if_match=condition,
            request=request_of(
                idempotency_key(call), f"{collection.uid}/{job_id}", b"patch\0" + call.body
            ),
            revoked=engine.revoke(collection, job_id),
        )
        result = await self._propose(collection, job_id, command)
        return self._answer(collection, job_id, result, None, now_ms)

    async def get_job(self, call: Call) -> Answer:
        """GET .../jobs/{id}."""
        call.only("consistency")
        collection = find_collection(self._engine, *call.names[:2])
        job_id = checked_job_id(call.names[2])
        record, meta = self._read(collection, job_id)
        vnode = self._engine.vnode_of(collection, job_id)
        view = job_view(collection, vnode, job_id, record, meta)
        return Answer(body=encode_json(view), headers={"ETag": f'"{record.version}"'})

    def _read(self, collection: Collection, job_id: str) -> tuple[JobRecord, bytes]:
        found = self._engine.read_job(collection, job_id)
        if found is None:
            raise NotFound("There is no job with this id.", code="job_not_found")
        return found

    async def delete_job(self, call: Call) -> Answer:
        """DELETE .../jobs/{id}."""
        call.only("purge")
        engine = self._engine
        collection = find_collection(engine, *call.names[:2])
        job_id = checked_job_id(call.names[2])
        condition = if_match(call)
        if condition == 0:
            condition = self._any_version(collection, job_id)
        purge = call.flag("purge")
        command = c.DeleteJob(
            now_ms=engine.now_ms(),
            job_id=job_id,
            purge=purge,
            if_match=condition,
            request=request_of(
                idempotency_key(call), f"{collection.uid}/{job_id}", b"delete\0%d" % purge
            ),
            revoked=engine.revoke(collection, job_id),
        )
        result = await self._propose(collection, job_id, command)
        return self._answer(collection, job_id, result, None)

    async def run_job(self, call: Call) -> Answer:
        """POST .../jobs/{id}/run."""
        call.only()
        collection = find_collection(self._engine, *call.names[:2])
        job_id = checked_job_id(call.names[2])
        command = c.RunJob(
            now_ms=self._engine.now_ms(),
            job_id=job_id,
            request=request_of(idempotency_key(call), f"{collection.uid}/{job_id}", b"run"),
        )
        return self._answer(
            collection, job_id, await self._propose(collection, job_id, command), None
        )

    async def redrive_job(self, call: Call) -> Answer:
        """POST .../jobs/{id}/redrive."""
        call.only("force")
        collection = find_collection(self._engine, *call.names[:2])
        job_id = checked_job_id(call.names[2])
        record, _ = self._read(collection, job_id)
        force = call.flag("force")
        command = c.RedriveJob(
            now_ms=self._engine.now_ms(),
            job_id=job_id,
            route_uid=self._route_uid(collection, record.route, allow_missing=False),
            force=force,
            request=request_of(
                idempotency_key(call), f"{collection.uid}/{job_id}", b"redrive\0%d" % force
            ),
        )
        return self._answer(
            collection, job_id, await self._propose(collection, job_id, command), None
        )

    async def list_attempts(self, call: Call) -> Answer:
        """GET .../jobs/{id}/attempts."""
        call.only("limit", "cursor", "consistency")
        collection = find_collection(self._engine, *call.names[:2])
        job_id = checked_job_id(call.names[2])
        record, _ = self._read(collection, job_id)
        attempts = self._engine.read_attempts(collection, job_id, record)
        scope = f"attempts/{collection.uid}/{job_id}"
        position = read_cursor(call, scope)
        start = position[0] if position is not None else 0
        limit = query_limit(call)
        rows = attempts[start : start + limit]
        more = len(attempts) > start + limit
        cursor = write_cursor([start + limit], scope) if more else None
        return json_answer({"items": [attempt_view(row) for row in rows], "next_cursor": cursor})

    async def list_jobs(self, call: Call) -> Answer:
        """GET .../jobs."""
        call.only("state", "route", "from", "to", "limit", "cursor", "consistency")
        engine = self._engine
        collection = find_collection(engine, *call.names)
        states = None
        if "state" in call.query:
            names = [name for name in call.query["state"].split(",") if name]
            unknown = [name for name in names if name not in STATES_BY_TEXT]
            if unknown or not names:
                raise invalid("?state", f"The states are {', '.join(STATES_BY_TEXT)}.")
            states = frozenset(STATES_BY_TEXT[name] for name in names)
        route_uid = None
        if "route" in call.query:
            route = engine.meta.routes.get((collection.db, call.query["route"]))
            if route is None:
                return json_answer({"items": [], "next_cursor": None})
            route_uid = route.uid
        from_ms, to_ms = query_time(call, "from"), query_time(call, "to")
        limit = query_limit(call)
        filters = [call.query.get(name) for name in ("state", "route", "from", "to")]
        scope = f"jobs/{collection.uid}/{filters}"
        position = read_cursor(call, scope)
        found: list[tuple[str, JobRecord]] = []
        for page in engine.list_jobs(
            collection,
            states=states,
            route_uid=route_uid,
            from_ms=from_ms,
            to_ms=to_ms,
            after=(position[0], position[1]) if position is not None else None,
            limit=limit,
        ):
            if page is None:
                await asyncio.sleep(0)
            else:
                found = page
        items = []
        for number, (job_id, record) in enumerate(found):
            meta = engine.read_meta(collection, job_id)
            vnode = engine.vnode_of(collection, job_id)
            items.append(job_view(collection, vnode, job_id, record, meta))
            if number % 64 == 63:
                await asyncio.sleep(0)
        cursor = None
        if len(found) == limit:
            cursor = write_cursor([found[-1][1].trigger_ms, found[-1][0]], scope)
        return json_answer({"items": items, "next_cursor": cursor})


def _quoted(job_id: str) -> str:

    return quote(job_id, safe="")
