"""Many jobs in batches: what goes into a request, and how one is carried through. No I/O.

Jobs are encoded one by one, with an id each, so that what waits is counted in bytes and a repeat
names the same job. A batch is carried through like any call; beyond that, items that the node
refused for now (429, 503) are sent again, alone, for as long as the call may take: they are the
same jobs, so nothing is created twice.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from timemachine import limits
from timemachine.client.answers import Batch, BatchItem, CreateResult
from timemachine.client.call import Call, collection_path, job_body, query_of
from timemachine.client.config import Config, Sources
from timemachine.client.conversation import Result, Step, Wait, backoff_ms, converse
from timemachine.client.operations.fields import NewJob
from timemachine.client.problems import RETRIED_STATUS, Problem, api_error
from timemachine.errors import BadAnswer, ClientError


@dataclass(frozen=True, slots=True)
class Item:
    """One job as it is sent. `number` is its place among all."""

    number: int
    id: str
    content: bytes


def given_job(job: NewJob | None, fields: dict[str, Any]) -> NewJob:
    """The job that was given, whole or as its fields."""
    if job is None:
        return NewJob(**fields)
    if fields:
        raise TypeError("give either a NewJob or its fields")
    return job


def item_of(job: NewJob, number: int, sources: Sources) -> Item:
    """A job encoded, with an id of the client's where it has none.

    Raises ValueError and TypeError for what cannot be a job.
    """
    if not isinstance(job, NewJob):
        raise TypeError(f"a job is a NewJob, not {type(job).__name__}")
    fields: dict[str, Any] = msgspec.structs.asdict(job)
    if fields["id"] is None:
        fields["id"] = sources.new_id()
    return Item(number, fields["id"], msgspec.json.encode(job_body(**fields)))


@dataclass(frozen=True, slots=True)
class BatchConfig:
    """Where jobs go, and in what portions.

    max_jobs       of one request
    max_bytes      of one request; a larger job goes alone
    max_in_flight  requests at the same time
    timeout_ms     for each batch, with all its tries; the client's own when None
    """

    db: str
    collection: str
    max_jobs: int
    max_bytes: int
    max_in_flight: int
    timeout_ms: int | None
    allow_missing_route: bool

    def __post_init__(self) -> None:
        """Refuse what cannot work, at once."""
        for name, most in (
            ("max_jobs", limits.BATCH_JOBS_MAX),
            ("max_bytes", limits.REQUEST_BODY_BYTES_MAX),
            ("max_in_flight", limits.CLIENT_CONNECTIONS_MAX),
        ):
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"{name} is 1 to {most}")
        if self.timeout_ms is not None and self.timeout_ms <= 0:
            raise ValueError("timeout_ms must be positive")
        collection_path(self.db, self.collection)

    def call(self, items: Sequence[Item]) -> Call[Batch]:
        """The request that creates these jobs."""
        return Call(
            "POST",
            collection_path(self.db, self.collection, "jobs", "batch"),
            Batch,
            query=query_of(allow_missing_route=self.allow_missing_route),
            body=[msgspec.Raw(item.content) for item in items],
        )


class Buffer:
    """The items that will be one batch."""

    def __init__(self, config: BatchConfig) -> None:
        self._jobs_max = config.max_jobs
        self._bytes_max = config.max_bytes
        self._items: list[Item] = []
        self._bytes = 2

    def __len__(self) -> int:
        """How many items there are."""
        return len(self._items)

    def takes(self, item: Item) -> bool:
        """Whether there is room for one more; there always is in an empty batch."""
        if not self._items:
            return True
        size = self._bytes + len(item.content) + 1
        return len(self._items) < self._jobs_max and size <= self._bytes_max

    def put(self, item: Item) -> None:
        """Take one more."""
        self._items.append(item)
        self._bytes += len(item.content) + 1

    @property
    def full(self) -> bool:
        """Whether no further item can fit."""
        return len(self._items) >= self._jobs_max or self._bytes >= self._bytes_max

    def take(self) -> list[Item]:
        """All items; the next batch begins."""
        items, self._items, self._bytes = self._items, [], 2
        return items


class Cutter:
    """Cuts jobs into batches, numbered as they come."""

    def __init__(self, config: BatchConfig, sources: Sources) -> None:
        self._buffer = Buffer(config)
        self._sources = sources
        self._number = 0

    def add(self, job: NewJob) -> list[Item]:
        """Take one more job; returns the batch that is complete by that, mostly none.

        Raises ValueError and TypeError for what cannot be a job.
        """
        item = item_of(job, self._number, self._sources)
        self._number += 1
        complete = [] if self._buffer.takes(item) else self._buffer.take()
        self._buffer.put(item)
        return complete or (self._buffer.take() if self._buffer.full else [])

    def rest(self) -> list[Item]:
        """What no batch has taken yet; the last batch, if there is one."""
        return self._buffer.take()


def converse_batch(
    items: Sequence[Item], batch: BatchConfig, config: Config, first_server: int
) -> Generator[Step, Result, list[CreateResult]]:
    """Carry a batch through; a failure of the whole is the failure of each of its items."""
    now_ms = config.sources.monotonic_ms
    deadline_ms = now_ms() + (config.timeout_ms if batch.timeout_ms is None else batch.timeout_ms)
    results: dict[int, CreateResult] = {}
    left = list(items)
    rounds = 0
    while True:
        timeout_ms = max(1, int(deadline_ms - now_ms()))
        try:
            answer = yield from converse(
                batch.call(left), replace(config, timeout_ms=timeout_ms), first_server
            )
            if len(answer.items) != len(left):
                raise BadAnswer(f"{len(left)} jobs were sent, {len(answer.items)} answered.")
        except ClientError as error:
            for item in left:
                results[item.number] = CreateResult(number=item.number, id=item.id, error=error)
            break
        again = []
        for place, (item, answered) in enumerate(zip(left, answer.items, strict=True)):
            results[item.number] = _result(item, answered, place)
            if answered.status in RETRIED_STATUS:
                again.append(item)
        rounds += 1
        wait_ms = backoff_ms(config, rounds, config.sources.random())
        if not again or now_ms() + wait_ms >= deadline_ms:
            break
        yield Wait(wait_ms)
        left = again
    return [results[item.number] for item in items]


def _result(item: Item, answered: BatchItem, place: int) -> CreateResult:
    job = answered.job
    if job is not None and answered.status < 300:
        return CreateResult(number=item.number, id=item.id, job=job, created=answered.status == 201)
    # In the answer the pointer begins with the place in the request, which the caller never saw.
    error = api_error(answered.problem or Problem(), answered.status, within=f"/{place}")
    return CreateResult(number=item.number, id=item.id, error=error)
