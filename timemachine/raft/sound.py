"""Whether a message that came from another node is one that a replica there can have sent.

The core asserts what its own kind keeps to, and its host stops when an assertion fails. Whoever
can write frames must not be able to stop a node by one that no replica would write, so the host
drops such before the core sees them. What a replica *might* say is believed: a majority of liars
is beyond Raft.
"""

from typing import Final

from timemachine.raft.messages import Message, MessageType

_NUMBERS_END: Final = 1 << 62
"""No term, index or id gets there; they and their successors fit into every row and frame."""

_FROM_A_LEADER: Final = frozenset(
    {
        MessageType.APPEND,
        MessageType.HEARTBEAT,
        MessageType.SNAPSHOT,
        MessageType.TIMEOUT_NOW,
    }
)
# Proposals, reads and transfers are no nodes' business: the hosts ask the leader's host instead.
_BETWEEN_NODES: Final = _FROM_A_LEADER | frozenset(
    {
        MessageType.APPEND_RESPONSE,
        MessageType.HEARTBEAT_RESPONSE,
        MessageType.VOTE,
        MessageType.VOTE_RESPONSE,
        MessageType.PRE_VOTE,
        MessageType.PRE_VOTE_RESPONSE,
    }
)


def is_sound(message: Message) -> bool:
    """Whether its kind goes between nodes, its numbers are in range, and its entries follow."""
    kind = message.type
    if kind not in _BETWEEN_NODES or (kind in _FROM_A_LEADER and message.term < 1):
        return False
    known_index, known_term = message.known_commit
    numbers = (
        message.term,
        message.log_term,
        message.index,
        message.commit,
        message.reject_hint,
        message.acked,
        known_index,
        known_term,
    )
    if min(numbers) < 0 or max(numbers) >= _NUMBERS_END:
        return False
    snapshot = message.snapshot
    if (snapshot is not None) != (kind is MessageType.SNAPSHOT):
        return False
    if snapshot is not None:
        metadata = snapshot.metadata
        return 0 < metadata.index < _NUMBERS_END and 0 < metadata.term <= message.term
    index, term = message.index, message.log_term
    for entry in message.entries:
        index += 1
        if entry.index != index or not term <= entry.term <= message.term:
            return False
        term = entry.term
    return index < _NUMBERS_END
