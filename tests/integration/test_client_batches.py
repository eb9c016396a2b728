"""Many jobs with both clients, against a server that answers by a script.

Every test runs with the async and the sync client: they promise the same.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import msgspec
import pytest

from tests.integration.scripted import (
    JOB,
    PATIENCE_S,
    Connection,
    Serve,
    Turn,
    answer,
    hang,
    raw,
    shut,
    take,
)
from timemachine.client import (
    ApiConflict,
    ApiNotFound,
    AsyncBatcher,
    BadAnswer,
    BatchFailed,
    Client,
    ClientClosed,
    CreateResult,
    NewJob,
    SyncClient,
)

HERE = ("default", "carts")
Create = Callable[..., list[CreateResult]]
Fill = Callable[..., Any]


def jobs(count: int) -> list[NewJob]:
    """Jobs with ids that tell their order."""
    return [NewJob(id=f"job{number}", route="r", delay_ms=1) for number in range(count)]


def ids(results: Iterable[CreateResult]) -> list[str]:
    """Which jobs these results are about."""
    return [result.id for result in results]


@pytest.fixture(params=["async", "sync"])
def create(request: pytest.FixtureRequest) -> Create:
    """Runs `create_many` with a client of either kind; `seen` hears each result."""

    def synchronous(url: str, source: Any, seen: Callable[[Any], object], options: Any) -> None:
        with SyncClient(url, backoff_ms=1) as tm:
            for result in tm.create_many(*HERE, source, **options):
                seen(result)

    async def asynchronous(
        url: str, source: Any, seen: Callable[[Any], object], options: Any
    ) -> None:
        async with Client(url, backoff_ms=1) as tm, asyncio.timeout(PATIENCE_S):
            async for result in tm.create_many(*HERE, source, **options):
                seen(result)

    def either(
        url: str,
        source: Any,
        seen: Callable[[Any], object] = lambda result: None,
        **options: Any,
    ) -> list[CreateResult]:
        results: list[CreateResult] = []

        def hear(result: CreateResult) -> None:
            results.append(result)
            seen(result)

        if request.param == "sync":
            synchronous(url, source, hear, options)
        else:
            asyncio.run(asynchronous(url, source, hear, options))
        return results

    return either


@pytest.fixture(params=["async", "sync"])
def fill(request: pytest.FixtureRequest) -> Fill:
    """Adds jobs to a batcher of either kind, then does `last`; returns the batcher."""

    def synchronous(url: str, added: Iterable[NewJob], last: Any, options: Any) -> Any:
        with SyncClient(url, backoff_ms=1) as tm, tm.batcher(*HERE, **options) as batch:
            for job in added:
                batch.add(job)
            if last is not None:
                last(batch)
        return batch

    async def asynchronous(url: str, added: Iterable[NewJob], last: Any, options: Any) -> Any:
        async with (
            Client(url, backoff_ms=1) as tm,
            asyncio.timeout(PATIENCE_S),
            tm.batcher(*HERE, **options) as batch,
        ):
            for job in added:
                await batch.add(job)
            if last is not None and (done := last(batch)) is not None:
                await done
        return batch

    def either(url: str, added: Iterable[NewJob], last: Any = None, **options: Any) -> Any:
        if request.param == "sync":
            return synchronous(url, added, last, options)
        return asyncio.run(asynchronous(url, added, last, options))

    return either


class Gate:
    """A turn that answers only while `count` requests are there at the same time."""

    def __init__(self, count: int) -> None:
        self._barrier = threading.Barrier(count)

    def __call__(self, connection: Connection) -> bool:
        """Wait for the others, then create the jobs."""
        self._barrier.wait(PATIENCE_S)
        return take(connection)


# --- an iterator -------------------------------------------------------------------------------


def test_results_come_in_order(create: Create, serve: Serve) -> None:
    """However the answers come, results are in the order of the jobs."""
    second_is_done = threading.Event()

    def first(connection: Connection) -> bool:
        if b'"job0"' in connection.body:
            second_is_done.wait(PATIENCE_S)
        else:
            second_is_done.set()
        return take(connection)

    server = serve(first, first, take)
    results = create(server.url, jobs(25), max_jobs=10)
    assert [f"job{number}" for number in range(25)] == ids(results)
    assert [*range(25)] == [result.number for result in results]
    assert all(result.created and result.result().id == result.id for result in results)
    assert [10, 10, 5] == sorted((len(msgspec.json.decode(b)) for _, _, b in server.requests))[::-1]


def test_nothing_is_nothing(create: Create, serve: Serve) -> None:
    """No job is no request."""
    server = serve()
    assert [] == create(server.url, [])
    assert [] == server.requests


def test_as_many_batches_as_asked_are_under_way(create: Create, serve: Serve) -> None:
    """Batches are sent at the same time, and the source is not read ahead of them."""
    gate = Gate(3)
    server = serve(*[gate] * 12)
    taken = told = 0

    def source() -> Iterator[NewJob]:
        nonlocal taken
        for job in jobs(120):
            taken += 1
            assert taken - told <= 10 * (3 + 1), "it reads ahead"
            yield job

    def hear(result: CreateResult) -> None:
        nonlocal told
        told += 1

    assert 120 == len(create(server.url, source(), hear, max_jobs=10, max_in_flight=3))
    assert 12 == len(server.requests)
    assert server.connections <= 3


def test_batches_are_bounded_in_bytes(create: Create, serve: Serve) -> None:
    """No request is larger than asked, however large the jobs."""
    server = serve(*[take] * 10)
    large = [NewJob(route="r", delay_ms=1, meta="x" * 400) for _ in range(10)]
    assert 10 == len(create(server.url, large, max_bytes=1_000, max_in_flight=1))
    assert all(len(body) <= 1_000 for _, _, body in server.requests)
    assert len(server.requests) < 10


def test_failures_stay_with_their_jobs(create: Create, serve: Serve) -> None:
    """A refused job, or a refused batch, does not keep the others from being created."""
    refused = {"status": 409, "error": {"code": "job_exists", "detail": "It is there."}}
    good = {"status": 201, "job": JOB}
    server = serve(
        answer(200, {"items": [good, refused]}),
        answer(404, {"code": "collection_not_found"}),
        raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n\r\n"),
        take,
    )
    results = create(server.url, jobs(8), max_jobs=2, max_in_flight=1)
    kinds = [None, ApiConflict, ApiNotFound, ApiNotFound, BadAnswer, BadAnswer, None, None]
    assert kinds == [None if each.error is None else type(each.error) for each in results]
    assert "job_exists" == getattr(results[1].error, "code", None)


def test_overload_is_waited_for(create: Create, serve: Serve) -> None:
    """429 and 503, of a batch or of a job in it, and a broken connection, are tried again."""
    busy = {"status": 503, "error": {"code": "unavailable"}}
    server = serve(
        answer(503, Retry_After="0"),
        answer(429),
        shut,
        answer(200, {"items": [{"status": 201, "job": {"id": "job0"}}, busy]}),
        take,
    )
    assert ["job0", "job1"] == [each.result().id for each in create(server.url, jobs(2))]
    assert [2, 2, 2, 2, 1] == [len(msgspec.json.decode(body)) for _, _, body in server.requests]
    keys = [headers["Idempotency-Key"] for _, headers, _ in server.requests]
    assert 1 == len(set(keys[:4]))


def test_error_of_the_source_comes_last(create: Create, serve: Serve) -> None:
    """What was read before is created and told; then the source's own error comes out."""
    server = serve(take, take)
    told: list[CreateResult] = []

    def source() -> Iterator[NewJob]:
        yield from jobs(3)
        raise RuntimeError("the database went away")

    with pytest.raises(RuntimeError, match="went away"):
        create(server.url, source(), told.append, max_jobs=2)
    assert ["job0", "job1", "job2"] == ids(told)


def test_job_that_is_none_comes_last(create: Create, serve: Serve) -> None:
    """A mistake of the caller ends the source, as if it had raised."""
    server = serve(take)
    told: list[CreateResult] = []
    with pytest.raises(ValueError, match="either trigger_time or delay_ms"):
        create(server.url, [*jobs(1), NewJob(route="r"), *jobs(1)], told.append)
    assert ["job0"] == ids(told)


def test_closed_client_creates_nothing(serve: Serve) -> None:
    """The error of a closed client is that of its jobs too."""
    server = serve()

    async def main() -> None:
        tm = Client(server.url)
        await tm.close()
        (result,) = [each async for each in tm.create_many(*HERE, jobs(1))]
        with pytest.raises(ClientClosed):
            result.result()

    asyncio.run(main())
    tm = SyncClient(server.url)
    tm.close()
    (result,) = tm.create_many(*HERE, jobs(1))
    with pytest.raises(ClientClosed):
        result.result()
    assert [] == server.requests


def test_async_source(serve: Serve) -> None:
    """The async client reads async iterators."""
    server = serve(take, take)

    async def source() -> AsyncIterator[NewJob]:
        for job in jobs(3):
            await asyncio.sleep(0)
            yield job

    async def main() -> list[CreateResult]:
        async with Client(server.url) as tm:
            return [each async for each in tm.create_many(*HERE, source(), max_jobs=2)]

    assert ["job0", "job1", "job2"] == ids(asyncio.run(main()))


def test_leaving_early_leaves_nothing_behind(serve: Serve) -> None:
    """A loop that is left gives up what is under way, and the client goes on."""

    def either(connection: Connection) -> bool:
        return take(connection) if connection.body else answer(200, JOB)(connection)

    server = serve(*[either] * 9)

    async def main() -> None:
        async with Client(server.url) as tm, asyncio.timeout(PATIENCE_S):
            results = tm.create_many(*HERE, jobs(4), max_jobs=2)
            async for result in results:
                assert "job0" == result.id
                break
            await results.aclose()
            assert {asyncio.current_task()} == asyncio.all_tasks()
            assert "nxz" == (await tm.get_job(*HERE, "nxz")).id

    asyncio.run(main())
    with SyncClient(server.url) as tm:
        for result in tm.create_many(*HERE, jobs(4), max_jobs=2):
            assert "job0" == result.id
            break
        names = [thread.name for thread in threading.enumerate()]
        assert [] == [name for name in names if name.startswith("timemachine")]
        assert "nxz" == tm.get_job(*HERE, "nxz").id


def test_cancelled_iterator_cancels_its_requests(serve: Serve) -> None:
    """Nothing goes on in the background after a cancelled task."""
    server = serve(hang, hang)

    async def main() -> None:
        async with Client(server.url) as tm:

            async def read() -> None:
                async for _ in tm.create_many(*HERE, jobs(2), max_jobs=1):
                    raise AssertionError("it was not answered")

            task = asyncio.ensure_future(read())
            await asyncio.to_thread(server.asked.wait, PATIENCE_S)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert {asyncio.current_task()} == asyncio.all_tasks()

    asyncio.run(main())


# --- a batcher ---------------------------------------------------------------------------------


def test_what_was_added_is_created(fill: Fill, serve: Serve) -> None:
    """At the end of the block everything is answered, and counted."""
    server = serve(*[take] * 3)
    batch = fill(server.url, jobs(25), max_jobs=10, max_wait_ms=60_000)
    assert (25, 0, 0) == (batch.created, batch.unchanged, batch.failed)
    found = [job["id"] for _, _, body in server.requests for job in msgspec.json.decode(body)]
    assert {f"job{number}" for number in range(25)} == set(found)
    assert 3 == len(server.requests)


def test_adding_waits_for_room(fill: Fill, serve: Serve) -> None:
    """As many batches as asked are under way, and one is gathered; beyond that adding waits."""
    gate = Gate(3)
    server = serve(*[gate] * 12)
    taken = told = 0
    lock = threading.Lock()

    def source() -> Iterator[NewJob]:
        nonlocal taken
        for job in jobs(120):
            with lock:
                taken += 1
                assert taken - told <= 10 * (3 + 1) + 1, "it takes more"
            yield job

    def hear(result: CreateResult) -> None:
        nonlocal told
        with lock:
            told += 1

    options: dict[str, Any] = {"max_jobs": 10, "max_in_flight": 3, "max_wait_ms": 60_000}
    batch = fill(server.url, source(), on_result=hear, **options)
    assert (120, 120) == (batch.created, told)
    assert [10] * 12 == [len(msgspec.json.decode(body)) for _, _, body in server.requests]


def test_a_batch_does_not_wait_for_ever(fill: Fill, serve: Serve) -> None:
    """One that does not fill up is sent after a while, in the middle of the block."""
    server = serve(take)
    answered = threading.Event()

    def last(batch: Any) -> Any:
        if isinstance(batch, AsyncBatcher):
            return asyncio.to_thread(answered.wait, PATIENCE_S)
        answered.wait(PATIENCE_S)
        return None

    batch = fill(server.url, jobs(1), last, max_wait_ms=1, on_result=lambda result: answered.set())
    assert answered.is_set()
    assert 1 == batch.created


def test_flush_waits_for_the_answers(fill: Fill, serve: Serve) -> None:
    """After it everything that was added is answered."""
    server = serve(take, take)
    batch = fill(server.url, jobs(1), lambda batch: batch.flush(), max_wait_ms=60_000)
    assert 1 == batch.created
    assert 1 == len(server.requests)


def test_failures_end_the_block_with_an_error(fill: Fill, serve: Serve) -> None:
    """Nothing is lost in silence: the error names the jobs, each with its own error."""
    refused = {"status": 409, "error": {"code": "job_exists", "detail": "It is there."}}
    items = [{"status": 201, "job": JOB}, refused, {"status": 200, "job": JOB}]
    server = serve(answer(200, {"items": items}))
    with pytest.raises(BatchFailed, match="1 of 3 jobs") as caught:
        fill(server.url, jobs(3))
    ((job_id, error),) = caught.value.failures
    assert "job1" == job_id
    assert isinstance(error, ApiConflict)
    assert error is caught.value.__cause__


def test_error_of_the_block_comes_out(fill: Fill, serve: Serve) -> None:
    """What was added before is created all the same, and failures are noted on the error."""
    server = serve(answer(404, {"code": "collection_not_found", "detail": "No such place."}))

    def last(batch: Any) -> None:
        raise RuntimeError("the caller's own")

    with pytest.raises(RuntimeError, match="caller's own") as caught:
        fill(server.url, jobs(1), last, max_wait_ms=60_000)
    assert 1 == len(server.requests)
    assert "No such place" in caught.value.__notes__[0]


def test_interrupted_block_gives_up(fill: Fill, serve: Serve) -> None:
    """Ctrl-C sends nothing more."""
    server = serve()

    def last(batch: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(server.url, jobs(1), last, max_wait_ms=60_000)
    assert [] == server.requests


def test_error_of_a_listener_ends_the_batcher(fill: Fill, serve: Serve) -> None:
    """It comes out of the block, and not as a group of errors."""
    server = serve(*[take] * 99)

    def hear(result: CreateResult) -> None:
        raise RuntimeError("listener")

    def endless() -> Iterator[NewJob]:
        while True:
            yield NewJob(route="r", delay_ms=1)

    with pytest.raises(RuntimeError, match="listener"):
        fill(server.url, endless(), max_jobs=1, max_in_flight=2, on_result=hear)


def test_batcher_is_used_in_its_block(serve: Serve) -> None:
    """Before and after, adding is an error; so is what is neither one job nor its fields."""
    server = serve(take)

    async def main() -> None:
        async with Client(server.url) as tm:
            batch = tm.batcher(*HERE)
            with pytest.raises(ClientClosed):
                await batch.add(route="r", delay_ms=1)
            async with batch:
                assert "mine" == await batch.add(route="r", delay_ms=1, id="mine", tags=["a"])
                with pytest.raises(TypeError):
                    await batch.add(jobs(1)[0], route="r")  # type: ignore[call-overload]
                with pytest.raises(ValueError, match="either"):
                    await batch.add(route="r")
            with pytest.raises(ClientClosed):
                await batch.add(route="r", delay_ms=1)
            with pytest.raises(ClientClosed, match="one block"):
                await batch.__aenter__()

    asyncio.run(main())
    server.turns = [take]
    with SyncClient(server.url) as tm:
        batch = tm.batcher(*HERE)
        with pytest.raises(ClientClosed):
            batch.add(route="r", delay_ms=1)
        with batch:
            assert "mine" == batch.add(route="r", delay_ms=1, id="mine", tags=["a"])
        with pytest.raises(ClientClosed):
            batch.add(route="r", delay_ms=1)
        with pytest.raises(ClientClosed, match="one block"):
            batch.__enter__()
    assert [["mine"]] * 2 == [
        [job["id"] for job in msgspec.json.decode(body)] for _, _, body in server.requests
    ]


def _count(turns: int) -> list[Turn]:
    return [take] * turns


def test_many_tasks_may_add(serve: Serve) -> None:
    """Each job of a thousand tasks is created once."""
    server = serve(*_count(1_000))

    async def main() -> None:
        async with Client(server.url) as tm:
            async with tm.batcher(*HERE, max_jobs=7, max_in_flight=2, max_wait_ms=1) as batch:
                await asyncio.gather(*[batch.add(job) for job in jobs(1_000)])
            assert 1_000 == batch.created

    asyncio.run(main())
    found = [job["id"] for _, _, body in server.requests for job in msgspec.json.decode(body)]
    assert 1_000 == len(found) == len(set(found))
    assert 200 > len(server.requests)


def test_many_threads_may_add(serve: Serve) -> None:
    """Each job of eight threads is created once, and each result has a number of its own."""
    server = serve(*_count(1_000))
    numbers: list[int] = []
    with (
        SyncClient(server.url) as tm,
        tm.batcher(
            *HERE,
            max_jobs=7,
            max_in_flight=2,
            max_wait_ms=1,
            on_result=lambda result: numbers.append(result.number),
        ) as batch,
    ):

        def work(part: list[NewJob]) -> None:
            for job in part:
                batch.add(job)

        everything = jobs(400)
        threads = [
            threading.Thread(target=work, args=(everything[number::8],)) for number in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
    assert 400 == batch.created
    assert [*range(400)] == sorted(numbers)


def test_adding_beside_the_end_of_the_block_loses_nothing(serve: Serve) -> None:
    """Of another thread that still adds: what `add` took is created, the rest is refused."""
    server = serve(*_count(10_000))
    taken: list[str] = []
    begun = threading.Event()
    with SyncClient(server.url) as tm:
        with tm.batcher(*HERE, max_jobs=3, max_wait_ms=1) as batch:

            def work() -> None:
                while True:
                    try:
                        taken.append(batch.add(route="r", delay_ms=1))
                    except ClientClosed:
                        return
                    begun.set()

            thread = threading.Thread(target=work)
            thread.start()
            assert begun.wait(PATIENCE_S)
        thread.join(PATIENCE_S)
    found = [job["id"] for _, _, body in server.requests for job in msgspec.json.decode(body)]
    assert sorted(taken) == sorted(found)
    assert len(taken) == batch.created


def test_cancelled_block_gives_up(serve: Serve) -> None:
    """A cancelled task does not wait for answers, and nothing goes on in the background."""
    server = serve(hang)

    async def main() -> None:
        async with Client(server.url) as tm:

            async def add() -> None:
                async with tm.batcher(*HERE, max_jobs=1, max_in_flight=1) as batch:
                    for job in jobs(3):
                        await batch.add(job)

            task = asyncio.ensure_future(add())
            await asyncio.to_thread(server.asked.wait, PATIENCE_S)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert {asyncio.current_task()} == asyncio.all_tasks()

    asyncio.run(main())
    assert 1 == len(server.requests)
