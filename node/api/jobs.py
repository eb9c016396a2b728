"""Jobs: create, replace, change, read, delete, run, redrive."""

from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import quote

import msgspec

from node.api.conventions import (
    NAME,
    Answer,
    Call,
    Nothing,
    ask,
    checked_job_id,
    decoded,
    encode_content,
    encode_json,
    idempotency_key,
    if_match,
    if_none_match,
    job_request,
    request_of,
)
from node.api.explanation_views import explanation_view
from node.api.job_bodies import (
    JobBody,
    JobPatchBody,
    JobPutBody,
    checked_ordering_key,
    checked_tags,
    decode_job,
    decode_patched_job,
    decode_put_job,
    trigger_of,
)
from node.api.job_views import JobView, Previous, job_view
from node.api.lookups import find_collection, find_job, job_named
from node.api.metas import checked_meta
from node.api.operations import (
    IDEMPOTENCY_KEY,
    IF_MATCH,
    IF_NONE_MATCH,
    IN_COLLECTION,
    JOB,
    JOBS,
    Example,
    Told,
    flag,
    operation,
)
from node.api.problems import invalid, refusal
from node.engine import Engine
from timemachine.errors import Conflict
from timemachine.identifiers import UID_BYTES, uuid7, uuid8
from timemachine.model import Collection
from timemachine.replica import commands as c
from timemachine.replica.results import JobResult
from timemachine.ring import OrderedId, key_of
from timemachine.smearing import smear_of

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


_TAG = "Jobs"
_KEYED = (IDEMPOTENCY_KEY,)
_STORED = ("ETag", "Idempotent-Replayed")
MISSING_ROUTE = flag("allow_missing_route", "Take jobs whose route does not exist yet.")
_ROUTE_NEEDED = "409 route_not_found"
_EXAMPLE = {"trigger_time": 1_900_000_000_000, "route": "hello", "meta": {"cart": 7}}


class JobHandlers:
    """Operations on single jobs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # --- building commands -----------------------------------------------------------------

    def _bound(
        self,
        collection: Collection,
        job_id: str,
        name: str,
        *,
        allow_missing: bool,
        prefix: str = "",
    ) -> tuple[int, int]:
        """The uid of a job's route, and how the route smears it; 0 when it need not exist."""
        route = self._engine.meta.routes.get((collection.db, name))
        if route is not None:
            return route.uid, smear_of(job_id, route.smear_ms) if route.smear_ms else 0
        if NAME.fullmatch(name) is None:
            raise invalid(f"{prefix}/route", "This cannot be the name of a route.")
        if not allow_missing:
            raise Conflict(
                f"There is no route {name!r} in database {collection.db!r}."
                " Create it first, or send ?allow_missing_route=true.",
                code="route_not_found",
            )
        return 0, 0

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
        placed_ms: int | None = None,
    ) -> c.PutJob:
        """The command for a body that was sent, or what is wrong with it.

        `prefix` points at the body within a batch, `item` is its number there. `condition` and
        `absent` are what If-Match and If-None-Match ask for. `placed_ms` is before the id of a job
        with an ordering key was placed, where it is already.
        """
        engine = self._engine
        now_ms = engine.now_ms()
        trigger_ms = trigger_of(body.trigger_time, body.delay_ms, now_ms, prefix)
        ordering_key = body.ordering_key
        if ordering_key is not None:
            checked_ordering_key(ordering_key, prefix)
        meta = _NULL
        if not isinstance(body.meta, _Maybe):
            meta = checked_meta(bytes(body.meta), f"{prefix}/meta")
        tags = checked_tags(body.tags, prefix) if body.tags else ()
        route_uid, smear_ms = self._bound(
            collection, job_id, body.route, allow_missing=allow_missing, prefix=prefix
        )
        request = None
        if key is not None:
            time_ms = trigger_ms if body.delay_ms is None else None
            operation = "post" if create_only else "put"
            asked = (operation, time_ms, body.delay_ms, body.route, meta, tags, condition, absent)
            if ordering_key is not None:
                asked += (ordering_key,)  # type: ignore[assignment]
            content = encode_content(asked)
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
            smear_ms,
            ordering_key,
            now_ms if placed_ms is None else placed_ms,
            now_ms=now_ms,
        )

    def replacing(
        self,
        call: Call,
        collection: Collection,
        job_id: str,
        body: JobBody,
        placed_ms: int | None = None,
    ) -> c.PutJob:
        """The command of a call that creates or replaces a job, or what is wrong with it."""
        return self.build_put(
            collection,
            job_id,
            body,
            key=idempotency_key(call),
            allow_missing=call.flag("allow_missing_route"),
            create_only=False,
            condition=self._condition(call, collection, job_id),
            absent=if_none_match(call),
            placed_ms=placed_ms,
        )

    def cancelling(self, call: Call, collection: Collection, job_id: str) -> c.DeleteJob:
        """The command of a call that deletes a job, or what is wrong with it."""
        purge = call.flag("purge")
        condition = self._condition(call, collection, job_id)
        return c.DeleteJob(
            now_ms=self._engine.now_ms(),
            job_id=job_id,
            purge=purge,
            if_match=condition,
            request=job_request(call, collection, job_id, ("delete", purge, condition)),
            revoked=self._engine.revoke(collection, job_id),
        )

    def new_id(self, collection: Collection, key: str | None, item: int = 0) -> str:
        """An id for a job that came without one: from its key, or random and rising in time."""
        if key is not None:
            return uuid8(collection.uid, key, item)
        return uuid7(self._engine.now_ms(), self._engine.random_bytes(10))

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
            meta = result.meta if record.meta is None else record.meta
        if meta is None:
            meta = self._engine.read_meta(collection, job_id)
        if place is None:
            place = self._engine.vnode_of(collection, record.home(job_id))
        view = job_view(collection, place, job_id, record, meta)
        # Judged by the moment of acceptance, so that a repeat is told the same.
        if record.trigger_ms + record.smear_ms < record.updated_ms and result.kind in _ACCEPTED:
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
        engine = self._engine
        put = engine.propose_job if body.ordering_key is None else engine.propose_ordered
        propose = partial(put, collection, job_id, command)
        return propose, partial(self._answer, collection, job_id, meta=command.meta)

    @operation(
        "POST",
        JOBS,
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
        JOB,
        tag=_TAG,
        query=[MISSING_ROUTE],
        headers=(IDEMPOTENCY_KEY, IF_MATCH, IF_NONE_MATCH),
        body=JobPutBody,
        answers={
            201: Told(meaning="Created.", body=JobView, headers=("Location", *_STORED)),
            200: Told(meaning="Replaced, or equal.", body=JobView, headers=_STORED),
        },
        refusals=[*IN_COLLECTION, _ROUTE_NEEDED, "409 ordering_key_fixed", "507 disk_full"],
        example=Example(body=_EXAMPLE),
    )
    async def put_job(self, call: Call) -> Answer:
        """Create or replace a job.

        Omitted members take their defaults. What equals the stored version changes nothing.
        `previous` tells what became of the version before; a replaced one is never retried. On a
        job that ended, what differs starts a new life of its id.
        """
        collection, job_id = job_named(self._engine, *call.names)
        body = decoded(decode_put_job, call.body)
        if body.id not in (None, job_id):
            raise invalid("/id", "The id in the body is not the one in the path.")
        key, placed_ms = body.ordering_key, self._engine.now_ms()
        if key_of(job_id) not in (None, key):
            raise refusal("ordering_key_fixed")
        if key is not None:
            # What is wrong with it is found before its id is placed, and revokes no send.
            missing = call.flag("allow_missing_route")
            self.build_put(collection, job_id, body, key=None, allow_missing=missing)
            placed = partial(self._engine.place_job, collection, job_id, key)
            result: JobResult = await ask(placed)
            if result.kind == "refused":
                raise refusal(result.code)
            job_id = OrderedId(job_id, key)
        command = self.replacing(call, collection, job_id, body, placed_ms)
        return await self._propose(collection, job_id, command, command.meta)

    @operation(
        "PATCH",
        JOB,
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
            "409 ordering_key_fixed",
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
        body = decoded(decode_patched_job, call.body)
        if body.id not in (_UNSET, job_id):
            raise invalid("/id", "The id of a job cannot change.")
        if not isinstance(body.ordering_key, _Maybe) and body.ordering_key != key_of(job_id):
            raise refusal("ordering_key_fixed")
        now_ms = engine.now_ms()
        time = None if isinstance(body.trigger_time, _Maybe) else body.trigger_time
        delay_ms = None if isinstance(body.delay_ms, _Maybe) else body.delay_ms
        trigger_ms = None
        if time is not None or delay_ms is not None:
            trigger_ms = trigger_of(time, delay_ms, now_ms, "")
        meta = None if isinstance(body.meta, _Maybe) else checked_meta(bytes(body.meta), "/meta")
        tags = None if isinstance(body.tags, _Maybe) else checked_tags(body.tags, "")
        route = None if isinstance(body.route, _Maybe) else body.route
        route_uid = smear_ms = 0
        if route is not None:
            missing = call.flag("allow_missing_route")
            route_uid, smear_ms = self._bound(collection, job_id, route, allow_missing=missing)
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
            request=job_request(call, collection, job_id, content),
            revoked=engine.revoke(collection, job_id),
            smear_ms=smear_ms,
        )
        return await self._propose(collection, job_id, command)

    @operation(
        "GET",
        JOB,
        tag=_TAG,
        query=[flag("explain", "Tell why it was late, too.")],
        answers={200: Told(meaning="The job.", body=JobView, headers=("ETag",))},
        refusals=[*IN_COLLECTION, "404 job_not_found"],
    )
    async def get_job(self, call: Call) -> Answer:
        """Read a job.

        Jobs that ended stay readable for the collection's `history_retention_ms`. With `explain`
        the answer has an `explanation`: what happened to it when and by whom, and where the time
        went.
        """
        collection, job_id = job_named(self._engine, *call.names)
        record, meta = find_job(self._engine, collection, job_id)
        vnode = self._engine.vnode_of(collection, job_id)
        view = job_view(collection, vnode, job_id, record, meta)
        if call.flag("explain"):
            view.explanation = explanation_view(self._engine, collection, job_id, record)
        return Answer(body=encode_json(view), headers={"ETag": f'"{record.version}"'})

    @operation(
        "DELETE",
        JOB,
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
        collection, job_id = job_named(self._engine, *call.names)
        command = self.cancelling(call, collection, job_id)
        return await self._propose(collection, job_id, command)

    @operation(
        "POST",
        f"{JOB}/run",
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
            request=job_request(call, collection, job_id, ("run",)),
        )
        return await self._propose(collection, job_id, command)

    @operation(
        "POST",
        f"{JOB}/redrive",
        tag=_TAG,
        query=[
            flag("force", "Send a delivered job once more, too."),
            flag("new_id", "Send it under another `webhook_id`, as a new version."),
        ],
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

        With the same `webhook_id`, so that the recipient knows it by that. With `new_id` under
        another one: a recipient that has done it already does it once more.
        """
        call.no_members()
        collection, job_id = job_named(self._engine, *call.names)
        record, _ = find_job(self._engine, collection, job_id)
        force, new_id = call.flag("force"), call.flag("new_id")
        content = ("redrive", force, new_id) if new_id else ("redrive", force)
        command = c.RedriveJob(
            now_ms=self._engine.now_ms(),
            job_id=job_id,
            route_uid=self._bound(collection, job_id, record.route, allow_missing=False)[0],
            force=force,
            request=job_request(call, collection, job_id, content),
            uid=self._engine.random_bytes(UID_BYTES) if new_id else b"",
        )
        return await self._propose(collection, job_id, command)
