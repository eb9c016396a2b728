"""Answers that are kept for repeats of a request are not kept for ever."""

import pytest

from tests.sim.node import SimNode
from timemachine import limits
from timemachine.replica import commands as c
from timemachine.replica import meta as m

KEPT_MS = 5_000


@pytest.mark.parametrize("crowded", [False, True])
def test_answers_of_meta_and_jobs_expire(crowded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """After their time, or beyond their number, the rows are gone and a repeat is a new request."""
    monkeypatch.setattr(limits, "REQUESTS_KEPT_MS", KEPT_MS * (100 if crowded else 1))
    if crowded:
        monkeypatch.setattr(limits, "REQUESTS_PER_VNODE_MAX", 0)
    node = SimNode(11)
    assert node.start()
    jobs, route = node.put_collection(num_vnodes=1), node.put_route()
    assert jobs is not None
    assert route is not None
    request = c.Request(b"k" * 16, b"f" * 16)
    put = m.PutDatabase(now_ms=node.now_ms(), name="other", request=request)
    assert "created" == getattr(node.ask_meta(put), "kind", None)
    repeated = node.ask_meta(put)
    assert repeated is not None
    assert repeated.replayed
    created = c.PutJob(
        "a",
        b"u" * 16,
        node.now_ms() + 10**9,
        None,
        "hook",
        route.uid,
        b"1",
        create_only=True,
        request=request,
        now_ms=node.now_ms(),
    )
    answers: list[object] = []
    node.engine.propose_job(jobs, "a", created, answers.append)
    node.world.run_until(lambda: bool(answers))
    vnodes = [node.engine._meta_vnode, node.engine._vnodes[jobs.uid][0]]
    node.world.run_for(KEPT_MS + 3_000)
    for vnode in vnodes:
        assert 0 == vnode.machine.state.requests  # type: ignore[attr-defined]
        assert [] == node.disk.store.scan(vnode.keys.request, vnode.keys.request + b"\xff", 10)
        assert [] == node.disk.store.scan(vnode.keys.request_age, vnode.keys.prefix + b"y", 10)
    again = node.ask_meta(put)
    assert again is not None
    assert not again.replayed
