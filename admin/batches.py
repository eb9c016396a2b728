"""Many jobs from a stream: read, cut into batches, sent, and what was refused."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, NamedTuple

import click
import msgspec

from admin import shown
from admin.errors import for_terminals, problem
from admin.session import Session
from timemachine import limits
from timemachine.client.call import Call, collection_path, query_of
from timemachine.client.config import Sources
from timemachine.client.problems import Problem, api_error
from timemachine.identifiers import uuid8

_BATCH_BYTES: Final = limits.CLI_BATCH_BYTES
_LINE_BYTES_MAX: Final = limits.CLI_LINE_BYTES_MAX
_REFUSED: Final = {"line", "job", "error"}
"""The members of a line that tells of a refused job; such a line may be given again."""

_decode_job = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Refused(NamedTuple):
    """A job that was not created: the error's sentence, and the whole as a line of NDJSON."""

    line: int
    detail: str
    record: str

    def sentence(self) -> str:
        """For people."""
        return shown.text(f"line {self.line}: {for_terminals(self.detail)}")


class Item(NamedTuple):
    """One job as it came: its place (a line, or a place in an array, from 1 on) and its bytes."""

    line: int
    content: bytes


class _Answered(msgspec.Struct):
    status: int
    error: Problem = Problem()


class _Answer(msgspec.Struct):
    items: list[_Answered]


@dataclass
class Outcome:
    """What became of the jobs so far. `existing` were there already, equal to what was sent."""

    created: int = 0
    existing: int = 0
    failed: int = 0
    last_line: int = 0

    def sentence(self) -> str:
        """For people."""
        existing = f", {self.existing} were there already" if self.existing else ""
        return f"{self.created} created{existing}, {self.failed} refused"

    def as_json(self) -> str:
        """For programs."""
        return json.dumps(
            {"created": self.created, "existing": self.existing, "failed": self.failed}
        )


class Reader:
    """Cuts a stream into batches, bounded in jobs and in bytes; reads on only when it is asked.

    NDJSON is read a line at a time; a JSON array is read as a whole. `bytes_read` tells how far it
    is. Raises UsageError for an array that is no JSON.
    """

    def __init__(self, source: BinaryIO, batch_jobs: int) -> None:
        self._source = source
        self._batch_jobs = batch_jobs
        self.bytes_read = 0

    def __iter__(self) -> Iterator[list[Item]]:
        """The batches."""
        batch: list[Item] = []
        size = 0
        for item in self._items():
            length = len(item.content)
            if batch and (len(batch) >= self._batch_jobs or size + length > _BATCH_BYTES):
                yield batch
                batch, size = [], 0
            batch.append(item)
            size += length
        if batch:
            yield batch

    def _items(self) -> Iterator[Item]:
        number = 0
        began = False
        while line := self._source.readline(_LINE_BYTES_MAX + 1):
            number += 1
            self.bytes_read += len(line)
            content = line.strip()
            if number == 1:
                content = content.removeprefix(b"\xef\xbb\xbf")
            if content.startswith(b"[") and not began:
                yield from self._array(line)
                return
            if len(line) > _LINE_BYTES_MAX:
                raise click.UsageError(
                    f"Line {number} is longer than {_LINE_BYTES_MAX} bytes: no job is."
                )
            if content:
                began = True
                yield Item(number, content)

    def _array(self, begun: bytes) -> Iterator[Item]:
        rest = self._source.read()
        self.bytes_read += len(rest)
        try:
            items = msgspec.json.decode(begun + rest, type=list[msgspec.Raw])
        except (msgspec.DecodeError, RecursionError) as error:
            raise click.UsageError(f"This is no JSON array: {error}.") from None
        for number, item in enumerate(items, 1):
            yield Item(number, bytes(item))


class Sending:
    """Sends batches to a collection, one at a time; the SDK tries again where that helps.

    route  for jobs that name none
    key    makes ids and Idempotency-Keys, so that the same jobs again are recognised
    """

    def __init__(
        self,
        session: Session,
        db: str,
        collection: str,
        *,
        route: str | None = None,
        key: str | None = None,
        allow_missing_route: bool = False,
    ) -> None:
        self._session = session
        self._path = collection_path(db, collection, "jobs", "batch")
        self._query = query_of(allow_missing_route=allow_missing_route)
        self._route = None if route is None else msgspec.Raw(msgspec.json.encode(route))
        self._key = key
        self._new_id = Sources().new_id

    def send(self, items: list[Item], outcome: Outcome) -> list[Refused]:
        """Send one batch; returns the jobs that were refused. Raises ClientError."""
        refused: list[Refused] = []
        jobs: list[tuple[Item, dict[str, msgspec.Raw]]] = []
        for item in items:
            try:
                jobs.append((item, self._job(item)))
            except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
                outcome.failed += 1
                detail = f"This is no JSON object: {error}."
                fault = {"code": "invalid_request", "detail": detail}
                content = item.content.decode("utf-8", "replace")
                fields = {"line": item.line, "text": content, "error": fault}
                refused.append(Refused(item.line, detail, json.dumps(fields)))
        if jobs:
            refused += self._send(jobs, outcome)
        outcome.last_line = items[-1].line
        return sorted(refused)

    def _send(
        self, jobs: list[tuple[Item, dict[str, msgspec.Raw]]], outcome: Outcome
    ) -> list[Refused]:
        key = None
        if self._key is not None:
            key = f"{self._key}/{jobs[0][0].line}-{jobs[-1][0].line}"
        call: Call[Any] = Call(
            "POST",
            self._path,
            object,
            query=self._query,
            body=[job for _, job in jobs],
            idempotency_key=key,
        )
        refused = []
        answer = msgspec.json.decode(self._session.ask(call), type=_Answer)
        for index, ((item, _), answered) in enumerate(zip(jobs, answer.items, strict=True)):
            if answered.status == 201:
                outcome.created += 1
            elif answered.status < 400:
                outcome.existing += 1
            else:
                outcome.failed += 1
                # On one line, also where it came on several.
                job = msgspec.Raw(msgspec.json.format(item.content, indent=-1))
                error = api_error(answered.error, answered.status, within=f"/{index}")
                fields = {"line": item.line, "job": job, "error": problem(error)}
                record = msgspec.json.encode(fields).decode()
                refused.append(Refused(item.line, error.detail, record))
        return refused

    def _job(self, item: Item) -> dict[str, msgspec.Raw]:
        """A job as it is sent: every member as it came, with an id and a route."""
        item.content.decode()
        job = _decode_job(item.content)
        if job.keys() == _REFUSED:
            job = _decode_job(job["job"])
        if "id" not in job:
            made = self._new_id() if self._key is None else self._id_of(self._key, item.line)
            job = {"id": msgspec.Raw(msgspec.json.encode(made)), **job}
        if self._route is not None and "route" not in job:
            job["route"] = self._route
        return job

    @staticmethod
    def _id_of(key: str, line: int) -> str:
        return uuid8(0, key, line)
