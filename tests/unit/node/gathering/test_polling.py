"""What nodes say of themselves, put together."""

from typing import Any

from node.gathering import Reports, RouteSends
from node.gathering.questions import Polled
from tests.unit.node.gathering.made import FIRST_MS, Spread
from tests.unit.node.three import MEMBERS


def _poll(spread: Spread, number: int, question: Polled) -> tuple[Any, frozenset[int]]:
    answers: list[Any] = []
    engine = spread.nodes.engines[number]
    engine.gathering.poll(question, engine.others(), answers.append)
    spread.world.run_until(lambda: bool(answers))
    found: tuple[Any, frozenset[int]] = answers[0]
    return found


def test_the_leader_of_each_vnode_reports() -> None:
    """Whoever is asked: its term, and how far behind others are."""
    spread = Spread()
    spread.put([(f"job-{number}", FIRST_MS) for number in range(20)])
    spread.world.run_for(1_000)
    for number in MEMBERS:
        reports, answered = _poll(spread, number, Reports())
        assert frozenset(MEMBERS) == answered
        leaders = {group: each.leader for group, each in reports.items()}
        assert {group: MEMBERS[group[1] % 3] for group in spread.groups} == leaders
        for each in reports.values():
            assert [(1, True, 0), (2, True, 0), (3, True, 0)] == [
                (one.replica, one.voter, one.lag) for one in each.replicas
            ]


def test_a_node_that_is_down_is_missing_soon() -> None:
    """Who leads its vnodes by now, reports them."""
    spread = Spread()
    spread.nodes.cut.add(3)
    spread.world.run_for(5_000)
    began_ms = spread.world.now_ms
    reports, answered = _poll(spread, 1, Reports())
    assert spread.world.now_ms - began_ms < 1_000
    assert {1, 2} == answered
    assert {1, 2} == {each.leader for each in reports.values()}
    assert set(spread.groups) == set(reports)
    assert {1, 2} == spread.nodes.engines[1].heard()


def test_sends_of_a_route_are_summed() -> None:
    """Each node knows what it has sent itself."""
    spread = Spread()
    route = spread.put_route()
    now_ms = spread.nodes.engines[1].now_ms()
    spread.put([(f"job-{number}", now_ms + 200) for number in range(30)], route=route)
    spread.world.run_for(5_000)
    for number in MEMBERS:
        sends, _ = _poll(spread, number, RouteSends(route.uid))
        assert (30, 0, 0) == (sends.succeeded, sends.failed, sends.in_flight)
        assert sends.last_success_ms is not None
        assert sends.since_ms < now_ms + 200 <= sends.last_success_ms
    sent = [engine.delivery.sends for engine in spread.nodes.engines.values()]
    assert min(sent) > 0, "one node has sent it all"
