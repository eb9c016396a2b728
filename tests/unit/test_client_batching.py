"""How many jobs become batches, and what comes out for each of them. No sockets, no clock."""

import dataclasses
from datetime import datetime
from typing import Any

import msgspec
import pytest

from tests.unit.test_client_conversation import RESET, Play, answer
from timemachine.client import Client, NewJob, SyncClient
from timemachine.client.answers import CreateResult
from timemachine.client.batching import (
    BatchConfig,
    Buffer,
    Cutter,
    Item,
    converse_batch,
    item_of,
)
from timemachine.client.gathering import Gathering
from timemachine.client.tally import Tally
from timemachine.errors import (
    ApiConflict,
    ApiError,
    ApiInvalid,
    ApiNotFound,
    ApiOverloaded,
    BadAnswer,
    BatchFailed,
    ClientClosed,
    NoAnswer,
)

BATCH = BatchConfig(
    db="d",
    collection="c",
    max_jobs=3,
    max_bytes=1_000,
    max_in_flight=2,
    timeout_ms=1_000,
    allow_missing_route=False,
)


def items(*ids: str) -> list[Item]:
    """Jobs as they are sent, the tenth and so on of all."""
    jobs = [NewJob(id=each, route="r", delay_ms=1) for each in ids]
    return [item_of(job, 10 + number, Play().config.sources) for number, job in enumerate(jobs)]


def created(*ids: str, status: int = 201) -> dict[str, Any]:
    """A batch of jobs that were taken."""
    return {"items": [{"status": status, "job": {"id": each}} for each in ids]}


def refused(status: int, code: str, **more: Any) -> dict[str, Any]:
    """One item of a batch that was not."""
    return {"status": status, "error": {"code": code, "status": status, **more}}


def carry(play: Play, sent: list[Item]) -> list[CreateResult]:
    """What became of these jobs."""
    results: list[CreateResult] = play.carry(converse_batch(sent, BATCH, play.config, 0))
    return results


def test_each_job_has_its_result() -> None:
    """Created, there already, refused: each job says which, with its id and its number."""
    body = {
        "items": [
            *created("a")["items"],
            *created("b", status=200)["items"],
            refused(409, "job_exists", detail="Another job has this id."),
        ]
    }
    play = Play(answer(200, body))
    one, two, three = carry(play, items("a", "b", "c"))
    assert (10, "a", True, None) == (one.number, one.id, one.created, one.error)
    assert (11, "b", False, None) == (two.number, two.id, two.created, two.error)
    assert "b" == two.result().id
    assert (12, "c", None) == (three.number, three.id, three.job)
    with pytest.raises(ApiConflict, match="Another job") as caught:
        three.result()
    assert "job_exists" == caught.value.code
    assert ["a", "b", "c"] == [job["id"] for job in play.body()]


def test_errors_point_into_the_job() -> None:
    """The place of a job in some request means nothing to its caller."""
    faults = [
        {"pointer": "/1/tags/0", "detail": "This is empty."},
        {"pointer": "/10", "detail": ""},
    ]
    wrong = refused(400, "invalid_request", detail="1/tags/0: This is empty.", errors=faults)
    play = Play(answer(200, {"items": [*created("a")["items"], wrong]}))
    error = carry(play, items("a", "b"))[1].error
    assert isinstance(error, ApiInvalid)
    assert [("/tags/0", "This is empty."), ("/10", "")] == error.errors
    assert "tags/0: This is empty." == error.detail


def test_items_refused_for_now_are_sent_again() -> None:
    """429 and 503 of single items are tried again, alone, until they are over."""
    busy = [refused(503, "unavailable"), refused(429, "too_many_requests")]
    first = {"items": [busy[0], *created("b")["items"], busy[1]]}
    second = {"items": [*created("a")["items"], busy[1]]}
    play = Play(answer(200, first), answer(200, second), answer(200, created("c")))
    assert [True] * 3 == [result.created for result in carry(play, items("a", "b", "c"))]
    sent = [[job["id"] for job in play.body(number)] for number in range(3)]
    assert [["a", "b", "c"], ["a", "c"], ["c"]] == sent
    assert [100.0, 200.0] == play.waits


def test_items_that_stay_refused_say_so() -> None:
    """When the time is over the last refusal is what comes out; others are not touched by it."""
    busy = refused(503, "unavailable", detail="No leader.")
    play = Play(
        answer(200, {"items": [busy, *created("b")["items"]]}),
        *[answer(200, {"items": [busy]})] * 9,
    )
    one, two = carry(play, items("a", "b"))
    assert isinstance(one.error, ApiOverloaded)
    assert "No leader." == str(one.error)
    assert two.created
    assert sum(play.waits) < 1_000


def test_overloaded_node_is_left_alone_as_long_as_it_asks() -> None:
    """A 429 or 503 of a whole batch is that of any call: Retry-After is honoured."""
    play = Play(answer(429, retry_after="7"), answer(200, created("a")), timeout_ms=10_000)
    long = dataclasses.replace(BATCH, timeout_ms=10_000, allow_missing_route=True)
    (result,) = play.carry(converse_batch(items("a"), long, play.config, 0))
    assert result.created
    assert [7_000.0] == play.waits
    assert play.sends[0].request.startswith(
        b"POST /v1/dbs/d/collections/c/jobs/batch?allow_missing_route=true HTTP"
    )


@pytest.mark.parametrize(
    ("result", "kind"),
    [
        (answer(404, {"code": "collection_not_found"}), ApiNotFound),
        (answer(200, created("a")), BadAnswer),
        (answer(200, created("a", "b", "c")), BadAnswer),
        (answer(500), ApiError),
    ],
)
def test_failure_of_all_is_that_of_each(result: Any, kind: type[Exception]) -> None:
    """What befalls the request befalls each of its jobs."""
    results = carry(Play(result), items("a", "b"))
    assert ["a", "b"] == [each.id for each in results]
    assert [kind, kind] == [type(each.error) for each in results]


def test_no_answer_is_told_of_each() -> None:
    """Jobs whose answer never came have an error that says so, and the same bytes were tried."""
    play = Play(*[RESET] * 99)
    (result,) = carry(play, items("a"))
    assert isinstance(result.error, NoAnswer)
    assert result.error.maybe_done
    assert 1 == len({send.request for send in play.sends})


# --- what goes into a batch --------------------------------------------------------------------


def test_jobs_get_ids() -> None:
    """A job without an id gets one when it is taken, before anything is sent."""
    sources = Play().config.sources
    one, two = (item_of(NewJob(route="r", delay_ms=1), each, sources) for each in range(2))
    assert one.id != two.id
    assert one.id == msgspec.json.decode(one.content)["id"]


@pytest.mark.parametrize(
    ("job", "error", "text"),
    [
        (NewJob(route="r"), ValueError, "either"),
        (NewJob(route="r", trigger_time=datetime(2030, 1, 1)), ValueError, "time zone"),
        (NewJob(route="r", delay_ms=1, meta=object()), TypeError, "object"),
        (NewJob(route="r", delay_ms=1, tags="ab"), TypeError, "tags"),  # type: ignore[arg-type]
        ({"route": "r", "delay_ms": 1}, TypeError, "a job is a NewJob, not dict"),
    ],
)
def test_what_cannot_be_a_job_is_refused(job: NewJob, error: type[Exception], text: str) -> None:
    """Mistakes of the caller are found where they are made."""
    with pytest.raises(error, match=text):
        item_of(job, 0, Play().config.sources)


def test_a_batch_is_bounded_in_jobs() -> None:
    """As many jobs as asked, not one more."""
    buffer = Buffer(BATCH)
    for item in items("a", "b", "c"):
        assert not buffer.full
        assert buffer.takes(item)
        buffer.put(item)
    assert buffer.full
    assert not buffer.takes(item)
    assert ["a", "b", "c"] == [each.id for each in buffer.take()]
    assert 0 == len(buffer)
    assert not buffer.full


def test_a_batch_is_bounded_in_bytes() -> None:
    """As many bytes as asked, the brackets and commas counted; a larger job goes alone."""
    buffer = Buffer(BATCH)
    small, large = Item(0, "s", b"x" * 498), Item(1, "l", b"x" * 5_000)
    buffer.put(small)
    assert buffer.takes(small)
    buffer.put(small)
    assert not buffer.takes(Item(2, "t", b"x"))
    body = msgspec.json.encode([msgspec.Raw(each.content) for each in buffer.take()])
    assert len(body) <= BATCH.max_bytes
    assert buffer.takes(large)
    buffer.put(large)
    assert buffer.full


def test_a_batch_has_the_clients_time() -> None:
    """Without a time of its own."""
    play = Play(*[RESET] * 99, timeout_ms=200)
    (result,) = play.carry(
        converse_batch(items("a"), dataclasses.replace(BATCH, timeout_ms=None), play.config, 0)
    )
    assert isinstance(result.error, NoAnswer)
    assert [100.0] == play.waits


def test_a_stream_is_cut() -> None:
    """A batch goes when it is full, or when the next job does not fit; the rest goes at the end."""
    cutter = Cutter(BATCH, Play().config.sources)
    jobs = [NewJob(id=str(number), route="r", delay_ms=1) for number in range(4)]
    jobs.append(NewJob(id="large", route="r", delay_ms=1, meta="x" * 5_000))
    cut = [[item.id for item in cutter.add(job)] for job in jobs]
    assert [[], [], ["0", "1", "2"], [], ["3"]] == cut
    assert [("large", 4)] == [(item.id, item.number) for item in cutter.rest()]
    assert [] == cutter.rest()


def test_a_stream_goes_on_after_what_is_no_job() -> None:
    """It has no number, and what waits is not lost."""
    cutter = Cutter(BATCH, Play().config.sources)
    cutter.add(NewJob(id="a", route="r", delay_ms=1))
    with pytest.raises(ValueError, match="either"):
        cutter.add(NewJob(route="r"))
    cutter.add(NewJob(id="b", route="r", delay_ms=1))
    assert [("a", 0), ("b", 1)] == [(item.id, item.number) for item in cutter.rest()]


# --- what a batcher decides --------------------------------------------------------------------


def test_a_batcher_sends_what_is_full_or_due() -> None:
    """Jobs wait until a batch is full or somebody waits; numbers are those of taken jobs."""
    gathering = Gathering(BATCH, 0, None)
    gathering._enter()
    one, two, three, four = items("a", "b", "c", "d")
    assert [True, True] == [gathering._accept(one), gathering._accept(two)]
    assert not gathering._ready
    assert gathering._accept(three)
    assert gathering._ready
    assert not gathering._accept(four)
    assert [0, 1, 2] == [item.number for item in gathering._next_batch()]
    assert gathering._accept(four)
    assert not gathering._ready
    gathering._due = True
    assert [(four.id, 3)] == [(item.id, item.number) for item in gathering._next_batch()]
    gathering._due = True
    assert not gathering._ready


def test_a_batcher_has_one_block() -> None:
    """Neither before it, nor after it, nor a second time."""
    gathering = Gathering(BATCH, 0, None)
    with pytest.raises(ClientClosed, match="outside"):
        gathering._accept(items("a")[0])
    gathering._enter()
    gathering._tally.raised = RuntimeError("listener")
    with pytest.raises(RuntimeError, match="listener"):
        gathering._accept(items("a")[0])
    with pytest.raises(ClientClosed, match="one block"):
        gathering._enter()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_jobs", 0),
        ("max_jobs", 10_001),
        ("max_bytes", 0),
        ("max_bytes", 2**24 + 1),
        ("max_in_flight", 0),
        ("max_in_flight", 65),
        ("timeout_ms", 0),
    ],
)
def test_bounds_that_cannot_work_are_refused(name: str, value: int) -> None:
    """Each bound has bounds, told at once and by name."""
    options: dict[str, Any] = {name: value}
    for client in (Client("http://a:1"), SyncClient("http://a:1")):
        with pytest.raises(ValueError, match=name):
            client.batcher("d", "c", **options)


def test_negative_wait_is_refused() -> None:
    """A batcher cannot send before it was asked."""
    for client in (Client("http://a:1"), SyncClient("http://a:1")):
        with pytest.raises(ValueError, match="max_wait_ms"):
            client.batcher("d", "c", max_wait_ms=-1)


# --- what a batcher tells ----------------------------------------------------------------------

GOOD = CreateResult(number=0, id="a", created=True)
SAME = CreateResult(number=1, id="b")
BAD = CreateResult(number=2, id="c", error=ApiConflict("It is there.", code="job_exists"))


def test_failures_are_not_silent() -> None:
    """Without a listener the end of the block raises, with the failures and the first as cause."""
    tally = Tally(None)
    tally.add([GOOD, SAME, BAD])
    assert (1, 1, 1) == (tally.created, tally.unchanged, tally.failed)
    with pytest.raises(BatchFailed, match=r"1 of 3 jobs.* c: It is there") as caught:
        tally.end(None)
    assert BAD.error is caught.value.__cause__
    assert (1, [("c", BAD.error)]) == (caught.value.failed, caught.value.failures)
    assert "batch_failed" == caught.value.code


def test_failures_do_not_hide_the_error_of_the_block() -> None:
    """They are noted on it."""
    tally = Tally(None)
    tally.add([BAD])
    error = ValueError("the caller's own")
    tally.end(error)
    assert "1 of 1 jobs" in error.__notes__[0]


def test_a_listener_hears_everything() -> None:
    """It gets each result, and then failures are its business."""
    heard: list[CreateResult] = []
    tally = Tally(heard.append)
    tally.add([GOOD, BAD])
    tally.end(None)
    assert [GOOD, BAD] == heard


def test_what_a_listener_raises_comes_out() -> None:
    """Once: it is not called again."""
    calls = []

    def listen(result: CreateResult) -> None:
        calls.append(result)
        raise RuntimeError("listener")

    tally = Tally(listen)
    tally.add([GOOD, BAD])
    assert [GOOD] == calls
    with pytest.raises(RuntimeError, match="listener"):
        tally.end(None)


def test_kept_failures_are_bounded() -> None:
    """A million failures are counted, and the first thousand kept."""
    tally = Tally(None)
    tally.add([BAD] * 5_000)
    with pytest.raises(BatchFailed) as caught:
        tally.end(None)
    assert (5_000, 1_000) == (caught.value.failed, len(caught.value.failures))
