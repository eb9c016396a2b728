"""The handle that a host holds: what etcd tests of it, beyond what one replica alone shows."""

import pytest

from tests.raft.network import group
from tests.raft.peer import Peer, log_of
from timemachine.errors import ProposalDropped, ReplicaStopped
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
from timemachine.raft.messages import APPEND_THREAD, APPLY_THREAD
from timemachine.raft.progress import ProgressState

LOCAL = [
    MessageType.HUP,
    MessageType.BEAT,
    MessageType.UNREACHABLE,
    MessageType.SNAPSHOT_STATUS,
    MessageType.CHECK_QUORUM,
    MessageType.STORAGE_APPEND,
    MessageType.STORAGE_APPEND_RESPONSE,
    MessageType.STORAGE_APPLY,
    MessageType.STORAGE_APPLY_RESPONSE,
]


@pytest.mark.parametrize("kind", LOCAL)
def test_nobody_outside_speaks_for_the_host(kind: MessageType) -> None:
    """What a host, its disk or its clock say does not come over a network."""
    peer = Peer()
    with pytest.raises(ReplicaStopped):
        peer.hear(kind, 2)
    assert (Role.FOLLOWER, 0) == (peer.role(), peer.term)


def test_a_restarted_replica_goes_on_where_it_was() -> None:
    """What is committed is given out again, as far as it was not applied; no sync is needed."""
    log = [Entry(1, 1), Entry(1, 2, data=b"foo")]
    peer = Peer(voters=(1,), log=log, hard_state=HardState(1, 0, 1))
    ready = peer.node.ready()
    assert log[:1] == list(ready.committed_entries)
    assert (None, [], False) == (ready.hard_state, list(ready.entries), ready.must_sync)
    peer.node.advance()
    assert not peer.node.has_ready()


def test_a_replica_restarted_from_a_snapshot_applies_what_follows_it() -> None:
    """And nothing of what is in it."""
    snapshot = Snapshot(metadata=SnapshotMetadata(ConfState((1, 2)), 2, 1))
    entries = [Entry(1, 3, data=b"foo")]
    peer = Peer(snapshot=snapshot, log=entries, hard_state=HardState(1, 0, 3), applied=2)
    peer.settle()
    assert entries == peer.applied
    assert not peer.node.has_ready()


def test_status_shows_the_progress_of_all_on_a_leader_only() -> None:
    """A copy, which does not change."""
    peer = Peer()
    assert {} == peer.node.status().progress
    peer.lead_committed()
    status = peer.node.status()
    assert [1, 2, 3] == list(status.progress)
    assert {ProgressState.REPLICATE} == {each.state for each in status.progress.values()}
    assert ConfState((1, 2, 3)) == status.conf_state
    peer.propose(b"data")
    assert 2 == status.progress[2].next


def test_committed_entries_come_in_parcels_after_a_restart() -> None:
    """Every one, once: also when a parcel ends in the middle of what storage gives in one go."""
    log = [Entry(1, index, data=b"a") for index in range(1, 11)]
    peer = Peer(
        voters=(1,),
        log=log,
        hard_state=HardState(1, 1, 10),
        committed_size_per_ready_max=9 * 33 - 1,
    )
    parcels = []
    while peer.node.has_ready():
        ready = peer.node.ready()
        parcels.append([entry.index for entry in ready.committed_entries])
        peer.node.advance()
    assert list(range(1, 11)) == [index for parcel in parcels for index in parcel]
    assert len(parcels) > 1


def test_the_log_does_not_grow_without_bound_in_a_partition() -> None:
    """A leader that cannot commit refuses; and takes proposals again when it can."""
    network = group(1, 2, 3, uncommitted_size_max=160)
    network.campaign(1)
    network.isolate(1)
    taken = 0
    for _ in range(1_024):
        try:
            network.propose(1, b"testdata")
        except ProposalDropped:
            continue
        taken += 1
    assert 160 // len(b"testdata") == taken
    network.heal()
    network.tick(1)
    network.propose(1, b"testdata")
    assert [b"testdata"] * (taken + 1) == network[2].data


def test_reading_does_not_lose_what_a_ready_gave_out() -> None:
    """`has_ready` and `status` change nothing."""
    peer = Peer(voters=(1,))
    peer.hold = True
    peer.campaign()
    before = peer.node.status()
    assert peer.node.has_ready()
    assert peer.node.has_ready()
    assert before == peer.node.status()
    peer.hold = False
    peer.settle()
    assert Role.LEADER is peer.role()


def threaded() -> Peer:
    """A follower whose log writer and state machine are threads of their own."""
    peer = Peer(async_storage_writes=True)
    peer.hold = True
    return peer


def test_threads_answer_in_place_of_advance() -> None:
    """10.2.1: writing and sending go on at once; answers to others go with the write."""
    peer = threaded()
    peer.hear(MessageType.APPEND, 2, term=1, entries=log_of(1, 1), commit=1)
    (work,) = peer.node.ready().messages
    assert (MessageType.STORAGE_APPEND, APPEND_THREAD) == (work.type, work.to)
    assert (1, 0, 1) == (work.term, work.vote, work.commit)
    to_leader, to_oneself = work.responses
    assert Message(MessageType.APPEND_RESPONSE, 2, 1, 1, index=2) == to_leader
    assert (MessageType.STORAGE_APPEND_RESPONSE, 1, 2) == (
        to_oneself.type,
        to_oneself.to,
        to_oneself.index,
    )
    # Nothing is applied before it is on the disk here, though it is committed.
    assert not peer.node.has_ready()
    peer.storage.append(work.entries)
    peer.node.step(to_oneself)
    (apply,) = peer.node.ready().messages
    assert (MessageType.STORAGE_APPLY, APPLY_THREAD) == (apply.type, apply.to)
    assert [1] == [entry.index for entry in apply.entries]
    assert 0 == peer.node.status().applied
    peer.node.step(apply.responses[0])
    assert 1 == peer.node.status().applied


def test_writes_may_be_ordered_behind_each_other() -> None:
    """A second one need not wait for the first; one that is replaced is not counted as written."""
    peer = threaded()
    peer.hear(MessageType.APPEND, 2, term=1, entries=log_of(1, 1))
    (first,) = peer.node.ready().messages
    # A leader of a newer term replaces both.
    peer.hear(MessageType.APPEND, 3, term=2, entries=log_of(2))
    (second,) = peer.node.ready().messages
    assert [(2, 1)] == [(entry.term, entry.index) for entry in second.entries]
    peer.storage.append(first.entries)
    peer.node.step(first.responses[-1])
    assert not peer.node.has_ready()
    peer.storage.append(second.entries)
    peer.node.step(second.responses[-1])
    assert [2] == peer.terms
    peer.hear(MessageType.HEARTBEAT, 3, commit=1)
    kinds = [message.type for message in peer.node.ready().messages]
    assert MessageType.STORAGE_APPLY in kinds
