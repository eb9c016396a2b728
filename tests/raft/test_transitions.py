"""Which role may come after which (dissertation 3.4 and its figure 3.3; 9.6)."""

from collections.abc import Callable
from typing import Final

import pytest

from tests.raft.peer import in_state
from timemachine.raft import NO_NODE, Role
from timemachine.raft.core import Raft

BECOME: Final[dict[Role, Callable[[Raft], None]]] = {
    Role.FOLLOWER: lambda raft: raft.become_follower(raft.term, NO_NODE),
    Role.PRE_CANDIDATE: Raft.become_pre_candidate,
    Role.CANDIDATE: Raft.become_candidate,
    Role.LEADER: Raft.become_leader,
}
ALLOWED: Final = {
    Role.FOLLOWER: {Role.FOLLOWER, Role.PRE_CANDIDATE, Role.CANDIDATE},
    Role.PRE_CANDIDATE: {Role.FOLLOWER, Role.PRE_CANDIDATE, Role.CANDIDATE},
    Role.CANDIDATE: {Role.FOLLOWER, Role.PRE_CANDIDATE, Role.CANDIDATE, Role.LEADER},
    Role.LEADER: {Role.FOLLOWER},
}
"""Stricter than etcd, where a pre-candidate may lead, and a leader begin to lead again."""


def replica(role: Role) -> Raft:
    """The core of replica 1 of three, in `role`."""
    return in_state(role, pre_vote=role is Role.PRE_CANDIDATE).node._raft


@pytest.mark.parametrize("after", list(Role))
@pytest.mark.parametrize("before", list(Role))
def test_which_role_follows_which(before: Role, after: Role) -> None:
    """Only an election makes a leader, and no leader campaigns; what is refused changes nothing."""
    raft = replica(before)
    old = (raft.role, raft.term, raft.vote, raft.leader, raft.log.last_index())
    if after not in ALLOWED[before]:
        with pytest.raises(AssertionError):
            BECOME[after](raft)
        assert old == (raft.role, raft.term, raft.vote, raft.leader, raft.log.last_index())
        return
    BECOME[after](raft)
    _, term, vote, _, _ = old
    expected = {
        Role.FOLLOWER: (Role.FOLLOWER, term, vote, NO_NODE),
        Role.PRE_CANDIDATE: (Role.PRE_CANDIDATE, term, vote, NO_NODE),
        Role.CANDIDATE: (Role.CANDIDATE, term + 1, 1, NO_NODE),
        Role.LEADER: (Role.LEADER, term, 1, 1),
    }
    assert expected[after] == (raft.role, raft.term, raft.vote, raft.leader)


@pytest.mark.parametrize("role", list(Role))
def test_no_role_goes_back_to_an_older_term(role: Role) -> None:
    """Nobody knows any more whom the replica voted for then (3.3)."""
    raft = replica(role)
    raft.become_follower(5, 2)
    assert (Role.FOLLOWER, 5, NO_NODE, 2) == (raft.role, raft.term, raft.vote, raft.leader)
    with pytest.raises(AssertionError):
        raft.become_follower(4, 3)
    assert (5, 2) == (raft.term, raft.leader)


def test_only_the_own_vote_makes_a_leader() -> None:
    """A candidate that has not voted for itself was elected by nobody."""
    raft = replica(Role.CANDIDATE)
    raft.vote = 2
    with pytest.raises(AssertionError):
        raft.become_leader()
    assert (Role.CANDIDATE, NO_NODE) == (raft.role, raft.leader)
