"""timemachine/raft/quorum.py: majorities, alone and two at once."""

import pytest

from timemachine.raft.quorum import (
    INFINITE,
    JointVoters,
    VoteResult,
    majority_committed,
    majority_vote,
)


@pytest.mark.parametrize(
    ("acked", "committed"),
    [
        ({1: 5}, 5),
        ({1: 5, 2: 3}, 3),
        ({1: 5, 2: 3, 3: 4}, 4),
        ({1: 5, 2: 3, 3: 4, 4: 9}, 4),
        ({1: 7, 2: 7, 3: 0, 4: 0, 5: 7}, 7),
    ],
)
def test_committed_is_what_more_than_half_have(acked: dict[int, int], committed: int) -> None:
    """The highest index that most of the voters acknowledged; of two, both."""
    assert committed == majority_committed(acked.keys(), acked)


def test_a_voter_that_said_nothing_has_nothing() -> None:
    """And who is no voter does not count."""
    assert 0 == majority_committed({1, 2, 3}, {1: 8, 9: 8})
    assert 8 == majority_committed({1, 2, 3}, {1: 8, 2: 8, 9: 1})


def test_no_voters_agree_to_everything() -> None:
    """So that the empty half of a joint configuration decides nothing."""
    assert INFINITE == majority_committed(set(), {1: 8})
    assert VoteResult.WON is majority_vote(set(), {1: False})
    assert INFINITE == JointVoters().committed({})
    assert VoteResult.WON is JointVoters().vote({})


@pytest.mark.parametrize(
    ("votes", "result"),
    [
        ({}, VoteResult.PENDING),
        ({1: True}, VoteResult.PENDING),
        ({1: True, 2: True}, VoteResult.WON),
        ({1: True, 3: False}, VoteResult.PENDING),
        ({2: False, 3: False}, VoteResult.LOST),
        ({1: True, 2: False, 3: True}, VoteResult.WON),
        ({1: True, 9: True}, VoteResult.PENDING),
    ],
)
def test_votes_of_three(votes: dict[int, bool], result: VoteResult) -> None:
    """Two decide; strangers do not."""
    assert result is majority_vote({1, 2, 3}, votes)


def test_half_the_votes_against_are_enough_to_lose() -> None:
    """Of four voters three must be for it."""
    assert VoteResult.LOST is majority_vote({1, 2, 3, 4}, {1: False, 2: False})


def test_joint_voters_need_both_majorities() -> None:
    """The lower commit; and the worse vote, where a lost half cannot be made good."""
    voters = JointVoters(frozenset({1, 2, 3}), frozenset({3, 4, 5}))
    assert {1, 2, 3, 4, 5} == voters.ids()
    assert 4 == voters.committed({1: 9, 2: 9, 3: 1, 4: 4, 5: 7})
    assert VoteResult.PENDING is voters.vote({1: True, 2: True})
    assert VoteResult.WON is voters.vote({1: True, 3: True, 5: True})
    assert VoteResult.LOST is voters.vote({1: True, 2: True, 4: False, 5: False})
    assert VoteResult.LOST is voters.vote({4: False, 5: False})
