"""Closing a route over three nodes: what is certain, and what is said where it is not."""

from collections.abc import AsyncIterator

import pytest

from node.replicas import job_machine
from tests.unit.node.api.harness import ROUTE, Api
from tests.unit.node.api.three import NUMBERS, Three, three
from timemachine import limits


@pytest.fixture
async def nodes() -> AsyncIterator[Three]:
    """A cluster to ask."""
    async with three() as made:
        yield made


def _sealed(api: Api) -> list[int]:
    """The seals of a node's replicas."""
    vnodes = api.engine.runtime.vnodes
    return [job_machine(vnode).state.sealed for group, vnode in vnodes.items() if group[0]]


async def test_a_pause_is_answered_when_all_vnodes_are_sealed(nodes: Three) -> None:
    """Whichever node is asked; a second pause is answered alike, and a resume waits for nothing."""
    for number in NUMBERS:
        before = max(max(_sealed(api)) for api in nodes.apis.values())
        reply = await nodes.apis[number].ask("POST", f"{ROUTE}/pause")
        assert (200, True) == (reply.status, reply.json["paused"])
        assert "pending_vnodes" not in reply.json
        seals = zip(*[_sealed(api) for api in nodes.apis.values()], strict=True)
        assert all(2 <= sum(seal > before for seal in each) for each in seals)
        assert 200 == (await nodes.apis[number].ask("POST", f"{ROUTE}/pause")).status
        resumed = await nodes.apis[number].ask("POST", f"{ROUTE}/resume")
        assert (200, "active") == (resumed.status, resumed.json["state"])


async def test_what_is_not_sealed_is_named(nodes: Three, monkeypatch: pytest.MonkeyPatch) -> None:
    """202, for each way to close a route; the answer can be put back as it is."""
    monkeypatch.setattr(limits, "SEAL_WAIT_MS", 0)
    api = nodes.apis[2]
    everything = [{"collection": "carts", "index": index} for index in range(6)]
    paused = await api.ask("POST", f"{ROUTE}/pause")
    assert (202, everything, True) == (
        paused.status,
        paused.json["pending_vnodes"],
        paused.json["paused"],
    )
    assert '"2"' == paused.headers["etag"]
    monkeypatch.setattr(limits, "SEAL_WAIT_MS", 5_000)
    assert 200 == (await api.ask("PUT", ROUTE, paused.json)).status
    assert 200 == (await api.ask("POST", f"{ROUTE}/resume")).status
    monkeypatch.setattr(limits, "SEAL_WAIT_MS", 0)
    disabled = await api.ask("PATCH", ROUTE, {"enabled": False})
    assert (202, everything) == (disabled.status, disabled.json["pending_vnodes"])
    shown = await api.ask("GET", ROUTE)
    assert "pending_vnodes" not in shown.json
    assert 200 == (await api.ask("PATCH", ROUTE, {"enabled": True})).status
    deleted = await api.ask("DELETE", ROUTE)
    assert (202, everything) == (deleted.status, deleted.json["pending_vnodes"])
    assert 404 == (await api.ask("GET", ROUTE)).status


async def test_a_route_that_is_created_closed_waits_for_nobody(
    nodes: Three, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No node has known it before."""
    monkeypatch.setattr(limits, "SEAL_WAIT_MS", 0)
    url = {"webhook_url": "http://one.example/x", "enabled": False}
    assert 201 == (await nodes.apis[1].ask("PUT", f"{ROUTE}2", url)).status


async def test_a_lost_node_makes_a_pause_wait_for_its_vnodes(nodes: Three) -> None:
    """Others lead them soon, and these answer."""
    leader = await nodes.led((0, 0))
    lost = nodes.others(leader)[0]
    nodes.cut = {lost}
    api = nodes.apis[leader]
    assert 200 == (await api.ask("POST", f"{ROUTE}/pause")).status
