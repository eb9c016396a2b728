"""Jobs: create, replace, change, read, delete, run, redrive, attempts."""

from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import quote

import msgspec

from node.api.conventions import (
    IGNORED,
    NAME,
    Answer,
    Call,
    ask,
    checked_job_id,
    checked_time,
    decoded,
    encode_content,
    encode_json,
    idempotency_key,
    if_match,
    if_none_match,
    json_answer,
    query_limit,
    query_number,
    read_cursor,
    request_of,
    write_cursor,
)
from node.api.databases import find_collection
from node.api.metas import checked_meta
from node.api.problems import invalid, refusal
from node.api.views import JobView, Previous, attempt_view, job_view
from node.engine import Engine
from timemachine import limits
from timemachine.errors import Conflict
from timemachine.identifiers import uuid7, uuid8
from timemachine.model import Collection, JobRecord
from timemachine.replica import commands as c
from timemachine.replica.results import JobResult

_UNSET = msgspec.UNSET
_Maybe = msgspec.UnsetType
_NULL = msgspec.Raw(b"null")
_STATUS = {
    "created": 201,
    "replaced": 200,
    "unchanged": 200,
    "changed": 200,
    "deleted": 200,
    "moved": 200,
    "redriven": 202,
}
_ACCEPTED = frozenset({"created", "replaced", "changed"})


class JobBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A job as sent, to be created."""

    route: str
    id: str | None = None
    trigger_time: int | str | None = None
    delay_ms: int | None = None
    meta: msgspec.Raw = _NULL
    tags: tuple[str, ...] = ()
    ordering_key: str | None = None


class JobPutBody(JobBody, forbid_unknown_fields=True, kw_only=True):
    """A job as sent, to be created or replaced. What GET shows beside it is ignored."""

    db: msgspec.Raw = IGNORED
    collection: msgspec.Raw = IGNORED
    uid: msgspec.Raw = IGNORED
    state: msgspec.Raw = IGNORED
    version: msgspec.Raw = IGNORED
    vnode: msgspec.Raw = IGNORED
    created_time: msgspec.Raw = IGNORED
    updated_time: msgspec.Raw = IGNORED
    attempts: msgspec.Raw = IGNORED
    next_attempt_time: msgspec.Raw = IGNORED
    last_error: msgspec.Raw = IGNORED
    webhook_id: msgspec.Raw = IGNORED
    reason: msgspec.Raw = IGNORED
    past_due: msgspec.Raw = IGNORED
    previous: msgspec.Raw = IGNORED
    outcome: msgspec.Raw = IGNORED


class JobPatchBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The members of a job that PATCH replaces."""

    id: str | _Maybe = _UNSET
    trigger_time: int | str | _Maybe = _UNSET
    delay_ms: int | _Maybe = _UNSET
    route: str | _Maybe = _UNSET
    meta: msgspec.Raw | _Maybe = _UNSET
    tags: tuple[str, ...] | _Maybe = _UNSET
    ordering_key: str | None = None


decode_job = msgspec.json.Decoder(JobBody).decode
_decode_put = msgspec.json.Decoder(JobPutBody).decode
_decode_patch = msgspec.json.Decoder(JobPatchBody).decode


def trigger_of(time: int | str | None, delay_ms: int | None, now_ms: int, prefix: str) -> int:
    """When a job is due, from the one of the two that is given."""
    if delay_ms is None:
        if time is None:
            raise invalid(f"{prefix}/trigger_time", "Give trigger_time or delay_ms.")
        return checked_time(time, f"{prefix}/trigger_time")
    if time is not None:
        raise invalid(f"{prefix}/delay_ms", "Give trigger_time or delay_ms, not both.")
    if not 0 <= delay_ms <= limits.TIME_MS_MAX - now_ms:
        raise invalid(
            f"{prefix}/delay_ms",
            "A delay is not negative, and does not lead beyond the year 9999.",
        )
    return now_ms + delay_ms


def checked_tags(tags: tuple[str, ...], prefix: str) -> tuple[str, ...]:
    """Tags within the limits, or a 400."""
    if len(tags) > limits.TAGS_COUNT_MAX:
        raise invalid(f"{prefix}/tags", f"A job has at most {limits.TAGS_COUNT_MAX} tags.")
    for number, tag in enumerate(tags):
        checked_tag(tag, f"{prefix}/tags/{number}")
    return tags


def checked_tag(tag: str, pointer: str) -> str:
    """A tag within the limits, or a 400."""
    if not 1 <= len(tag.encode()) <= limits.TAG_BYTES_MAX or not tag.isprintable():
        raise invalid(
            pointer, f"A tag has 1 to {limits.TAG_BYTES_MAX} bytes of printable characters."
        )
    return tag


def refuse_ordering_key(ordering_key: str | None, prefix: str = "") -> None:
    """Only null has a meaning yet."""
    if ordering_key is not None:
        raise invalid(f"{prefix}/ordering_key", "Ordering keys are not supported yet; send null.")


class JobHandlers:
    """Operations on single jobs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # --- building commands -----------------------------------------------------------------

    def _route_uid(
        self, collection: Collection, name: str, *, allow_missing: bool, prefix: str = ""
    ) -> int:
        """The route's uid; 0 when it does not exist and need not."""
        route = self._engine.meta.routes.get((collection.db, name))
        if route is not None:
            return route.uid
        if NAME.fullmatch(name) is None:
            raise invalid(f"{prefix}/route", "This cannot be the name of a route.")
        if not allow_missing:
            raise Conflict(
                f"There is no route {name!r} in database {collection.db!r}."
                " Create it first, or send ?allow_missing_route=true.",
                code="route_not_found",
            )
        return 0

    def build_put(
        self,
        collection: Collection,
        job_id: str,
        body: JobBody,
        *,
        key: str | None,
        allow_missing: bool,
        create_only: bool = True,
        prefix: str = "",
        item: int = 0,
        condition: int | None = None,
        absent: bool = False,
    ) -> c.PutJob:
        """The command for a body that was sent, or what is wrong with it.

        `prefix` points at the body within a batch, `item` is its number there. `condition` and
        `absent` are what If-Match and If-None-Match ask for.
        """
        engine = self._engine
        now_ms = engine.now_ms()
        trigger_ms = trigger_of(body.trigger_time, body.delay_ms, now_ms, prefix)
        refuse_ordering_key(body.ordering_key, prefix)
        meta = checked_meta(bytes(body.meta), f"{prefix}/meta")
        tags = checked_tags(body.tags, prefix) if body.tags else ()
        route_uid = self._route_uid(
            collection, body.route, allow_missing=allow_missing, prefix=prefix
        )
        request = None
        if key is not None:
            time_ms = trigger_ms if body.delay_ms is None else None
            operation = "post" if create_only else "put"
            content = encode_content(
                (operation, time_ms, body.delay_ms, body.route, meta, tags, condition, absent)
            )
            request = request_of(key, f"{collection.uid}/{job_id}", content, item)
        # By position: so many keywords cost more than decoding the body.
        return c.PutJob(
            job_id,
            engine.random_bytes(16),
            trigger_ms,
            body.delay_ms,
            body.route,
            route_uid,
            meta,
            tags,
            create_only,
            condition,
            absent,
            request,
            # Last: a send that was revoked must be told to the log.
            None if create_only else engine.revoke(collection, job_id),
            now_ms=now_ms,
        )

    def new_id(self, collection: Collection, key: str | None, item: int = 0) -> str:
        """An id for a job that came without one: from its key, or random and rising in time."""
        if key is not None:
            return uuid8(collection.uid, key, item)
        return uuid7(self._engine.now_ms(), self._engine.random_bytes(10))

    def _place(self, call: Call) -> tuple[Collection, str]:
        """The collection and the job id that a path names."""
        db, name, job_id = call.names
        return find_collection(self._engine, db, name), checked_job_id(job_id)

    def _request(
        self, call: Call, collection: Collection, job_id: str, content: tuple[Any, ...]
    ) -> c.Request | None:
        key = idempotency_key(call)
        if key is None:
            return None
        return request_of(key, f"{collection.uid}/{job_id}", encode_content(content))

    def _condition(self, call: Call, collection: Collection, job_id: str) -> int | None:
        def version() -> int:
            found = self._engine.read_job(collection, job_id)
            return 0 if found is None else found[0].version

        return if_match(call, version)

    # --- answers ---------------------------------------------------------------------------

    def view(
        self,
        collection: Collection,
        job_id: str,
        result: JobResult,
        meta: bytes | None,
        place: int | None = None,
    ) -> JobView:
        """The job of a result, as answered.

        `meta` are its bytes, `place` the index of its vnode, where they are at hand.
        """
        record = result.record
        assert record is not None
        if meta is None:
            meta = result.meta
        if meta is None:
            meta = self._engine.read_meta(collection, job_id)
        if place is None:
            place = self._engine.vnode_of(collection, job_id)
        view = job_view(collection, place, job_id, record, meta)
        # Judged by the moment of acceptance, so that a repeat is told the same.
        if record.trigger_ms < record.updated_ms and result.kind in _ACCEPTED:
            view.past_due = True
        if result.previous is not None:
            view.previous = Previous(*result.previous)
        if result.outcome is not None:
            view.outcome = result.outcome
        return view

    def _answer(
        self, collection: Collection, job_id: str, result: JobResult, meta: bytes | None
    ) -> Answer:
        if result.kind == "refused":
            raise refusal(result.code)
        view = self.view(collection, job_id, result, meta)
        headers = {"ETag": f'"{view.version}"'}
        if result.replayed:
            headers["Idempotent-Replayed"] = "true"
        status = _STATUS[result.kind]
        if status == 201:
            headers["Location"] = (
                f"/v1/dbs/{collection.db}/collections/{collection.name}"
                f"/jobs/{quote(job_id, safe='')}"
            )
        return Answer(status=status, body=encode_json(view), headers=headers)

    async def _propose(
        self, collection: Collection, job_id: str, command: Any, meta: bytes | None = None
    ) -> Answer:
        result: JobResult = await ask(self._engine.propose_job, collection, job_id, command)
        return self._answer(collection, job_id, result, meta)

    # --- operations ------------------------------------------------------------------------

    def prepare_post(
        self, call: Call
    ) -> tuple[Callable[[Callable[[Any], None]], None], Callable[[JobResult], Answer]]:
        """What POST .../jobs asks for, checked: (propose, answer).

        `propose` puts it through the log and calls with the result or an error; `answer` makes the
        answer of a result. Both raise what is wrong with the request, and so does this.
        """
        call.only("allow_missing_route")
        collection = find_collection(self._engine, *call.names)
        body = decoded(decode_job, call.body)
        key = idempotency_key(call)
        job_id = self.new_id(collection, key) if body.id is None else checked_job_id(body.id)
        command = self.build_put(
            collection,
            job_id,
            body,
            key=key,
            allow_missing=call.flag("allow_missing_route"),
            absent=if_none_match(call),
        )
        propose = partial(self._engine.propose_job, collection, job_id, command)
        return propose, partial(self._answer, collection, job_id, meta=command.meta)

    async def post_job(self, call: Call) -> Answer:
        """POST .../jobs."""
        propose, answer = self.prepare_post(call)
        return answer(await ask(propose))

    async def put_job(self, call: Call) -> Answer:
        """PUT .../jobs/{id}."""
        call.only("allow_missing_route")
        collection, job_id = self._place(call)
        body = decoded(_decode_put, call.body)
        if body.id not in (None, job_id):
            raise invalid("/id", "The id in the body is not the one in the path.")
        command = self.build_put(
            collection,
            job_id,
            body,
            key=idempotency_key(call),
            allow_missing=call.flag("allow_missing_route"),
            create_only=False,
            condition=self._condition(call, collection, job_id),
            absent=if_none_match(call),
        )
        return await self._propose(collection, job_id, command, command.meta)

    async def patch_job(self, call: Call) -> Answer:
        """PATCH .../jobs/{id}."""
        call.only("allow_missing_route")
        engine = self._engine
        collection, job_id = self._place(call)
        body = decoded(_decode_patch, call.body)
        if body.id not in (_UNSET, job_id):
            raise invalid("/id", "The id of a job cannot change.")
        refuse_ordering_key(body.ordering_key)
        now_ms = engine.now_ms()
        time = None if isinstance(body.trigger_time, _Maybe) else body.trigger_time
        delay_ms = None if isinstance(body.delay_ms, _Maybe) else body.delay_ms
        trigger_ms = None
        if time is not None or delay_ms is not None:
            trigger_ms = trigger_of(time, delay_ms, now_ms, "")
        meta = None if isinstance(body.meta, _Maybe) else checked_meta(bytes(body.meta), "/meta")
        tags = None if isinstance(body.tags, _Maybe) else checked_tags(body.tags, "")
        route = None if isinstance(body.route, _Maybe) else body.route
        route_uid = 0
        if route is not None:
            missing = call.flag("allow_missing_route")
            route_uid = self._route_uid(collection, route, allow_missing=missing)
        condition = self._condition(call, collection, job_id)
        time_ms = trigger_ms if delay_ms is None else None
        content = "patch", time_ms, delay_ms, route, meta, tags, condition
        command = c.PatchJob(
            now_ms=now_ms,
            job_id=job_id,
            trigger_ms=trigger_ms,
            delay_ms=delay_ms,
            route=route,
            route_uid=route_uid,
            meta=meta,
            tags=tags,
            if_match=condition,
            request=self._request(call, collection, job_id, content),
            revoked=engine.revoke(collection, job_id),
        )
        return await self._propose(collection, job_id, command)

    async def get_job(self, call: Call) -> Answer:
        """GET .../jobs/{id}."""
        call.reads()
        collection, job_id = self._place(call)
        record, meta = self._read(collection, job_id)
        vnode = self._engine.vnode_of(collection, job_id)
        view = job_view(collection, vnode, job_id, record, meta)
        return Answer(body=encode_json(view), headers={"ETag": f'"{record.version}"'})

    def _read(self, collection: Collection, job_id: str) -> tuple[JobRecord, bytes]:
        found = self._engine.read_job(collection, job_id)
        if found is None:
            raise refusal("job_not_found")
        return found

    async def delete_job(self, call: Call) -> Answer:
        """DELETE .../jobs/{id}."""
        call.only("purge")
        engine = self._engine
        collection, job_id = self._place(call)
        purge = call.flag("purge")
        condition = self._condition(call, collection, job_id)
        command = c.DeleteJob(
            now_ms=engine.now_ms(),
            job_id=job_id,
            purge=purge,
            if_match=condition,
            request=self._request(call, collection, job_id, ("delete", purge, condition)),
            revoked=engine.revoke(collection, job_id),
        )
        return await self._propose(collection, job_id, command)

    async def run_job(self, call: Call) -> Answer:
        """POST .../jobs/{id}/run."""
        call.only()
        call.no_members()
        collection, job_id = self._place(call)
        command = c.RunJob(
            now_ms=self._engine.now_ms(),
            job_id=job_id,
            request=self._request(call, collection, job_id, ("run",)),
        )
        return await self._propose(collection, job_id, command)

    async def redrive_job(self, call: Call) -> Answer:
        """POST .../jobs/{id}/redrive."""
        call.only("force")
        call.no_members()
        collection, job_id = self._place(call)
        record, _ = self._read(collection, job_id)
        force = call.flag("force")
        command = c.RedriveJob(
            now_ms=self._engine.now_ms(),
            job_id=job_id,
            route_uid=self._route_uid(collection, record.route, allow_missing=False),
            force=force,
            request=self._request(call, collection, job_id, ("redrive", force)),
        )
        return await self._propose(collection, job_id, command)

    async def list_attempts(self, call: Call) -> Answer:
        """GET .../jobs/{id}/attempts: oldest first."""
        call.reads("limit", "cursor")
        collection, job_id = self._place(call)
        record, _ = self._read(collection, job_id)
        attempts = self._engine.read_attempts(collection, job_id, record)
        scope = f"attempts/{collection.uid}/{job_id}"
        position = read_cursor(call, scope, tuple[int])
        start = 0 if position is None else max(0, position[0])
        stop = start + query_limit(call)
        cursor = write_cursor((stop,), scope) if len(attempts) > stop else None
        items = [attempt_view(row) for row in attempts[start:stop]]
        return json_answer({"items": items, "next_cursor": cursor})

    async def remove_content(self, call: Call) -> Answer:
        """DELETE .../jobs/{id}/attempts/{n}/content: what the recipient answered is forgotten."""
        call.only("version")
        db, name, raw_id, number = call.names
        collection = find_collection(self._engine, db, name)
        job_id = checked_job_id(raw_id)
        if not number.isdecimal() or not 1 <= int(number) <= limits.RETRY_ATTEMPTS_MAX:
            raise refusal("attempt_not_found")
        version = query_number(call, "version", 0, limits.TIME_MS_MAX, 0) or None
        command = c.ForgetContent(
            now_ms=self._engine.now_ms(),
            job_id=job_id,
            attempt=int(number),
            version=version,
            request=self._request(call, collection, job_id, ("content", int(number), version)),
        )
        result: JobResult = await ask(self._engine.propose_job, collection, job_id, command)
        if result.kind == "refused":
            raise refusal(result.code)
        headers = {"Idempotent-Replayed": "true"} if result.replayed else {}
        return Answer(status=204, body=b"", headers=headers)
