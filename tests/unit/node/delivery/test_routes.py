"""What a route's end or pause means for requests that have not left yet."""

import msgspec

from tests.unit.node.cluster import OK, ROUTE, Cluster
from timemachine.model import JobState
from timemachine.replica.commands import Wait


def _waiting() -> Cluster:
    """Node 1 has a request that waits for its connection."""
    cluster = Cluster()
    cluster.nodes[1].sender.connecting = True
    cluster.elect(1)
    cluster.put("a")
    cluster.run(20)
    assert 1 == cluster.sent(1)
    return cluster


def test_a_request_that_waits_for_its_connection_is_withdrawn_by_a_pause() -> None:
    """It would leave after the pause was answered otherwise; resumed, the job is sent."""
    cluster = _waiting()
    cluster.set_route(msgspec.structs.replace(ROUTE, version=2, paused=True))
    cluster.run(50)
    assert JobState.HELD == cluster.job("a").state
    assert 0 == cluster.nodes[1].delivery.in_flight
    cluster.nodes[1].sender.connecting = False
    cluster.set_route(msgspec.structs.replace(ROUTE, version=3))
    cluster.run(50)
    assert 2 == cluster.sent(1)
    cluster.nodes[1].sender.answer(1, OK)
    cluster.run(20)
    assert JobState.DELIVERED == cluster.job("a").state


def test_a_request_that_waits_for_its_connection_is_withdrawn_by_a_deletion() -> None:
    """The job ends with its route, without an attempt."""
    cluster = _waiting()
    del cluster.meta.routes_by_uid[ROUTE.uid], cluster.meta.routes["d", "r"]
    cluster.nodes[1].delivery.route_changed(ROUTE.uid)
    cluster.run(50)
    job = cluster.job("a")
    assert (JobState.DEAD, "route_deleted", 0) == (job.state, job.reason, job.attempts)
    assert 0 == cluster.nodes[1].delivery.in_flight


def test_a_request_that_has_left_goes_on() -> None:
    """A pause takes nothing back that the recipient may have seen."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.put("a")
    cluster.run(20)
    cluster.set_route(msgspec.structs.replace(ROUTE, version=2, paused=True))
    cluster.run(50)
    assert JobState.FIRING == cluster.job("a").state
    cluster.nodes[1].sender.answer(0, OK)
    cluster.run(20)
    assert JobState.DELIVERED == cluster.job("a").state


def test_a_route_that_opens_while_a_job_is_moved_aside_leaves_none_behind() -> None:
    """Meta may say that it is open before its queue hears of that."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.set_route(msgspec.structs.replace(ROUTE, version=2, paused=True))
    cluster.put("a")
    cluster.run(50)
    assert JobState.HELD == cluster.job("a").state
    cluster.put("b")
    waits = len(cluster.committed)
    opened = msgspec.structs.replace(ROUTE, version=3)
    cluster.meta.routes_by_uid[ROUTE.uid] = cluster.meta.routes["d", "r"] = opened
    cluster.world.run_until(lambda: len(cluster.committed) > waits)
    assert Wait is type(cluster.committed[-1])
    cluster.set_route(opened)
    cluster.run(50)
    assert 2 == cluster.sent(1)
