"""What a replica says, and what it counts, is durable first (dissertation 3.8)."""

import pytest

from tests.raft.peer import Peer, in_state, log_of
from timemachine.errors import StoreDamaged
from timemachine.raft import HardState, Message, MessageType, Role


def test_a_vote_given_between_ready_and_advance_is_not_counted_by_advance() -> None:
    """`advance` speaks for the Ready that is out; a campaign behind it is not written yet."""
    peer = Peer(voters=(1,))
    peer.hold = True
    # A Ready that holds a new term and nothing else.
    peer.hear(MessageType.HEARTBEAT, 9, term=5)
    ready = peer.node.ready()
    assert ready.hard_state == HardState(5)
    peer.node.campaign()
    peer.storage.set_hard_state(ready.hard_state)
    peer.node.advance()
    assert (Role.CANDIDATE, 6) == (peer.role(), peer.term)
    peer.hold = False
    peer.settle()
    assert Role.LEADER is peer.role()


def test_a_ready_does_not_change_after_it_was_taken() -> None:
    """What is sent between `ready` and `advance` is in the next one, and only there."""
    peer = in_state(Role.FOLLOWER, election_tick=10)
    peer.hold = True
    entries = log_of(1)
    peer.hear(MessageType.APPEND, 2, entries=entries, commit=1)
    ready = peer.node.ready()
    before = [list(ready.messages), list(ready.entries), list(ready.committed_entries)]
    peer.hear(MessageType.HEARTBEAT, 2, commit=1)
    peer.hear(MessageType.APPEND, 2, index=1, log_term=1, entries=log_of(1, first=2))
    assert before == [list(ready.messages), list(ready.entries), list(ready.committed_entries)]
    peer.storage.append(ready.entries)
    peer.node.advance()
    later = peer.node.ready()
    assert [MessageType.HEARTBEAT_RESPONSE, MessageType.APPEND_RESPONSE] == [
        message.type for message in later.messages
    ]
    assert [2] == [entry.index for entry in later.entries]


def test_an_answer_leaves_with_the_ready_that_holds_what_it_promises() -> None:
    """So that a host that persists before it sends never promises what it has not."""
    peer = Peer(log=log_of(1))
    peer.hold = True
    peer.hear(MessageType.VOTE, 2, term=2, log_term=1, index=1)
    ready = peer.node.ready()
    assert HardState(2, 2, 0) == ready.hard_state
    assert ready.must_sync
    assert [Message(MessageType.VOTE_RESPONSE, 2, 1, 2)] == list(ready.messages)


def test_a_leader_counts_its_own_log_when_it_is_durable() -> None:
    """Another's answer may come earlier; with it alone nothing is committed."""
    peer = Peer()
    peer.lead_committed()
    peer.hold = True
    peer.node.propose(b"data")
    ready = peer.node.ready()
    assert 2 == len(ready.messages)
    peer.hear(MessageType.APPEND_RESPONSE, 2, index=2)
    assert 1 == peer.commit
    peer.storage.append(ready.entries)
    peer.node.advance()
    assert 2 == peer.commit


def test_two_others_can_commit_what_the_leader_has_not_written() -> None:
    """They are a majority of three; the leader need not be in it (10.2.1)."""
    peer = Peer()
    peer.lead_committed()
    peer.hold = True
    peer.node.propose(b"data")
    peer.node.ready()
    for member in (2, 3):
        peer.hear(MessageType.APPEND_RESPONSE, member, index=2)
    assert 2 == peer.commit


def test_a_replica_that_lost_entries_is_not_fed_again() -> None:
    """It acknowledged them, they may be committed by its copy, and its vote may be lost too."""
    for kind in (MessageType.APPEND, MessageType.HEARTBEAT):
        peer = Peer(log=log_of(1, 1), hard_state=HardState(1))
        with pytest.raises(StoreDamaged, match="acknowledged"):
            peer.hear(kind, 2, index=3, log_term=1, acked=3)
    peer = Peer(log=log_of(1, 1), hard_state=HardState(1))
    with pytest.raises(StoreDamaged, match="committed"):
        peer.hear(MessageType.HEARTBEAT, 2, commit=3)


def test_a_restarted_replica_remembers_its_vote() -> None:
    """And gives no second one in that term."""
    peer = Peer()
    peer.hear(MessageType.VOTE, 2, term=1)
    peer.restart()
    (answer,) = peer.hear(MessageType.VOTE, 3, term=1)
    assert answer.reject
    (answer,) = peer.hear(MessageType.VOTE, 2, term=1)
    assert not answer.reject
