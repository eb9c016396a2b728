"""Where requests are answered, and what comes of those whose leader cannot be reached."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from node.api.relay import WHERE, Where
from tests.unit.node.api.harness import FAR_MS, JOBS, ROUTE, Api, Reply
from tests.unit.node.api.three import COLLECTION, NUMBERS, Three, three
from timemachine import limits
from timemachine.frames import Frame, read_frame, write_frame
from timemachine.group import META_GROUP
from timemachine.vnode import Done, Vnode

JOB = {"route": "hello", "trigger_time": FAR_MS}


@pytest.fixture
async def nodes() -> AsyncIterator[Three]:
    """A cluster to ask."""
    async with three() as made:
        yield made


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes with little patience."""
    monkeypatch.setattr(limits, "ROUTER_PATIENCE_MS", 1_500)
    monkeypatch.setattr(limits, "ROUTER_TRY_MS", 200)
    monkeypatch.setattr(limits, "RELAY_TIMEOUT_MS", 1_000)


async def _elsewhere(nodes: Three, job: str = "j") -> tuple[Api, int]:
    """A node that does not lead the vnode of a job, and the one that does."""
    leader = await nodes.led(nodes.group(job))
    return nodes.apis[nodes.others(leader)[0]], leader


def test_where_each_operation_is_answered() -> None:
    """A new one has to be thought about."""
    by_place: dict[Where, set[str]] = {each: set() for each in Where}
    for operation, place in WHERE.items():
        by_place[place].add(operation.removeprefix("original_").removesuffix("_short"))
    jobs = {"put_job", "patch_job", "get_job", "delete_job", "run_job", "redrive_job"}
    assert jobs | {"list_attempts", "remove_content", "post_job"} == by_place[Where.JOB_LEADER]
    assert {"read_backup_page", "decide_past_due"} == by_place[Where.VNODE_LEADER]
    about_the_node = {"healthz", "readyz", "metrics", "version", "version_of_api"}
    documents = {"get_openapi", "get_docs"}
    reads = {"list_jobs", "forecast", "get_cluster", "get_vnodes"}
    assert (
        about_the_node | documents | reads | {"post_job", "post_batch", "restore_jobs"}
        == by_place[Where.HERE]
    )
    assert {
        *("get_route", "list_routes", "get_secret", "send_example", "get_stats"),
        *("list_route_attempts", "list_databases", "get_database", "list_collections"),
        *("get_collection", "get_settings", "get_keys"),
    } == by_place[Where.FRESH]
    assert {
        *("cancel_jobs", "reschedule_jobs", "redrive_route", "replay_missing"),
        *("get_task", "list_tasks", "cancel_task"),
        *("put_route", "patch_route", "delete_route", "pause", "resume", "rotate_secret"),
        *("put_database", "delete_database", "put_collection", "delete_collection"),
        *("put_settings", "issue_join_token", "finalise", "post_route", "reseal"),
        *("make_plan", "get_plan", "list_plans"),
        *("confirm_plan", "pause_plan", "resume_plan", "cancel_plan"),
        *("describe_backup", "begin_restore", "restore_routes", "end_restore"),
    } == by_place[Where.NODE_LEADER]


async def test_a_request_goes_on_once(nodes: Three) -> None:
    """With its id, and what handlers look at; the answer comes back as it is."""
    api, leader = await _elsewhere(nodes)
    seen: list[tuple[int, str]] = []

    def look(sender: int, frame: Frame) -> bool:
        seen.extend((sender, call.kind) for call in frame.calls)
        return False

    nodes.lose = look
    reply = await api.ask("PUT", f"{JOBS}/j", JOB, headers={"X-Request-Id": "mine"})
    assert (201, "mine") == (reply.status, reply.headers["x-request-id"])
    assert [(api.engine.number, "request")] == seen
    seen.clear()
    await nodes.apis[leader].ask("GET", f"{JOBS}/j")
    assert [] == seen


async def test_a_stale_read_asks_nobody(nodes: Three) -> None:
    """It shows what this node has, also while it is cut off."""
    api, _ = await _elsewhere(nodes)
    await api.ask("PUT", f"{JOBS}/j", JOB)
    while (await api.ask("GET", f"{JOBS}/j?consistency=stale")).status != 200:
        pass
    nodes.cut = set(nodes.others(api.engine.number))
    for path in (f"{JOBS}/j", f"{JOBS}/j/attempts", COLLECTION, "/v1/dbs"):
        assert 200 == (await api.ask("GET", f"{path}?consistency=stale")).status
    wrong = await api.ask("GET", f"{JOBS}/j?consistency=quick")
    assert (400, ["?consistency"]) == (wrong.status, wrong.pointers)


@pytest.mark.usefixtures("hasty")
async def test_whom_nobody_answers_is_told_so(nodes: Three) -> None:
    """503 with Retry-After, to reads and writes, in the time that patience lasts."""
    api, _ = await _elsewhere(nodes)
    await api.ask("PUT", f"{JOBS}/j", JOB)
    nodes.cut = set(nodes.others(api.engine.number))
    await asyncio.sleep(0.5)  # until it leads nothing itself
    key = {"Idempotency-Key": "k"}
    asked: list[Any] = [
        api.ask("GET", f"{JOBS}/j"),
        api.ask("PUT", f"{JOBS}/j", JOB),
        api.ask("PUT", f"{JOBS}/j", JOB, headers=key),
        api.ask("POST", JOBS, {"id": "j", **JOB}),
        api.ask("POST", JOBS, {"id": "j", **JOB, "route": "unknown"}),
        api.ask("GET", COLLECTION),
        api.ask("PUT", COLLECTION, {}),
        api.ask("PUT", COLLECTION, {}, headers=key),
    ]
    items = [JOB, {**JOB, "route": "unknown"}]
    batch = asyncio.ensure_future(api.ask("POST", f"{JOBS}/batch", items))
    replies: list[Reply] = await asyncio.gather(*asked)
    assert [503, 503] == [item["status"] for item in (await batch).json["items"]]
    assert [(503, "unavailable")] * 8 == [(reply.status, reply.code) for reply in replies]
    assert all("retry-after" in reply.headers for reply in replies)


@pytest.mark.usefixtures("hasty")
async def test_a_write_whose_answer_got_lost_is_repeated_with_its_key_only(nodes: Three) -> None:
    """Without one it may be done, and only the client knows whether it may be done again."""
    api, leader = await _elsewhere(nodes)
    await api.ask("PUT", f"{JOBS}/j", JOB)
    lost: list[int] = []

    def lose_one(sender: int, frame: Frame) -> bool:
        if sender == leader and frame.replies and not lost:
            lost.append(1)
            return True
        return False

    nodes.lose = lose_one
    body = {"meta": 1}
    reply = await api.ask("PATCH", f"{JOBS}/j", body, headers={"Idempotency-Key": "k"})
    assert (200, 2) == (reply.status, reply.json["version"])
    assert [1] == lost
    lost.clear()
    assert 503 == (await api.ask("PATCH", f"{JOBS}/j", {"meta": 2})).status
    assert 3 == (await api.ask("GET", f"{JOBS}/j")).json["version"]
    lost.clear()
    assert 3 == (await api.ask("GET", f"{JOBS}/j")).json["version"]


async def test_while_the_leader_is_lost_requests_wait_for_the_next(nodes: Three) -> None:
    """Reads, writes with a key, and creates."""
    api, leader = await _elsewhere(nodes)
    await api.ask("PUT", f"{JOBS}/j", JOB)
    nodes.cut = {leader}
    asked: list[Any] = [
        api.ask("GET", f"{JOBS}/j"),
        api.ask("PATCH", f"{JOBS}/j", {"meta": 1}, headers={"Idempotency-Key": "k"}),
        api.ask("POST", JOBS, {"id": "j", **JOB}),
        api.ask("POST", f"{JOBS}/batch", [JOB] * 20),
        api.ask("PUT", "/v1/dbs/new", headers={"Idempotency-Key": "k"}),
    ]
    replies: list[Reply] = await asyncio.gather(*asked)
    assert [200, 200, 200, 200, 201] == [reply.status for reply in replies] or (
        # After the patch: that job might be its own, begun anew, if the lost leader has heard it.
        replies[2].status in (409, 503)
    )
    assert 20 == replies[3].json["created"]


async def test_a_read_shows_what_was_written_before_it(nodes: Three) -> None:
    """While leaders change all the time."""
    group = nodes.group("j")
    version = 0
    await nodes.apis[1].ask("PUT", f"{JOBS}/j", JOB)
    for turn in range(24):
        if turn % 4 == 3:
            leader = await nodes.led(group)
            engine = nodes.apis[leader].engine
            engine.hand_over(engine.runtime.vnodes[group], nodes.others(leader)[0], lambda _: None)
        number = NUMBERS[turn % 3]
        headers = {"Idempotency-Key": f"k{turn}"}
        reply = await nodes.apis[number].ask("PATCH", f"{JOBS}/j", {"meta": turn}, headers=headers)
        assert 200 == reply.status
        assert reply.json["version"] > version
        version = reply.json["version"]
        found = await nodes.apis[NUMBERS[(turn + 1) % 3]].ask("GET", f"{JOBS}/j")
        assert (version, turn) == (found.json["version"], found.json["meta"])


async def test_a_replica_that_takes_the_place_of_the_one_that_was_asked_is_not_read(
    nodes: Three, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be empty yet: whoever leads by then is asked."""
    leader = await nodes.led(nodes.group("j"))
    api = nodes.apis[leader]
    assert 201 == (await api.ask("PUT", f"{JOBS}/j", JOB)).status
    runtime, group = api.engine.runtime, nodes.group("j")
    barrier, holds = runtime.barrier, runtime.holds
    asked = []

    def replaced_meanwhile(vnode: Vnode, done: Done) -> None:
        asked.append(vnode.group)
        if len(asked) == 1:
            # Not taken out in truth: the loop would pass over what it has gathered of it.
            monkeypatch.setattr(runtime, "holds", lambda vnode: False)
            asyncio.get_running_loop().call_later(0.01, setattr, runtime, "holds", holds)
            done(None)
        else:
            barrier(vnode, done)

    monkeypatch.setattr(runtime, "barrier", replaced_meanwhile)
    assert 200 == (await api.ask("GET", f"{JOBS}/j")).status
    assert [group, group] == asked


async def test_a_node_that_is_behind_does_not_say_that_there_is_nothing(nodes: Three) -> None:
    """Neither to a create on the short way, nor in a batch, nor to a request that it relays."""
    meta_leader = await nodes.led((0, 0))
    behind = nodes.others(meta_leader)[0]

    def to_meta(sender: int, frame: Frame) -> bool:
        return any((each.uid, each.message.to) == (0, behind) for each in frame.messages)

    api, other = nodes.apis[behind], nodes.apis[meta_leader]
    job = {"id": "j", "route": "new", "trigger_time": FAR_MS}
    for name in ("one", "two", "three"):
        nodes.lose = to_meta
        await other.ask("PUT", f"/v1/dbs/{name}")
        await other.ask("PUT", f"/v1/dbs/{name}/collections/c", {"num_vnodes": 1})
        await other.ask("PUT", f"/v1/dbs/{name}/routes/new", {"webhook_url": "http://x.example/"})
        assert name not in api.engine.meta.databases
        asyncio.get_running_loop().call_later(0.1, setattr, nodes, "lose", None)
        jobs = f"/v1/dbs/{name}/collections/c/jobs"
        if name == "one":
            assert 201 == (await api.ask("POST", jobs, job)).status
        elif name == "two":
            assert 1 == (await api.ask("POST", f"{jobs}/batch", [job])).json["created"]
        else:
            assert 201 == (await api.ask("PUT", f"{jobs}/j", job)).status
    for path, code in (("two/collections/x", "collection"), ("four/collections/c", "database")):
        reply = await api.ask("POST", f"/v1/dbs/{path}/jobs", job)
        assert (404, f"{code}_not_found") == (reply.status, reply.code)


async def test_a_route_that_a_node_does_not_know_yet_is_found_for_each_item(nodes: Three) -> None:
    """Only what is not there after all is told as missing."""
    meta_leader = await nodes.led((0, 0))
    behind = nodes.others(meta_leader)[0]
    nodes.lose = lambda _, frame: any(
        (each.uid, each.message.to) == (0, behind) for each in frame.messages
    )
    path = "/v1/dbs/default/routes/new"
    await nodes.apis[meta_leader].ask("PUT", path, {"webhook_url": "http://x.example/"})
    asyncio.get_running_loop().call_later(0.1, setattr, nodes, "lose", None)
    jobs = [JOB, {**JOB, "route": "new"}, {**JOB, "route": "never"}, {**JOB, "route": "new"}]
    reply = await nodes.apis[behind].ask("POST", f"{JOBS}/batch", jobs)
    assert [201, 201, 409, 201] == [item["status"] for item in reply.json["items"]]


async def test_a_node_that_stops_leaves_requests_to_the_next_leader(nodes: Three) -> None:
    """It has done nothing, and says so."""
    api, leader = await _elsewhere(nodes)
    nodes.apis[leader].server._stopping = True
    asked = asyncio.ensure_future(api.ask("PUT", f"{JOBS}/j", JOB))
    await asyncio.sleep(0.2)
    engine = nodes.apis[leader].engine
    to = next(each for each in nodes.others(leader) if each != api.engine.number)
    engine.hand_over(engine.runtime.vnodes[nodes.group("j")], to, lambda _: None)
    assert 201 == (await asked).status
    nodes.apis[leader].server._stopping = False


async def test_a_leader_that_has_too_much_to_do_says_so(nodes: Three) -> None:
    """429 to writes, which may be answered so, and 503 to reads."""
    api, leader = await _elsewhere(nodes)
    nodes.apis[leader].server._requests_max = -1
    assert 429 == (await api.ask("PUT", f"{JOBS}/j", JOB)).status
    assert 503 == (await api.ask("GET", f"{JOBS}/j")).status


async def test_what_breaks_at_the_leader_is_not_told_abroad(
    nodes: Three, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its log knows."""
    api, leader = await _elsewhere(nodes)

    def broken(*_: Any) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(nodes.apis[leader].engine, "read_job", broken)
    reply = await api.ask("GET", f"{JOBS}/j")
    assert (500, "internal") == (reply.status, reply.code)
    assert b"secret" not in reply.body


async def test_large_requests_and_answers_pass(nodes: Three) -> None:
    """A job with the largest meta, and many of them."""
    api, _ = await _elsewhere(nodes)
    meta = "x" * (limits.META_BYTES_MAX - 2)
    reply = await api.ask("PUT", f"{JOBS}/j", {**JOB, "meta": meta})
    assert meta == reply.json["meta"]
    batch = [{**JOB, "meta": meta} for _ in range(60)]
    assert 15_000_000 < len(msgspec.json.encode(batch)) < limits.REQUEST_BODY_BYTES_MAX
    made = await api.ask("POST", f"{JOBS}/batch", batch)
    assert 60 == made.json["created"]


async def test_a_leader_may_take_its_time(nodes: Three) -> None:
    """As long as it lives; one that dies meanwhile is not waited for."""
    leader = await nodes.led((0, 0))
    api = nodes.apis[nodes.others(leader)[0]]
    nodes.apis[leader].check_s = 0.8
    route = {"webhook_url": "http://two.example/x"}
    path = "/v1/dbs/default/routes/slow"
    assert 201 == (await api.ask("PUT", path, route)).status
    asked = asyncio.ensure_future(api.ask("PUT", f"{path}er", route))
    while len(nodes.apis[leader].targets) < 3:
        await asyncio.sleep(0.01)
    nodes.cut = {leader}
    began = asyncio.get_running_loop().time()
    assert 503 == (await asked).status
    assert asyncio.get_running_loop().time() - began < 5


async def test_a_collection_that_is_made_anew_is_another(nodes: Three) -> None:
    """Its jobs are found by whom it is new to, and those of before by nobody."""
    leader = await nodes.led((0, 0))
    behind = nodes.apis[nodes.others(leader)[0]]
    other = nodes.apis[leader]
    await other.ask("PUT", f"{JOBS}/j", JOB)
    nodes.lose = lambda _, frame: any(
        (each.uid, each.message.to) == (0, behind.engine.number) for each in frame.messages
    )
    assert 200 == (await other.ask("DELETE", f"{COLLECTION}?force=true")).status
    assert 201 == (await other.ask("PUT", COLLECTION, {"num_vnodes": 6})).status
    asyncio.get_running_loop().call_later(0.8, setattr, nodes, "lose", None)
    # If it leads that vnode, it does so as long as its lease lasts: deleting waits for nobody.
    await asyncio.sleep(0.5)
    found = await behind.ask("GET", f"{JOBS}/j")
    assert (404, "job_not_found") == (found.status, found.code)
    assert 201 == (await behind.ask("PUT", f"{JOBS}/j", JOB)).status
    assert 200 == (await other.ask("GET", f"{JOBS}/j")).status


async def test_a_job_goes_to_the_route_of_now(nodes: Three) -> None:
    """Through a node that has not heard yet that a route was deleted, and made anew."""
    leader = await nodes.led(nodes.group("j"))
    node_leader = await nodes.led(META_GROUP)
    behind = next(each for each in NUMBERS if each not in (leader, node_leader))
    deliver = nodes.deliver

    def without_meta(node: int, data: bytes) -> None:
        frame = read_frame(data)
        if node == behind:
            messages = [each for each in frame.messages if (each.uid, each.index) != META_GROUP]
            data = write_frame(msgspec.structs.replace(frame, messages=messages))
        deliver(node, data)

    nodes.deliver = without_meta  # type: ignore[assignment, method-assign]
    api = nodes.apis[node_leader]
    assert (await api.ask("DELETE", ROUTE)).status in (200, 202)
    assert 201 == (await api.ask("PUT", ROUTE, {"webhook_url": "http://two.example/x"})).status
    assert 200 == (await nodes.apis[leader].ask("GET", ROUTE)).status
    created = await nodes.apis[behind].ask("POST", JOBS, {"id": "j", **JOB})
    assert 201 == created.status
    engine = nodes.apis[leader].engine
    stored = engine.read_job(engine.meta.collections["default", "carts"], "j")
    assert stored is not None
    assert engine.meta.routes["default", "hello"].uid == stored[0].route_uid
    nodes.deliver = deliver  # type: ignore[method-assign]
