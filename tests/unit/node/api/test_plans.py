"""Plans over HTTP: made, refused, confirmed, paused, cancelled, watched."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from node.api import plans
from tests.unit.node.api.harness import JOBS, Api
from tests.unit.node.api.three import COLLECTION, Three, three
from timemachine import limits
from timemachine.rebalancing import cut

PLANS = "/v1/cluster/plans"
DRAIN = {"kind": "drain", "nodes": ["n3"]}


@pytest.fixture
async def nodes() -> AsyncIterator[Three]:
    """Three nodes, and a collection on all of them."""
    async with three() as nodes:
        yield nodes


async def _made(api: Api, body: dict[str, Any], **headers: str) -> Any:
    reply = await api.ask("POST", PLANS, body, headers=headers)
    assert 201 == reply.status, reply.body
    assert reply.headers["location"] == f"{PLANS}/{reply.json['id']}"
    return reply.json


async def _step(api: Api, plan: Any, action: str) -> tuple[int, str]:
    reply = await api.ask("POST", f"{PLANS}/{plan['id']}/{action}")
    return reply.status, reply.json["state"] if reply.status == 200 else reply.json["code"]


async def _ended(api: Api, plan: Any) -> Any:
    while True:
        shown = (await api.ask("GET", f"{PLANS}/{plan['id']}")).json
        if shown["state"] not in ("running", "paused"):
            return shown
        await asyncio.sleep(0.02)


def _counts(shown: Any) -> tuple[int, ...]:
    return tuple(shown["moves"][each] for each in ("waiting", "moving", "done", "void"))


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/kind"),
        ({"kind": "shuffle"}, "/kind"),
        ({"kind": "drain"}, "/nodes"),
        ({"kind": "remove", "nodes": []}, "/nodes"),
        ({"kind": "replicate", "db": "default", "collection": "carts"}, "/replicas"),
        ({"kind": "replicate", "nodes": ["n1"], "replicas": 1}, "/nodes"),
        ({"kind": "drain", "nodes": ["n1"] * (limits.NODES_MAX + 1)}, "/nodes"),
        (DRAIN | {"replicas": 1}, "/collection"),
        (DRAIN | {"transfers": 0}, "/transfers"),
        (DRAIN | {"transfers": limits.PLAN_TRANSFERS_MAX + 1}, "/transfers"),
        (
            {"kind": "replicate", "db": "default", "collection": "carts", "replicas": 8},
            "/replicas",
        ),
    ],
)
async def test_what_makes_no_plan_is_refused(
    nodes: Three, body: dict[str, Any], pointer: str
) -> None:
    """With a 400 that names the member."""
    reply = await nodes.apis[1].ask("POST", PLANS, body)
    assert (400, [pointer]) == (reply.status, reply.pointers)


async def test_a_plan_does_nothing_until_it_is_confirmed(nodes: Three) -> None:
    """It is shown with all its moves, by any node; and then it runs to its end."""
    api = nodes.apis[1]
    plan = await _made(api, DRAIN)
    assert ("proposed", "drain") == (plan["state"], plan["kind"])
    count = plan["moves"]["total"]
    assert count == len(plan["vnodes"]) > 0
    assert {"waiting"} == {move["state"] for move in plan["vnodes"]}
    assert all(move["remove"] == [plan["nodes"][0]] for move in plan["vnodes"])
    assert any("fewer replicas" in risk for risk in plan["risks"])
    for other in nodes.apis.values():
        listed = (await other.ask("GET", PLANS)).json["items"]
        assert [(plan["id"], [])] == [(each["id"], each["vnodes"]) for each in listed]
    cluster = (await api.ask("GET", "/v1/cluster")).json
    assert ["up"] * 3 == [node["state"] for node in cluster["nodes"]]
    assert (200, "running") == await _step(nodes.apis[2], plan, "confirm")
    shown = await _ended(api, plan)
    assert ("done", (0, 0, count, 0), None) == (shown["state"], _counts(shown), shown["error"])
    cluster = (await api.ask("GET", "/v1/cluster")).json
    (drained,) = [node for node in cluster["nodes"] if node["id"] == plan["nodes"][0]]
    assert ("leaving", 0) == (drained["state"], drained["vnodes"])
    assert (200, "done") == await _step(api, plan, "confirm"), "whoever did not hear it asks again"
    assert (409, "plan_ended") == await _step(api, plan, "cancel")


async def test_a_plan_is_void_when_the_cluster_has_changed(nodes: Three) -> None:
    """A collection more is enough; and while one runs or is paused no other one does."""
    api = nodes.apis[1]
    first, second = await _made(api, DRAIN), await _made(api, DRAIN)
    assert 201 == (await api.ask("PUT", COLLECTION + "2", {"num_vnodes": 1})).status
    assert (409, "plan_outdated") == await _step(api, first, "confirm")
    first = await _made(api, DRAIN)
    assert (409, "plan_not_confirmed") == await _step(api, first, "pause")
    assert (200, "running") == await _step(api, first, "confirm")
    assert (200, "paused") == await _step(api, first, "pause")
    assert (200, "paused") == await _step(api, first, "pause")
    assert (409, "plan_running") == await _step(api, second, "confirm")
    assert (200, "running") == await _step(api, first, "resume")
    assert "done" == (await _ended(api, first))["state"]
    assert (200, "cancelled") == await _step(api, second, "cancel")
    assert (409, "plan_ended") == await _step(api, second, "confirm")
    assert (404, "plan_not_found") == await _step(api, {"id": "x"}, "cancel")


async def test_who_was_being_emptied_is_a_member_after_a_cancellation(nodes: Three) -> None:
    """And every vnode is led and has its replicas, whether it was moved or not."""
    api = nodes.apis[2]
    plan = await _made(api, DRAIN | {"transfers": 1})
    await _step(api, plan, "confirm")
    assert (200, "cancelled") == await _step(api, plan, "cancel")
    cluster = (await api.ask("GET", "/v1/cluster")).json
    assert ["up"] * 3 == [node["state"] for node in cluster["nodes"]]
    while True:
        rows = (await api.ask("GET", "/v1/cluster/vnodes")).json["items"]
        roles = [[each["role"] for each in row["replicas"]] for row in rows]
        # What had gone comes back by itself: the collection wants three.
        if roles == [["voter"] * 3] * len(rows) and None not in [row["leader"] for row in rows]:
            break
        await asyncio.sleep(0.02)


async def test_another_count_of_replicas(nodes: Three) -> None:
    """Fewer, and more again; jobs are there all the time."""
    api = nodes.apis[1]
    for number in range(8):
        body = {"trigger_time": 4_000_000_000_000, "route": "hello", "meta": number}
        assert 201 == (await api.ask("PUT", f"{JOBS}/j{number}", body)).status
    for replicas, copies in ((1, 0), (3, 2)):
        body = {"kind": "replicate", "db": "default", "collection": "carts", "replicas": replicas}
        plan = await _made(api, body)
        assert copies * plan["moves"]["total"] == plan["moves"]["copies"]
        await _step(api, plan, "confirm")
        shown = await _ended(api, plan)
        assert ("done", plan["moves"]["total"]) == (shown["state"], shown["moves"]["done"])
        assert replicas == (await api.ask("GET", COLLECTION)).json["replicas"]
        for number in range(8):
            assert number == (await api.ask("GET", f"{JOBS}/j{number}")).json["meta"]


async def test_moves_of_a_cancelled_plan_come_to_their_end(nodes: Three) -> None:
    """Also those that only add: placements do not tell of them, and they were moving for ever.

    What has begun is done in the end; what has not waits.
    """
    api, body = nodes.apis[1], {"kind": "replicate", "db": "default", "collection": "carts"}
    fewer = await _made(api, {**body, "replicas": 1})
    await _step(api, fewer, "confirm")
    assert "done" == (await _ended(api, fewer))["state"]
    more = await _made(api, {**body, "replicas": 3, "transfers": 1})
    await _step(api, more, "confirm")
    while not any(_counts(shown := (await api.ask("GET", f"{PLANS}/{more['id']}")).json)[1:3]):
        assert "running" == shown["state"], shown
        await asyncio.sleep(0.01)
    assert (200, "cancelled") == await _step(api, more, "cancel")
    while (shown := (await api.ask("GET", f"{PLANS}/{more['id']}")).json)["moves"]["moving"]:
        await asyncio.sleep(0.02)
    waiting, moving, done, void = _counts(shown)
    assert 0 < done
    assert (more["moves"]["total"], 0, 0) == (waiting + done, moving, void)


async def test_a_node_is_removed_when_it_has_nothing_left(nodes: Three) -> None:
    """Also the one that leads the meta group; then it is no member of that either."""
    leader = await nodes.led((0, 0))
    api = nodes.apis[leader % 3 + 1]
    plan = await _made(api, {"kind": "remove", "nodes": [f"n{leader}"]})
    await _step(api, plan, "confirm")
    shown = await _ended(api, plan)
    assert ("done", None) == (shown["state"], shown["error"])
    cluster = (await api.ask("GET", "/v1/cluster")).json
    states = {node["number"]: node["state"] for node in cluster["nodes"]}
    assert "removed" == states[leader]
    others = {1, 2, 3} - {leader}
    members = nodes.apis[min(others)].engine._meta_vnode.members
    assert others == set(members.voters)


async def test_a_dead_node_is_removed_and_not_drained(nodes: Three) -> None:
    """Nothing is copied from it; nor does anything move to a node that does not answer."""
    await nodes.led((0, 0))
    dead = next(number for number in (3, 2, 1) if number != nodes.leader((0, 0)))
    api = nodes.apis[nodes.leader((0, 0))]
    nodes.cut.add(dead)
    while dead in api.engine.heard():
        await asyncio.sleep(0.02)
    name = {"nodes": [f"n{dead}"]}
    reply = await api.ask("POST", PLANS, {"kind": "drain", **name})
    assert (409, "node_down") == (reply.status, reply.json["code"])
    every = [f"n{number}" for number in (1, 2, 3)]
    reply = await api.ask("POST", PLANS, {"kind": "remove", "nodes": every})
    assert (409, "no_node_left") == (reply.status, reply.json["code"])
    plan = await _made(api, {"kind": "remove", **name})
    await _step(api, plan, "confirm")
    assert "done" == (await _ended(api, plan))["state"]


async def test_a_repeat_gets_the_same_plan(nodes: Three) -> None:
    """With an Idempotency-Key; another body under it is refused."""
    api = nodes.apis[1]
    key = {"Idempotency-Key": "k"}
    first = await _made(api, DRAIN, **key)
    again = await api.ask("POST", PLANS, DRAIN, headers=key)
    assert (201, "true") == (again.status, again.headers["idempotent-replayed"])
    assert first["id"] == again.json["id"]
    other = await api.ask("POST", PLANS, {"kind": "rebalance"}, headers=key)
    assert (422, "idempotency_key_reused") == (other.status, other.json["code"])


async def test_plans_are_listed_in_pages(nodes: Three) -> None:
    """The newest first; only so many are kept."""
    api = nodes.apis[1]
    made = [(await _made(api, DRAIN))["id"] for _ in range(limits.PLANS_KEPT_MAX + 1)]
    seen, cursor = [], ""
    while cursor is not None:
        page = (await api.ask("GET", f"{PLANS}?limit=7{cursor and '&cursor=' + cursor}")).json
        seen += [each["id"] for each in page["items"]]
        cursor = page["next_cursor"]
    assert made[:0:-1] == seen


async def test_a_node_that_is_not_there_is_not_found(nodes: Three) -> None:
    """By id or by name."""
    reply = await nodes.apis[1].ask("POST", PLANS, {"kind": "drain", "nodes": ["n1", "nobody"]})
    assert (404, "node_not_found") == (reply.status, reply.json["code"])
    assert reply.json["detail"].startswith("/nodes/1")


async def test_one_plan_is_computed_at_a_time(
    nodes: Three, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named regression: many that were asked for at once took the processor from the loop."""
    computing, most = 0, 0

    def counted(moves: Any) -> Any:
        nonlocal computing, most
        computing += 1
        most = max(most, computing)
        time.sleep(0.05)
        computing -= 1
        return cut(moves)

    monkeypatch.setattr(plans, "cut", counted)
    await asyncio.gather(*[_made(nodes.apis[1], DRAIN) for _ in range(4)])
    assert 1 == most
