"""Followers that need what the log no longer holds (dissertation, chapter 5)."""

import pytest

from tests.raft.network import group
from tests.raft.peer import Peer, log_of
from timemachine.raft import (
    ConfState,
    Entry,
    HardState,
    Message,
    MessageType,
    Role,
    Snapshot,
    SnapshotMetadata,
)
from timemachine.raft.progress import ProgressState

# The log of a leader was compacted up to here.
SNAPSHOT = Snapshot(b"image", SnapshotMetadata(ConfState(voters=(1, 2)), 11, 11))


def leader_from_snapshot() -> Peer:
    """Replica 1 of two, which leads with a log that begins behind 11; 2 was heard of."""
    peer = Peer(snapshot=SNAPSHOT, hard_state=HardState(11, 0, 11))
    peer.lead()
    peer.hear(MessageType.HEARTBEAT_RESPONSE, 2)
    return peer


def sent_a_snapshot() -> Peer:
    """The same, when 2 has turned out to need a snapshot."""
    peer = leader_from_snapshot()
    next_ = peer.progress(2).next
    sent = peer.hear(MessageType.APPEND_RESPONSE, 2, index=next_ - 1, reject=True, reject_hint=0)
    assert [MessageType.SNAPSHOT] == [message.type for message in sent]
    return peer


def test_a_snapshot_is_sent_in_place_of_compacted_entries() -> None:
    """The follower is to have what it ends with; its progress says so."""
    progress = sent_a_snapshot().progress(2)
    assert (ProgressState.SNAPSHOT, 11, 12) == (
        progress.state,
        progress.pending_snapshot,
        progress.next,
    )


def test_nothing_else_is_sent_meanwhile() -> None:
    """Entries would not fit before it is there."""
    peer = sent_a_snapshot()
    assert [] == peer.propose(b"data")
    assert [] == peer.hear(MessageType.HEARTBEAT_RESPONSE, 2)
    assert {MessageType.HEARTBEAT} == {message.type for message in peer.tick()}


def test_no_snapshot_for_who_was_not_heard_of() -> None:
    """It would be made, and sent, for nobody."""
    peer = Peer(snapshot=SNAPSHOT, hard_state=HardState(11, 0, 11))
    peer.lead()
    peer.node._raft.tracker.progress[2].next = 5
    peer.node._raft.tracker.progress[2].append_paused = False
    assert [] == peer.propose(b"data")
    assert ProgressState.PROBE is peer.progress(2).state


def test_a_failed_snapshot_is_repeated_after_a_sign_of_life() -> None:
    """The follower is probed where it was, at its next heartbeat."""
    peer = sent_a_snapshot()
    peer.node.report_snapshot(2, failed=True)
    progress = peer.progress(2)
    assert (ProgressState.PROBE, 1, 0, True) == (
        progress.state,
        progress.next,
        progress.pending_snapshot,
        progress.is_paused(),
    )
    assert [] == peer.propose(b"data")
    sent = peer.hear(MessageType.HEARTBEAT_RESPONSE, 2)
    assert [MessageType.SNAPSHOT] == [message.type for message in sent]


def test_a_snapshot_that_arrived_is_followed_by_a_probe() -> None:
    """Behind it, when the follower answers."""
    peer = sent_a_snapshot()
    peer.node.report_snapshot(2, failed=False)
    progress = peer.progress(2)
    assert (ProgressState.PROBE, 12, 0, True) == (
        progress.state,
        progress.next,
        progress.pending_snapshot,
        progress.is_paused(),
    )


def test_an_answer_from_behind_the_snapshot_ends_it() -> None:
    """The follower has what it needs, wherever it had it from; nobody need report."""
    peer = sent_a_snapshot()
    sent = peer.hear(MessageType.APPEND_RESPONSE, 2, index=11)
    progress = peer.progress(2)
    assert (ProgressState.REPLICATE, 0, 13) == (
        progress.state,
        progress.pending_snapshot,
        progress.next,
    )
    assert [(11, [12])] == [
        (message.index, [entry.index for entry in message.entries]) for message in sent
    ]


def restored(members: ConfState, peer: Peer) -> list[Message]:
    """What `peer` answers to a snapshot of `members` that ends at (11, term 11)."""
    snapshot = Snapshot(b"image", SnapshotMetadata(members, 11, 11))
    return peer.hear(MessageType.SNAPSHOT, 2, term=11, snapshot=snapshot)


@pytest.mark.parametrize(
    "members",
    [
        ConfState(voters=(1, 2, 3)),
        ConfState(voters=(1, 2), learners=(3,)),
        ConfState(voters=(2, 3, 4), voters_outgoing=(1, 2, 3)),
        ConfState(voters=(2, 3), learners=(1,)),
        ConfState(voters=(2, 3), voters_outgoing=(1, 2), learners_next=(1,), auto_leave=True),
    ],
)
def test_a_follower_starts_over_from_a_snapshot(members: ConfState) -> None:
    """With its state, its end, and its members."""
    peer = Peer()
    assert [Message(MessageType.APPEND_RESPONSE, 2, 1, 11, index=11)] == restored(members, peer)
    status = peer.node.status()
    assert (11, 11, 12) == (status.commit, status.last_index, status.first_index)
    assert members == status.conf_state
    assert [b"image"] == [snapshot.data for snapshot in peer.snapshots]
    assert 11 == peer.storage.term(11)
    # The same again is nothing new.
    assert [Message(MessageType.APPEND_RESPONSE, 2, 1, 11, index=11)] == restored(members, peer)
    assert 1 == len(peer.snapshots)


def test_a_snapshot_without_oneself_is_ignored() -> None:
    """It is for somebody else: whoever installs it would have no say and know of none."""
    peer = Peer()
    assert [Message(MessageType.APPEND_RESPONSE, 2, 1, 11)] == restored(
        ConfState(voters=(2, 3)), peer
    )
    assert [] == peer.snapshots


def test_a_learner_can_be_restored_as_a_voter() -> None:
    """Its promotion is in the part that it missed."""
    peer = Peer(3, (1, 2), learners=(3,))
    peer.tick(30)
    assert Role.FOLLOWER is peer.role()
    restored(ConfState(voters=(1, 2, 3)), peer)
    assert (1, 2, 3) == peer.node.status().conf_state.voters
    peer.tick(30)
    assert Role.CANDIDATE is peer.role()


def test_an_old_snapshot_is_ignored() -> None:
    """What is committed stays; the leader is told where that ends."""
    peer = Peer(log=log_of(1, 1, 1), hard_state=HardState(1, 0, 1))
    old = Snapshot(metadata=SnapshotMetadata(ConfState(voters=(1, 2, 3)), 1, 1))
    answers = peer.hear(MessageType.SNAPSHOT, 2, snapshot=old)
    assert [Message(MessageType.APPEND_RESPONSE, 2, 1, 1, index=1)] == answers
    assert [1, 1, 1] == peer.terms


def test_a_snapshot_of_entries_that_are_there_only_commits_them() -> None:
    """Nothing is thrown away."""
    peer = Peer(log=log_of(1, 1, 1), hard_state=HardState(1, 0, 1))
    known = Snapshot(metadata=SnapshotMetadata(ConfState(voters=(1, 2, 3)), 2, 1))
    answers = peer.hear(MessageType.SNAPSHOT, 2, snapshot=known)
    assert [Message(MessageType.APPEND_RESPONSE, 2, 1, 1, index=2)] == answers
    assert (2, [1, 1, 1], []) == (peer.commit, peer.terms, peer.snapshots)


def test_a_snapshot_names_the_leader() -> None:
    """It is as good as an append."""
    peer = Peer()
    restored(ConfState(voters=(1, 2, 3)), peer)
    assert 2 == peer.leader


def test_a_restarted_replica_begins_at_its_snapshot() -> None:
    """And not before."""
    peer = Peer(snapshot=SNAPSHOT, hard_state=HardState(11, 0, 11), applied=11)
    peer.settle()
    status = peer.node.status()
    assert (11, 11, 12) == (status.commit, status.applied, status.first_index)
    assert [] == peer.applied


def test_a_slow_replica_catches_up_by_a_snapshot() -> None:
    """And from then on by entries."""
    network = group(1, 2, 3)
    network.campaign(1)
    network.isolate(3)
    for number in range(100):
        network.propose(1, b"%d" % number)
    leader, slow = network[1], network[3]
    leader.compact(leader.commit, b"image")
    network.heal()
    network.tick(1)
    assert [b"image"] == [snapshot.data for snapshot in slow.snapshots]
    assert ProgressState.REPLICATE is leader.progress(3).state
    network.propose(1, b"after")
    assert leader.commit == slow.commit == 102
    assert [Entry(1, 102, data=b"after")] == slow.applied[-1:]


def test_a_learner_gets_a_snapshot() -> None:
    """It is followers' business, whether they vote or not."""
    network = group(1, learners=(2,))
    network.isolate(2)
    network.campaign(1)
    network.propose(1)
    network[1].compact(network[1].commit, b"image")
    network.heal()
    network.tick(1)
    assert network[1].commit == network[2].commit == 2
    assert [b"image"] == [snapshot.data for snapshot in network[2].snapshots]
