"""The attempts of a job: what was sent, what came back, and that to be forgotten."""

import re

from node.api.attempt_queries import FILTERS, AttemptPage, filter_scope, query_filter
from node.api.conventions import (
    Answer,
    Call,
    ask_job,
    job_request,
    json_answer,
    query_number,
    replayed,
)
from node.api.job_views import attempt_view
from node.api.lookups import find_job, job_named
from node.api.operations import IDEMPOTENCY_KEY, IN_COLLECTION, JOB, Parameter, Told, operation
from node.api.paging import PAGED, Natural, query_limit, read_cursor, write_cursor
from node.api.problems import refusal
from node.engine import Engine
from timemachine import limits
from timemachine.replica import commands as c

_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_TAG = "Jobs"
_ATTEMPTS = f"{JOB}/attempts"


class AttemptHandlers:
    """Operations on the attempts of a job."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @operation(
        "GET",
        _ATTEMPTS,
        tag=_TAG,
        query=[*FILTERS, *PAGED],
        answers={200: Told(meaning="Oldest first.", body=AttemptPage)},
        refusals=[*IN_COLLECTION, "404 job_not_found"],
    )
    async def list_attempts(self, call: Call) -> Answer:
        """List the attempts of a job.

        Of all its versions, the oldest first.
        """
        collection, job_id = job_named(self._engine, *call.names)
        record, _ = find_job(self._engine, collection, job_id)
        among = query_filter(call)
        attempts = [
            each
            for each in self._engine.read_attempts(collection, job_id, record)
            if among.takes(each)
        ]
        scope = f"attempts/{collection.uid}/{job_id}/{filter_scope(call)}"
        position = read_cursor(call, scope, tuple[Natural, Natural])
        limit = query_limit(call)
        start, stop = (0, limit) if position is None else position
        # A page before may have been of another length.
        stop = min(stop, start + limit)
        following = previous = None
        if len(attempts) > stop:
            following = write_cursor((stop, stop + limit), scope)
        if start:
            previous = write_cursor((max(0, start - limit), start), scope)
        now_ms = self._engine.now_ms()
        items = [attempt_view(each, job_id, collection, now_ms) for each in attempts[start:stop]]
        return json_answer(AttemptPage(items, following, previous))

    @operation(
        "DELETE",
        f"{_ATTEMPTS}/{{n}}/content",
        tag=_TAG,
        query=[
            Parameter(
                name="version",
                description="Of the job, where several had such an attempt; the newest otherwise.",
                schema={"type": "integer", "minimum": 0, "maximum": limits.TIME_MS_MAX},
            )
        ],
        headers=(IDEMPOTENCY_KEY,),
        answers={204: Told(meaning="It is removed.", headers=("Idempotent-Replayed",))},
        refusals=[*IN_COLLECTION, "404 job_not_found", "404 attempt_not_found", "507 disk_full"],
    )
    async def remove_content(self, call: Call) -> Answer:
        """Remove what the recipient answered.

        The attempt stays; the body and the headers of its response are forgotten.
        """
        *place, number = call.names
        collection, job_id = job_named(self._engine, *place)
        if _NUMBER.fullmatch(number) is None:
            raise refusal("attempt_not_found")
        version = query_number(call, "version", 0, limits.TIME_MS_MAX, 0) or None
        command = c.ForgetContent(
            now_ms=self._engine.now_ms(),
            job_id=job_id,
            attempt=int(number),
            version=version,
            request=job_request(call, collection, job_id, ("content", int(number), version)),
        )
        result = await ask_job(self._engine, collection, job_id, command)
        return Answer(status=204, body=b"", headers=replayed(result))
