"""How a call is carried through: which server, when again, what comes out. No sockets, no clock."""

import copy
import uuid
from collections.abc import Callable, Generator
from typing import Any

import msgspec
import pytest

from timemachine import limits
from timemachine.client import operations
from timemachine.client.answers import Job
from timemachine.client.call import Call
from timemachine.client.config import Config, Server, Sources, parse_server
from timemachine.client.conversation import Broken, Effort, Send, Wait, converse
from timemachine.client.http1 import RawAnswer
from timemachine.errors import (
    ApiConflict,
    ApiDenied,
    ApiError,
    ApiInvalid,
    ApiNotFound,
    ApiOverloaded,
    ApiPreconditionFailed,
    BadAnswer,
    BatchFailed,
    ClientError,
    NoAnswer,
    TaskFailed,
    TimeMachineError,
)

GET = operations.get_job("default", "carts", "nxz")
JOB = msgspec.json.encode({"id": "nxz", "state": "scheduled", "version": 1, "new_field": [1]})
OK = RawAnswer(200, {"content-type": "application/json"}, JOB)
REFUSED = Broken("refused", sent=False)
RESET = Broken("reset", sent=True)


def answer(status: int, body: object = None, **headers: str) -> RawAnswer:
    """An error answer as a node sends it."""
    found = {"content-type": "application/problem+json"}
    found.update({name.replace("_", "-"): value for name, value in headers.items()})
    return RawAnswer(status, found, b"" if body is None else msgspec.json.encode(body))


class Play:
    """Carries calls through against a script of results, on a clock that only waits move."""

    def __init__(self, *results: Any, servers: int = 1, random: float = 1.0, **config: Any) -> None:
        self.results = list(results)
        self.now_ms = 1_000.0
        self.sends: list[Send] = []
        self.waits: list[float] = []
        self.took_ms = 0.0
        self.dice = 0
        sources = Sources(
            wall_ms=lambda: 1_700_000_000_000 + int(self.now_ms),
            monotonic_ms=lambda: self.now_ms,
            random=lambda: random,
            random_bytes=self._bytes,
        )
        urls = [f"http://node{number}:8001" for number in range(servers)]
        self.config = Config(
            servers=tuple(parse_server(url) for url in urls), sources=sources, **config
        )

    def _bytes(self, count: int) -> bytes:
        self.dice += 1
        return self.dice.to_bytes(count, "big")

    def run(self, call: Call[Any], first_server: int = 0) -> Any:
        """The value of the call, or its error."""
        return self.carry(converse(call, self.config, first_server))

    def carry(self, conversation: Generator[Any, Any, Any]) -> Any:
        """The value of a conversation, or its error."""
        result: Any = None
        while True:
            try:
                step = conversation.send(result)
            except StopIteration as ended:
                return ended.value
            if isinstance(step, Wait):
                self.waits.append(step.wait_ms)
                self.now_ms += step.wait_ms
                result = None
            else:
                self.sends.append(step)
                self.now_ms += self.took_ms
                result = self.results.pop(0)

    @property
    def servers(self) -> list[int]:
        """Which servers were asked, in order."""
        return [send.server for send in self.sends]

    def headers(self, number: int = 0) -> dict[str, str]:
        """The headers of one of the requests."""
        head = self.sends[number].request.partition(b"\r\n\r\n")[0].decode("latin-1")
        return dict(line.split(": ", 1) for line in head.split("\r\n")[1:])

    def body(self, number: int = 0) -> Any:
        """The JSON of one of the requests."""
        return msgspec.json.decode(self.sends[number].request.partition(b"\r\n\r\n")[2])


# --- what is sent ------------------------------------------------------------------------------


def test_read_is_sent_without_key_and_body() -> None:
    """A read has nothing to repeat harmlessly."""
    play = Play(OK)
    assert Job(id="nxz", state="scheduled", version=1) == play.run(GET)
    expected = {"Host", "User-Agent", "Accept", "Accept-Encoding"}
    assert expected == play.headers().keys()
    assert play.sends[0].request.startswith(
        b"GET /v1/dbs/default/collections/carts/jobs/nxz HTTP/1.1\r\n"
    )


@pytest.mark.parametrize(
    "call",
    [
        operations.put_database("a"),
        operations.delete_database("a"),
        operations.put_collection("a", "b"),
        operations.delete_collection("a", "b"),
        operations.put_route("a", "b", webhook_url="http://c"),
        operations.patch_route("a", "b", enabled=False),
        operations.delete_route("a", "b"),
        operations.pause_route("a", "b"),
        operations.resume_route("a", "b"),
        operations.send_example("a", "b"),
        operations.create_job("a", "b", route="r", delay_ms=1),
        operations.create_jobs("a", "b", []),
        operations.put_job("a", "b", "c", route="r", delay_ms=1),
        operations.patch_job("a", "b", "c", meta=1),
        operations.delete_job("a", "b", "c"),
        operations.run_job("a", "b", "c"),
        operations.redrive_job("a", "b", "c"),
        operations.request("POST", "/v1/anything"),
    ],
)
def test_every_write_has_a_key(call: Call[Any]) -> None:
    """Each write carries an Idempotency-Key that is a UUID of version 7."""
    play = Play(answer(404, {"code": "not_found"}))
    with pytest.raises(ApiNotFound):
        play.run(call)
    assert 7 == uuid.UUID(play.headers()["Idempotency-Key"]).version


def test_all_tries_of_a_call_are_the_same_bytes() -> None:
    """A retry repeats key, id and body, so that it is harmless."""
    play = Play(RESET, answer(503), OK)
    play.run(operations.create_job("default", "carts", route="r", delay_ms=5, meta={"a": 1}))
    assert 3 == len(play.sends)
    assert 1 == len({send.request for send in play.sends})


def test_different_calls_have_different_keys_and_ids() -> None:
    """The same operation done twice is two jobs."""
    call = operations.create_job("default", "carts", route="r", delay_ms=5)
    play = Play(OK, OK)
    play.run(call)
    play.run(call)
    assert play.headers(0)["Idempotency-Key"] != play.headers(1)["Idempotency-Key"]
    assert play.body(0)["id"] != play.body(1)["id"]


def test_jobs_get_ids_unless_they_have_one() -> None:
    """An id of the caller's stays, others are UUIDs of version 7; also in a batch."""
    play = Play(OK)
    play.run(operations.create_job("d", "c", route="r", delay_ms=5, id="mine"))
    assert "mine" == play.body()["id"]
    play = Play(answer(200, {"items": []}))
    jobs = [operations.NewJob(route="r", delay_ms=1, id="mine")]
    jobs += [operations.NewJob(route="r", delay_ms=1)] * 2
    play.run(operations.create_jobs("d", "c", jobs))
    ids = [job["id"] for job in play.body()]
    assert "mine" == ids[0]
    assert [7, 7] == [uuid.UUID(each).version for each in ids[1:]]
    assert 3 == len(set(ids))


def test_own_key_leaves_the_id_to_the_cluster() -> None:
    """With a key of the caller's the cluster makes the id from it: the caller may repeat it."""
    play = Play(OK)
    play.run(operations.create_job("d", "c", route="r", delay_ms=5, idempotency_key="order-7"))
    assert "order-7" == play.headers()["Idempotency-Key"]
    assert "id" not in play.body()


def test_token_and_prefix_are_sent() -> None:
    """The token is a bearer token; a base URL may have a path."""
    play = Play(OK, token="secret")
    prefixed = parse_server("https://host.example/timers/")
    play.config = Config(servers=(prefixed,), token="secret")
    play.run(GET)
    assert "Bearer secret" == play.headers()["Authorization"]
    assert "host.example" == play.headers()["Host"]
    assert play.sends[0].request.startswith(b"GET /timers/v1/dbs/")


# --- what comes out ----------------------------------------------------------------------------

KINDS = [
    (400, ApiInvalid, "invalid_request"),
    (401, ApiDenied, "unauthorized"),
    (403, ApiDenied, "unauthorized"),
    (413, ApiInvalid, "invalid_request"),
    (415, ApiInvalid, "invalid_request"),
    (422, ApiInvalid, "invalid_request"),
    (500, ApiError, "api_error"),
    (507, ApiOverloaded, "overloaded"),
    (301, ApiError, "api_error"),
    (799, ApiError, "api_error"),
]


@pytest.mark.parametrize(("status", "kind", "code"), KINDS)
def test_error_of_each_status(status: int, kind: type[ClientError], code: str) -> None:
    """Each status has its kind of error, also when its body says nothing; it is not tried again."""
    with pytest.raises(kind) as caught:
        Play(RawAnswer(status, {}, b"<html>")).run(GET)
    assert kind is type(caught.value)
    assert (code, status) == (caught.value.code, caught.value.status)
    assert str(status) in caught.value.detail
    assert isinstance(caught.value, TimeMachineError)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, ApiNotFound), (405, ApiError), (409, ApiConflict), (412, ApiPreconditionFailed)],
)
def test_error_about_the_clusters_own_things(status: int, kind: type[ClientError]) -> None:
    """It is a node's, which names a code, also where it says no more."""
    with pytest.raises(kind, match=str(status)) as caught:
        Play(answer(status, {"code": "some_code"})).run(GET)
    assert (kind, "some_code", status) == (
        type(caught.value),
        caught.value.code,
        caught.value.status,
    )


@pytest.mark.parametrize("status", [404, 405, 409, 412])
@pytest.mark.parametrize(
    ("media", "body"),
    [
        ("text/html", b"<html>nginx</html>"),
        ("application/json", b'{"detail":"Not Found"}'),
        ("application/json", b'{"status":404,"error":"Not Found","path":"/v1"}'),
        ("application/problem+json", b""),
        ("text/plain", b'{"code":"job_not_found"}'),
    ],
)
def test_a_stranger_says_nothing_about_jobs(status: int, media: str, body: bytes) -> None:
    """A web server at a wrong URL answers 404 too: nobody may take the job for gone."""
    play = Play(RawAnswer(status, {"content-type": media}, body), servers=2)
    with pytest.raises(BadAnswer, match="not from a node") as caught:
        play.run(GET)
    assert status == caught.value.status
    assert [0] == play.servers


def test_error_says_what_the_node_said() -> None:
    """Code, sentence and single faults come from the problem document."""
    problem = {
        "type": "about:blank",
        "status": 400,
        "code": "invalid_job",
        "detail": "The job is invalid.",
        "errors": [{"pointer": "/trigger_time", "detail": "is missing"}],
    }
    with pytest.raises(ApiInvalid) as caught:
        Play(answer(400, problem)).run(GET)
    error = caught.value
    assert ("invalid_job", "The job is invalid.") == (error.code, error.detail)
    assert [("/trigger_time", "is missing")] == error.errors
    assert "The job is invalid." == str(error)


@pytest.mark.parametrize("body", [[1], "text", {"errors": 7}, None])
def test_odd_problem_documents_do_not_hide_the_status(body: object) -> None:
    """What is JSON but no problem document is ignored."""
    with pytest.raises(ApiInvalid, match="422 Unprocessable"):
        Play(answer(422, body)).run(GET)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"id":7}', b'{"state":"x"}', b"\xff"])
def test_success_that_is_no_answer_of_ours(body: bytes) -> None:
    """A 2xx that cannot be read is a bad answer, not a guess."""
    with pytest.raises(BadAnswer) as caught:
        Play(RawAnswer(200, {}, body)).run(GET)
    assert 200 == caught.value.status


@pytest.mark.parametrize("body", [b"", b"{}", b"anything"])
def test_deletes_do_not_look_at_the_body(body: bytes) -> None:
    """A delete that succeeded is done, whatever its body."""
    assert Play(RawAnswer(204, {}, body)).run(operations.delete_route("d", "r")) is None


def test_big_numbers_and_floats_of_meta_survive() -> None:
    """Integers of any length keep their digits, both ways."""
    number = 12345678901234567890123456789012345
    play = Play(RawAnswer(200, {}, b'{"id":"a","meta":{"n":%d}}' % number))
    raw = msgspec.Raw(b'{"x": 1.0}')
    job = play.run(operations.put_job("d", "c", "a", route="r", delay_ms=1, meta=[number, raw]))
    assert {"n": number} == job.meta
    assert b'[12345678901234567890123456789012345,{"x": 1.0}]' in play.sends[0].request


# --- trying again ------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_overload_is_tried_again(status: int) -> None:
    """What a node or a proxy calls temporary is tried again."""
    play = Play(answer(status), OK)
    assert "nxz" == play.run(GET).id
    assert [100.0] == play.waits


@pytest.mark.parametrize("failure", [REFUSED, RESET])
def test_broken_connections_are_tried_again(failure: Broken) -> None:
    """So is a connection that broke, for writes too: they carry a key."""
    play = Play(failure, OK)
    assert "nxz" == play.run(operations.run_job("default", "carts", "nxz")).id


def test_waits_double_up_to_a_ceiling() -> None:
    """The wait grows with each round, and stops growing."""
    play = Play(*[REFUSED] * 8, OK, backoff_ms=100, backoff_ms_max=1_000)
    play.run(GET)
    assert [100.0, 200.0, 400.0, 800.0, 1000.0, 1000.0, 1000.0, 1000.0] == play.waits


def test_waits_have_jitter() -> None:
    """A wait is between half of itself and itself, so that clients do not come back together."""
    play = Play(REFUSED, REFUSED, OK, random=0.0, backoff_ms=100)
    play.run(GET)
    assert [50.0, 100.0] == play.waits


def test_thousands_of_rounds_do_not_overflow() -> None:
    """However often it fails, the wait is the ceiling."""
    play = Play(timeout_ms=10**9, backoff_ms=1, backoff_ms_max=5)
    effort = Effort(play.config, 0, 0.0)
    for _ in range(5_000):
        wait_ms = effort.failed(0.0, 0, 1.0)
    assert 5.0 == wait_ms


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(status: int) -> None:
    """A node is left alone as long as it asked, in seconds or as a date."""
    play = Play(answer(status, retry_after="7"), OK)
    play.run(GET)
    assert [7_000.0] == play.waits
    play = Play(answer(status, retry_after="Tue, 14 Nov 2023 22:13:25 GMT"), OK)
    play.run(GET)
    assert [4_000.0] == play.waits


def test_garbage_in_retry_after_is_ignored() -> None:
    """Then the usual wait holds."""
    play = Play(answer(503, retry_after="soon"), OK)
    play.run(GET)
    assert [100.0] == play.waits


def test_call_gives_up_in_time() -> None:
    """The whole call is bounded: the last failure comes out before its time is over."""
    play = Play(*[answer(503, {"code": "no_leader", "detail": "No leader."})] * 99, timeout_ms=1000)
    with pytest.raises(ApiOverloaded, match="No leader") as caught:
        play.run(GET)
    assert "no_leader" == caught.value.code
    assert caught.value.retryable
    assert 700.0 == sum(play.waits)


def test_call_does_not_wait_in_vain() -> None:
    """A Retry-After beyond the call's time ends it at once."""
    play = Play(answer(503, retry_after="3600"), timeout_ms=1000)
    with pytest.raises(ApiOverloaded):
        play.run(GET)
    assert [] == play.waits


def test_a_try_has_its_own_bound_within_the_call() -> None:
    """No try may take longer than its share, nor than what is left of the call."""
    play = Play(*[RESET] * 9, timeout_ms=2_500, attempt_timeout_ms=1_000)
    play.took_ms = 1_000
    with pytest.raises(NoAnswer):
        play.run(GET)
    assert [1_000, 1_000, 200.0] == [send.timeout_ms for send in play.sends]


def test_a_plan_has_the_time_that_it_takes() -> None:
    """Nodes that are down are waited for, longer than tries take; not longer than the call."""
    call = operations.make_plan("rebalance")
    for timeout_ms, first_ms in ((60_000, limits.CLIENT_PLAN_TRY_MS), (5_000, 5_000)):
        play = Play(RESET, timeout_ms=timeout_ms, attempt_timeout_ms=1_000)
        play.took_ms = timeout_ms
        with pytest.raises(NoAnswer):
            play.run(call)
        assert first_ms == play.sends[0].timeout_ms


@pytest.mark.parametrize(
    ("results", "maybe_done"),
    [([REFUSED, REFUSED], False), ([RESET, REFUSED], True), ([REFUSED, RESET], True)],
)
def test_no_answer_tells_whether_it_may_be_done(results: list[Broken], maybe_done: bool) -> None:
    """When no byte was ever sent, nothing can have happened; otherwise nobody knows."""
    play = Play(*results, timeout_ms=150)
    with pytest.raises(NoAnswer) as caught:
        play.run(operations.run_job("d", "c", "j"))
    assert maybe_done is caught.value.maybe_done
    assert caught.value.status is None
    assert "http://node0:8001" in caught.value.detail


def test_no_answer_tells_what_each_server_was_lacking() -> None:
    """Whoever has to mend it sees all of them, and what the system said of the last."""
    cause = OSError(111, "Connection refused")
    play = Play(RESET, Broken("refused", sent=False, cause=cause), servers=2, timeout_ms=50)
    with pytest.raises(NoAnswer, match="http://node0:8001: reset; http://node1:8001: refused") as e:
        play.run(GET)
    assert cause is e.value.__cause__


@pytest.mark.parametrize(
    "error",
    [
        NoAnswer("nobody", maybe_done=False),
        ApiInvalid("wrong", code="invalid_job", status=400, errors=[("/id", "is long")]),
        BatchFailed("2 failed", failed=2, failures=[("a", ApiConflict("there"))]),
        TaskFailed("no route", task="t"),
    ],
)
def test_errors_can_be_sent_to_another_process(error: ClientError) -> None:
    """Pools of processes and job queues pickle what is raised; a copy is made the same way."""
    again = copy.copy(error)
    assert type(error) is type(again)
    assert str(error) == str(again)
    assert repr(vars(error)) == repr(vars(again))


def test_hopeless_failure_is_not_tried_again() -> None:
    """A certificate does not become valid by asking again."""
    play = Play(Broken("its certificate is not valid", sent=False, hopeless=True))
    with pytest.raises(NoAnswer, match="certificate"):
        play.run(GET)


# --- several servers ---------------------------------------------------------------------------


def test_next_server_is_tried_at_once() -> None:
    """A server that fails is passed over without waiting."""
    play = Play(REFUSED, answer(503), OK, servers=3)
    play.run(GET)
    assert ([0, 1, 2], []) == (play.servers, play.waits)


def test_a_call_begins_with_the_given_server() -> None:
    """The client goes on with the server that answered last."""
    play = Play(REFUSED, OK, servers=3)
    play.run(GET, first_server=2)
    assert [2, 0] == play.servers


def test_wait_comes_when_all_servers_have_failed() -> None:
    """After each round, and only then, there is a wait."""
    play = Play(*[REFUSED] * 5, OK, servers=2)
    play.run(GET)
    assert [0, 1, 0, 1, 0, 1] == play.servers
    assert [100.0, 200.0] == play.waits


def test_server_that_asked_for_time_is_left_alone() -> None:
    """The others are asked in its place until its Retry-After is over."""
    play = Play(answer(503, retry_after="10"), REFUSED, REFUSED, OK, servers=2)
    play.run(GET)
    assert [0, 1, 1, 1] == play.servers


def test_the_server_that_comes_back_first_is_next() -> None:
    """When all have asked for time, the wait is for the shortest."""
    play = Play(answer(503, retry_after="9"), answer(503, retry_after="3"), OK, servers=2)
    play.run(GET)
    assert ([0, 1, 1], [3_000.0]) == (play.servers, play.waits)


# --- configuration -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "http://127.0.0.1:8001",
            Server("http://127.0.0.1:8001", False, "127.0.0.1", 8001, "127.0.0.1:8001", ""),
        ),
        ("http://[::1]:8001/", Server("http://[::1]:8001", False, "::1", 8001, "[::1]:8001", "")),
        (
            " https://tm.example/a/b/ ",
            Server("https://tm.example/a/b", True, "tm.example", 443, "tm.example", "/a/b"),
        ),
        (
            "http://tm.example",
            Server("http://tm.example", False, "tm.example", 80, "tm.example", ""),
        ),
    ],
)
def test_server_urls(url: str, expected: Server) -> None:
    """A base URL is taken apart into what a connection and a request need."""
    assert expected == parse_server(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8001",
        "localhost",
        "ftp://a",
        "http://",
        "http://user:secret@a",
        "http://a?b",
        "http://a#b",
        "http://a b",
        "http://ä",
        "http://a:port",
    ],
)
def test_what_is_no_server_is_refused(url: str) -> None:
    """A wrong URL is noticed when the client is made, and never shown with its credentials."""
    with pytest.raises(ValueError) as caught:
        parse_server(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Config(servers=()),
        lambda: Config(servers=(parse_server("http://a"),), timeout_ms=0),
        lambda: Config(servers=(parse_server("http://a"),), attempt_timeout_ms=-1),
        lambda: Config(servers=(parse_server("http://a"),), token="two words"),
        lambda: Config(servers=(parse_server("http://a"),), token="line\n"),
    ],
)
def test_what_cannot_work_is_refused_at_once(make: Callable[[], Config]) -> None:
    """No server, no time: a mistake of the caller."""
    with pytest.raises(ValueError):
        make()


def test_token_does_not_show() -> None:
    """A configuration can be logged."""
    assert "secret" not in repr(Config(servers=(parse_server("http://a"),), token="secret"))
