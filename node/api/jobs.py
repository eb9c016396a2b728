"""Jobs: create, replace, change, read, delete, run, redrive, attempts."""

import re
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, ClassVar, Final
from urllib.parse import quote

import msgspec
from msgspec import Meta

from node.api.conventions import (
    CONTROL,
    NAME,
    Answer,
    Call,
    Ignored,
    Nothing,
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
    query_number,
    request_of,
)
from node.api.lookups import find_collection, find_job, job_named
from node.api.metas import checked_meta
from node.api.operations import (
    IDEMPOTENCY_KEY,
    IF_MATCH,
    IF_NONE_MATCH,
    IN_COLLECTION,
    NAME_PATTERN,
    PATH_PARAMETERS,
    Example,
    Parameter,
    Told,
    flag,
    operation,
)
from node.api.paging import PAGED, Natural, Page, query_limit, read_cursor, write_cursor
from node.api.problems import invalid, refusal
from node.api.schemas import between, exactly_one, one_of
from node.api.views import AttemptView, JobView, Previous, attempt_view, job_view
from node.engine import Engine
from timemachine import limits
from timemachine.errors import Conflict
from timemachine.identifiers import uuid7, uuid8
from timemachine.model import Collection
from timemachine.replica import commands as c
from timemachine.replica.results import JobResult

_ATTEMPT = re.compile(r"[1-9][0-9]{0,8}")
_UNSET = msgspec.UNSET
_Maybe = msgspec.UnsetType
_NULL = b"null"
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


# What members may be, said once for all bodies and lists. Said only: the checks stand in the
# handlers, since what msgspec would check costs time for every job, and reads worse.
RouteName = Annotated[
    str,
    Meta(
        description="The route that it is sent on, of the same database.",
        extra_json_schema={"pattern": NAME_PATTERN, "maxLength": limits.NAME_CHARACTERS_MAX},
    ),
]
_JobId = Annotated[str, Meta(extra_json_schema=PATH_PARAMETERS["id"].schema)]
_Milliseconds = Annotated[int, between(0, limits.TIME_MS_MAX)]
TimeGiven = (
    Annotated[int, between(0, limits.TIME_MS_MAX)]
    | Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
)
TAG_SCHEMA: Final[dict[str, Any]] = {
    "type": "string",
    "pattern": r"^[^\x00-\x1f\x7f-\x9f]+$",
    "maxLength": limits.TAG_BYTES_MAX,
}
TagName = Annotated[str, Meta(extra_json_schema=TAG_SCHEMA)]
_Tags = Annotated[tuple[TagName, ...], Meta(extra_json_schema={"maxItems": limits.TAGS_COUNT_MAX})]
WHEN = Meta(description="When it is due: milliseconds since the Unix epoch, or RFC 3339.")
_DELAY = Meta(description="Or: how long after the cluster takes it, in milliseconds.")
_META = Meta(
    description=f"Any JSON, at most {limits.META_BYTES_MAX} bytes and {limits.META_DEPTH_MAX}"
    " levels deep; delivered byte for byte as it came."
)
_ORDERING = one_of("Not supported yet; send null.", None)


class JobBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A job as sent: `trigger_time` or `delay_ms`, exactly one."""

    route: RouteName
    id: Annotated[_JobId | None, Meta(description="Made by the node when absent.")] = None
    trigger_time: Annotated[TimeGiven | None, WHEN] = None
    delay_ms: Annotated[_Milliseconds | None, _DELAY] = None
    meta: Annotated[msgspec.Raw | _Maybe, _META] = _UNSET
    tags: _Tags = ()
    ordering_key: Annotated[str | None, _ORDERING] = None

    SCHEMA: ClassVar[dict[str, Any]] = exactly_one("trigger_time", "delay_ms")


class JobPutBody(JobBody, forbid_unknown_fields=True, kw_only=True):
    """A job as sent, to be created or replaced. What GET shows beside it is ignored."""

    db: Ignored = _UNSET
    collection: Ignored = _UNSET
    uid: Ignored = _UNSET
    state: Ignored = _UNSET
    version: Ignored = _UNSET
    vnode: Ignored = _UNSET
    created_time: Ignored = _UNSET
    updated_time: Ignored = _UNSET
    attempts: Ignored = _UNSET
    next_attempt_time: Ignored = _UNSET
    last_error: Ignored = _UNSET
    webhook_id: Ignored = _UNSET
    reason: Ignored = _UNSET
    past_due: Ignored = _UNSET
    previous: Ignored = _UNSET
    outcome: Ignored = _UNSET


class JobPatchBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The members of a job that PATCH replaces."""

    KEEPS_ABSENT: ClassVar = True

    id: Annotated[_JobId | _Maybe, Meta(description="The one it has; it cannot change.")] = _UNSET
    trigger_time: Annotated[TimeGiven | _Maybe, WHEN] = _UNSET
    delay_ms: Annotated[_Milliseconds | _Maybe, _DELAY] = _UNSET
    route: RouteName | _Maybe = _UNSET
    meta: Annotated[msgspec.Raw | _Maybe, _META] = _UNSET
    tags: _Tags | _Maybe = _UNSET
    ordering_key: Annotated[str | None, _ORDERING] = None

    SCHEMA: ClassVar[dict[str, Any]] = {"not": {"required": ["trigger_time", "delay_ms"]}}


_TAG = "Jobs"
_JOBS = "/v1/dbs/{db}/collections/{collection}/jobs"
_KEYED = (IDEMPOTENCY_KEY,)
_STORED = ("ETag", "Idempotent-Replayed")
MISSING_ROUTE = flag("allow_missing_route", "Take jobs whose route does not exist yet.")
_ROUTE_NEEDED = "409 route_not_found"
_EXAMPLE = {"trigger_time": 1_900_000_000_000, "route": "hello", "meta": {"cart": 7}}

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
    # Not `isprintable` alone: what that says depends on the release of Unicode.
    if not 1 <= len(tag.encode()) <= limits.TAG_BYTES_MAX or (
        not tag.isprintable() and CONTROL.search(tag)
    ):
        raise invalid(
            pointer, f"A tag has 1 to {limits.TAG_BYTES_MAX} bytes without control characters."
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
        meta = _NULL
        if not isinstance(body.meta, _Maybe):
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

    @operation(
        "POST",
        _JOBS,
        tag=_TAG,
        query=[MISSING_ROUTE],
        headers=(IDEMPOTENCY_KEY, IF_NONE_MATCH),
        body=JobBody,
        answers={
            201: Told(meaning="Created.", body=JobView, headers=("Location", *_STORED)),
            200: Told(meaning="There already, and equal.", body=JobView, headers=_STORED),
        },
        refusals=[*IN_COLLECTION, _ROUTE_NEEDED, "409 job_exists", "507 disk_full"],
        example=Example(body={"id": "cart-7", **_EXAMPLE}),
    )
    async def post_job(self, call: Call) -> Answer:
        """Create a job.

        A repeat with the id of a job that is still kept is harmless: an equal one is 200 with the
        stored job, any other 409. POST never starts a job again.
        """
        propose, answer = self.prepare_post(call)
        return answer(await ask(propose))

    @operation(
        "PUT",
        f"{_JOBS}/{{id}}",
        tag=_TAG,
        query=[MISSING_ROUTE],
        headers=(IDEMPOTENCY_KEY, IF_MATCH, IF_NONE_MATCH),
        body=JobPutBody,
        answers={
            201: Told(meaning="Created.", body=JobView, headers=("Location", *_STORED)),
            200: Told(meaning="Replaced, or equal.", body=JobView, headers=_STORED),
        },
        refusals=[*IN_COLLECTION, _ROUTE_NEEDED, "507 disk_full"],
        example=Example(body=_EXAMPLE),
    )
    async def put_job(self, call: Call) -> Answer:
        """Create or replace a job.

        Omitted members take their defaults. What equals the stored version changes nothing.
        `previous` tells what became of the version before; a replaced one is never retried. On a
        job that ended, what differs starts a new life of its id.
        """
        collection, job_id = job_named(self._engine, *call.names)
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

    @operation(
        "PATCH",
        f"{_JOBS}/{{id}}",
        tag=_TAG,
        query=[MISSING_ROUTE],
        headers=(IDEMPOTENCY_KEY, IF_MATCH),
        body=JobPatchBody,
        answers={200: Told(meaning="Changed, or equal.", body=JobView, headers=_STORED)},
        refusals=[
            *IN_COLLECTION,
            "404 job_not_found",
            _ROUTE_NEEDED,
            "409 job_finished",
            "507 disk_full",
        ],
        example=Example(body={"trigger_time": "2030-05-01T08:00:00+02:00", "tags": ["later"]}),
    )
    async def patch_job(self, call: Call) -> Answer:
        """Change a job.

        Replaces the members that are given. A job that ended is 409.
        """
        engine = self._engine
        collection, job_id = job_named(self._engine, *call.names)
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

    @operation(
        "GET",
        f"{_JOBS}/{{id}}",
        tag=_TAG,
        answers={200: Told(meaning="The job.", body=JobView, headers=("ETag",))},
        refusals=[*IN_COLLECTION, "404 job_not_found"],
    )
    async def get_job(self, call: Call) -> Answer:
        """Read a job.

        Jobs that ended stay readable for the collection's `history_retention_ms`.
        """
        collection, job_id = job_named(self._engine, *call.names)
        record, meta = find_job(self._engine, collection, job_id)
        vnode = self._engine.vnode_of(collection, job_id)
        view = job_view(collection, vnode, job_id, record, meta)
        return Answer(body=encode_json(view), headers={"ETag": f'"{record.version}"'})

    @operation(
        "DELETE",
        f"{_JOBS}/{{id}}",
        tag=_TAG,
        query=[flag("purge", "Forget the job and its attempts, too.")],
        headers=(IDEMPOTENCY_KEY, IF_MATCH),
        answers={200: Told(meaning="The job, and its `outcome`.", body=JobView, headers=_STORED)},
        refusals=[*IN_COLLECTION, "404 job_not_found"],
    )
    async def delete_job(self, call: Call) -> Answer:
        """Cancel a job.

        After the outcome `cancelled` no send starts, after `in_flight` no further one. Deleting
        again returns the first outcome.
        """
        engine = self._engine
        collection, job_id = job_named(self._engine, *call.names)
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

    @operation(
        "POST",
        f"{_JOBS}/{{id}}/run",
        tag=_TAG,
        headers=_KEYED,
        body=Nothing,
        body_required=False,
        answers={200: Told(meaning="Its next attempt is now.", body=JobView, headers=_STORED)},
        refusals=[*IN_COLLECTION, "404 job_not_found", "409 job_finished", "507 disk_full"],
    )
    async def run_job(self, call: Call) -> Answer:
        """Run a job now.

        Moves the next attempt to now: the same version and `webhook_id`, and nothing else fires
        later.
        """
        call.no_members()
        collection, job_id = job_named(self._engine, *call.names)
        command = c.RunJob(
            now_ms=self._engine.now_ms(),
            job_id=job_id,
            request=self._request(call, collection, job_id, ("run",)),
        )
        return await self._propose(collection, job_id, command)

    @operation(
        "POST",
        f"{_JOBS}/{{id}}/redrive",
        tag=_TAG,
        query=[flag("force", "Send a delivered job once more, too.")],
        headers=_KEYED,
        body=Nothing,
        body_required=False,
        answers={202: Told(meaning="It is scheduled again.", body=JobView, headers=_STORED)},
        refusals=[
            *IN_COLLECTION,
            "404 job_not_found",
            _ROUTE_NEEDED,
            "409 job_not_dead",
            "409 job_delivered",
            "507 disk_full",
        ],
    )
    async def redrive_job(self, call: Call) -> Answer:
        """Send a dead job again.

        With the same `webhook_id`, so that the recipient knows it by that.
        """
        call.no_members()
        collection, job_id = job_named(self._engine, *call.names)
        record, _ = find_job(self._engine, collection, job_id)
        force = call.flag("force")
        command = c.RedriveJob(
            now_ms=self._engine.now_ms(),
            job_id=job_id,
            route_uid=self._route_uid(collection, record.route, allow_missing=False),
            force=force,
            request=self._request(call, collection, job_id, ("redrive", force)),
        )
        return await self._propose(collection, job_id, command)

    @operation(
        "GET",
        f"{_JOBS}/{{id}}/attempts",
        tag=_TAG,
        query=PAGED,
        answers={200: Told(meaning="Oldest first.", body=Page[AttemptView])},
        refusals=[*IN_COLLECTION, "404 job_not_found"],
    )
    async def list_attempts(self, call: Call) -> Answer:
        """List the attempts of a job."""
        collection, job_id = job_named(self._engine, *call.names)
        record, _ = find_job(self._engine, collection, job_id)
        attempts = self._engine.read_attempts(collection, job_id, record)
        scope = f"attempts/{collection.uid}/{job_id}"
        position = read_cursor(call, scope, tuple[Natural])
        start = 0 if position is None else position[0]
        stop = start + query_limit(call)
        cursor = write_cursor((stop,), scope) if len(attempts) > stop else None
        items = [attempt_view(row) for row in attempts[start:stop]]
        return json_answer(Page(items, cursor))

    @operation(
        "DELETE",
        f"{_JOBS}/{{id}}/attempts/{{n}}/content",
        tag=_TAG,
        query=[
            Parameter(
                name="version",
                description="Of the job, where several had such an attempt; the newest otherwise.",
                schema={"type": "integer", "minimum": 0, "maximum": limits.TIME_MS_MAX},
            )
        ],
        headers=_KEYED,
        answers={204: Told(meaning="It is removed.", headers=("Idempotent-Replayed",))},
        refusals=[*IN_COLLECTION, "404 job_not_found", "404 attempt_not_found", "507 disk_full"],
    )
    async def remove_content(self, call: Call) -> Answer:
        """Remove what the recipient answered.

        The attempt stays; the body and the headers of its response are forgotten.
        """
        *place, number = call.names
        collection, job_id = job_named(self._engine, *place)
        if _ATTEMPT.fullmatch(number) is None:
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
