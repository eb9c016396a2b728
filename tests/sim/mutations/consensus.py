"""Mutations of the Raft core, of how its replicas drive it, and of their logs' rows."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from tests.sim.mutations.planting import Mutation, swap, swapped, swapped_item
from timemachine.logrows import LogRows
from timemachine.raft import Entry, HardState, Message, MessageType, RawNode, Ready, reads, sending
from timemachine.raft.core import Raft
from timemachine.raft.log import Log
from timemachine.raft.messages import NO_NODE
from timemachine.raft.roles import HANDLERS
from timemachine.vnode import Vnode


def _early(*kinds: MessageType) -> Callable[[Any], Any]:
    """These leave while the batch that they rest on is being written."""

    def make(original: Any) -> Any:
        def sort_messages(self: Vnode, messages: Sequence[Message], mono_ms: float) -> None:
            self.early += [message for message in messages if message.type in kinds]
            original(self, [each for each in messages if each.type not in kinds], mono_ms)

        return sort_messages

    return make


@contextmanager
def _votes_twice() -> Iterator[None]:
    with ExitStack() as stack:
        for table in HANDLERS.values():
            vote = table[MessageType.VOTE]

            def again(raft: Raft, message: Message, vote: Any = vote) -> None:
                if raft.vote != raft.id:
                    raft.vote = raft.leader = NO_NODE
                vote(raft, message)

            stack.enter_context(swapped_item(table, MessageType.VOTE, again))
        yield


def _vote_not_kept(original: Any) -> Any:
    def put_state(self: LogRows, state: HardState) -> None:
        original(self, HardState(state.term, 0, state.commit))

    return put_state


def _counts_itself(original: Any) -> Any:
    def ready(self: RawNode) -> Ready:
        found: Ready = original(self)
        for message in self._steps_on_advance or ():
            if message.type is MessageType.APPEND_RESPONSE:
                self._raft.step(message)
        return found

    return ready


def _commits_old_terms(original: Any) -> Any:
    def maybe_commit(self: Log, index: int, term: int) -> bool:
        return bool(original(self, index, self.term_or_zero(index)))

    return maybe_commit


def _votes_for_old_logs(_: Any) -> Any:
    def is_up_to_date(self: Log, index: int, term: int) -> bool:
        return True

    return is_up_to_date


def _takes_what_does_not_fit(original: Any) -> Any:
    def maybe_append(
        self: Log, index: int, term: int, entries: Sequence[Entry], commit: int
    ) -> int | None:
        if index <= self.last_index():
            term = self.term_or_zero(index) or term
        found: int | None = original(self, index, term, entries, commit)
        return found

    return maybe_append


def _commits_all(_: Any) -> Any:
    def broadcast_heartbeat(raft: Raft) -> None:
        context = raft.reads.context()
        for peer in raft.peers:
            progress = raft.tracker.progress[peer]
            raft.messages.append(
                Message(
                    MessageType.HEARTBEAT,
                    peer,
                    raft.id,
                    raft.term,
                    commit=min(max(progress.match, progress.next - 1), raft.log.committed),
                    context=context,
                    acked=raft.acked_by(peer, progress.match),
                )
            )

    return broadcast_heartbeat


def _swaps_entries(original: Any) -> Any:
    def apply(self: Vnode, entries: Sequence[Entry]) -> None:
        if len(entries) > 1:
            one, other = entries[0], entries[1]
            swapped_entries = [
                Entry(one.term, one.index, one.type, other.data),
                Entry(other.term, other.index, other.type, one.data),
            ]
            entries = [*swapped_entries, *entries[2:]]
        original(self, entries)

    return apply


def _keeps_old_rows(original: Any) -> Any:
    def write(self: LogRows, entries: Sequence[Entry]) -> None:
        self.last = min(self.last, entries[-1].index)
        original(self, entries)

    return write


@contextmanager
def _asks_nobody() -> Iterator[None]:
    def ask(raft: Raft, message: Message) -> None:
        if reads._has_committed_in_term(raft):
            reads._answer(raft, message, raft.log.committed)
        else:
            raft.waiting_reads.append(message)

    table = HANDLERS_OF_LEADER
    with swapped(reads, "ask", ask), swapped_item(table, MessageType.READ_INDEX, ask):
        yield


def _at_once(_: Any) -> Any:
    def has_committed_in_term(raft: Raft) -> bool:
        return True

    return has_committed_in_term


HANDLERS_OF_LEADER = next(table for role, table in HANDLERS.items() if role.name == "LEADER")

MUTATIONS = {
    "ack-before-sync": Mutation(
        "A follower acknowledges entries while they are being written.",
        ("S5",),
        swap(Vnode, "_sort_messages", _early(MessageType.APPEND_RESPONSE)),
    ),
    "vote-before-sync": Mutation(
        "A vote leaves while it is being written.",
        ("S5",),
        swap(Vnode, "_sort_messages", _early(MessageType.VOTE_RESPONSE)),
    ),
    "campaign-before-sync": Mutation(
        "A candidate asks for votes while its term and its own vote are being written.",
        ("S5",),
        swap(Vnode, "_sort_messages", _early(MessageType.VOTE)),
    ),
    "double-vote": Mutation(
        "A replica gives its vote to whoever asks, though it has voted in this term.",
        ("S1",),
        _votes_twice,
    ),
    "vote-not-kept": Mutation(
        "The hard state is written without the vote.",
        ("S1", "S5"),
        swap(LogRows, "put_state", _vote_not_kept),
    ),
    "vote-for-old-log": Mutation(
        "A replica votes for candidates whose logs lack what its own has.",
        ("S3",),
        swap(Log, "is_up_to_date", _votes_for_old_logs),
    ),
    "counts-unsynced-self": Mutation(
        "A leader counts its own copy of an entry before it is durable.",
        ("S5",),
        swap(RawNode, "ready", _counts_itself),
    ),
    "commits-old-terms": Mutation(
        "A leader commits entries of older terms because a majority has them.",
        ("S7",),
        swap(Log, "maybe_commit", _commits_old_terms),
    ),
    "heartbeat-commits-all": Mutation(
        "Heartbeats call committed what was sent to a follower, not what it has acknowledged.",
        ("S4", "S7", "crash"),
        swap(sending, "broadcast_heartbeat", _commits_all),
    ),
    "append-unmatched": Mutation(
        "A follower takes entries behind one that is not its leader's.",
        ("S2", "S4", "crash"),
        swap(Log, "maybe_append", _takes_what_does_not_fit),
    ),
    "apply-out-of-order": Mutation(
        "Two committed entries of one cycle are applied in each other's place.",
        ("S4",),
        swap(Vnode, "_apply", _swaps_entries),
    ),
    "truncation-lost": Mutation(
        "Rows of replaced log entries stay behind those that replace them.",
        ("S2", "S6", "crash"),
        swap(LogRows, "write", _keeps_old_rows),
    ),
    "read-without-quorum": Mutation(
        "A leader answers reads without asking whether it still leads.",
        ("S11", "C6"),
        _asks_nobody,
    ),
    "read-before-own-commit": Mutation(
        "A new leader answers reads before it has committed an entry of its own term.",
        ("S11", "C6"),
        swap(reads, "_has_committed_in_term", _at_once),
    ),
}
