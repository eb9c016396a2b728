"""What S13 says to requests that are under way at the same time."""

from types import SimpleNamespace
from typing import Any

import pytest

from tests.checks.violation import Violation
from tests.sim.cluster.flight import Flight
from tests.sim.cluster.harness import Harness
from tests.sim.cluster.knobs import CROWDED
from timemachine.delivery.credits import blocked_ms


def _sending(node: int, at_ms: float) -> Any:
    request = SimpleNamespace(timeout_ms=1_000)
    return SimpleNamespace(node=node, generation=1, asked_ms=at_ms, ended_ms=None, request=request)


def test_requests_are_counted_until_they_end() -> None:
    """By an answer, a deadline, or the next process of a node."""
    generations = {1: 1, 2: 1}
    flight = Flight(lambda: {1: 1, 2: 2}, lambda: generations)
    first = _sending(1, 0.0)
    flight.leaves(first, 0.0)
    flight.leaves(_sending(1, 100.0), 100.0)
    flight.leaves(_sending(2, 200.0), 200.0)
    with pytest.raises(Violation, match="S13: 4 requests are under way by nodes"):
        flight.leaves(_sending(2, 300.0), 300.0)
    assert (1, 3) == (flight.lent, flight.most - 1)
    first.ended_ms = 400.0
    flight._open.pop()
    flight.leaves(_sending(2, 400.0), 400.0)
    flight.leaves(_sending(1, 1_100.0), 1_100.0)
    del generations[2]
    with pytest.raises(Violation):
        flight.leaves(_sending(1, 1_100.0), 1_100.0)
    generations[2] = 2
    flight.leaves(_sending(1, 1_100.0), 1_100.0)


def test_what_was_owned_before_counts_for_a_while() -> None:
    """A credit may be that old."""
    shares = {1: 2}
    flight = Flight(lambda: shares, lambda: {1: 1})
    flight.look(0.0)
    shares[1] = 1
    flight.leaves(_sending(1, 10.0), 10.0)
    flight.leaves(_sending(1, 10.0), 10.0)
    late_ms = 20.0 + 2 * blocked_ms(1_000)
    flight.leaves(_sending(1, late_ms), late_ms)
    with pytest.raises(Violation):
        flight.leaves(_sending(1, late_ms), late_ms)


def test_who_was_alone_may_have_more_under_way_than_is_left_to_it() -> None:
    """Others come and own a part at once; what is under way since before ends by its deadline."""
    shares = {1: 4}
    flight = Flight(lambda: shares, lambda: {1: 1, 2: 1, 3: 1})
    for _ in range(3):
        flight.leaves(_sending(1, 0.0), 0.0)
    shares = {1: 2, 2: 1, 3: 1}
    flight.leaves(_sending(2, 10.0), 10.0)
    flight.leaves(_sending(3, 10.0), 10.0)
    flight.leaves(_sending(1, 10.0), 10.0)
    with pytest.raises(Violation, match="of 6"):
        flight.leaves(_sending(2, 10.0), 10.0)
    late_ms = 20.0 + 2 * blocked_ms(1_000)
    for node in (1, 1, 2, 3):
        flight.leaves(_sending(node, late_ms), late_ms)
    with pytest.raises(Violation, match="of 4"):
        flight.leaves(_sending(2, late_ms), late_ms)


def test_a_whole_cluster_lends_and_keeps_to_the_limit() -> None:
    """All jobs are one node's, and its recipient is slow."""
    harness = Harness(CROWDED.changed(max_in_flight=9, mood="slow"))
    result = harness.run()
    assert [] == result.judgement.broken
    assert 4 == harness.members.flight.lent
    # After the faults the route is written anew, with 10.
    assert 8 == harness.members.flight.most
