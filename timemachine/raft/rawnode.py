"""`RawNode`, the handle by which a host drives one replica."""

from collections.abc import Sequence
from typing import Final

from timemachine.errors import ReplicaStopped, TimeMachineError
from timemachine.raft import membership, storage_work
from timemachine.raft.config import Config
from timemachine.raft.core import Raft
from timemachine.raft.messages import (
    APPEND_THREAD,
    APPLY_THREAD,
    NO_NODE,
    ConfChange,
    ConfChangeV2,
    ConfState,
    Entry,
    HardState,
    Message,
    MessageType,
    ReadState,
    Role,
    Snapshot,
    SnapshotMetadata,
    SoftState,
    conf_change_entry,
    entry_bytes,
)
from timemachine.raft.progress import ProgressState
from timemachine.raft.ready import Ready
from timemachine.raft.status import Status, status_of
from timemachine.raft.storage import Storage

# Looked up once, not in every cycle of every vnode.
_LEADER: Final = Role.LEADER
_PROPOSE: Final = MessageType.PROPOSE

_STORAGE_ANSWERS: Final = frozenset(
    {MessageType.STORAGE_APPEND_RESPONSE, MessageType.STORAGE_APPLY_RESPONSE}
)
_LOCAL: Final = frozenset(
    {
        MessageType.HUP,
        MessageType.BEAT,
        MessageType.UNREACHABLE,
        MessageType.SNAPSHOT_STATUS,
        MessageType.CHECK_QUORUM,
        MessageType.FORGET_LEADER,
        MessageType.STORAGE_APPEND,
        MessageType.STORAGE_APPLY,
        *_STORAGE_ANSWERS,
    }
)
_ANSWERS: Final = frozenset(
    {
        MessageType.APPEND_RESPONSE,
        MessageType.VOTE_RESPONSE,
        MessageType.PRE_VOTE_RESPONSE,
        MessageType.HEARTBEAT_RESPONSE,
        MessageType.READ_INDEX_RESPONSE,
    }
)


class PeerUnknown(TimeMachineError):
    """The message answers this replica on behalf of somebody who is not in its group."""

    code = "raft_peer_unknown"


class RawNode:
    """One replica, as its host drives it: inputs return nothing, `ready()` is the only exit.

    The caller's duties are listed at `Ready`. Not thread-safe. When a call raises anything but
    ProposalDropped, PeerUnknown or the refusal of a forged message, the replica is beyond use:
    it must be rebuilt from its storage, or, after StoreDamaged, replaced by a new one.
    """

    __slots__ = ("_async", "_hard_state", "_raft", "_soft_state", "_steps_on_advance")

    def __init__(self, config: Config, storage: Storage) -> None:
        """Start, or restart, as a follower with what `storage` holds.

        Raises ConfigError for wrong settings; StoreDamaged if hard state, log, membership and
        applied index contradict each other.
        """
        raft = Raft(config, storage)
        self._raft = raft
        self._async = config.async_storage_writes
        # What the host was last told; a Ready carries them again only when they change.
        self._hard_state = HardState(raft.term, raft.vote, raft.log.committed)
        self._soft_state = SoftState(raft.leader, raft.role)
        # What the outstanding Ready lets the core know once it is done; None without one.
        self._steps_on_advance: Sequence[Message] | None = None

    # --- inputs ----------------------------------------------------------------------------

    def tick(self) -> None:
        """Let one unit of time pass."""
        self._raft.tick()

    def campaign(self) -> None:
        """Start an election now. A leader goes on leading."""
        self._raft.step(Message(MessageType.HUP))

    def propose(self, data: bytes) -> None:
        """Ask for `data` to be appended to the log.

        It may still be lost; it has happened once it shows up in `committed_entries`. Raises
        ProposalDropped if no leader is known, or it cannot be reached through this replica, is
        handing over, or holds too much that is uncommitted.
        """
        raft = self._raft
        raft.step(Message(_PROPOSE, 0, raft.id, entries=(Entry(data=data),)))

    def propose_conf_change(self, change: ConfChange | ConfChangeV2) -> None:
        """Ask for a change of membership; otherwise like `propose`.

        One that does not fit the membership now in force, or comes while another one is on its
        way, becomes an empty entry (`Config.validate_conf_changes`).
        """
        raft = self._raft
        raft.step(Message(_PROPOSE, 0, raft.id, entries=(conf_change_entry(change),)))

    def apply_conf_change(self, change: ConfChange | ConfChangeV2) -> ConfState:
        """Put a committed change of membership into force, as part of applying its entry.

        Returns the membership from now on; the host keeps it for its next snapshot. To void a
        change the host applies one that names no replica (`node_id` 0), so that all of its
        replicas count it as done. Raises ConfChangeRefused if the change does not fit: then the
        replica must stop.
        """
        return membership.apply_change(self._raft, change.as_v2())

    def step(self, message: Message) -> None:
        """Take a message from another replica, or from a local thread with async storage writes.

        Raises ReplicaStopped for what nobody outside can have to say, PeerUnknown for an answer
        from somebody who is not in the group; nothing has changed then, and the message may be
        dropped. Raises ProposalDropped like `propose`. Raises StoreDamaged if it shows that this
        replica has lost entries that it acknowledged: it must stop, and its id never come back.
        """
        kind = message.type
        sender = message.from_
        if kind in _LOCAL:
            local = self._async and kind in _STORAGE_ANSWERS
            if not local or sender not in {APPEND_THREAD, APPLY_THREAD}:
                self._refuse(message)
        elif kind in _ANSWERS:
            if sender == self._raft.id and not self._async:
                self._refuse(message)
            if sender not in self._raft.tracker.progress:
                raise PeerUnknown(f"{kind.name} from {sender}, who is not in the group.")
        self._raft.step(message)

    def _refuse(self, message: Message) -> None:
        raise ReplicaStopped(
            f"Replica {self._raft.id} cannot take {message.type.name} from outside"
            f" (from {message.from_})."
        )

    def transfer_leader(self, to: int) -> None:
        """Ask the leader, also through a follower, to hand over to the voter `to`.

        Meanwhile it takes no proposals. It may not succeed; the next leader shows.
        """
        self._raft.step(Message(MessageType.TRANSFER_LEADER, from_=to))

    def elapse(self, ticks: int) -> None:
        """Go on as if the leader had last been heard of so many ticks ago, `election_tick` at most.

        A leader's next look for a majority is as far off as after that many ticks. For a host that
        does not tick replicas which need no ticks.
        """
        self._raft.election_elapsed = ticks

    def resign(self) -> None:
        """As a leader, step down, as a leader without a majority does; the term goes on.

        For a host whose leader may do less than a new one could, after a transfer that failed.
        """
        raft = self._raft
        if raft.role is _LEADER:
            raft.become_follower(raft.term, NO_NODE)

    def forget_leader(self) -> None:
        """As a follower, believe in no leader, though the term goes on; see `check_quorum`.

        For a host that knows better than the core that the leader is gone: this replica may then
        vote, or follow the leader again if it speaks. Without effect with `lease_reads`.
        """
        self._raft.step(Message(MessageType.FORGET_LEADER))

    def read_index(self, context: bytes) -> None:
        """Ask for the index that a read has to wait for; it comes in `read_states`.

        `context` tells this read from others. The request is lost if there is no leader, or it
        changes, or has too many to deal with: the host asks again after a while.
        """
        self._raft.step(Message(MessageType.READ_INDEX, entries=(Entry(data=context),)))

    def report_unreachable(self, id: int) -> None:
        """What was last sent to replica `id` was probably lost."""
        self._raft.step(Message(MessageType.UNREACHABLE, from_=id))

    def report_snapshot(self, id: int, *, failed: bool) -> None:
        """The snapshot sent to `id` has arrived, or has failed; nothing else is sent until then."""
        self._raft.step(Message(MessageType.SNAPSHOT_STATUS, from_=id, reject=failed))

    # --- the exit --------------------------------------------------------------------------

    def has_ready(self) -> bool:
        """Whether `ready()` would hold anything."""
        raft = self._raft
        log = raft.log
        unstable = log.unstable
        hard_state = self._hard_state
        soft_state = self._soft_state
        return bool(
            raft.messages_after_append
            or raft.messages
            or (unstable.entries and unstable.has_next_entries())
            or (log.applying < log.committed and log.has_next_committed_entries())
            or log.committed != hard_state.commit
            or raft.term != hard_state.term
            or raft.vote != hard_state.vote
            or raft.role is not soft_state.role
            or raft.leader != soft_state.leader
            or raft.read_states
            or (unstable.snapshot is not None and not unstable.snapshot_in_progress)
        )

    def ready(self) -> Ready:
        """All that is to be done now.

        The host must do it, and then call `advance()`; with async storage writes, the answers of
        the two threads take the place of that.
        """
        assert self._steps_on_advance is None, "the last Ready was not advanced"
        raft = self._raft
        log = raft.log
        unstable = log.unstable
        entries: Sequence[Entry] = unstable.next_entries() if unstable.entries else []
        committed_entries: Sequence[Entry] = (
            log.next_committed_entries() if log.applying < log.committed else []
        )
        snapshot = unstable.next_snapshot() if unstable.snapshot is not None else None
        must_sync = bool(entries)
        hard_state = None
        before = self._hard_state
        if raft.term != before.term or raft.vote != before.vote:
            must_sync = True
            hard_state = self._hard_state = HardState(raft.term, raft.vote, log.committed)
        elif log.committed != before.commit:
            hard_state = self._hard_state = HardState(raft.term, raft.vote, log.committed)
        soft_state = None
        told = self._soft_state
        if raft.role is not told.role or raft.leader != told.leader:
            soft_state = self._soft_state = SoftState(raft.leader, raft.role)
        read_states: Sequence[ReadState] = ()
        if raft.read_states:
            read_states, raft.read_states = raft.read_states, []
        messages: Sequence[Message] = ()
        if raft.messages:
            messages, raft.messages = raft.messages, []
        if self._async:
            messages = self._order(messages, entries, hard_state, snapshot, committed_entries)
        else:
            # What `advance()` will let the core know. The order matters: this replica's own
            # answers find their entries in the unstable log, the next step removes them from it,
            # and what is applied is applied last.
            steps: list[Message] = []
            if raft.messages_after_append:
                steps, raft.messages_after_append = raft.messages_after_append, steps
                if raft.owes_others:
                    raft.owes_others = False
                    others = [message for message in steps if message.to != raft.id]
                    messages = [*messages, *others]
                    steps = [message for message in steps if message.to == raft.id]
            if unstable.entries or snapshot is not None:
                steps.append(storage_work.stable_answer(raft, snapshot))
            if committed_entries:
                steps.append(storage_work.apply_answer(raft, committed_entries))
                log.accept_applying(committed_entries[-1].index)
            self._steps_on_advance = steps
        if entries or snapshot is not None:
            unstable.accept_in_progress()
        return Ready(
            soft_state,
            hard_state,
            read_states,
            entries,
            snapshot,
            committed_entries,
            messages,
            must_sync,
        )

    def _order(
        self,
        messages: Sequence[Message],
        entries: Sequence[Entry],
        hard_state: HardState | None,
        snapshot: Snapshot | None,
        committed_entries: Sequence[Entry],
    ) -> list[Message]:
        """The `messages`, and behind them the orders to the two local threads."""
        raft = self._raft
        ordered = list(messages)
        if entries or hard_state is not None or snapshot is not None or raft.messages_after_append:
            answers, raft.messages_after_append = raft.messages_after_append, []
            if raft.log.unstable.entries or snapshot is not None:
                answers.append(storage_work.stable_answer(raft, snapshot))
            ordered.append(storage_work.append_work(raft, entries, hard_state, snapshot, answers))
        if committed_entries:
            ordered.append(storage_work.apply_work(raft, committed_entries))
            size = sum([entry_bytes(entry) for entry in committed_entries])
            raft.log.accept_applying(committed_entries[-1].index, size)
        return ordered

    def advance(self) -> None:
        """The last Ready is persisted and applied. Not with async storage writes."""
        steps = self._steps_on_advance
        assert steps is not None, "there is no Ready to advance"
        self._steps_on_advance = None
        step = self._raft.step
        for message in steps:
            step(message)

    # --- looking ---------------------------------------------------------------------------

    @property
    def must_persist(self) -> bool:
        """Whether the next Ready holds more than what follows from what is stored already."""
        raft = self._raft
        told = self._hard_state
        unstable = raft.log.unstable
        return bool(
            raft.messages_after_append
            or raft.messages
            or (unstable.entries and unstable.has_next_entries())
            or raft.term != told.term
            or raft.vote != told.vote
            or unstable.snapshot is not None
        )

    @property
    def quiet(self) -> bool:
        """Whether the next Ready holds messages at most: nothing to store, to apply or to tell."""
        raft = self._raft
        log = raft.log
        unstable = log.unstable
        told = self._hard_state
        return not (
            unstable.entries
            or unstable.snapshot is not None
            or log.applying < log.committed
            or log.committed != told.commit
            or raft.term != told.term
            or raft.vote != told.vote
            or raft.role is not self._soft_state.role
            or raft.leader != self._soft_state.leader
            or raft.read_states
        )

    @property
    def leads(self) -> bool:
        """Whether this replica is the leader of its term: `status()` without making one."""
        return self._raft.role is _LEADER

    @property
    def impatient(self) -> bool:
        """Whether the next tick may make this replica campaign."""
        raft = self._raft
        return raft.role is not _LEADER and raft.election_elapsed + 1 >= raft.election_timeout

    @property
    def term(self) -> int:
        """The newest term that this replica knows of, durable or not."""
        return self._raft.term

    @property
    def leader(self) -> int:
        """Whom this replica follows, itself while it leads; NO_NODE if nobody is known."""
        return self._raft.leader

    @property
    def last_index(self) -> int:
        """Index of the newest entry, stored or not."""
        return self._raft.log.last_index()

    @property
    def commit(self) -> int:
        """Up to where the log is known to be committed."""
        return self._raft.log.committed

    @property
    def applied(self) -> int:
        """Up to where the log is known to be applied."""
        return self._raft.log.applied

    @property
    def needed_index(self) -> int:
        """Behind this the log of a leader is needed by a member that it has heard of lately.

        Members that get a snapshot do not count: they need what comes behind that. Of a replica
        that does not lead, the end of its log.
        """
        raft = self._raft
        index = raft.log.last_index()
        if raft.role is _LEADER:
            for each in raft.tracker.progress.values():
                if each.recent_active and each.state is not ProgressState.SNAPSHOT:
                    index = min(index, each.match)
        return index

    @property
    def held_index(self) -> int:
        """Up to where each member has stored the log, as its leader knows; 0 where it does not.

        Unlike `needed_index` it waits for those that are silent or get a snapshot.
        """
        raft = self._raft
        if raft.role is not _LEADER:
            return 0
        return min(each.match for each in raft.tracker.progress.values())

    @property
    def replicated(self) -> bool:
        """Whether a leader has committed its whole log, and knows who has all of it as well.

        Who was not heard of since the last check for a majority need not have it; the others must.
        No transfer is under way.
        """
        raft = self._raft
        log = raft.log
        last = log.last_index()
        if log.applied != last or raft.transferee != NO_NODE:
            return False
        return all(
            each.match == last or not each.recent_active for each in raft.tracker.progress.values()
        )

    @property
    def hands_over(self) -> bool:
        """Whether it leads and takes no proposals, because a transfer is under way."""
        return self._raft.transferee != NO_NODE

    def standing(self, member: int) -> tuple[int, bool]:
        """How a leader sees a member: up to where it has the log, and if it was heard lately.

        (0, False) for who is no member, and where this replica does not lead.
        """
        raft = self._raft
        each = raft.tracker.progress.get(member) if raft.role is _LEADER else None
        return (0, False) if each is None else (each.match, each.recent_active)

    @property
    def changes_members(self) -> bool:
        """Whether a change of membership may be in the log and not applied yet."""
        raft = self._raft
        return raft.pending_conf_index > raft.log.applied

    @property
    def lease_given_up(self) -> bool:
        """Whether this leader has asked another replica to campaign, in this term.

        That one needs nobody's patience, so no lease holds any more until the term is over.
        """
        return self._raft.lease_given_up

    @property
    def installing(self) -> SnapshotMetadata | None:
        """The snapshot that was taken and is not reported as stored yet."""
        snapshot = self._raft.log.unstable.snapshot
        return None if snapshot is None else snapshot.metadata

    def status(self) -> Status:
        """A copy of the replica's vital signs."""
        return status_of(self._raft)
