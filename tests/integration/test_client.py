"""Both clients against a server that answers by a script: real sockets, real connections.

Every test runs with the async and the sync client: they promise the same.
"""

import asyncio
import socket
import ssl
import threading
from typing import Any

import msgspec
import pytest
import trustme

from tests.integration.scripted import (
    JOB,
    PATIENCE_S,
    Connection,
    Run,
    Serve,
    Turn,
    answer,
    drip,
    hang,
    raw,
    reset,
    shut,
)
from timemachine import limits
from timemachine.client import (
    ApiNotFound,
    ApiOverloaded,
    BadAnswer,
    Client,
    ClientClosed,
    NewJob,
    NoAnswer,
    SyncClient,
)


def get(tm: Any) -> Any:
    """Read one job."""
    return tm.get_job("default", "carts", "nxz")


def put(tm: Any) -> Any:
    """Write one job."""
    return tm.put_job("default", "carts", "nxz", route="hello", delay_ms=5, meta={"cart": 7})


ONE_ROUND = {"timeout_ms": 10_000, "backoff_ms": 60_000, "backoff_ms_max": 60_000}
"""The wait after the first round would be beyond the call's time, so it ends there."""


def test_call_and_answer(run: Run, serve: Serve) -> None:
    """A call is one request, its answer one object."""
    server = serve(answer(201, JOB))
    (job,) = run([server.url], put)
    assert ("nxz", "scheduled", 1) == (job.id, job.state, job.version)
    ((line, headers, body),) = server.requests
    assert "PUT /v1/dbs/default/collections/carts/jobs/nxz HTTP/1.1" == line
    assert "application/json" == headers["Content-Type"]
    assert {"delay_ms": 5, "route": "hello", "meta": {"cart": 7}} == msgspec.json.decode(body)


def test_connection_is_used_again(run: Run, serve: Serve) -> None:
    """Calls one after the other share a connection."""
    server = serve(*[answer(200, JOB)] * 5)
    run([server.url], *[get] * 5)
    assert (5, 1) == (len(server.requests), server.connections)


def test_connection_is_not_used_again_when_told_so(run: Run, serve: Serve) -> None:
    """After `Connection: close` the next call opens another one."""
    server = serve(answer(200, JOB, connection="close"), answer(200, JOB))
    run([server.url], get, get)
    assert 2 == server.connections


@pytest.mark.parametrize("end", [shut, reset])
def test_idle_connection_that_was_closed_is_replaced(run: Run, serve: Serve, end: Turn) -> None:
    """That a server closed an idle connection is no failure: the call goes over a new one."""
    server = serve(answer(200, JOB), end, answer(200, JOB))
    run([server.url], get, get, timeout_ms=15_000, backoff_ms=14_999, backoff_ms_max=15_000)
    assert 2 == server.connections


@pytest.mark.parametrize("end", [shut, reset])
def test_broken_connection_is_tried_again(run: Run, serve: Serve, end: Turn) -> None:
    """A write whose answer never came is repeated with the same key."""
    server = serve(end, answer(200, JOB))
    run([server.url], put)
    keys = [headers["Idempotency-Key"] for _, headers, _ in server.requests]
    assert 2 == len(keys)
    assert keys[0] == keys[1]


def test_answer_cut_short_is_tried_again(run: Run, serve: Serve) -> None:
    """Half an answer is no answer."""
    server = serve(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"), answer(200, JOB))
    run([server.url], put)
    assert 2 == len(server.requests)


def test_chunked_answer_in_pieces(run: Run, serve: Serve) -> None:
    """A chunked answer is read whatever its pieces."""
    parts = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b'b\r\n{"id":"nx', b'z"']
    parts += [b"\r\n", b"1\r\n}\r\n", b"0\r\n\r\n"]
    server = serve(raw(*parts, close=False), answer(200, JOB))
    first, second = run([server.url], get, get)
    assert "nxz" == first.id == second.id
    assert 1 == server.connections


def test_overloaded_node_is_tried_again(run: Run, serve: Serve) -> None:
    """503 and 429 are tried again until the answer is a final one."""
    server = serve(answer(503), answer(429), answer(200, JOB))
    run([server.url], get)
    assert 3 == len(server.requests)


def test_errors_come_out_as_errors(run: Run, serve: Serve) -> None:
    """What a node refuses is raised, with its code."""
    problem = {"code": "job_not_found", "detail": "There is no such job."}
    server = serve(answer(404, problem))
    with pytest.raises(ApiNotFound, match="no such job") as caught:
        run([server.url], get)
    assert ("job_not_found", 404) == (caught.value.code, caught.value.status)


def test_dead_node_is_passed_over(run: Run, serve: Serve) -> None:
    """Of several servers one that refuses connections does not matter, then is not asked again."""
    dead, alive = serve(), serve(*[answer(200, JOB)] * 3)
    dead.stop()
    run([dead.url, alive.url], get, get, get)
    assert 3 == len(alive.requests)


def test_hanging_node_is_passed_over(run: Run, serve: Serve) -> None:
    """A server that accepts and says nothing costs one try's time, once."""
    hanging, alive = serve(hang, hang), serve(answer(200, JOB), answer(200, JOB))
    run([hanging.url, alive.url], get, get, attempt_timeout_ms=500)
    assert (1, 2) == (len(hanging.requests), len(alive.requests))


@pytest.mark.parametrize("turn", [hang, drip])
def test_call_is_bounded(run: Run, serve: Serve, turn: Turn) -> None:
    """No server holds a call longer than its time, not even one that drips."""
    for timeout_ms in (150, 1_500, 15_000):
        server = serve(turn)
        with pytest.raises(NoAnswer, match="in time") as caught:
            run([server.url], put, timeout_ms=timeout_ms, attempt_timeout_ms=timeout_ms)
        # A machine with much else to do may be away until the time is over, and nothing was sent.
        if server.asked.is_set():
            break
    assert caught.value.maybe_done


def test_nobody_there(run: Run, serve: Serve) -> None:
    """Without any server the call fails, and says that nothing was done."""
    dead = serve()
    dead.stop()
    with pytest.raises(NoAnswer, match="refused") as caught:
        run([dead.url], put, **ONE_ROUND)
    assert not caught.value.maybe_done


def test_overload_without_end_comes_out(run: Run, serve: Serve) -> None:
    """When the time is over the last answer comes out."""
    server = serve(answer(503, {"code": "no_leader"}, Retry_After="60"))
    with pytest.raises(ApiOverloaded) as caught:
        run([server.url], get)
    assert "no_leader" == caught.value.code


def test_what_is_no_node(run: Run, serve: Serve) -> None:
    """A server of another kind is a bad answer."""
    server = serve(raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n\r\n"))
    with pytest.raises(BadAnswer):
        run([server.url], get)


def test_batch(run: Run, serve: Serve) -> None:
    """A batch answers for each of its jobs."""
    items = [{"status": 201, "job": JOB}, {"status": 409, "error": {"code": "job_exists"}}]
    server = serve(answer(200, {"items": items, "created": 1, "failed": 1}))
    jobs = [NewJob(route="r", delay_ms=1), NewJob(route="r", delay_ms=1)]
    (batch,) = run([server.url], lambda tm: tm.create_jobs("default", "carts", jobs))
    assert (1, 1, [201, 409]) == (batch.created, batch.failed, [i.status for i in batch.items])
    assert "job_exists" == batch.items[1].error.code


PAGES = [
    answer(200, {"items": [{"id": "a"}, {"id": "b"}], "next_cursor": "two"}),
    answer(200, {"items": [], "next_cursor": "three"}),
    answer(200, {"items": [{"id": "c"}], "next_cursor": None}),
]


def test_short_lists_are_fetched_whole(run: Run, serve: Serve) -> None:
    """A list of routes, attempts and the like is a list, over all its pages."""
    names = [answer(200, {"items": [{"name": "a"}], "next_cursor": "x"})]
    names.append(answer(200, {"items": [{"name": "b"}]}))
    server = serve(*names)
    (found,) = run([server.url], lambda tm: tm.list_routes("default"))
    assert ["a", "b"] == [route.name for route in found]
    assert "GET /v1/dbs/default/routes?cursor=x HTTP/1.1" == server.requests[1][0]


def test_long_lists_are_iterators(serve: Serve) -> None:
    """Jobs come one after the other, pages as needed; an empty page is not the end."""
    server = serve(*PAGES)
    with SyncClient(server.url) as tm:
        jobs = tm.list_jobs("default", "carts", state="dead")
        assert "a" == next(jobs).id
        assert (1, "two") == (len(server.requests), jobs.next_cursor)
        assert ["b", "c"] == [job.id for job in jobs]
        assert jobs.next_cursor is None
        assert [] == list(jobs)
    assert "?state=dead&cursor=three " in server.requests[2][0]


def test_lists_come_in_pages_too(serve: Serve) -> None:
    """Whoever wants pages gets them as they come, the empty one too."""
    server = serve(*PAGES)
    with SyncClient(server.url) as tm:
        pages = [[job.id for job in page.items] for page in tm.list_jobs("d", "c").pages()]
    assert [["a", "b"], [], ["c"]] == pages
    server.turns = [*PAGES]

    async def main() -> list[list[str]]:
        async with Client(server.url) as tm:
            jobs = tm.list_jobs("d", "c", page_size=2)
            return [[job.id for job in page.items] async for page in jobs.pages()]

    assert pages == asyncio.run(main())
    assert " /v1/dbs/d/collections/c/jobs?limit=2 " in server.requests[3][0]


def test_limited_lists_end_early(serve: Serve) -> None:
    """Not more than wanted is asked for, and the cursor goes on right behind it."""
    server = serve(answer(200, {"items": [{"id": "a"}, {"id": "b"}], "next_cursor": "two"}))
    with SyncClient(server.url) as tm:
        jobs = tm.list_jobs("d", "c", limit=2)
        assert ["a", "b"] == [job.id for job in jobs]
        assert "two" == jobs.next_cursor
    assert ["GET /v1/dbs/d/collections/c/jobs?limit=2 HTTP/1.1"] == [
        line for line, _, _ in server.requests
    ]


def test_long_lists_are_async_iterators(serve: Serve) -> None:
    """The same with the async client."""
    server = serve(*PAGES)

    async def main() -> None:
        async with Client(server.url) as tm:
            jobs = tm.list_jobs("default", "carts", state="dead")
            assert "a" == (await anext(jobs)).id
            assert (1, "two") == (len(server.requests), jobs.next_cursor)
            assert ["b", "c"] == [job.id async for job in jobs]
            assert jobs.next_cursor is None

    asyncio.run(main())
    assert "?state=dead&cursor=three " in server.requests[2][0]


def test_many_tasks_share_a_client(serve: Serve) -> None:
    """A thousand calls at once go over at most 64 connections."""
    server = serve(*[answer(200, JOB)] * 1000)

    async def main() -> None:
        async with Client(server.url) as tm:
            jobs = await asyncio.gather(*[get(tm) for _ in range(1000)])
        assert {"nxz"} == {job.id for job in jobs}

    asyncio.run(main())
    assert 1000 == len(server.requests)
    assert server.connections <= 64


def test_many_threads_share_a_client(serve: Serve) -> None:
    """Threads may share a client; no two calls get each other's answers."""
    count = 40
    server = serve(*[answer(200, JOB)] * (4 * count))
    found: list[str] = []
    with SyncClient(server.url) as tm:

        def work() -> None:
            found.extend(get(tm).id for _ in range(count))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
    assert ["nxz"] * (4 * count) == found
    assert server.connections <= 4


def test_threads_beyond_the_connections_wait(serve: Serve) -> None:
    """A client of many threads opens 64 connections at most; the other calls wait for one."""
    full = threading.Event()

    def hold(connection: Connection) -> bool:
        if len(server.requests) == limits.CLIENT_CONNECTIONS_MAX:
            full.set()
        return full.wait(PATIENCE_S) and answer(200, JOB)(connection)

    server = serve(*[hold] * 100)
    found: list[str] = []
    with SyncClient(server.url) as tm:
        threads = [threading.Thread(target=lambda: found.append(get(tm).id)) for _ in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
    assert ["nxz"] * 100 == found
    assert limits.CLIENT_CONNECTIONS_MAX == server.connections


def test_busy_client_says_so(run: Run, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that found no free connection in time was not sent, and says why."""
    monkeypatch.setattr(limits, "CLIENT_CONNECTIONS_MAX", 0)
    server = serve()
    with pytest.raises(NoAnswer, match="busy") as caught:
        run([server.url], put, timeout_ms=50)
    assert not caught.value.maybe_done
    assert 0 == server.connections


def test_client_belongs_to_one_event_loop(serve: Serve) -> None:
    """Its connections cannot move to another; that is said, instead of failing oddly."""
    server = serve(answer(200, JOB))
    tm = Client(server.url)

    async def first() -> None:
        await get(tm)
        await tm.close()

    asyncio.run(first())
    with pytest.raises(RuntimeError, match="another event loop"):
        asyncio.run(get(tm))


def test_handshake_is_bounded(run: Run) -> None:
    """A server that accepts and never begins TLS costs one try's time, and no connection."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(NoAnswer, match="in time") as caught:
            run([url], put, timeout_ms=100)
    assert not caught.value.maybe_done
    assert isinstance(caught.value.__cause__, TimeoutError)


def test_cancelled_call_does_not_spoil_the_next(serve: Serve) -> None:
    """A call cancelled in the middle takes its connection along: answers stay with their calls."""
    server = serve(hang, answer(200, JOB))

    async def main() -> None:
        async with Client(server.url) as tm:
            call = asyncio.ensure_future(get(tm))
            await asyncio.to_thread(server.asked.wait, PATIENCE_S)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert "nxz" == (await get(tm)).id

    asyncio.run(main())
    assert 2 == server.connections


def test_closed_client_says_so(run: Run, serve: Serve) -> None:
    """After `close` calls fail with an error of their own."""
    server = serve()
    with pytest.raises(ClientClosed):
        run([server.url], lambda tm: tm.close(), get)


def test_https(run: Run, serve: Serve) -> None:
    """https verifies the server's certificate against the given authorities."""
    authority = trustme.CA()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server_side)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    server = serve(answer(200, JOB), answer(200, JOB), tls=server_side)
    found = run([server.url], get, get, ssl_context=context)
    assert ["nxz", "nxz"] == [job.id for job in found]
    assert 1 == server.connections


def test_untrusted_certificate_fails_at_once(run: Run, serve: Serve) -> None:
    """A certificate of nobody we trust ends the call; nothing was sent."""
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(server_side)
    server = serve(tls=server_side)
    with pytest.raises(NoAnswer, match="certificate") as caught:
        run([server.url], put)
    assert not caught.value.maybe_done
    assert (0, 1) == (len(server.requests), server.connections)


def test_token_does_not_show() -> None:
    """A client can be logged."""
    for client in (Client("http://a:1", token="secret"), SyncClient("http://a:1", token="secret")):
        assert repr(client).endswith("Client('http://a:1')")
