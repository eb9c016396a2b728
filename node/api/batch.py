"""Many jobs in one request: a JSON array, or NDJSON; items stand for themselves, in order."""

import asyncio
from functools import partial
from typing import Any

import msgspec

from node.api.conventions import (
    NDJSON_TYPES,
    Answer,
    Call,
    checked_job_id,
    content_type,
    decoded,
    encode_json,
    idempotency_key,
)
from node.api.databases import find_collection
from node.api.jobs import JobHandlers, decode_job
from node.api.problems import problem, refusal, too_large
from node.engine import Engine
from timemachine import limits
from timemachine.errors import TimeMachineError
from timemachine.model import Collection
from timemachine.replica import commands as c

_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_BUILT_BETWEEN_YIELDS = 200
_STATUS = {"created": 201, "unchanged": 200}


class BatchHandlers:
    """POST .../jobs/batch."""

    def __init__(self, engine: Engine, jobs: JobHandlers) -> None:
        self._engine = engine
        self._jobs = jobs

    async def post_batch(self, call: Call) -> Answer:
        """Create many jobs."""
        call.only("allow_missing_route")
        collection = find_collection(self._engine, *call.names[:2])
        lines = content_type(call.headers) in NDJSON_TYPES
        contents: list[Any]
        if lines:
            contents = [line for line in call.body.split(b"\n") if line.strip()]
        else:
            contents = decoded(_decode_array, call.body)
        if len(contents) > limits.BATCH_JOBS_MAX:
            raise too_large(
                "", f"A batch has at most {limits.BATCH_JOBS_MAX} jobs; this one {len(contents)}."
            )
        results = await self._create_all(call, collection, contents)
        items = []
        created = failed = 0
        for number, (job_id, command, result) in enumerate(results):
            item, status = self._item(collection, job_id, command, result)
            items.append(item)
            created += status == 201
            failed += status >= 400
            if number % _BUILT_BETWEEN_YIELDS == _BUILT_BETWEEN_YIELDS - 1:
                await asyncio.sleep(0)
        if lines:
            body = b"".join([encode_json(item) + b"\n" for item in items])
            return Answer(body=body, content_type="application/x-ndjson")
        return Answer(body=encode_json({"items": items, "created": created, "failed": failed}))

    async def _create_all(
        self, call: Call, collection: Collection, contents: list[Any]
    ) -> list[tuple[str, c.PutJob | None, Any]]:
        """Propose every item, and wait until each has its result."""
        key = idempotency_key(call)
        allow_missing = call.flag("allow_missing_route")
        results: list[Any] = [None] * len(contents)
        waiting = len(contents)
        finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not contents:
            return []

        def settle(number: int, job_id: str, command: c.PutJob | None, result: Any) -> None:
            nonlocal waiting
            results[number] = (job_id, command, result)
            waiting -= 1
            if waiting == 0 and not finished.done():
                finished.set_result(None)

        for number, content in enumerate(contents):
            job_id = ""
            try:
                prefix = f"/{number}"
                body = decoded(decode_job, content, prefix)
                if body.id is None:
                    job_id = self._jobs.new_id(collection, key, number)
                else:
                    job_id = checked_job_id(body.id, f"{prefix}/id")
                command = self._jobs.build_put(
                    collection,
                    job_id,
                    body,
                    key=key,
                    allow_missing=allow_missing,
                    prefix=prefix,
                    item=number,
                )
            except TimeMachineError as error:
                settle(number, job_id, None, error)
                continue
            done = partial(settle, number, job_id, command)
            self._engine.propose_job(collection, job_id, command, done)
            if number % _BUILT_BETWEEN_YIELDS == _BUILT_BETWEEN_YIELDS - 1:
                await asyncio.sleep(0)
        await finished
        return results

    def _item(
        self, collection: Collection, job_id: str, command: c.PutJob | None, result: Any
    ) -> tuple[dict[str, Any], int]:
        if not isinstance(result, TimeMachineError) and result.kind == "refused":
            result = refusal(result.code)
        if isinstance(result, TimeMachineError):
            status = result.http_status
            return {"status": status, "error": problem(result)}, status
        assert command is not None
        status = _STATUS[result.kind]
        view = self._jobs.view(collection, job_id, result, command.meta)
        return {"status": status, "job": view}, status
