"""Linearizable reads without a log entry (dissertation 6.4).

A read may be answered from a state machine that has applied everything that was committed when
the read came in. The leader knows that index, the read index, if two things hold: it has
committed an entry of its own term, for before that it may lag behind what its predecessor
committed; and it still leads, which a majority confirms by answering a round of heartbeats. One
round confirms all reads that came before it.
"""

from typing import TYPE_CHECKING

import msgspec

from timemachine import limits
from timemachine.raft import sending
from timemachine.raft.messages import NO_NODE, Message, MessageType, ReadState
from timemachine.raft.quorum import JointVoters

if TYPE_CHECKING:
    from timemachine.raft.core import Raft


class ReadQueue:
    """The reads that wait for a round of heartbeats, numbered through in the order they came.

    The number travels in the heartbeat and comes back in its answer: whoever answers with number
    n confirms the first n reads. Numbers begin anew with each term; an answer of another term
    does not get here.
    """

    __slots__ = ("_acked", "_confirmed", "_waiting")

    def __init__(self) -> None:
        self._acked: dict[int, int] = {}
        self._confirmed = 0
        self._waiting: list[tuple[Message, int]] = []

    def add(self, request: Message, index: int) -> None:
        """Let `request` wait; it came when `index` was committed."""
        self._waiting.append((request, index))

    def count(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def context(self) -> bytes:
        """What the next round of heartbeats carries; nothing when no read waits."""
        if not self._waiting:
            return b""
        return (self._confirmed + len(self._waiting)).to_bytes(8, "little")

    def acknowledge(self, member: int, context: bytes) -> None:
        """`member` answered a heartbeat that carried `context`."""
        number = int.from_bytes(context, "little")
        self._acked[member] = max(self._acked.get(member, 0), number)

    def confirmed(self, voters: JointVoters) -> list[tuple[Message, int]]:
        """Take out the reads that a majority of `voters` has confirmed, in their order."""
        newest = self._confirmed + len(self._waiting)
        number = min(voters.committed(self._acked), newest)
        count = max(0, number - self._confirmed)
        done, self._waiting = self._waiting[:count], self._waiting[count:]
        self._confirmed += count
        return done


# The leader.


def ask(raft: "Raft", message: Message) -> None:
    """READ_INDEX, of a leader: find the read index, now or when it can be known."""
    if len(raft.waiting_reads) + raft.reads.count() >= limits.RAFT_READS_WAITING_MAX:
        raft.say("has too many reads waiting and loses one")
        return
    if not _has_committed_in_term(raft):
        raft.waiting_reads.append(message)
        return
    own = raft.own
    sole_voter = raft.tracker.is_singleton() and own is not None and not own.is_learner
    # A leader that has asked another one to campaign cannot count on its lease any more: the
    # other needs nobody's patience. It does not get it back, the request may be late.
    if sole_voter or (raft.lease_reads and not raft.lease_given_up):
        _answer(raft, message, raft.log.committed)
        return
    raft.reads.add(message, raft.log.committed)
    raft.reads.acknowledge(raft.id, raft.reads.context())
    sending.broadcast_heartbeat(raft)


def release(raft: "Raft") -> None:
    """Deal with the reads that waited for the first commit of the term."""
    waiting, raft.waiting_reads = raft.waiting_reads, []
    for message in waiting:
        ask(raft, message)


def acknowledge(raft: "Raft", message: Message) -> None:
    """A peer answered a heartbeat that asked on behalf of reads."""
    raft.reads.acknowledge(message.from_, message.context)
    confirm(raft)


def confirm(raft: "Raft") -> None:
    """Answer the reads that a majority of the voters has confirmed."""
    for request, index in raft.reads.confirmed(raft.tracker.config.voters):
        _answer(raft, request, index)


def _has_committed_in_term(raft: "Raft") -> bool:
    return raft.log.term_or_zero(raft.log.committed) == raft.term


def _answer(raft: "Raft", request: Message, index: int) -> None:
    """Give the read index to whoever asked."""
    if request.from_ in {NO_NODE, raft.id}:
        raft.read_states.append(ReadState(index, request.entries[0].data))
    else:
        raft.messages.append(
            Message(
                MessageType.READ_INDEX_RESPONSE,
                request.from_,
                raft.id,
                raft.term,
                index=index,
                entries=request.entries,
            )
        )


# A follower.


def forward(raft: "Raft", message: Message) -> None:
    """READ_INDEX, of a follower: ask the leader. Without one the request is lost."""
    if raft.leader == NO_NODE:
        raft.say("knows no leader to ask for a read index")
        return
    raft.messages.append(
        msgspec.structs.replace(message, to=raft.leader, from_=message.from_ or raft.id)
    )


def answered(raft: "Raft", message: Message) -> None:
    """READ_INDEX_RESPONSE, of a follower: the leader has given the read index."""
    raft.read_states.append(ReadState(message.index, message.entries[0].data))
