"""What a replica takes part with when its host says nothing else."""

from timemachine.group import SOLE, GroupConfig


def test_a_lease_is_shorter_than_the_wait() -> None:
    """By more than any clock that works drifts in a second."""
    config = GroupConfig()
    assert config.lease_ms < 0.95 * config.vote_wait_ms


def test_a_sole_voter_is_its_whole_group() -> None:
    """It is a member of what it votes in, and draws the shortest time-outs: nobody competes."""
    assert (SOLE.id,) == SOLE.voters
    assert {0} == {SOLE.draw(10) for _ in range(10)}
