"""timemachine/raft/election.py: what a replica that was removed owes to those who stay."""

from tests.raft.peer import Peer, log_of
from timemachine.raft import (
    ConfChangeV2,
    ConfState,
    Entry,
    HardState,
    Message,
    MessageType,
    Role,
    Snapshot,
    SnapshotMetadata,
    conf_change_entry,
)

JOINT = ConfState(voters=(2,), voters_outgoing=(1,))
LEAVE = conf_change_entry(ConfChangeV2())


def joint_peer(id: int, log: list[Entry], commit: int) -> Peer:
    """A replica of a group in which voter 2 is taking the place of voter 1."""
    snapshot = Snapshot(metadata=SnapshotMetadata(JOINT, 4, 1))
    return Peer(id, log=log, hard_state=HardState(1, 0, commit), snapshot=snapshot)


def test_a_removed_replica_tells_what_is_committed_when_it_refuses() -> None:
    """Only 1 knows that it is out; 2 needs its vote until it hears of that."""
    leave = Entry(1, 5, LEAVE.type, LEAVE.data)
    removed = joint_peer(1, [leave, *log_of(1, first=6)], commit=5)
    staying = joint_peer(2, [leave], commit=4)
    removed.settle()
    assert (2,) == removed.conf_states[-1].voters
    (request,) = staying.campaign()
    (answer,) = removed.step(request)
    assert (True, (5, 1)) == (answer.reject, answer.known_commit)
    staying.step(answer)
    assert ConfState(voters=(2,)) == staying.conf_states[-1]
    staying.campaign()
    assert Role.LEADER is staying.role()


def test_a_voter_that_refuses_tells_nothing() -> None:
    """Its vote can be had by a log that is new enough."""
    peer = Peer(log=log_of(1, 1), hard_state=HardState(1, 0, 2))
    (answer,) = peer.hear(MessageType.VOTE, 2, term=2, log_term=1, index=1)
    assert (True, (0, 0)) == (answer.reject, answer.known_commit)


def test_what_is_said_to_be_committed_counts_only_where_the_logs_agree() -> None:
    """Another entry at that index is not the one that is committed."""
    peer = Peer(log=log_of(1, 1), hard_state=HardState(1))
    peer.campaign()
    for known in ((2, 3), (9, 1), (0, 0)):
        peer.step(
            Message(MessageType.VOTE_RESPONSE, 1, 2, peer.term, reject=True, known_commit=known)
        )
        assert 0 == peer.commit


def test_a_stranger_is_voted_for_like_anybody() -> None:
    """Who is a member changes, and the candidate may know better. A lone voter answers, too."""
    peer = Peer(1, (1,))
    (answer,) = peer.hear(MessageType.VOTE, 2, term=3)
    assert Message(MessageType.VOTE_RESPONSE, 2, 1, 3) == answer
    assert 2 == peer.vote
