"""timemachine/raft/rawnode.py: starting, electing, proposing, and what is refused."""

import msgspec
import pytest

from tests.unit.raft.host import Host, empty_storage, leading_host
from timemachine.errors import ConfigError, ProposalDropped, ReplicaStopped, StoreDamaged
from timemachine.raft import (
    Config,
    ConfState,
    Entry,
    HardState,
    MemoryStorage,
    Message,
    MessageType,
    PeerUnknown,
    RawNode,
    Role,
    Snapshot,
    SnapshotMetadata,
    Status,
)


def storage_with(
    *, hard_state: HardState, terms: list[int], snapshot_index: int = 0, snapshot_term: int = 0
) -> MemoryStorage:
    """A storage of voter 1 whose entries behind the snapshot have these terms."""
    storage = MemoryStorage()
    metadata = SnapshotMetadata(ConfState(voters=(1,)), snapshot_index, snapshot_term)
    storage.apply_snapshot(Snapshot(metadata=metadata))
    storage.append([Entry(term, snapshot_index + 1 + count) for count, term in enumerate(terms)])
    storage.set_hard_state(hard_state)
    return storage


@pytest.mark.parametrize(
    "members",
    [
        ConfState(voters=(1,), learners_next=(2,)),
        ConfState(voters=(1,), auto_leave=True),
    ],
)
def test_a_membership_that_makes_no_sense_is_refused(members: ConfState) -> None:
    """What can only be the half of a joint configuration is not guessed at."""
    storage = MemoryStorage()
    storage.apply_snapshot(Snapshot(metadata=SnapshotMetadata(conf_state=members)))
    with pytest.raises(StoreDamaged, match="makes no sense"):
        RawNode(Config(id=1), storage)


def test_wrong_settings_are_refused() -> None:
    """The settings are validated at the start."""
    with pytest.raises(ConfigError, match="election_tick"):
        RawNode(Config(id=1, election_tick=0), empty_storage(1))


def test_a_new_replica_is_a_follower_without_a_leader() -> None:
    """It knows no term, no vote and no leader."""
    status = RawNode(Config(id=7), empty_storage(7)).status()
    members = ConfState(voters=(7,))
    assert Status(7, Role.FOLLOWER, 0, 0, 0, 0, 0, 1, 0, conf_state=members) == status


def test_a_group_can_be_born_from_a_snapshot_of_term_one() -> None:
    """A snapshot with an index needs no hard state to start from; the log goes on behind it."""
    storage = storage_with(hard_state=HardState(), terms=[], snapshot_index=10, snapshot_term=1)
    node = RawNode(Config(id=1), storage)
    members = ConfState(voters=(1,))
    assert Status(1, Role.FOLLOWER, 0, 0, 0, 10, 10, 11, 10, conf_state=members) == node.status()
    node.campaign()
    while node.has_ready():
        storage.append(node.ready().entries)
        node.advance()
    status = node.status()
    assert (Role.LEADER, 1, 1, 1) == (status.role, status.leader, status.term, status.vote)
    assert (11, 11, 11, 11) == (
        status.commit,
        status.applied,
        status.first_index,
        status.last_index,
    )
    assert (11, 12) == (status.progress[1].match, status.progress[1].next)


def test_a_log_that_is_all_snapshot_restarts_in_its_term() -> None:
    """Everything may be compacted: the term of the cut is compared with the stored term."""
    storage = storage_with(
        hard_state=HardState(4, 1, 9), terms=[], snapshot_index=9, snapshot_term=3
    )
    status = RawNode(Config(id=1, applied=9), storage).status()
    assert (4, 9, 9) == (status.term, status.commit, status.applied)


@pytest.mark.parametrize(
    ("storage", "applied", "complaint"),
    [
        (storage_with(hard_state=HardState(2, 1, 4), terms=[1, 2, 2]), 0, "4 is committed"),
        (storage_with(hard_state=HardState(2, 1, 2), terms=[1, 2, 3]), 0, "reaches term 3"),
        (storage_with(hard_state=HardState(), terms=[1]), 0, "reaches term 1"),
        (
            storage_with(hard_state=HardState(), terms=[], snapshot_index=5, snapshot_term=2),
            0,
            "reaches term 2",
        ),
        (
            storage_with(
                hard_state=HardState(2, 1, 4), terms=[2], snapshot_index=5, snapshot_term=2
            ),
            0,
            "behind the snapshot 5",
        ),
        (storage_with(hard_state=HardState(2, 1, 2), terms=[1, 2, 2]), 3, "Applied 3"),
        (
            storage_with(
                hard_state=HardState(2, 1, 6), terms=[2], snapshot_index=5, snapshot_term=2
            ),
            4,
            "Applied 4",
        ),
    ],
)
def test_a_storage_that_contradicts_itself_is_refused(
    storage: MemoryStorage, applied: int, complaint: str
) -> None:
    """A lost vote, a lost entry or a wrong applied index is found at the start."""
    with pytest.raises(StoreDamaged, match=complaint):
        RawNode(Config(id=1, applied=applied), storage)


def test_time_without_a_leader_starts_an_election() -> None:
    """After exactly `election_tick` ticks a follower campaigns."""
    node = RawNode(Config(id=1, election_tick=3), empty_storage(1))
    node.tick()
    node.tick()
    assert not node.has_ready()
    node.tick()
    assert (Role.CANDIDATE, 1) == (node.status().role, node.status().term)


def test_an_election_starts_the_clock_anew() -> None:
    """A candidate has a full time-out for its election, however long it followed before."""
    node = RawNode(Config(id=1, election_tick=3), empty_storage(1))
    node.tick()
    node.tick()
    node.campaign()
    for terms in (1, 2):
        assert terms == node.status().term
        node.tick()
        node.tick()
        assert terms == node.status().term
        node.tick()


def test_a_candidate_whose_vote_is_not_durable_in_time_campaigns_again() -> None:
    """An election that takes too long is followed by one in the next term; the old vote is void."""
    host = Host()
    host.node.campaign()
    ready = host.node.ready()
    for _ in range(10):
        host.node.tick()
    host.persist(ready)
    host.node.advance()
    assert (Role.CANDIDATE, 2) == (host.node.status().role, host.node.status().term)
    host.settle()
    assert (Role.LEADER, 2) == (host.node.status().role, host.node.status().term)


def test_time_does_nothing_to_a_leader() -> None:
    """A single voter that leads needs no ticks."""
    node = leading_host().node
    for _ in range(100):
        node.tick()
    assert not node.has_ready()


def test_campaign_leaves_a_leader_alone() -> None:
    """A leader that is told to campaign goes on in its term."""
    node = leading_host().node
    node.campaign()
    assert not node.has_ready()
    assert (Role.LEADER, 1) == (node.status().role, node.status().term)


def test_propose_is_dropped_before_the_election_is_won() -> None:
    """Neither a follower nor a candidate takes proposals."""
    host = Host()
    with pytest.raises(ProposalDropped):
        host.node.propose(b"x")
    host.node.campaign()
    with pytest.raises(ProposalDropped):
        host.node.propose(b"x")


def test_proposals_wait_for_room() -> None:
    """Proposals beyond the limit are dropped until earlier ones are applied."""
    host = Host(uncommitted_size_max=10)
    host.lead()
    host.node.propose(bytes(6))
    with pytest.raises(ProposalDropped):
        host.node.propose(bytes(5))
    host.node.propose(bytes(4))
    host.settle()
    host.node.propose(bytes(10))
    host.settle()
    assert [6, 4, 10] == [len(data) for data in host.data()]


def test_one_large_proposal_is_taken_when_nothing_waits() -> None:
    """A proposal larger than the limit can be made, alone; empty ones never count."""
    host = Host(uncommitted_size_max=10)
    host.lead()
    host.node.propose(bytes(1000))
    host.node.propose(b"")
    with pytest.raises(ProposalDropped):
        host.node.propose(b"x")
    host.settle()
    host.node.propose(b"x")
    host.settle()
    assert [1000, 1] == [len(data) for data in host.data()]


def test_committed_entries_come_in_parcels() -> None:
    """No Ready carries more committed bytes than the limit, unless one entry alone does."""
    host = Host(committed_size_per_ready_max=200)
    host.lead()
    for size in (60, 60, 60, 500, 1):
        host.node.propose(bytes(size))
    parcels = [[len(entry.data) for entry in ready.committed_entries] for ready in host.settle()]
    assert [[], [60, 60], [60], [500], [1]] == parcels


def test_a_proposal_from_outside_is_taken() -> None:
    """A forwarded proposal is a proposal."""
    host = leading_host()
    host.node.step(Message(MessageType.PROPOSE, from_=2, entries=[Entry(data=b"x")]))
    host.settle()
    assert [b"x"] == host.data()


LOCAL = (
    "HUP BEAT UNREACHABLE SNAPSHOT_STATUS CHECK_QUORUM FORGET_LEADER"
    " STORAGE_APPEND STORAGE_APPEND_RESPONSE STORAGE_APPLY STORAGE_APPLY_RESPONSE"
).split()
ANSWERS = (
    "APPEND_RESPONSE VOTE_RESPONSE PRE_VOTE_RESPONSE HEARTBEAT_RESPONSE READ_INDEX_RESPONSE"
).split()


@pytest.mark.parametrize("kind", LOCAL + ANSWERS)
@pytest.mark.parametrize("term", [0, 1, 2])
def test_a_forged_message_is_refused(kind: str, term: int) -> None:
    """What only this replica, or its host, can have to say changes nothing from outside.

    Above all, nobody outside may tell a candidate that its own vote is durable.
    """
    for host in (leading_host(), Host()):
        before = vital_signs(host)
        with pytest.raises(ReplicaStopped, match=kind):
            host.node.step(Message(MessageType[kind], to=1, from_=1, term=term, index=1))
        assert before == vital_signs(host)
        assert not host.node.has_ready()


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("term", [0, 1, 2])
def test_an_answer_of_a_stranger_is_refused(kind: str, term: int) -> None:
    """Nobody outside the group has a vote or a log that counts."""
    for host in (leading_host(), Host()):
        before = vital_signs(host)
        with pytest.raises(PeerUnknown, match=kind):
            host.node.step(Message(MessageType[kind], to=1, from_=2, term=term, index=1))
        assert before == vital_signs(host)
        assert not host.node.has_ready()


def vital_signs(host: Host) -> Status:
    """The status without the progress, which is compared by identity."""
    return msgspec.structs.replace(host.node.status(), progress={})


def test_storage_may_be_compacted_behind_what_is_applied() -> None:
    """Compacting after each apply, to the very end of the log, never disturbs the core."""
    host = leading_host()
    for number in range(5):
        host.node.propose(b"%d" % number)
        for ready in host.settle():
            if ready.committed_entries:
                host.storage.compact(ready.committed_entries[-1].index)
    assert [b"0", b"1", b"2", b"3", b"4"] == host.data()
    assert (7, 6) == (host.storage.first_index(), host.storage.last_index())
