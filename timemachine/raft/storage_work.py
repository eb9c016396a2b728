"""What a Ready lets the core know once it is done, and the same work as messages.

Without async storage writes the host does the work of a Ready and calls `advance()`, which steps
the answers made here. With them, the work itself leaves as messages to two local threads that
carry these answers.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from timemachine.raft.messages import (
    APPEND_THREAD,
    APPLY_THREAD,
    Entry,
    HardState,
    Message,
    MessageType,
    Snapshot,
)

if TYPE_CHECKING:
    from timemachine.raft.core import Raft

_STORAGE_APPEND_RESPONSE: Final = MessageType.STORAGE_APPEND_RESPONSE
_STORAGE_APPLY_RESPONSE: Final = MessageType.STORAGE_APPLY_RESPONSE
_NO_HARD_STATE: Final = HardState()


def stable_answer(raft: "Raft", snapshot: Snapshot | None) -> Message:
    """What to step once the unstable log, and `snapshot`, are durable.

    After the promises that go with them: this replica's own one finds its entries in the
    unstable log, from which this one removes them.

    It names the end of the log, whether or not there are new entries: an earlier answer may have
    been ignored, because the term changed before it came (`replication.log_is_stable`), and then
    this one, of the new term, makes up for it.
    """
    index = log_term = 0
    entries = raft.log.unstable.entries
    if entries:
        index, log_term = entries[-1].index, entries[-1].term
    return Message(
        _STORAGE_APPEND_RESPONSE,
        raft.id,
        APPEND_THREAD,
        raft.term,
        log_term,
        index,
        snapshot=snapshot,
    )


def apply_answer(raft: "Raft", committed_entries: Sequence[Entry]) -> Message:
    """What to step once `committed_entries` are applied. It belongs to no term."""
    return Message(_STORAGE_APPLY_RESPONSE, raft.id, APPLY_THREAD, entries=committed_entries)


def append_work(
    raft: "Raft",
    entries: Sequence[Entry],
    hard_state: HardState | None,
    snapshot: Snapshot | None,
    answers: Sequence[Message],
) -> Message:
    """The order to the log writer: duty 1 of a Ready, and the answers to deliver after it.

    Term, vote and commit are 0 when the hard state did not change.
    """
    state = hard_state or _NO_HARD_STATE
    return Message(
        MessageType.STORAGE_APPEND,
        APPEND_THREAD,
        raft.id,
        state.term,
        entries=entries,
        commit=state.commit,
        vote=state.vote,
        snapshot=snapshot,
        responses=answers,
    )


def apply_work(raft: "Raft", committed_entries: Sequence[Entry]) -> Message:
    """The order to the state machine: duty 3 of a Ready, and the answer to deliver after it."""
    return Message(
        MessageType.STORAGE_APPLY,
        APPLY_THREAD,
        raft.id,
        entries=committed_entries,
        responses=(apply_answer(raft, committed_entries),),
    )
