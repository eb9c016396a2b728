"""timemachine/raft/core.py: terms, and what a replica has to have."""

import pytest

from tests.raft.peer import Peer, in_state, log_of
from timemachine.errors import StoreDamaged
from timemachine.raft import HardState, Message, MessageType, Role


def test_a_leader_tells_each_follower_what_it_acknowledged() -> None:
    """In appends and heartbeats: a follower that does not have it any more shall say so."""
    peer = Peer()
    peer.lead_committed()
    peer.hear(MessageType.APPEND_RESPONSE, 3, index=1)
    (to_2, to_3) = peer.propose(b"data")
    assert (1, 1) == (to_2.acked, to_3.acked)
    peer.accept(to_2)
    acked = {beat.to: beat.acked for beat in peer.tick() if beat.type is MessageType.HEARTBEAT}
    assert {2: 2, 3: 1} == acked


def test_a_leader_remembers_over_terms_what_was_acknowledged_and_committed() -> None:
    """Nobody can have taken that back meanwhile; the rest may have been replaced."""
    peer = Peer()
    peer.lead_committed()
    sent = peer.propose(b"a")
    peer.accept_all(sent)
    sent = peer.propose(b"b")
    # Without a majority: 3 does not answer, and the leader's own disk does not count yet.
    peer.hear(MessageType.HEARTBEAT, 3, term=peer.term + 1)
    assert Role.FOLLOWER is peer.role()
    assert [2, 2] == [message.acked for message in peer.lead()[-2:]]


@pytest.mark.parametrize("kind", ["APPEND", "HEARTBEAT", "SNAPSHOT"])
def test_a_replica_that_lost_what_it_acknowledged_refuses_its_leader(kind: str) -> None:
    """Whether it follows already or was a candidate; and what it still has is no help."""
    for role in (Role.FOLLOWER, Role.CANDIDATE):
        peer = in_state(role, log=log_of(1, 1), hard_state=HardState(1))
        with pytest.raises(StoreDamaged, match="acknowledged entries up to 3"):
            peer.hear(MessageType[kind], 2, term=peer.term, index=2, log_term=1, acked=3)


def test_what_is_there_is_all_that_is_asked_for() -> None:
    """A log that has what it acknowledged, or more, goes on."""
    peer = Peer(log=log_of(1, 1), hard_state=HardState(1))
    (answer,) = peer.hear(MessageType.APPEND, 2, index=2, log_term=1, acked=2)
    assert not answer.reject


@pytest.mark.parametrize("pre_vote", [False, True])
def test_a_leader_of_an_older_term_learns_of_the_newer_one(pre_vote: bool) -> None:
    """With check-quorum or pre-vote only: without them, a campaign would depose it."""
    peer = Peer(hard_state=HardState(5), pre_vote=pre_vote)
    answers = peer.hear(MessageType.HEARTBEAT, 2, term=4)
    expected = [Message(MessageType.APPEND_RESPONSE, 2, 1, 5)] if pre_vote else []
    assert expected == answers
