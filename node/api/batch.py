"""Many jobs in one request: a JSON array, or NDJSON; items stand for themselves, in order."""

import asyncio
from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from node.api import msgpack
from node.api.conventions import (
    Answer,
    Call,
    ask,
    checked_job_id,
    decoded,
    encode_json,
    idempotency_key,
)
from node.api.job_bodies import JobBody, decode_job
from node.api.job_views import JobView
from node.api.jobs import MISSING_ROUTE, JobHandlers
from node.api.lookups import find_collection
from node.api.media import MSGPACK, NDJSON, NDJSON_TYPES, content_type
from node.api.operations import IDEMPOTENCY_KEY, IN_COLLECTION, JOBS, Example, Told, operation
from node.api.problems import Problem, from_validation, problem, refusal, too_large
from node.engine import Engine
from timemachine import limits
from timemachine.errors import TimeMachineError, Unavailable
from timemachine.model import Collection
from timemachine.replica import commands as c

_decode_jobs = msgspec.json.Decoder(list[JobBody]).decode
_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_BUILT_BETWEEN_YIELDS = 200
_COMMAS_MAX = 32 * limits.BATCH_JOBS_MAX
_LINES_MAX = 4 * limits.BATCH_JOBS_MAX
_STATUS = {"created": 201, "unchanged": 200}


Batch = Annotated[
    list[JobBody],
    Meta(extra_json_schema={"maxItems": limits.BATCH_JOBS_MAX}),
]


class BatchItem(msgspec.Struct, frozen=True):
    """What became of one job: a `job` with 200 or 201, an `error` otherwise."""

    status: int
    job: JobView | msgspec.UnsetType = msgspec.UNSET
    error: Problem | msgspec.UnsetType = msgspec.UNSET


class BatchView(msgspec.Struct, frozen=True):
    """What became of a batch: items in the order of the jobs."""

    items: list[BatchItem]
    created: int
    failed: int


def _contents(body: bytes, *, lines: bool) -> list[Any]:
    """The items: decoded ones if all of them can be, otherwise the bytes of each.

    Far too many items are found before they become that many objects: a body of 16 MiB could hold
    millions, and keep the loop from everything else while they are made.
    """
    if lines:
        if body.count(b"\n") > _LINES_MAX:
            raise _too_many()
        return [line for line in body.split(b"\n") if line.strip()]
    large = body.count(b",") > _COMMAS_MAX
    if large and body.count(b'"route"') > _LINES_MAX:
        raise _too_many()
    try:
        return _decode_jobs(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        if large:
            raise from_validation(error) from None
    # Which of the items is wrong is found one by one.
    return decoded(_decode_array, body)


def _too_many(count: int | None = None) -> TimeMachineError:
    told = "." if count is None else f"; this one {count}."
    return too_large("", f"A batch has at most {limits.BATCH_JOBS_MAX} jobs{told}")


def _refused(error: TimeMachineError) -> BatchItem:
    return BatchItem(error.http_status, error=problem(error))


def _route_missing(built: Any) -> bool:
    return isinstance(built, TimeMachineError) and built.specific_code == "route_not_found"


class BatchHandlers:
    """POST .../jobs/batch."""

    def __init__(self, engine: Engine, jobs: JobHandlers) -> None:
        self._engine = engine
        self._jobs = jobs

    @operation(
        "POST",
        f"{JOBS}/batch",
        tag="Jobs",
        query=[MISSING_ROUTE],
        headers=(IDEMPOTENCY_KEY,),
        body=Batch,
        more={NDJSON: Batch},
        answers={
            200: Told(
                meaning="What became of each. NDJSON is answered with NDJSON: an item a line.",
                body=BatchView,
                also={NDJSON: list[BatchItem]},
            )
        },
        refusals=IN_COLLECTION,
        example=Example(
            body=[
                {"id": "cart-8", "delay_ms": 3_600_000, "route": "hello", "meta": {"cart": 8}},
                {"id": "cart-9", "delay_ms": 7_200_000, "route": "hello", "meta": {"cart": 9}},
            ]
        ),
    )
    async def post_batch(self, call: Call) -> Answer:
        """Create many jobs.

        A JSON array, or NDJSON: a job a line. Each job stands for itself: one that is refused
        does not keep the others from being created.
        """
        collection = find_collection(self._engine, *call.names[:2])
        kind = content_type(call.headers)
        lines = kind in NDJSON_TYPES
        if kind == MSGPACK:
            contents = await msgpack.unpacked_items(call.body, _too_many)
        else:
            contents = _contents(call.body, lines=lines)
        if len(contents) > limits.BATCH_JOBS_MAX:
            raise _too_many(len(contents))
        built = await self._build_all(call, collection, contents)
        await self._place(collection, built)
        creates = [each for each in built if type(each) is tuple]
        results = iter(await ask(self._engine.propose_creates, collection, creates))
        items = []
        created = failed = 0
        for number, each in enumerate(built):
            if type(each) is tuple:
                place, command = each
                item = self._item(collection, place, command, next(results))
            else:
                item = _refused(each)
            items.append(item)
            status = item.status
            created += status == 201
            failed += status >= 400
            if number % _BUILT_BETWEEN_YIELDS == _BUILT_BETWEEN_YIELDS - 1:
                await asyncio.sleep(0)
        if lines:
            body = b"".join([encode_json(item) + b"\n" for item in items])
            return Answer(body=body, content_type=NDJSON)
        return Answer(body=encode_json(BatchView(items, created, failed)))

    async def _place(self, collection: Collection, built: list[Any]) -> None:
        """Place the ids of jobs with an ordering key; those that are refused are not built."""
        ordered = [
            number
            for number, each in enumerate(built)
            if type(each) is tuple and each[1].ordering_key is not None
        ]
        if not ordered:
            return
        commands = [built[number][1] for number in ordered]
        results = await ask(self._engine.place_jobs, collection, commands)
        for number, result in zip(ordered, results, strict=True):
            if isinstance(result, TimeMachineError):
                built[number] = result
            elif result.kind == "refused":
                built[number] = refusal("job_exists")

    async def _build_all(
        self, call: Call, collection: Collection, contents: list[Any]
    ) -> list[Any]:
        """For every item the index of its vnode and its command, or what is wrong with it."""
        numbers = range(len(contents))
        built = await self._build(call, collection, contents, numbers)
        if not self._engine.router.alone:
            # This node may be behind in what meta says.
            missing = [each for each in numbers if _route_missing(built[each])]
            again: list[Any] = []
            try:
                if missing:
                    await ask(self._engine.router.read_meta)
                    again = await self._build(call, collection, contents, missing)
            except Unavailable as error:
                again = [error] * len(missing)
            for number, each in zip(missing, again, strict=True):
                built[number] = each
        return built

    async def _build(
        self, call: Call, collection: Collection, contents: list[Any], numbers: Iterable[int]
    ) -> list[Any]:
        """The same for some of the items."""
        key = idempotency_key(call)
        allow_missing = call.flag("allow_missing_route")
        jobs, vnode_of = self._jobs, self._engine.vnode_of
        built: list[Any] = []
        for number in numbers:
            content = contents[number]
            prefix = f"/{number}"
            try:
                if isinstance(content, TimeMachineError):
                    raise content
                body: JobBody = content
                if type(content) is not JobBody:
                    body = decoded(decode_job, content, prefix)
                if body.id is None:
                    job_id = jobs.new_id(collection, key, number)
                else:
                    job_id = checked_job_id(body.id, f"{prefix}/id")
                command = jobs.build_put(
                    collection,
                    job_id,
                    body,
                    key=key,
                    allow_missing=allow_missing,
                    prefix=prefix,
                    item=number,
                )
            except TimeMachineError as error:
                built.append(error)
            else:
                built.append((vnode_of(collection, body.ordering_key or job_id), command))
            if number % _BUILT_BETWEEN_YIELDS == _BUILT_BETWEEN_YIELDS - 1:
                await asyncio.sleep(0)
        return built

    def _item(
        self, collection: Collection, place: int, command: c.PutJob, result: Any
    ) -> BatchItem:
        if isinstance(result, TimeMachineError):
            return _refused(result)
        if result.kind == "refused":
            return _refused(refusal(result.code))
        view = self._jobs.view(collection, command.job_id, result, command.meta, place)
        return BatchItem(_STATUS[result.kind], view)
