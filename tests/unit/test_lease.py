"""How long a leader may count on being the only one, and what a voter owes it meanwhile."""

import pytest

from timemachine.group import replica_id
from timemachine.lease import FOREVER_MS, NEVER_MS, Lease, Promise


def test_the_lease_runs_from_the_sending_of_what_a_majority_answered() -> None:
    """Of five, two others make a majority: the older of the newest two counts."""
    lease = Lease(1, (1, 2, 3, 4, 5), 900.0)
    assert lease.until_ms == NEVER_MS
    lease.answered(7, 2, 1_000.0)
    assert lease.until_ms == NEVER_MS
    lease.answered(7, 3, 1_100.0)
    assert lease.until_ms == 1_900.0
    lease.answered(7, 4, 1_200.0)
    assert lease.until_ms == 2_000.0


def test_answers_that_come_late_or_twice_shorten_nothing() -> None:
    """Messages overtake each other."""
    lease = Lease(1, (1, 2, 3), 900.0)
    lease.answered(7, 2, 1_000.0)
    lease.answered(7, 2, 400.0)
    lease.answered(7, 2, 1_000.0)
    assert lease.until_ms == 1_900.0


def test_a_stranger_does_not_count() -> None:
    """Nor does the leader itself: it is counted already."""
    lease = Lease(1, (1, 2, 3), 900.0)
    lease.answered(7, 9, 1_000.0)
    lease.answered(7, 1, 1_000.0)
    assert lease.until_ms == NEVER_MS


def test_a_new_term_begins_without_a_lease() -> None:
    """What was answered to this replica in an older term was promised to that leadership."""
    lease = Lease(1, (1, 2, 3), 900.0)
    lease.answered(7, 2, 1_000.0)
    lease.answered(8, 3, 500.0)
    assert lease.until_ms == 1_400.0


def test_answers_to_the_node_count_with_those_to_the_group() -> None:
    """A sleeping group takes what its node was answered; see `timemachine.liveness`."""
    lease = Lease(1, (1, 2, 3, 4, 5), 900.0)
    lease.answered(7, 2, 1_000.0)
    assert lease.until(7, {3: 1_500.0}) == 1_900.0
    assert lease.until(7, {2: 1_200.0, 3: 1_500.0}) == 2_100.0
    assert lease.until(8, {3: 1_500.0}) == NEVER_MS
    assert lease.until_ms == NEVER_MS


def test_the_only_voter_needs_nobody() -> None:
    """No other replica can be elected."""
    assert Lease(1, (1,), 900.0).until(3, {}) == FOREVER_MS


@pytest.mark.parametrize(("answers", "until_ms"), [([], 3_000.0), ([2_500.0, 2_100.0], 3_500.0)])
def test_a_promise_begins_with_the_process_and_grows_with_each_answer(
    answers: list[float], until_ms: float
) -> None:
    """A restart forgets what was promised before, so it promises the longest to all."""
    promise = Promise(1_000.0, 2_000.0)
    for received_ms in answers:
        promise.answer(received_ms)
    assert promise.until_ms == until_ms


# --- other members -------------------------------------------------------------------------------


def test_in_a_joint_configuration_both_halves_have_to_have_answered() -> None:
    """Neither elects anybody without the other, so the earlier end counts."""
    lease = Lease(1, (1, 2, 3), 900.0)
    lease.answered(7, 2, 1_000.0)
    lease.set_voters((1, 4, 5), (1, 2, 3))
    assert lease.until_ms == NEVER_MS
    lease.answered(7, 4, 700.0)
    assert lease.until_ms == 1_600.0
    lease.answered(7, 4, 1_400.0)
    assert lease.until_ms == 1_900.0
    assert lease.until(7, {3: 1_200.0}) == 2_100.0
    lease.set_voters((1, 4, 5))
    assert lease.until_ms == 2_300.0


def test_a_leader_that_is_to_leave_is_no_part_of_the_half_that_comes() -> None:
    """There two others are a majority of three; at home one is enough."""
    lease = Lease(1, (1, 2, 3), 900.0)
    lease.set_voters((2, 3, 4), (1, 2, 3))
    lease.answered(7, 2, 1_000.0)
    assert lease.until_ms == NEVER_MS
    lease.answered(7, 4, 900.0)
    assert lease.until_ms == 1_800.0


def test_those_who_stay_have_answered() -> None:
    """Who is new has promised nothing yet, and who is gone counts no more."""
    lease = Lease(1, (1, 2, 3), 900.0)
    lease.answered(7, 2, 1_000.0)
    lease.set_voters((1, 2, 3, 4))
    assert lease.until_ms == NEVER_MS
    lease.answered(7, 4, 1_300.0)
    assert lease.until_ms == 1_900.0
    lease.set_voters((1, 3, 4))
    assert lease.until_ms == 2_200.0
    lease.set_voters((1, 2, 3, 4))
    assert lease.until_ms == NEVER_MS


def test_who_learns_promises_nothing() -> None:
    """It is no voter, so its answers before that do not count once it is one."""
    lease = Lease(1, (1, 2), 900.0)
    lease.answered(7, 3, 1_000.0)
    lease.set_voters((1, 3))
    assert lease.until_ms == NEVER_MS
    lease.answered(7, 3, 1_100.0)
    assert lease.until_ms == 2_000.0


def test_a_group_of_one_that_grows_has_no_lease_until_the_other_answers() -> None:
    """And one that shrinks to one has it for ever."""
    lease = Lease(1, (1,), 900.0)
    assert lease.until_ms == FOREVER_MS
    lease.set_voters((1, 2))
    assert lease.until_ms == NEVER_MS
    lease.answered(7, 2, 1_000.0)
    assert lease.until_ms == 1_900.0
    lease.set_voters((1,), (1, 2))
    assert lease.until_ms == 1_900.0
    lease.set_voters((1,))
    assert lease.until_ms == FOREVER_MS


def test_whoever_is_no_voter_has_no_lease() -> None:
    """A newcomer knows of no voters at all."""
    lease = Lease(4, (), 900.0)
    assert lease.until_ms == NEVER_MS
    lease.set_voters((1, 2, 3))
    assert lease.until_ms == NEVER_MS


def test_a_node_answers_for_the_replica_that_it_has() -> None:
    """Of whichever generation, and in a joint configuration for both that it ever had."""
    second = replica_id(2, 5)
    lease = Lease(1, (1, second), 900.0)
    lease.node_answered(7, 2, 1_000.0)
    assert lease.until_ms == 1_900.0
    assert lease.until(7, {2: 1_500.0}) == 2_400.0
    lease = Lease(1, (1, 2, 3), 900.0)
    lease.answered(7, 2, 1_000.0)
    lease.set_voters((1, second, 3), (1, 2, 3))
    assert lease.until_ms == NEVER_MS
