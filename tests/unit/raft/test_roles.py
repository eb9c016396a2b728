"""timemachine/raft/roles.py: what each role does with a message, and what it refuses."""

import pytest

from tests.unit.raft.host import empty_storage
from timemachine.errors import ProposalDropped, ReplicaStopped
from timemachine.raft.config import Config
from timemachine.raft.core import Raft
from timemachine.raft.messages import Entry, EntryType, Message, MessageType, Role
from timemachine.raft.roles import HANDLERS

KNOWN = {
    Role.FOLLOWER: {"HUP", "PROPOSE", "STORAGE_APPEND_RESPONSE", "STORAGE_APPLY_RESPONSE"},
    Role.CANDIDATE: {
        "HUP",
        "PROPOSE",
        "STORAGE_APPEND_RESPONSE",
        "STORAGE_APPLY_RESPONSE",
        "VOTE_RESPONSE",
    },
    Role.LEADER: {
        "APPEND_RESPONSE",
        "HUP",
        "PROPOSE",
        "STORAGE_APPEND_RESPONSE",
        "STORAGE_APPLY_RESPONSE",
    },
}


def raft_as(role: Role) -> Raft:
    """A replica in the given role; not a follower in term 1."""
    raft = Raft(Config(id=1, uncommitted_size_max=100), empty_storage(1))
    if role is not Role.FOLLOWER:
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
        list(raft.messages_after_append),
        list(log.unstable.entries),
        log.committed,
        log.applied,
    )


@pytest.mark.parametrize("role", Role)
def test_each_role_knows_exactly_these_kinds(role: Role) -> None:
    """Nothing else than what is listed here is handled, and the rest is tested to be refused."""
    assert KNOWN[role] == {kind.name for kind in HANDLERS[role]}


@pytest.mark.parametrize(
    ("role", "kind"),
    [(role, kind) for role in Role for kind in MessageType if kind not in HANDLERS[role]],
)
def test_an_unknown_kind_is_refused_and_changes_nothing(role: Role, kind: MessageType) -> None:
    """A kind without a handler stops the replica loudly instead of being skipped."""
    raft = raft_as(role)
    before = state(raft)
    with pytest.raises(ReplicaStopped, match=f"cannot take {kind.name} from 2"):
        raft.step(Message(kind, from_=2, term=raft.term))
    assert before == state(raft)


@pytest.mark.parametrize("role", [Role.FOLLOWER, Role.CANDIDATE])
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


@pytest.mark.parametrize("kind", [EntryType.CONF_CHANGE, EntryType.CONF_CHANGE_V2])
def test_a_configuration_change_is_refused_whole(kind: EntryType) -> None:
    """A proposal with a configuration change is not appended, not even the entries before it."""
    raft = raft_as(Role.LEADER)
    before = state(raft)
    with pytest.raises(ReplicaStopped, match=kind.name):
        raft.step(Message(MessageType.PROPOSE, entries=[Entry(data=b"a"), Entry(type=kind)]))
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
    raft = raft_as(Role.CANDIDATE)
    old_vote = raft.messages_after_append[0]
    raft.become_candidate()
    before = state(raft)
    raft.step(old_vote)
    assert before == state(raft)


def test_a_message_of_a_later_term_is_refused() -> None:
    """With one voter nobody else can have started a term."""
    raft = raft_as(Role.LEADER)
    with pytest.raises(ReplicaStopped, match="in term 2"):
        raft.step(Message(MessageType.APPEND_RESPONSE, from_=1, term=2, index=1))
