"""Plans that compact, over HTTP: what is shown before, and what is refused."""

import asyncio
from typing import Any

import pytest

from tests.unit.node.api.harness import Api
from timemachine import limits

PLANS = "/v1/cluster/plans"
CARTS = {"kind": "compact", "db": "default", "collection": "carts"}


async def _ended(api: Api, id: str) -> Any:
    async with asyncio.timeout(30):
        while True:
            plan = (await api.ask("GET", f"{PLANS}/{id}")).json
            if plan["finished_time"] is not None:
                return plan
            await asyncio.sleep(0.05)


async def test_a_plan_shows_what_there_is_and_runs_when_confirmed(api: Api) -> None:
    """It tells each node's bytes before, an estimate and the risks; and at last what came of it."""
    made = await api.ask("POST", PLANS, {"kind": "compact", "bytes_per_s": 2_000_000})
    assert 201 == made.status, made.body
    plan = made.json
    assert ("compact", "proposed", 1) == (plan["kind"], plan["state"], plan["transfers"])
    assert (None, None, []) == (plan["db"], plan["collection"], plan["vnodes"])
    assert plan["risks"]
    compaction = plan["compaction"]
    assert ([], 2_000_000) == (compaction["vnodes"], compaction["bytes_per_s"])
    (node,) = compaction["nodes"]
    assert ("n1", "waiting", 0, 0) == (
        node["node"],
        node["state"],
        node["steps"],
        node["steps_done"],
    )
    assert node["range_bytes"] == node["before_bytes"] > 0
    confirmed = await api.ask("POST", f"{PLANS}/{plan['id']}/confirm")
    assert (200, "running") == (confirmed.status, confirmed.json["state"])
    done = await _ended(api, plan["id"])
    assert ("done", None, []) == (done["state"], done["error"], done["waits_for"])
    (node,) = done["compaction"]["nodes"]
    assert ("done", None) == (node["state"], node["error"])
    assert node["steps"] == node["steps_done"] > 0
    assert node["disk_bytes"] > 0
    listed = (await api.ask("GET", PLANS)).json["items"]
    assert [done] == listed


async def test_of_a_collection_and_of_some_vnodes(api: Api) -> None:
    """A repeat with the same key gets the same plan."""
    key = {"Idempotency-Key": "k"}
    body = {**CARTS, "vnodes": [2, 0, 2], "nodes": ["n1"], "transfers": 3}
    made = await api.ask("POST", PLANS, body, headers=key)
    assert 201 == made.status, made.body
    plan = made.json
    assert ("default", "carts", ["n1"], 3) == (
        plan["db"],
        plan["collection"],
        plan["nodes"],
        plan["transfers"],
    )
    assert [0, 2] == plan["compaction"]["vnodes"]
    again = await api.ask("POST", PLANS, body, headers=key)
    assert plan["id"] == again.json["id"]
    confirmed = await api.ask("POST", f"{PLANS}/{plan['id']}/confirm")
    assert 200 == confirmed.status
    assert "done" == (await _ended(api, plan["id"]))["state"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"kind": "compact", "replicas": 2}, "/replicas"),
        ({"kind": "compact", "db": "default"}, "/collection"),
        ({"kind": "compact", "vnodes": [0]}, "/vnodes"),
        ({"kind": "compact", "bytes_per_s": 0}, "/bytes_per_s"),
        ({"kind": "compact", "transfers": limits.PLAN_TRANSFERS_MAX + 1}, "/transfers"),
        ({"kind": "compact", "transfers": 0}, "/transfers"),
        ({"kind": "compact", "bytes_per_s": limits.COMPACT_RATE_BYTES_MIN - 1}, "/bytes_per_s"),
        ({"kind": "compact", "bytes_per_s": limits.COMPACT_RATE_BYTES_MAX + 1}, "/bytes_per_s"),
        ({"kind": "none"}, "/kind"),
        ({"kind": "rebalance", "transfers": 0}, "/transfers"),
        ({"kind": "rebalance", "vnodes": [1]}, "/vnodes"),
        ({"kind": "rebalance", "bytes_per_s": 2_000_000}, "/vnodes"),
    ],
)
async def test_what_makes_no_sense_is_refused(api: Api, body: Any, pointer: str) -> None:
    """It says what is wrong, and nothing is kept."""
    refused = await api.ask("POST", PLANS, body)
    assert (400, [pointer]) == (refused.status, refused.pointers)
    assert {} == api.engine.meta.plans


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"collection": "none"}, "collection_not_found"),
        ({"vnodes": [3]}, "vnode_not_found"),
        ({"vnodes": [-1]}, "vnode_not_found"),
        ({"nodes": ["n9"]}, "node_not_found"),
    ],
)
async def test_what_is_not_there(api: Api, more: Any, code: str) -> None:
    """404, as everywhere, and nothing is kept."""
    reply = await api.ask("POST", PLANS, {**CARTS, **more})
    assert (404, code) == (reply.status, reply.code)
    assert {} == api.engine.meta.plans
