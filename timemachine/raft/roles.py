"""What each role does with a message: one table a role, one handler a kind.

A kind that is missing from the table of the current role is refused by `Raft.step`: this core
does not know it there, and skipping a message that a peer relies on would be a silent fault.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from timemachine.errors import ProposalDropped, ReplicaStopped
from timemachine.raft.messages import EntryType, Message, MessageType, Role

if TYPE_CHECKING:
    from timemachine.raft.core import Raft

Handler = Callable[["Raft", Message], None]

_NORMAL: Final = EntryType.NORMAL


# Any role.


def _log_is_stable(raft: "Raft", message: Message) -> None:
    """STORAGE_APPEND_RESPONSE: storage shows the log up to `index`."""
    raft.log.unstable.stable_to(message.index, message.log_term)


def _entries_are_applied(raft: "Raft", message: Message) -> None:
    """STORAGE_APPLY_RESPONSE: the state machine has `entries`."""
    raft.log.applied_to(message.entries[-1].index)
    raft.release(message.entries)


# Follower and candidate.


def _start_election(raft: "Raft", message: Message) -> None:
    """HUP: campaign in the next term (dissertation 3.4)."""
    raft.become_candidate()


def _drop_proposal(raft: "Raft", message: Message) -> None:
    """PROPOSE: only a leader may append."""
    raise ProposalDropped("This replica does not lead its group.")


# Candidate.


def _count_vote(raft: "Raft", message: Message) -> None:
    """VOTE_RESPONSE: the only vote there is was persisted, and it is the majority of one."""
    raft.become_leader()


# Leader.


def _lead_on(raft: "Raft", message: Message) -> None:
    """HUP: a leader has nothing to campaign for."""


def _append_proposal(raft: "Raft", message: Message) -> None:
    """PROPOSE: append all `entries`, or none of them."""
    assert message.entries, "a proposal needs an entry"
    for entry in message.entries:
        if entry.type is not _NORMAL:
            raise ReplicaStopped(f"This core cannot change its configuration ({entry.type.name}).")
    if not raft.reserve(message.entries):
        raise ProposalDropped("Too many bytes of proposals are not applied yet.")
    raft.append(message.entries)


def _count_own_log(raft: "Raft", message: Message) -> None:
    """APPEND_RESPONSE: the leader's own log is durable up to `index`, and that is a majority."""
    raft.log.maybe_commit(message.index, raft.term)


_ANY_ROLE: Final[dict[MessageType, Handler]] = {
    MessageType.STORAGE_APPEND_RESPONSE: _log_is_stable,
    MessageType.STORAGE_APPLY_RESPONSE: _entries_are_applied,
}

HANDLERS: Final[dict[Role, dict[MessageType, Handler]]] = {
    Role.FOLLOWER: {
        **_ANY_ROLE,
        MessageType.HUP: _start_election,
        MessageType.PROPOSE: _drop_proposal,
    },
    Role.CANDIDATE: {
        **_ANY_ROLE,
        MessageType.HUP: _start_election,
        MessageType.PROPOSE: _drop_proposal,
        MessageType.VOTE_RESPONSE: _count_vote,
    },
    Role.LEADER: {
        **_ANY_ROLE,
        MessageType.HUP: _lead_on,
        MessageType.PROPOSE: _append_proposal,
        MessageType.APPEND_RESPONSE: _count_own_log,
    },
}
