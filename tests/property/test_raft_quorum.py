"""Majorities against what their definition says, counted out."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from timemachine.raft.quorum import (
    INFINITE,
    JointVoters,
    VoteResult,
    majority_committed,
    majority_vote,
)

IDS = st.integers(1, 9)
VOTERS = st.frozensets(IDS, max_size=7)
ACKED = st.dictionaries(IDS, st.integers(0, 12))
VOTES = st.dictionaries(IDS, st.booleans())


def majorities(voters: frozenset[int]) -> list[tuple[int, ...]]:
    """Every smallest set of voters that is a majority."""
    return list(combinations(sorted(voters), len(voters) // 2 + 1))


@given(VOTERS.filter(bool), ACKED)
def test_committed_is_what_some_majority_has_in_full(
    voters: frozenset[int], acked: dict[int, int]
) -> None:
    """3.6.2: committed is what is durable on every member of some majority."""
    twin = max(min(acked.get(voter, 0) for voter in some) for some in majorities(voters))
    assert twin == majority_committed(voters, acked)


@given(VOTERS.filter(bool), VOTES)
def test_a_vote_is_decided_when_no_further_answer_can_change_it(
    voters: frozenset[int], votes: dict[int, bool]
) -> None:
    """Won if all others may refuse, lost if all others may agree."""
    some = majorities(voters)
    won = any(all(votes.get(voter, False) for voter in each) for each in some)
    winnable = any(all(votes.get(voter, True) for voter in each) for each in some)
    twin = VoteResult.WON if won else VoteResult.PENDING if winnable else VoteResult.LOST
    assert twin is majority_vote(voters, votes)


@given(VOTERS, VOTERS, ACKED, VOTES)
def test_joint_voters_are_two_majorities(
    incoming: frozenset[int],
    outgoing: frozenset[int],
    acked: dict[int, int],
    votes: dict[int, bool],
) -> None:
    """4.3: each half by itself, in either order; an empty half changes nothing."""
    joint = JointVoters(incoming, outgoing)
    turned = JointVoters(outgoing, incoming)
    committed = joint.committed(acked)
    assert turned.committed(acked) == committed
    assert committed == min(majority_committed(half, acked) for half in (incoming, outgoing))
    assert (committed == INFINITE) is not bool(incoming or outgoing)
    result = joint.vote(votes)
    halves = {majority_vote(incoming, votes), majority_vote(outgoing, votes)}
    assert turned.vote(votes) is result
    assert (result is VoteResult.WON) is (halves == {VoteResult.WON})
    assert (result is VoteResult.LOST) is (VoteResult.LOST in halves)
    alone = JointVoters(incoming)
    assert alone.committed(acked) == majority_committed(incoming, acked)
    assert alone.vote(votes) is majority_vote(incoming, votes)
