"""The handle that a host holds: what etcd tests of it, beyond what one replica alone shows."""

import pytest

from tests.raft.network import group
from tests.raft.peer import Peer, in_state, log_of
from timemachine.errors import ProposalDropped, ReplicaStopped
from timemachine.raft import (
    NO_NODE,
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


# What a host that lets replicas sleep asks and does. `timemachine/liveness.py` tells why.


def test_a_replica_that_slept_waits_for_its_leader_as_if_it_had_heard_it_then() -> None:
    """From now on a full time-out, or none at all; and no more than the host says."""
    for ticks, patience in ((0, 10), (4, 6), (9, 1), (10, 1)):
        peer = in_state(Role.FOLLOWER, election_tick=10)
        peer.tick(7)
        peer.node.elapse(ticks)
        peer.tick(patience - 1)
        assert (Role.FOLLOWER, 2) == (peer.role(), peer.leader)
        peer.tick()
        assert Role.CANDIDATE is peer.role()


def test_a_replica_is_impatient_when_its_next_tick_may_be_a_campaign() -> None:
    """A host that owes somebody patience looks before it ticks; a leader never campaigns."""
    peer = in_state(Role.FOLLOWER, election_tick=10)
    seen = []
    while peer.role() is Role.FOLLOWER:
        seen.append(peer.node.impatient)
        peer.tick()
    assert [False] * 9 + [True] == seen
    leader = Peer(election_tick=10)
    leader.lead_committed()
    for _ in range(30):
        leader.tick()
        assert not leader.node.impatient


@pytest.mark.parametrize("woken", [True, False])
def test_a_leader_that_slept_has_a_full_period_to_hear_a_majority(woken: bool) -> None:
    """What it heard before it slept says nothing about who is there now."""
    peer = Peer(election_tick=10, check_quorum=True)
    peer.lead_committed()
    # The look that forgets who was heard of.
    peer.tick(10)
    peer.tick(9)
    if woken:
        peer.node.elapse(0)
    peer.tick()
    assert (Role.LEADER if woken else Role.FOLLOWER) is peer.role()
    peer.tick(9)
    assert Role.FOLLOWER is peer.role()


def test_a_leader_that_resigns_leads_nobody_in_its_term() -> None:
    """It gives its vote to nobody else in it, and can be elected in the next one."""
    network = group(1, 2, 3)
    network.campaign(1)
    peer = network[1]
    peer.node.resign()
    assert (Role.FOLLOWER, NO_NODE, 1, 1) == (peer.role(), peer.leader, peer.term, peer.vote)
    with pytest.raises(ProposalDropped):
        peer.propose(b"data")
    network.campaign(1)
    assert (Role.LEADER, 2) == (peer.role(), peer.term)
    network.propose(1)
    assert [b"data"] == network[3].data


@pytest.mark.parametrize("role", [Role.FOLLOWER, Role.CANDIDATE, Role.PRE_CANDIDATE])
def test_only_a_leader_resigns(role: Role) -> None:
    """Whom the others follow, or hope for, is not theirs to give up."""
    peer = in_state(role, pre_vote=role is Role.PRE_CANDIDATE)
    before = peer.node.status()
    peer.node.resign()
    assert before == peer.node.status()
    assert not peer.node.has_ready()


def test_a_replica_is_quiet_while_it_only_talks() -> None:
    """Heartbeats and their answers change nothing that is stored, applied or told."""
    peer = in_state(Role.FOLLOWER)
    peer.hold = True
    assert peer.node.quiet
    peer.hear(MessageType.HEARTBEAT, 2)
    assert peer.node.has_ready()
    assert peer.node.quiet
    leader = Peer()
    leader.lead_committed()
    leader.hold = True
    leader.tick()
    assert leader.node.has_ready()
    assert leader.node.quiet


def test_a_replica_with_something_to_do_is_not_quiet() -> None:
    """Until the host has done it."""
    log = log_of(1, 1)
    follower = Peer(log=log)
    follower.hear(MessageType.HEARTBEAT, 2, term=1)
    follower.hold = True

    def settled() -> None:
        assert not follower.node.quiet
        follower.hold = False
        follower.settle()
        assert follower.node.quiet
        follower.hold = True

    follower.hear(MessageType.APPEND, 2, index=2, log_term=1, entries=log_of(1, first=3))
    settled()
    follower.hear(MessageType.HEARTBEAT, 2, commit=2)
    settled()
    follower.hear(MessageType.VOTE, 3, term=2, index=9, log_term=1)
    settled()
    follower.hear(MessageType.HEARTBEAT, 3, term=2)
    settled()
    follower.node.forget_leader()
    settled()
    follower.hear(MessageType.READ_INDEX_RESPONSE, 3, index=2, entries=[Entry(data=b"read")])
    settled()
    metadata = SnapshotMetadata(ConfState((1, 2, 3)), 9, 2)
    follower.hear(MessageType.SNAPSHOT, 3, snapshot=Snapshot(metadata=metadata))
    settled()
    # A vote that is refused brings the term, the next one is given.
    follower.hear(MessageType.VOTE, 2, term=3)
    settled()
    follower.hear(MessageType.VOTE, 3, index=9, log_term=2)
    settled()


def test_entries_that_are_being_written_are_something_to_do() -> None:
    """Their batch is under way: a host that went to sleep now would never hear of it."""
    peer = in_state(Role.FOLLOWER)
    peer.hold = True
    peer.hear(MessageType.APPEND, 2, entries=log_of(1))
    peer.storage.append(peer.node.ready().entries)
    assert not peer.node.quiet
    peer.node.advance()
    assert peer.node.quiet


def test_a_log_is_replicated_when_all_who_were_heard_of_have_it() -> None:
    """And it is applied here."""
    peer = Peer(election_tick=10)
    sent = peer.lead()
    assert not peer.node.replicated
    appends = {message.to: message for message in sent}
    peer.accept_all(peer.accept(appends[2]))
    assert peer.commit == peer.last_index
    assert peer.node.replicated, "of 3 nothing was heard"
    peer.hear(MessageType.HEARTBEAT_RESPONSE, 3)
    assert not peer.node.replicated
    peer.accept_all([*peer.accept(appends[3]), *peer.tick()])
    assert peer.node.replicated
    sent = peer.propose(b"data")
    assert not peer.node.replicated
    peer.accept_all(sent)
    assert peer.node.replicated


def test_a_log_is_not_replicated_before_it_is_applied() -> None:
    """The machine does not show yet what everybody has."""
    peer = Peer()
    sent = peer.lead()
    peer.hold = True
    for message in sent:
        peer.accept(message)
    assert peer.commit == peer.last_index
    assert not peer.node.replicated
    peer.hold = False
    peer.settle()
    assert peer.node.replicated


def test_a_log_is_not_replicated_while_its_leadership_goes_elsewhere() -> None:
    """Somebody is about to campaign."""
    peer = Peer(election_tick=10)
    peer.lead_committed()
    assert peer.node.replicated
    assert not peer.node.hands_over
    peer.node.transfer_leader(2)
    peer.settle()
    assert peer.node.hands_over
    assert not peer.node.replicated
    peer.tick(10)
    assert not peer.node.hands_over
    assert peer.node.replicated
    assert peer.node.lease_given_up, "2 may still campaign, for all that is known"


def test_a_log_is_needed_by_the_slowest_member_that_was_heard_of() -> None:
    """Not by one that is gone; of a replica that does not lead nothing is needed."""
    peer = Peer(election_tick=10, check_quorum=True)
    assert 0 == peer.node.needed_index
    peer.lead_committed()
    peer.propose(b"a")
    peer.propose(b"b")
    peer.hear(MessageType.APPEND_RESPONSE, 2, index=2)
    assert 3 == peer.last_index
    assert 1 == peer.node.needed_index, "3 has the opening entry and was heard of"
    for _ in range(10):
        peer.tick()
        peer.hear(MessageType.HEARTBEAT_RESPONSE, 2)
    assert 2 == peer.node.needed_index, "2 alone was heard of since the last look"
    peer.hear(MessageType.HEARTBEAT, 3, term=9)
    assert 3 == peer.node.needed_index


def test_a_log_is_not_needed_by_who_gets_a_snapshot() -> None:
    """It needs what comes behind that, which is the host's to know."""
    snapshot = Snapshot(metadata=SnapshotMetadata(ConfState((1, 2, 3)), 11, 1))
    peer = Peer(snapshot=snapshot, hard_state=HardState(1, 0, 11))
    peer.lead()
    peer.hear(MessageType.APPEND_RESPONSE, 2, index=12)
    peer.hear(MessageType.HEARTBEAT_RESPONSE, 3)
    assert 0 == peer.node.needed_index
    peer.hear(MessageType.APPEND_RESPONSE, 3, index=11, reject=True, reject_hint=2)
    assert ProgressState.SNAPSHOT is peer.progress(3).state
    assert 12 == peer.node.needed_index


def test_a_snapshot_is_being_installed_until_it_is_reported_as_stored() -> None:
    """One that is not needed never is."""
    peer = in_state(Role.FOLLOWER)
    peer.hold = True
    assert peer.node.installing is None
    metadata = SnapshotMetadata(ConfState((1, 2, 3)), 9, 1)
    peer.hear(MessageType.SNAPSHOT, 2, snapshot=Snapshot(metadata=metadata))
    assert metadata == peer.node.installing
    ready = peer.node.ready()
    assert ready.snapshot is not None
    peer.storage.apply_snapshot(ready.snapshot)
    assert metadata == peer.node.installing
    assert not peer.node.quiet
    peer.node.advance()
    assert peer.node.installing is None
    older = SnapshotMetadata(ConfState((1, 2, 3)), 8, 1)
    peer.hear(MessageType.SNAPSHOT, 2, snapshot=Snapshot(metadata=older))
    assert peer.node.installing is None
