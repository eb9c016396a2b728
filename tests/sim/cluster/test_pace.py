"""What S14 says to attempts that begin within a period."""

import pytest

from tests.checks.violation import Violation
from tests.sim.cluster.harness import Harness
from tests.sim.cluster.knobs import CROWDED
from tests.sim.cluster.pace import Pace
from timemachine.delivery.credits import blocked_ms


def test_attempts_count_for_a_period() -> None:
    """Less what a clock may be fast; or until the next process of a node runs."""
    generations = {1: 1, 2: 1}
    pace = Pace(lambda: {1: 2, 2: 3}, lambda: generations, 0.01)
    pace.begins(1, 3, 1_000, 0.0)
    pace.begins(2, 2, 1_000, 500.0)
    with pytest.raises(Violation, match=r"S14: 6 attempts began in a period by .*, of 5"):
        pace.begins(2, 1, 1_000, 980.0)
    pace.begins(2, 2, 1_000, 990.0)
    generations[2] = 2
    pace.begins(1, 5, 1_000, 991.0)
    assert 6 == pace.most


def test_what_was_owned_before_counts_for_a_while() -> None:
    """A credit may be that old."""
    shares = {1: 2}
    pace = Pace(lambda: shares, lambda: {1: 1}, 0.0)
    pace.begins(1, 2, 1_000, 0.0)
    shares = {1: 1}
    pace.begins(1, 2, 1_000, 2_000.0)
    with pytest.raises(Violation):
        pace.begins(1, 2, 1_000, 2_001.0 + 2 * blocked_ms(1_000))


def test_a_whole_cluster_lends_its_rate_and_keeps_to_it() -> None:
    """All jobs are one node's, which owns 6: it begins all but what each of the others keeps."""
    harness = Harness(CROWDED.changed(rate_count=18))
    result = harness.run()
    assert [] == result.judgement.broken
    assert 16 <= harness.members.pace.most <= 18
