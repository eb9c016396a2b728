"""timemachine/raft/roles.py: what each role does with a message, and what it refuses."""

import pytest

from tests.unit.raft.host import empty_storage
from timemachine.errors import ProposalDropped, ReplicaStopped
from timemachine.raft.config import Config
from timemachine.raft.core import Raft
from timemachine.raft.messages import Entry, Message, MessageType, Role
from timemachine.raft.roles import HANDLERS, _ignore

ANY_ROLE = {"PRE_VOTE", "PROPOSE", "STORAGE_APPEND_RESPONSE", "STORAGE_APPLY_RESPONSE", "VOTE"}
FROM_A_LEADER = {"APPEND", "HEARTBEAT", "SNAPSHOT"}
KNOWN = {
    Role.FOLLOWER: ANY_ROLE
    | FROM_A_LEADER
    | {
        "FORGET_LEADER",
        "HUP",
        "READ_INDEX",
        "READ_INDEX_RESPONSE",
        "TIMEOUT_NOW",
        "TRANSFER_LEADER",
    },
    Role.PRE_CANDIDATE: ANY_ROLE | FROM_A_LEADER | {"HUP", "PRE_VOTE_RESPONSE"},
    Role.CANDIDATE: ANY_ROLE | FROM_A_LEADER | {"HUP", "VOTE_RESPONSE"},
    Role.LEADER: ANY_ROLE
    | {
        "APPEND_RESPONSE",
        "BEAT",
        "CHECK_QUORUM",
        "HEARTBEAT_RESPONSE",
        "READ_INDEX",
        "SNAPSHOT_STATUS",
        "TRANSFER_LEADER",
        "UNREACHABLE",
    },
}


def raft_as(role: Role) -> Raft:
    """A replica in the given role; candidates and leaders are in term 1."""
    raft = Raft(Config(id=1, uncommitted_size_max=100), empty_storage(1))
    if role is Role.PRE_CANDIDATE:
        raft.become_pre_candidate()
    elif role is not Role.FOLLOWER:
        raft.become_candidate()
    if role is Role.LEADER:
        raft.become_leader()
    return raft


def state(raft: Raft) -> tuple[object, ...]:
    """All that a message could change."""
    log = raft.log
    return (
        raft.role,
        raft.term,
        raft.vote,
        raft.leader,
        raft.uncommitted_bytes,
        list(raft.messages),
        list(raft.messages_after_append),
        list(log.unstable.entries),
        log.committed,
        log.applied,
    )


@pytest.mark.parametrize("role", Role)
def test_each_role_acts_on_exactly_these_kinds(role: Role) -> None:
    """Nothing else than what is listed here is acted on, and the rest is tested to do nothing."""
    assert KNOWN[role] == {
        kind.name for kind, handler in HANDLERS[role].items() if handler is not _ignore
    }


@pytest.mark.parametrize(
    ("role", "kind"),
    [(role, kind) for role in Role for kind in MessageType if kind not in HANDLERS[role]],
)
def test_an_unknown_kind_is_refused_and_changes_nothing(role: Role, kind: MessageType) -> None:
    """Orders to the disk are no inputs, and a kind without a handler is not skipped."""
    assert kind in {MessageType.STORAGE_APPEND, MessageType.STORAGE_APPLY}
    raft = raft_as(role)
    before = state(raft)
    with pytest.raises(ReplicaStopped, match=f"cannot take {kind.name} from 2"):
        raft.step(Message(kind, from_=2, term=raft.term))
    assert before == state(raft)


@pytest.mark.parametrize(
    ("role", "kind"),
    [
        (role, kind)
        for role in Role
        for kind, handler in HANDLERS[role].items()
        if handler is _ignore
    ],
)
def test_a_kind_that_does_not_concern_a_role_changes_nothing(role: Role, kind: MessageType) -> None:
    """Mostly it comes late: the sender means what this replica was before."""
    raft = raft_as(role)
    before = state(raft)
    raft.step(Message(kind, from_=2, term=raft.term, index=1))
    assert before == state(raft)


@pytest.mark.parametrize("role", [Role.FOLLOWER, Role.PRE_CANDIDATE, Role.CANDIDATE])
def test_only_a_leader_takes_proposals(role: Role) -> None:
    """Without leadership a proposal is dropped, and the proposer is told."""
    raft = raft_as(role)
    before = state(raft)
    with pytest.raises(ProposalDropped, match="lead"):
        raft.step(Message(MessageType.PROPOSE, entries=[Entry(data=b"x")]))
    assert before == state(raft)


def test_a_leader_gives_proposals_its_term_and_the_next_indexes() -> None:
    """A proposal's own term and index, if it has any, do not count."""
    raft = raft_as(Role.LEADER)
    proposal = [Entry(9, 9, data=b"a"), Entry(data=b"b")]
    raft.step(Message(MessageType.PROPOSE, entries=proposal))
    assert [Entry(1, 1), Entry(1, 2, data=b"a"), Entry(1, 3, data=b"b")] == raft.log.slice(
        1, 4, 999
    )


def test_a_leader_goes_on_leading_when_told_to_campaign() -> None:
    """HUP changes nothing for a leader."""
    raft = raft_as(Role.LEADER)
    before = state(raft)
    raft.step(Message(MessageType.HUP))
    assert before == state(raft)


def test_an_empty_proposal_is_a_bug() -> None:
    """PROPOSE without entries cannot come from a correct caller."""
    with pytest.raises(AssertionError, match="entry"):
        raft_as(Role.LEADER).step(Message(MessageType.PROPOSE))


def test_a_proposal_over_the_limit_is_dropped_whole() -> None:
    """Beyond the limit nothing is appended and nothing is counted."""
    raft = raft_as(Role.LEADER)
    raft.step(Message(MessageType.PROPOSE, entries=[Entry(data=bytes(99))]))
    before = state(raft)
    with pytest.raises(ProposalDropped, match="bytes"):
        raft.step(Message(MessageType.PROPOSE, entries=[Entry(data=b"a"), Entry(data=b"b")]))
    assert before == state(raft)


def test_an_answer_of_an_earlier_term_is_ignored() -> None:
    """A vote given in a term that is over elects nobody in the next one."""
    raft = raft_as(Role.FOLLOWER)
    raft.step(Message(MessageType.HUP))
    old_vote = raft.messages_after_append[0]
    raft.step(Message(MessageType.HUP))
    before = state(raft)
    raft.step(old_vote)
    assert before == state(raft)
