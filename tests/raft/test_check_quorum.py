"""A leader that hears of no majority, and voters that stick to theirs (6.2, 4.2.3)."""

from typing import Any

import pytest

from tests.raft.network import Network, group
from tests.raft.peer import Peer
from timemachine.raft import NO_NODE, MessageType, Role
from timemachine.raft.messages import ConfChange, ConfChangeType

ELECTION_TICK = 10


def longest(count: int) -> int:
    """Draws the longest election time-out, so that a lease runs out before somebody campaigns."""
    return count - 1


def checked(*ids: int, **settings: Any) -> Network:
    """Replicas that check their quorum, in the patience that lets a test choose who campaigns."""
    return group(*ids, election_tick=ELECTION_TICK, check_quorum=True, draw=longest, **settings)


def led_by_1() -> Network:
    """Three of them, of which 1 leads."""
    network = checked(1, 2, 3)
    network.campaign(1)
    assert [Role.LEADER, Role.FOLLOWER, Role.FOLLOWER] == network.roles()
    return network


def test_a_leader_with_a_majority_goes_on() -> None:
    """Whoever answers counts, and one of two others is enough."""
    peer = Peer(election_tick=5, check_quorum=True)
    peer.lead()
    for _ in range(5 + 1):
        peer.hear(MessageType.HEARTBEAT_RESPONSE, 2)
        peer.tick()
    assert Role.LEADER is peer.role()


def test_a_leader_without_a_majority_steps_down() -> None:
    """Within two election time-outs: what was heard in the one that runs still counts."""
    peer = Peer(election_tick=5, check_quorum=True, draw=longest)
    peer.lead()
    for member in (2, 3):
        peer.hear(MessageType.HEARTBEAT_RESPONSE, member)
    peer.tick(5)
    assert Role.LEADER is peer.role()
    peer.tick(5)
    assert (Role.FOLLOWER, NO_NODE, 1) == (peer.role(), peer.leader, peer.term)


def test_without_the_check_it_goes_on() -> None:
    """It is a choice."""
    peer = Peer(election_tick=5)
    peer.lead()
    peer.tick(20)
    assert Role.LEADER is peer.role()


def test_voters_stick_to_a_leader_that_they_hear() -> None:
    """A campaign is ignored until the voter's own patience ends (4.2.3)."""
    network = led_by_1()
    network.campaign(3)
    assert Role.CANDIDATE is network[3].role()
    assert 1 == network[2].term
    # Replica 2 hears nothing any more.
    network[2].tick(ELECTION_TICK)
    network.campaign(3)
    assert [Role.FOLLOWER, Role.FOLLOWER, Role.LEADER] == network.roles()


def test_a_leader_is_elected_and_replaced() -> None:
    """Right after a start nobody knows of a leader, so nobody refuses; later, after a time-out."""
    network = led_by_1()
    for each in (1, 2):
        network[each].tick(ELECTION_TICK)
    network.campaign(3)
    assert [Role.FOLLOWER, Role.FOLLOWER, Role.LEADER] == network.roles()


def test_a_candidate_of_a_newer_term_is_freed() -> None:
    """It was cut off, campaigned, and nobody minds it; the leader learns of its term and gives way.

    Otherwise it could never follow again: the leader's messages are of an old term to it.
    """
    network = led_by_1()
    network.isolate(1)
    network.campaign(3)
    network.campaign(3)
    assert (Role.CANDIDATE, Role.FOLLOWER) == (network[3].role(), network[2].role())
    assert network[2].term + 2 == network[3].term
    network.heal()
    network.tick(1)
    assert Role.FOLLOWER is network[1].role()
    assert network[1].term == network[3].term
    # And it can vote for it now.
    network[2].tick(ELECTION_TICK)
    network.campaign(3)
    assert Role.LEADER is network[3].role()


def test_a_voter_that_must_not_campaign_follows() -> None:
    """A replica that is not in its own membership hears of a leader like any other."""
    one = Peer(1, (1, 2), election_tick=ELECTION_TICK, check_quorum=True, draw=longest)
    two = Peer(2, (1,), election_tick=ELECTION_TICK, check_quorum=True)
    network = Network([one, two])
    two.tick(3 * ELECTION_TICK)
    assert Role.FOLLOWER is two.role()
    network.campaign(1)
    assert (Role.LEADER, Role.FOLLOWER, 1) == (one.role(), two.role(), two.leader)


@pytest.mark.parametrize("pre_vote", [False, True])
def test_a_disruptive_follower(pre_vote: bool) -> None:
    """A follower with a slow link has campaigned: with pre-vote the leader is not disturbed (9.6).

    Without it the leader gives way to the newer term, as soon as it hears of it.
    """
    network = led_by_1()
    if pre_vote:
        network = checked(1, 2, 3, pre_vote=True)
        network.campaign(1)
    network.isolate(3)
    network[3].tick(2 * ELECTION_TICK)
    assert (Role.PRE_CANDIDATE if pre_vote else Role.CANDIDATE) is network[3].role()
    before = network[1].term
    network.heal()
    network.tick(1)
    assert (Role.LEADER if pre_vote else Role.FOLLOWER) is network[1].role()
    assert (before if pre_vote else before + 1) == network[1].term


def test_a_member_that_was_just_added_counts_as_heard_of() -> None:
    """A leader does not step down because it has added somebody; later it does."""
    peer = Peer(voters=(1,), election_tick=ELECTION_TICK, check_quorum=True, draw=longest)
    peer.lead()
    peer.tick(ELECTION_TICK - 1)
    peer.node.apply_conf_change(ConfChange(ConfChangeType.ADD_NODE, 2))
    peer.tick()
    assert Role.LEADER is peer.role()
    peer.tick(2 * ELECTION_TICK)
    assert Role.FOLLOWER is peer.role()


def test_pre_candidates_learn_that_their_leader_is_gone() -> None:
    """With pre-vote and this check, two that lost their leader elect another one (9.6)."""
    network = checked(1, 2, 3, pre_vote=True)
    network.campaign(1)
    network.isolate(1)
    network.campaign(3)
    assert Role.PRE_CANDIDATE is network[3].role()
    network[2].tick(ELECTION_TICK)
    network.campaign(3)
    assert Role.LEADER is network[3].role()
