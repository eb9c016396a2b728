"""What each role does with a message: one table a role, one handler a kind.

The tables hold every kind that can be an input, also where a role has nothing to do with it:
mostly, because it comes late. A kind that is missing is refused by `Raft.step`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from timemachine.raft import election, proposals, reads, replication, snapshots, transfer
from timemachine.raft.messages import Message, MessageType, Role

if TYPE_CHECKING:
    from timemachine.raft.core import Raft

Handler = Callable[["Raft", Message], None]


def _ignore(raft: "Raft", message: Message) -> None:
    """It does not concern this role."""


def _from_my_leader(take: Handler) -> Handler:
    """A follower's way to take what its leader sends: it need not campaign for now."""

    def handler(raft: "Raft", message: Message) -> None:
        raft.election_elapsed = 0
        raft.leader = message.from_
        take(raft, message)

    return handler


def _from_the_winner(take: Handler) -> Handler:
    """A candidate's way to take it: somebody else was elected in this term (dissertation 3.4)."""

    def handler(raft: "Raft", message: Message) -> None:
        raft.become_follower(raft.term, message.from_)
        take(raft, message)

    return handler


_ANY_ROLE: Final[dict[MessageType, Handler]] = {
    **dict.fromkeys(
        (
            MessageType.HUP,
            MessageType.BEAT,
            MessageType.PROPOSE,
            MessageType.APPEND,
            MessageType.APPEND_RESPONSE,
            MessageType.VOTE_RESPONSE,
            MessageType.SNAPSHOT,
            MessageType.HEARTBEAT,
            MessageType.HEARTBEAT_RESPONSE,
            MessageType.UNREACHABLE,
            MessageType.SNAPSHOT_STATUS,
            MessageType.CHECK_QUORUM,
            MessageType.TRANSFER_LEADER,
            MessageType.TIMEOUT_NOW,
            MessageType.READ_INDEX,
            MessageType.READ_INDEX_RESPONSE,
            MessageType.PRE_VOTE_RESPONSE,
            MessageType.FORGET_LEADER,
        ),
        _ignore,
    ),
    MessageType.VOTE: election.vote,
    MessageType.PRE_VOTE: election.vote,
    MessageType.STORAGE_APPEND_RESPONSE: replication.log_is_stable,
    MessageType.STORAGE_APPLY_RESPONSE: proposals.entries_are_applied,
}

_CANDIDATE: Final[dict[MessageType, Handler]] = {
    **_ANY_ROLE,
    MessageType.HUP: election.start,
    MessageType.PROPOSE: proposals.drop,
    MessageType.APPEND: _from_the_winner(replication.take_append),
    MessageType.HEARTBEAT: _from_the_winner(replication.take_heartbeat),
    MessageType.SNAPSHOT: _from_the_winner(snapshots.take),
}

HANDLERS: Final[dict[Role, dict[MessageType, Handler]]] = {
    Role.FOLLOWER: {
        **_ANY_ROLE,
        MessageType.HUP: election.start,
        MessageType.PROPOSE: proposals.forward,
        MessageType.APPEND: _from_my_leader(replication.take_append),
        MessageType.HEARTBEAT: _from_my_leader(replication.take_heartbeat),
        MessageType.SNAPSHOT: _from_my_leader(snapshots.take),
        MessageType.TRANSFER_LEADER: transfer.forward,
        MessageType.TIMEOUT_NOW: election.start_for_leader,
        MessageType.READ_INDEX: reads.forward,
        MessageType.READ_INDEX_RESPONSE: reads.answered,
        MessageType.FORGET_LEADER: election.forget_leader,
    },
    # Only the answers of its own kind of campaign count: of the pre-votes, some come late.
    Role.PRE_CANDIDATE: {
        **_CANDIDATE,
        MessageType.PRE_VOTE_RESPONSE: election.count_vote,
    },
    Role.CANDIDATE: {
        **_CANDIDATE,
        MessageType.VOTE_RESPONSE: election.count_vote,
    },
    Role.LEADER: {
        **_ANY_ROLE,
        MessageType.BEAT: replication.beat,
        MessageType.PROPOSE: proposals.append_proposal,
        MessageType.APPEND_RESPONSE: replication.count_append,
        MessageType.HEARTBEAT_RESPONSE: replication.heartbeat_answered,
        MessageType.UNREACHABLE: replication.unreachable,
        MessageType.SNAPSHOT_STATUS: snapshots.reported,
        MessageType.CHECK_QUORUM: election.check_quorum,
        MessageType.TRANSFER_LEADER: transfer.begin,
        MessageType.READ_INDEX: reads.ask,
    },
}
