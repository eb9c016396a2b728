"""Both clients and nodes that are real processes: dead, hanging, killed in the middle."""

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.process import NodeProcess, Recipient, wait_until
from timemachine.client import (
    ApiConflict,
    ApiInvalid,
    ApiNotFound,
    Client,
    CreateResult,
    NewJob,
    NoAnswer,
    SyncClient,
)

HERE = ("default", "jobs")
FAR_MS = 4_102_444_800_000
"""The year 2100: such a job does not fire during a test."""
PATIENCE_MS = 120_000


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def url(node: NodeProcess) -> str:
    """Where a node answers."""
    return f"http://{node.address}"


Action = Callable[[Any], Any]
Ask = Callable[..., list[Any]]


@pytest.fixture(params=["async", "sync"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Runs actions, one after the other, with one client of either kind; returns their results."""

    async def asynchronous(servers: list[str], actions: tuple[Action, ...], options: Any) -> Any:
        async with Client(*servers, **options) as tm:
            return [await action(tm) for action in actions]

    def either(servers: list[str], *actions: Action, **options: Any) -> list[Any]:
        options.setdefault("timeout_ms", PATIENCE_MS)
        if request.param == "async":
            return list(asyncio.run(asynchronous(servers, actions, options)))
        with SyncClient(*servers, **options) as tm:
            return [action(tm) for action in actions]

    return either


def test_dead_and_hanging_nodes_are_passed_over(ask: Ask, tmp_path: Path) -> None:
    """One node that is gone, one that is stopped, one that lives: the last one does it all."""
    with (
        NodeProcess(tmp_path / "dead") as dead,
        NodeProcess(tmp_path / "hanging") as hanging,
        NodeProcess(tmp_path / "alive") as alive,
    ):
        for node in (dead, hanging, alive):
            node.start()
        dead.kill()
        os.kill(hanging.process.pid, signal.SIGSTOP)
        alive.set_up("http://127.0.0.1:1024/")
        created, found = ask(
            [url(dead), url(hanging), url(alive)],
            lambda tm: tm.create_job(*HERE, route="hook", trigger_time=FAR_MS, id="one"),
            lambda tm: tm.get_job(*HERE, "one"),
            attempt_timeout_ms=2_000,
        )
        assert created == found
        assert {"one"} == alive.jobs().keys()


def test_nobody_answers_in_time(ask: Ask, tmp_path: Path) -> None:
    """With only such nodes the call ends, says what each was lacking, and that nobody knows."""
    with NodeProcess(tmp_path / "dead") as dead, NodeProcess(tmp_path / "hanging") as hanging:
        dead.start().kill()
        hanging.start()
        os.kill(hanging.process.pid, signal.SIGSTOP)
        with pytest.raises(NoAnswer, match="refused") as caught:
            ask(
                [url(dead), url(hanging)],
                lambda tm: tm.put_collection(*HERE),
                attempt_timeout_ms=1_000,
                # The wait before a second round would be beyond the call's time.
                timeout_ms=20_000,
                backoff_ms=60_000,
                backoff_ms_max=60_000,
            )
        assert f"{url(hanging)}: no answer in time" in caught.value.detail
        assert caught.value.maybe_done
        assert isinstance(caught.value.__cause__, OSError)


def test_node_that_comes_back_elsewhere(ask: Ask, tmp_path: Path) -> None:
    """A client that knows both addresses does not notice that the node moved."""
    ports = [free_port(), free_port()]
    servers = [f"http://127.0.0.1:{port}" for port in ports]
    with NodeProcess(tmp_path / "data", "--http", f"127.0.0.1:{ports[0]}") as node:
        node.start().set_up("http://127.0.0.1:1024/")

        def move(tm: Any) -> Any:
            node.kill()
            node.flags = (*node.flags, "--http", f"127.0.0.1:{ports[1]}")
            node.start()
            return tm.get_job(*HERE, "one")

        created, found, _ = ask(
            servers,
            lambda tm: tm.create_job(*HERE, route="hook", trigger_time=FAR_MS, id="one"),
            move,
            lambda tm: tm.create_job(*HERE, route="hook", trigger_time=FAR_MS, id="two"),
        )
        assert created.uid == found.uid
        assert {"one", "two"} == node.jobs().keys()


def test_repeats_of_a_node_that_hangs_are_harmless(ask: Ask, tmp_path: Path) -> None:
    """What was sent again while it hung, over another address too, is done once."""
    with NodeProcess(tmp_path / "data") as node:
        node.start().set_up("http://127.0.0.1:1024/")
        os.kill(node.process.pid, signal.SIGSTOP)
        again = threading.Timer(2.5, os.kill, (node.process.pid, signal.SIGCONT))
        again.start()
        try:
            (job,) = ask(
                [url(node), url(node).replace("127.0.0.1", "localhost")],
                lambda tm: tm.create_job(*HERE, route="hook", trigger_time=FAR_MS),
                attempt_timeout_ms=500,
            )
        finally:
            again.join()
        assert [(job.id, 1)] == [(each["id"], each["version"]) for each in node.jobs().values()]


def numbered(count: int) -> Iterator[NewJob]:
    """Jobs that are due at once."""
    for number in range(count):
        yield NewJob(id=f"job{number}", route="hook", trigger_time=1_000 + number, meta=number)


class Killer:
    """Kills a node with SIGKILL while jobs come in, and starts it again on the same port."""

    def __init__(self, node: NodeProcess, at: set[int]) -> None:
        self._node = node
        self._at = at
        self._threads: list[threading.Thread] = []

    def hear(self, result: CreateResult) -> None:
        """One job was answered."""
        if result.number in self._at:
            self._threads.append(threading.Thread(target=self._strike))
            self._threads[-1].start()

    def _strike(self) -> None:
        self._node.kill()
        self._node.start()

    def wait(self) -> None:
        """Wait until the node is there again."""
        for thread in self._threads:
            thread.join()
        assert len(self._at) == len(self._threads)


async def _create_async(server: str, killer: Killer, count: int) -> None:
    async with Client(server, timeout_ms=PATIENCE_MS, backoff_ms=20) as tm:
        results = []
        async for result in tm.create_many(*HERE, numbered(count), max_jobs=100):
            results.append(result)
            killer.hear(result)
    assert [*range(count)] == [result.number for result in results]
    assert [] == [result.error for result in results if result.error is not None]


def _create_sync(server: str, killer: Killer, count: int) -> None:
    with SyncClient(server, timeout_ms=PATIENCE_MS, backoff_ms=20) as tm:
        results = []
        for result in tm.create_many(*HERE, numbered(count), max_jobs=100):
            results.append(result)
            killer.hear(result)
    assert [*range(count)] == [result.number for result in results]
    assert [] == [result.error for result in results if result.error is not None]


async def _add_async(server: str, killer: Killer, count: int) -> None:
    async with (
        Client(server, timeout_ms=PATIENCE_MS, backoff_ms=20) as tm,
        tm.batcher(*HERE, max_jobs=100, on_result=killer.hear) as batch,
    ):
        for job in numbered(count):
            await batch.add(job)
    assert (count, 0) == (batch.created + batch.unchanged, batch.failed)


def _add_sync(server: str, killer: Killer, count: int) -> None:
    with (
        SyncClient(server, timeout_ms=PATIENCE_MS, backoff_ms=20) as tm,
        tm.batcher(*HERE, max_jobs=100, on_result=killer.hear) as batch,
    ):
        for job in numbered(count):
            batch.add(job)
    assert (count, 0) == (batch.created + batch.unchanged, batch.failed)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", [_create_async, _create_sync, _add_async, _add_sync])
def test_no_job_is_lost_or_doubled_by_kills(
    way: Callable[[str, Killer, int], Any], tmp_path: Path
) -> None:
    """A node killed in the middle of many jobs, and again: every job is there once, and fires.

    Without the caller's doing: the client goes on when the node is back.
    """
    count = 3_000
    port = free_port()
    with (
        Recipient() as recipient,
        NodeProcess(tmp_path / "data", "--http", f"127.0.0.1:{port}") as node,
    ):
        node.start().set_up(recipient.url, max_in_flight=256)
        killer = Killer(node, {150, 1_750})
        running = way(f"http://127.0.0.1:{port}", killer, count)
        if running is not None:
            asyncio.run(running)
        killer.wait()
        jobs = node.drain(PATIENCE_MS / 1_000)
        arrivals = recipient.arrivals()
    wanted = {f"job{number}" for number in range(count)}
    assert wanted == jobs.keys()
    assert {("delivered", 1)} == {(job["state"], job["version"]) for job in jobs.values()}
    assert wanted == {arrival.job_id for arrival in arrivals}
    # A send that was in flight when its node died may come again, as the same webhook.
    assert count == len({arrival.webhook_id for arrival in arrivals})


def test_threads_share_a_client(tmp_path: Path) -> None:
    """Eight threads that write and read at once: each gets its own answers."""
    wrong: list[object] = []
    with NodeProcess(tmp_path / "data") as node:
        node.start().set_up("http://127.0.0.1:1024/")
        with SyncClient(url(node), timeout_ms=PATIENCE_MS) as tm:

            def work(name: str) -> None:
                for number in range(25):
                    job_id = f"{name}/{number}"
                    tm.put_job(*HERE, job_id, route="hook", trigger_time=FAR_MS, meta=[job_id])
                    found = tm.get_job(*HERE, job_id)
                    if (found.id, found.meta) != (job_id, [job_id]):
                        wrong.append(found)

            threads = [threading.Thread(target=work, args=(f"{each}",)) for each in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert [] == wrong
            assert 200 == sum(1 for _ in tm.list_jobs(*HERE, page_size=33))


def test_lists_of_a_node(tmp_path: Path) -> None:
    """Filters, pages and limits as the node understands them; a cursor goes on where it ended."""
    with NodeProcess(tmp_path / "data") as node:
        node.start().set_up("http://127.0.0.1:1024/")
        node.create(
            [
                {"id": f"{n:02}", "trigger_time": FAR_MS + n, "tags": [["even", "odd"][n % 2]]}
                for n in range(20)
            ]
        )
        with SyncClient(url(node)) as tm:
            tagged = tm.list_jobs(*HERE, tag="even", consistency="stale", page_size=3)
            assert [f"{number:02}" for number in range(0, 20, 2)] == [job.id for job in tagged]
            some = tm.list_jobs(*HERE, limit=7, page_size=5, from_time=FAR_MS + 2)
            assert [f"{number:02}" for number in range(2, 9)] == [job.id for job in some]
            rest = tm.list_jobs(*HERE, from_time=FAR_MS + 2, cursor=some.next_cursor)
            assert "09" == next(rest).id


def test_tasks_of_a_node(ask: Ask, tmp_path: Path) -> None:
    """A dry run shows, a task changes, its end can be waited for; forecasts and stats tell."""
    with NodeProcess(tmp_path / "data") as node:
        node.start().set_up("http://127.0.0.1:1024/")
        node.create([{"id": str(n), "trigger_time": FAR_MS, "tags": ["a"]} for n in range(600)])
        preview, moved, buckets, stats = ask(
            [url(node)],
            lambda tm: tm.cancel_jobs(*HERE, tag="a", dry_run=True),
            lambda tm: tm.reschedule_jobs(*HERE, tag="a", shift_ms=60_000),
            lambda tm: tm.forecast(
                *HERE, from_time=FAR_MS, to_time=FAR_MS + 120_000, bucket_ms=60_000
            ),
            lambda tm: tm.route_stats("default", "hook"),
        )
        assert (None, 600) == (preview.task, preview.count)
        assert {"scheduled"} == {job.state for job in preview.sample}
        assert 600 == sum(bucket.count for bucket in buckets)
        assert ("active", 600) == (stats.state, stats.pending)
        ended, begun = ask(
            [url(node)],
            lambda tm: tm.wait_task(moved),
            lambda tm: tm.cancel_jobs(*HERE, state=["scheduled", "held"], to_time=FAR_MS + 60_001),
        )
        assert ("reschedule", "done", 600) == (ended.kind, ended.state, ended.progress["done"])
        ended, collection = ask(
            [url(node)],
            lambda tm: tm.wait_task(begun.task),
            lambda tm: tm.get_collection(*HERE),
        )
        assert ("cancel", "done", 600) == (ended.kind, ended.state, ended.progress["done"])
        assert 600 == collection.counts["cancelled"]
        with pytest.raises(ApiNotFound) as caught:
            ask([url(node)], lambda tm: tm.cancel_task("nobody-knows-it"))
        assert "task_not_found" == caught.value.code


def test_plans_of_a_node(ask: Ask, tmp_path: Path) -> None:
    """A plan is made once for each key, shown, confirmed, and comes to its end."""
    with NodeProcess(tmp_path / "data") as node:
        node.start().set_up("http://127.0.0.1:1024/")
        plan, again, listed = ask(
            [url(node)],
            lambda tm: tm.make_plan("rebalance", transfers=3, idempotency_key="once"),
            lambda tm: tm.make_plan("rebalance", transfers=3, idempotency_key="once"),
            lambda tm: _first(tm.list_plans(consistency="stale")),
        )
        assert plan == again == listed
        assert ("rebalance", "proposed", 3) == (plan.kind, plan.state, plan.transfers)
        assert plan.created_time < plan.expires_time

        (begun,) = ask([url(node)], lambda tm: tm.confirm_plan(plan))
        assert begun.confirmed_time is not None
        with SyncClient(url(node)) as tm:
            wait_until(lambda: "done" == tm.get_plan(plan).state, "the plan does not end")
        (ended,) = ask([url(node)], lambda tm: tm.confirm_plan(plan))
        assert "done" == ended.state, "whoever did not hear the answer asks again"
        for act in ("pause_plan", "resume_plan", "cancel_plan"):
            with pytest.raises(ApiConflict) as caught:
                ask([url(node)], lambda tm, act=act: getattr(tm, act)(plan.id))
            assert "plan_ended" == caught.value.code
        with pytest.raises(ApiNotFound, match="no such node"):
            ask([url(node)], lambda tm: tm.make_plan("drain", nodes=[plan.id]))


def test_attempts_of_a_node(ask: Ask, tmp_path: Path) -> None:
    """Attempts of a job and of a route, what was answered removed, what died sent again."""
    with Recipient() as recipient, NodeProcess(tmp_path / "data") as node:
        node.start().set_up("http://127.0.0.1:1024/", retry={"max_attempts": 1})
        node.create([{"id": "a", "delay_ms": 0}])
        node.drain()
        tried, of_route, _, redriven = ask(
            [url(node)],
            lambda tm: tm.attempts(*HERE, "a"),
            lambda tm: _first(tm.route_attempts("default", "hook")),
            lambda tm: tm.patch_route("default", "hook", webhook_url=recipient.url),
            lambda tm: tm.redrive_route("default", "hook", from_time=0),
        )
        assert ["failed"] == [attempt.status for attempt in tried]
        assert ("a", "jobs", 1) == (of_route.job_id, of_route.collection, of_route.attempt)
        ask([url(node)], lambda tm: tm.wait_task(redriven))
        recipient.wait(1)
        assert "delivered" == node.drain()["a"]["state"]
        tried, _, after, missing, secret = ask(
            [url(node)],
            lambda tm: tm.attempts(*HERE, "a"),
            lambda tm: tm.delete_attempt_content(*HERE, "a", 1),
            lambda tm: tm.attempts(*HERE, "a"),
            lambda tm: tm.replay_missing("default", "hook", dry_run=True),
            lambda tm: tm.rotate_route_secret("default", "hook", grace_period_ms=60_000),
        )
        assert ["failed", "succeeded"] == [attempt.status for attempt in tried]
        assert [True, False] == sorted([each.content_removed for each in after], reverse=True)
        assert 0 == missing.count
        assert 1 == len(secret.previous)


def _first(items: Any) -> Any:
    """The first item of either kind of iterator."""
    return anext(items) if hasattr(items, "__anext__") else next(items)


def test_refusals_of_a_node(ask: Ask, tmp_path: Path) -> None:
    """Each refusal is an error of its kind, with its code and the field that is wrong."""
    with NodeProcess(tmp_path / "data") as node:
        node.start().set_up("http://127.0.0.1:1024/")
        with pytest.raises(ApiInvalid) as invalid:
            ask([url(node)], lambda tm: tm.create_job(*HERE, route="hook", delay_ms=-1))
        assert "/delay_ms" in [pointer for pointer, _ in invalid.value.errors]
        with pytest.raises(ApiConflict) as conflict:
            ask([url(node)], lambda tm: tm.create_job(*HERE, route="other", delay_ms=1))
        assert "route_not_found" == conflict.value.code
        with pytest.raises(ApiNotFound) as missing:
            ask([url(node)], lambda tm: tm.get_collection("default", "other"))
        assert "collection_not_found" == missing.value.code
        (batch,) = ask(
            [url(node)],
            lambda tm: tm.create_jobs(
                *HERE,
                [
                    NewJob(id="good", route="hook", trigger_time=FAR_MS),
                    NewJob(id="bad", route="hook", trigger_time=FAR_MS, tags=("",)),
                ],
            ),
        )
        assert "good" == batch.items[0].result().id
        assert isinstance(batch.items[1].error, ApiInvalid)
        assert ["/1/tags/0"] == [pointer for pointer, _ in batch.items[1].error.errors]
        with pytest.raises(ApiInvalid):
            batch.items[1].result()


def test_equal_keys_are_one_call(ask: Ask, tmp_path: Path) -> None:
    """A caller who repeats by hand, with the same key, gets the first answer again."""
    with NodeProcess(tmp_path / "data") as node:
        node.start().set_up("http://127.0.0.1:1024/")

        def create(tm: Any) -> Any:
            return tm.create_job(*HERE, route="hook", trigger_time=FAR_MS, idempotency_key="once")

        one, two, version, _ = ask(
            [url(node)], create, create, lambda tm: tm.version(), lambda tm: tm.ready()
        )
        assert one == two
        assert version.version
        assert 1 == len(node.jobs())


def test_settings_of_a_cluster(ask: Ask, tmp_path: Path) -> None:
    """What holds for all nodes is replaced as a whole."""
    with NodeProcess(tmp_path / "data") as node:
        node.start().set_up("http://127.0.0.1:1024/")
        before, after, vnodes = ask(
            [url(node)],
            lambda tm: tm.get_settings(),
            lambda tm: tm.put_settings(allowed_private_cidrs=["10.0.0.0/8"]),
            lambda tm: tm.vnodes(),
        )
        assert ("127.0.0.0/8",) == before.allowed_private_cidrs
        assert ("10.0.0.0/8",) == after.allowed_private_cidrs
        assert [0, 1, 2, 3] == sorted(vnode.index for vnode in vnodes)


def test_ready_waits_for_a_node(ask: Ask, tmp_path: Path) -> None:
    """A service that starts with its node asks once, and hears when it serves."""
    port = free_port()
    with NodeProcess(tmp_path / "data", "--http", f"127.0.0.1:{port}") as node:
        starting = threading.Timer(0.5, node.start)
        starting.start()
        try:
            (ready,) = ask([f"http://127.0.0.1:{port}"], lambda tm: tm.ready())
        finally:
            starting.join()
        assert "ready" == ready.status
        wait_until(lambda: bool(node.address), "it did not start")
