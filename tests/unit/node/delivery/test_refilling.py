"""Jobs that waited come back into memory, as far as there is room."""

import msgspec
import pytest

from tests.unit.node.cluster import OK, ROUTE, Cluster
from tests.unit.replica.machines import UID
from timemachine import limits
from timemachine.replica import commands as c

_ROUTES = 6
_JOBS = 150


def _write(cluster: Cluster, uid: int, *, version: int, paused: bool) -> None:
    route = msgspec.structs.replace(
        ROUTE, uid=uid, name=f"r{uid}", version=version, paused=paused, max_in_flight=8
    )
    cluster.meta.routes["d", route.name] = route
    cluster.meta.routes_by_uid[uid] = route
    for node in cluster.nodes.values():
        node.delivery.route_changed(uid)


def test_many_routes_that_open_at_once_do_not_overfill_the_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As when the way out of a node is there again; all of them go on, and nothing is lost."""
    monkeypatch.setattr(limits, "WINDOW_JOBS_MAX", 200)
    cluster = Cluster()
    cluster.elect(1)
    for uid in range(2, 2 + _ROUTES):
        _write(cluster, uid, version=1, paused=True)
        for number in range(_JOBS):
            command = c.PutJob(
                now_ms=cluster.world.wall_ms(),
                job_id=f"job-{uid}-{number}",
                uid=UID,
                trigger_ms=cluster.world.wall_ms(),
                delay_ms=None,
                route=f"r{uid}",
                route_uid=uid,
                meta=b"null",
            )
            cluster.log.apply(command)
    node = cluster.nodes[1]
    effects = cluster.log.machine.take_effects()
    node.delivery.on_effects(node.vnode, effects, cluster.log.index)
    cluster.run(3_000)
    assert _ROUTES * _JOBS == sum(each.waiting for each in cluster.log.machine.routes.values())
    for uid in range(2, 2 + _ROUTES):
        _write(cluster, uid, version=2, paused=False)
    sender, answered, most = node.sender, 0, 0
    while answered < _ROUTES * _JOBS:
        cluster.run(20)
        most = max(most, node.delivery._window.queued())
        assert answered < len(sender.requests)
        for number in range(answered, len(sender.requests)):
            sender.answer(number, OK)
        answered = len(sender.requests)
    # Of each route that has come too late as much as one look finds.
    assert most <= 200 + _ROUTES * 64
