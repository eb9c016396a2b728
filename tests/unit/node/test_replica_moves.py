"""What a node still does for a replica that has gone elsewhere."""

from types import SimpleNamespace
from typing import Any

from node.secrets import seal_value
from tests.sim.node import KEY
from tests.unit.node.three import ThreeNodes
from timemachine.model import JobState, Route, SealedKey
from timemachine.outbound import Outcome
from timemachine.placement import Move
from timemachine.replica import commands as c
from timemachine.replica import meta as m
from timemachine.replica.records import read_job
from timemachine.signing import format_secret

_SECRET = seal_value(KEY, format_secret(b"s" * 32), nonce=b"n" * 12, db="default", name="r")
_ROUTE = Route(
    uid=0,
    db="default",
    name="r",
    version=0,
    webhook_url="http://recipient.test/",
    created_ms=0,
    updated_ms=0,
    secrets=(SealedKey(sealed=_SECRET),),
    timeout_ms=60_000,
)


def _state(nodes: ThreeNodes, number: int, group: tuple[int, int]) -> JobState:
    row = nodes.stores[number].get(nodes.vnode(number, group).keys.job + b"j")
    assert row is not None
    return JobState(read_job(row).state)


def test_what_was_sent_before_its_vnode_moved_is_settled_and_not_repeated() -> None:
    """The outcome goes to whoever leads by then; until it is there it holds its slot.

    It was forgotten with the replica: the next leader waited for the time-out of the route, took it
    for unknown and sent the job once more; and another request took the slot meanwhile.
    """
    nodes = ThreeNodes()
    sent: list[tuple[int, Any]] = []
    for number, engine in nodes.engines.items():

        def send(request: Any, done: Any, may_leave: Any = None, number: int = number) -> Any:
            sent.append((number, done))
            return SimpleNamespace(abort_if_unsent=lambda: False, abort=lambda: None)

        engine._sender.send = send  # type: ignore[method-assign]
    result = nodes.ask_meta(
        lambda now_ms: m.PutRoute(now_ms=now_ms, route=_ROUTE, expected_version=0)
    )
    route = result.route
    assert route is not None
    group = nodes.put_collection()
    here = nodes.leader(group)
    engine = nodes.engines[here]
    answers: list[Any] = []
    command = c.PutJob(
        now_ms=engine.now_ms(),
        job_id="j",
        uid=b"u" * 16,
        trigger_ms=engine.now_ms() + 50,
        delay_ms=None,
        route="r",
        route_uid=route.uid,
        meta=b"{}",
    )
    engine.runtime.propose(nodes.vnode(here, group), command, answers.append)
    nodes.world.run_until(lambda: bool(sent))
    placement = engine.meta.placement(*group)
    own = next(each for each in placement.replicas if each == nodes.vnode(here, group).id)
    move = Move(*group, placement.version, (), (own,))
    nodes.ask_meta(lambda now_ms: m.Place(now_ms=now_ms, moves=[move]))
    nodes.world.run_until(lambda: not engine.meta.placement(*group).removing)
    nodes.world.run_until(lambda: group not in engine.runtime.vnodes)
    there = nodes.leader(group)
    assert there not in (0, here)
    assert [here] == [number for number, _ in sent]
    assert 1 == engine.delivery.in_flight
    sent[0][1](Outcome(status=200, bytes_sent=True))
    nodes.world.run_until(lambda: _state(nodes, there, group) is JobState.DELIVERED)
    nodes.world.run_for(200_000)
    assert [here] == [number for number, _ in sent]
    assert 0 == engine.delivery.in_flight
