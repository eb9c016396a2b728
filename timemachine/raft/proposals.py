"""New entries: what a leader appends, what a follower passes on, and how much may wait."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from timemachine.errors import ProposalDropped
from timemachine.raft import membership, sending
from timemachine.raft.messages import NO_NODE, Entry, EntryType, Message, MessageType

if TYPE_CHECKING:
    from timemachine.raft.core import Raft

_NORMAL: Final = EntryType.NORMAL
_APPEND_RESPONSE: Final = MessageType.APPEND_RESPONSE
_OPENING: Final = (Entry(),)


def drop(raft: "Raft", message: Message) -> None:
    """PROPOSE, of a candidate: there is no leader who could append."""
    raise ProposalDropped("This replica does not lead its group.")


def forward(raft: "Raft", message: Message) -> None:
    """PROPOSE, of a follower: pass it on to the leader, if there is one and it is wanted."""
    if raft.leader == NO_NODE or not raft.forward_proposals:
        raise ProposalDropped("This replica does not lead its group.")
    # Without a term: whoever leads may take it.
    raft.messages.append(
        msgspec.structs.replace(message, to=raft.leader, from_=message.from_ or raft.id)
    )


def append_proposal(raft: "Raft", message: Message) -> None:
    """PROPOSE, of a leader: append all `entries` and send them, or refuse all of them."""
    entries = message.entries
    assert entries, "a proposal needs an entry"
    pending = 0
    for entry in entries:
        if entry.type is not _NORMAL:
            entries, pending = membership.checked(raft, entries)
            break
    if not raft.alone:
        if raft.own is None:
            raise ProposalDropped("This replica is no longer a member of its group.")
        if raft.transferee != NO_NODE:
            raise ProposalDropped("This replica is handing its leadership over.")
    if not _reserve(raft, entries):
        raise ProposalDropped("Too many bytes of proposals are not applied yet.")
    if pending:
        raft.pending_conf_index = pending
    append_entries(raft, entries)
    if not raft.alone:
        sending.broadcast_append(raft)


def append_entries(raft: "Raft", entries: Sequence[Entry]) -> None:
    """Append the data of `entries` to the leader's log, in its term and at the next indexes."""
    term = raft.term
    index = raft.log.last_index()
    numbered = []
    for entry in entries:
        index += 1
        numbered.append(Entry(term, index, entry.type, entry.data))
    raft.log.append(numbered)
    # The leader's own copy counts once it is durable, like any other.
    raft.messages_after_append.append(Message(_APPEND_RESPONSE, raft.id, raft.id, term, 0, index))


def append_opening_entry(raft: "Raft") -> None:
    """Append the empty entry that a new leader starts its term with."""
    append_entries(raft, _OPENING)


def _reserve(raft: "Raft", entries: Sequence[Entry]) -> bool:
    """Count the data of `entries` as uncommitted; False, and nothing counted, if too much.

    Empty entries are never too much: a new leader, and a group that has to leave its joint
    configuration, must be able to append one.
    """
    size = sum([len(entry.data) for entry in entries])
    total = raft.uncommitted_bytes + size
    if size and raft.uncommitted_bytes and total > raft.uncommitted_size_max:
        return False
    raft.uncommitted_bytes = total
    return True


def entries_are_applied(raft: "Raft", message: Message) -> None:
    """STORAGE_APPLY_RESPONSE, of any role: the state machine has `entries`."""
    entries = message.entries
    raft.applied(entries)
    # Entries of an earlier term were not counted in this one, hence the floor.
    size = sum([len(entry.data) for entry in entries])
    raft.uncommitted_bytes = max(0, raft.uncommitted_bytes - size)
