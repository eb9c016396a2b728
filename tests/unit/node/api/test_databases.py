"""Databases, collections and the cluster over HTTP."""

from typing import Any

import pytest

from tests.unit.node.api.harness import FAR_MS, JOBS, Api
from timemachine import limits

CARTS = "/v1/dbs/default/collections/carts"


async def test_databases(api: Api) -> None:
    """A database is made once, listed, and deleted when it is empty or with force."""
    made = await api.ask("PUT", "/v1/dbs/shop")
    assert (201, "shop") == (made.status, made.json["name"])
    assert 200 == (await api.ask("PUT", "/v1/dbs/shop", made.json)).status
    assert 400 == (await api.ask("PUT", "/v1/dbs/shop", {"colour": 1})).status
    names = [item["name"] for item in (await api.ask("GET", "/v1/dbs")).json["items"]]
    assert ["default", "shop"] == names
    await api.ask("PUT", "/v1/dbs/shop/collections/c")
    full = await api.ask("DELETE", "/v1/dbs/shop")
    assert (409, "database_not_empty") == (full.status, full.code)
    assert 200 == (await api.ask("DELETE", "/v1/dbs/shop?force=true")).status
    gone = await api.ask("GET", "/v1/dbs/shop")
    assert (404, "database_not_found") == (gone.status, gone.code)
    assert 404 == (await api.ask("DELETE", "/v1/dbs/shop")).status
    assert 404 == (await api.ask("PUT", "/v1/dbs/shop/collections/c")).status


async def test_deletes_with_a_key_are_repeatable(api: Api) -> None:
    """The answer to a delete is given again when its request is repeated."""
    await api.ask("PUT", "/v1/dbs/shop")
    for path in ("/v1/dbs/shop", CARTS):
        key = {"Idempotency-Key": "k"}
        first = await api.ask("DELETE", path, headers=key)
        again = await api.ask("DELETE", path, headers=key)
        assert (200, 200, first.json) == (first.status, again.status, again.json)


async def test_collection(api: Api) -> None:
    """num_vnodes stays, the rest may change; what is absent takes its default."""
    read = await api.ask("GET", CARTS)
    assert {"name": "carts", "num_vnodes": 3, "replicas": 3}.items() <= read.json.items()
    assert True is read.json["under_replicated"]
    assert 7 * 86_400_000 == read.json["history_retention_ms"]
    assert 200 == (await api.ask("PUT", CARTS, read.json)).status
    moved = await api.ask("PUT", CARTS, {"num_vnodes": 4})
    assert (409, "immutable_field") == (moved.status, moved.code)
    changed = await api.ask("PUT", CARTS, {"replicas": 1, "history_retention_ms": 0})
    assert (1, 0, 3, False, 2) == (
        changed.json["replicas"],
        changed.json["history_retention_ms"],
        changed.json["num_vnodes"],
        changed.json["under_replicated"],
        changed.json["version"],
    )
    assert None is changed.json["content_retention_ms"]
    brief = await api.ask("PUT", CARTS, {"content_retention_ms": 0})
    assert (0, 3) == (brief.json["content_retention_ms"], brief.json["version"])
    assert 200 == (await api.ask("PUT", CARTS, brief.json)).status
    plain = (await api.ask("PUT", CARTS)).json
    assert (3, None) == (plain["replicas"], plain["content_retention_ms"])
    plain = await api.ask("PUT", "/v1/dbs/default/collections/plain")
    assert (201, limits.VNODES_DEFAULT) == (plain.status, plain.json["num_vnodes"])
    items = (await api.ask("GET", "/v1/dbs/default/collections")).json["items"]
    assert ["carts", "plain"] == [item["name"] for item in items]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"num_vnodes": 0}, "/num_vnodes"),
        ({"num_vnodes": 1025}, "/num_vnodes"),
        ({"num_vnodes": "3"}, "/num_vnodes"),
        ({"num_vnodes": True}, "/num_vnodes"),
        ({"replicas": 0}, "/replicas"),
        ({"replicas": 8}, "/replicas"),
        ({"history_retention_ms": -1}, "/history_retention_ms"),
        ({"content_retention_ms": -1}, "/content_retention_ms"),
        ({"vnodes": 3}, "/vnodes"),
    ],
)
async def test_bad_collections(api: Api, body: dict[str, object], pointer: str) -> None:
    """Values out of range and unknown members are 400."""
    reply = await api.ask("PUT", "/v1/dbs/default/collections/c", body)
    assert (400, [pointer]) == (reply.status, reply.pointers)


async def test_too_many_vnodes(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit of the cluster, all collections together, can be reached, and is named beyond."""
    there = 3  # of `carts`
    monkeypatch.setattr(limits, "VNODES_PER_CLUSTER_MAX", there + 1024 + 10)
    for name, num_vnodes in (("big", 1024), ("small", 10)):
        path = f"/v1/dbs/default/collections/{name}"
        assert 201 == (await api.ask("PUT", path, {"num_vnodes": num_vnodes})).status
    over = await api.ask("PUT", "/v1/dbs/default/collections/more", {"num_vnodes": 1})
    assert (413, "limit_reached") == (over.status, over.code)
    assert "1037 vnodes" in over.json["detail"]


async def test_delete_with_jobs_needs_force(api: Api) -> None:
    """A collection that holds jobs is deleted only with force."""
    await api.ask("POST", JOBS, {"id": "a", "trigger_time": FAR_MS, "route": "hello"})
    full = await api.ask("DELETE", CARTS)
    assert (409, "collection_not_empty") == (full.status, full.code)
    assert 200 == (await api.ask("DELETE", f"{CARTS}?force=true")).status
    gone = await api.ask("POST", JOBS, {"trigger_time": FAR_MS, "route": "hello"})
    assert (404, "collection_not_found") == (gone.status, gone.code)


async def test_cluster(api: Api) -> None:
    """The node tells who it is, and what its vnodes do."""
    cluster = (await api.ask("GET", "/v1/cluster")).json
    assert ("c0ffee", "n1", "n1") == (
        cluster["cluster_id"],
        cluster["node_id"],
        cluster["node_leader"],
    )
    node = {"id": "n1", "name": "one", "http": "h:1", "rpc": "r:1", "zone": "z", "vnodes": 3}
    assert node.items() <= cluster["nodes"][0].items()
    vnodes = (await api.ask("GET", "/v1/cluster/vnodes")).json["items"]
    assert [0, 1, 2] == [vnode["index"] for vnode in vnodes]
    assert {"n1"} == {vnode["leader"] for vnode in vnodes}


async def test_settings(api: Api) -> None:
    """Settings are read, replaced and checked."""
    path = "/v1/cluster/settings"
    none: Any = {"allowed_private_cidrs": [], "allowed_ports": []}
    assert none == (await api.ask("GET", path)).json
    wanted = {"allowed_private_cidrs": ["127.0.0.0/8", "::1/128"], "allowed_ports": [25, 6379]}
    assert wanted == (await api.ask("PUT", path, wanted)).json
    assert wanted == (await api.ask("GET", path)).json
    bads: list[Any] = [
        {"allowed_private_cidrs": ["all"]},
        {"allow": []},
        {"allowed_private_cidrs": 1},
        {"allowed_ports": [0]},
        {"allowed_ports": [65_536]},
        {"allowed_ports": ["25"]},
        {"allowed_ports": [*range(1, 102)]},
    ]
    for bad in bads:
        assert 400 == (await api.ask("PUT", path, bad)).status
    assert wanted == (await api.ask("GET", path)).json


async def test_settings_with_a_key(api: Api) -> None:
    """The first answer is given again, whatever was set meanwhile; another request is 422."""
    path, key = "/v1/cluster/settings", {"Idempotency-Key": "k"}
    one = {"allowed_private_cidrs": ["10.0.0.0/8"], "allowed_ports": [81]}
    other = {"allowed_private_cidrs": ["10.0.0.0/8"], "allowed_ports": [82]}
    first = await api.ask("PUT", path, one, headers=key)
    assert (200, one) == (first.status, first.json)
    assert "idempotent-replayed" not in first.headers
    assert other == (await api.ask("PUT", path, other)).json
    again = await api.ask("PUT", path, one, headers=key)
    assert (200, one, "true") == (again.status, again.json, again.headers["idempotent-replayed"])
    assert other == (await api.ask("GET", path)).json
    reused = await api.ask("PUT", path, other, headers=key)
    assert (422, "idempotency_key_reused") == (reused.status, reused.code)
    # PUT replaces: what is left out takes its default.
    none: Any = {"allowed_private_cidrs": [], "allowed_ports": []}
    assert none == (await api.ask("PUT", path, {})).json


async def test_health(api: Api) -> None:
    """The pages for machines that watch."""
    assert 200 == (await api.ask("GET", "/healthz")).status
    assert 200 == (await api.ask("GET", "/readyz")).status
    assert "version" in (await api.ask("GET", "/v1/version")).json
    metrics = await api.ask("GET", "/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    assert b"timemachine_http_requests_total" in metrics.body
    api.engine.space_low = True
    low = await api.ask("GET", "/readyz")
    assert (503, "not_ready") == (low.status, low.code)
    full = await api.ask("POST", JOBS, {"trigger_time": FAR_MS, "route": "hello"})
    assert (507, "disk_full") == (full.status, full.code)
    assert int(full.headers["retry-after"]) > 0
