"""The core of one replica: `Raft` decides, `RawNode` is the handle that a host holds."""

from collections.abc import Sequence
from typing import Final

import msgspec

from timemachine.errors import ConfigError, ReplicaStopped, StoreDamaged
from timemachine.raft.config import Config
from timemachine.raft.log import Log
from timemachine.raft.messages import (
    APPEND_THREAD,
    APPLY_THREAD,
    NO_NODE,
    ConfState,
    Entry,
    HardState,
    Message,
    MessageType,
    Role,
    SoftState,
)
from timemachine.raft.ready import Ready
from timemachine.raft.roles import HANDLERS
from timemachine.raft.storage import Storage

# The members of an enum that every cycle of every vnode needs: looking one up on its class costs
# as much as making a message.
_FOLLOWER: Final = Role.FOLLOWER
_CANDIDATE: Final = Role.CANDIDATE
_LEADER: Final = Role.LEADER
_PROPOSE: Final = MessageType.PROPOSE
_APPEND_RESPONSE: Final = MessageType.APPEND_RESPONSE
_STORAGE_APPEND_RESPONSE: Final = MessageType.STORAGE_APPEND_RESPONSE
_STORAGE_APPLY_RESPONSE: Final = MessageType.STORAGE_APPLY_RESPONSE


class Status(msgspec.Struct, frozen=True, gc=False):
    """What a human wants to see of a replica."""

    id: int
    role: Role
    leader: int
    term: int
    vote: int
    commit: int
    applied: int
    first_index: int
    last_index: int


class Raft:
    """The algorithm of one replica: a state, and what each input does to it.

    Outputs are left in `log` (entries to persist, entries to apply) and in
    `messages_after_append` (what may be said once everything so far is durable); `RawNode`
    collects them.

    Invariants:
    1. `term` never falls, and `vote` changes only with it, from nobody to somebody.
    2. A leader has voted for itself in its term, and that vote is durable.
    3. `leader` is this replica exactly while it leads.
    """

    __slots__ = (
        "election_elapsed",
        "election_tick",
        "id",
        "leader",
        "log",
        "messages_after_append",
        "role",
        "term",
        "uncommitted_bytes",
        "uncommitted_size_max",
        "vote",
    )

    def __init__(self, config: Config, storage: Storage) -> None:
        config.validate()
        hard_state, conf_state = storage.initial_state()
        if conf_state != ConfState(voters=(config.id,)):
            raise ConfigError(
                f"Replica {config.id} cannot join {conf_state}:"
                " this core only runs groups whose single voter is the replica itself."
            )
        self.id = config.id
        self.term = hard_state.term
        self.vote = hard_state.vote
        self.leader = NO_NODE
        self.role: Role = _FOLLOWER
        self.log = Log(storage, config.committed_size_per_ready_max)
        self.messages_after_append: list[Message] = []
        self.election_elapsed = 0
        self.election_tick = config.election_tick
        self.uncommitted_bytes = 0
        self.uncommitted_size_max = config.uncommitted_size_max
        self._restore(hard_state, config.applied)

    def _restore(self, hard_state: HardState, applied: int) -> None:
        """Take up committed and applied, refusing a storage that cannot be ours."""
        log = self.log
        compacted = log.committed
        # A group may be born from a snapshot of term 1 before it has any hard state.
        term_max = max(self.term, 1) if log.last_index() == compacted else self.term
        if log.last_term() > term_max:
            raise StoreDamaged(f"The log reaches term {log.last_term()}, the vote {self.term}.")
        if hard_state != HardState():
            if hard_state.commit < compacted:
                raise StoreDamaged(
                    f"Commit {hard_state.commit} is behind the snapshot {compacted}."
                )
            log.commit_to(hard_state.commit)
        if applied:
            if not compacted <= applied <= log.committed:
                raise StoreDamaged(
                    f"Applied {applied} is not from {compacted} to the commit {log.committed}."
                )
            log.applied_to(applied)

    def step(self, message: Message) -> None:
        """Take one input.

        Raises ReplicaStopped for a kind that this role does not know, ProposalDropped for a
        proposal that is not taken. In both cases nothing has changed.
        """
        if message.term < self.term and message.term != 0:
            # An answer to an earlier self: its term is over (dissertation 3.3).
            return
        handler = HANDLERS[self.role].get(message.type)
        if handler is None or message.term > self.term:
            raise ReplicaStopped(
                f"{self.role.name} {self.id} in term {self.term} cannot take"
                f" {message.type.name} from {message.from_} in term {message.term}."
            )
        handler(self, message)

    def tick(self) -> None:
        """Let one unit of time pass: without a leader for long enough, campaign."""
        if self.role is _LEADER:
            return
        self.election_elapsed += 1
        if self.election_elapsed >= self.election_tick:
            self.step(Message(MessageType.HUP))

    def become_candidate(self) -> None:
        """Enter the next term and vote for oneself; the vote counts once it is durable."""
        assert self.role is not _LEADER
        self.term += 1
        self.vote = self.id
        self.role = _CANDIDATE
        self.election_elapsed = 0
        self._answer_myself(MessageType.VOTE_RESPONSE)

    def become_leader(self) -> None:
        """Lead the term, and open it with an empty entry.

        Entries of earlier terms are committed only along with one of this term (dissertation
        3.6.2), and this one does not wait for a client.
        """
        assert self.role is _CANDIDATE
        assert self.vote == self.id
        self.leader = self.id
        self.role = _LEADER
        self.append((Entry(),))

    def append(self, entries: Sequence[Entry]) -> None:
        """Append the data of `entries` to the leader's log, in its term and at the next indexes."""
        assert self.role is _LEADER
        term = self.term
        index = self.log.last_index()
        numbered = []
        for entry in entries:
            index += 1
            numbered.append(Entry(term, index, entry.type, entry.data))
        self.log.append(numbered)
        self._answer_myself(_APPEND_RESPONSE, index)

    def reserve(self, entries: Sequence[Entry]) -> bool:
        """Count the data of `entries` as uncommitted; False, and nothing counted, if too much."""
        size = sum([len(entry.data) for entry in entries])
        total = self.uncommitted_bytes + size
        if size and self.uncommitted_bytes and total > self.uncommitted_size_max:
            return False
        self.uncommitted_bytes = total
        return True

    def release(self, entries: Sequence[Entry]) -> None:
        """Undo `reserve` for entries that are applied.

        Those of an earlier term were not counted in this one, hence the floor.
        """
        size = sum([len(entry.data) for entry in entries])
        self.uncommitted_bytes = max(0, self.uncommitted_bytes - size)

    def _answer_myself(self, kind: MessageType, index: int = 0) -> None:
        """Have this replica's own answer delivered to it once all it rests on is durable."""
        self.messages_after_append.append(Message(kind, self.id, self.id, self.term, 0, index))


class RawNode:
    """One replica, as its host drives it: inputs return nothing, `ready()` is the only exit.

    The caller's duties are listed at `Ready`. Not thread-safe. When a call raises anything but
    ProposalDropped or the refusal of a message, the replica is beyond use and must be rebuilt
    from its storage.
    """

    __slots__ = ("_hard_state", "_raft", "_soft_state", "_steps_on_advance")

    def __init__(self, config: Config, storage: Storage) -> None:
        """Start, or restart, as a follower with what `storage` holds.

        Raises ConfigError for wrong settings, or a membership other than this replica alone;
        StoreDamaged if hard state, log and applied index contradict each other.
        """
        raft = Raft(config, storage)
        self._raft = raft
        # What the host was last told; a Ready carries them again only when they change.
        self._hard_state = HardState(raft.term, raft.vote, raft.log.committed)
        self._soft_state = SoftState(raft.leader, raft.role)
        # What the outstanding Ready lets the core know once it is done; None without one.
        self._steps_on_advance: list[Message] | None = None

    def tick(self) -> None:
        """Let one unit of time pass."""
        self._raft.tick()

    def campaign(self) -> None:
        """Start an election now. A leader goes on leading."""
        self._raft.step(Message(MessageType.HUP))

    def propose(self, data: bytes) -> None:
        """Ask for `data` to be appended to the log.

        It may still be lost; it has happened once it shows up in `committed_entries`. Raises
        ProposalDropped if this replica does not lead or too much is uncommitted.
        """
        self._raft.step(Message(_PROPOSE, entries=(Entry(data=data),)))

    def step(self, message: Message) -> None:
        """Take a message from outside.

        With a single voter nobody but a proposer has anything to say: all else is refused with
        ReplicaStopped, also what the core says to itself, because from outside it is a forgery.
        """
        if message.type is not _PROPOSE:
            raise ReplicaStopped(
                f"Replica {self._raft.id} is the only voter of its group and"
                f" cannot take {message.type.name} from {message.from_}."
            )
        self._raft.step(message)

    def has_ready(self) -> bool:
        """Whether `ready()` would hold anything."""
        raft = self._raft
        log = raft.log
        return bool(
            raft.messages_after_append
            or log.unstable.has_next_entries()
            or log.has_next_committed_entries()
            or self._hard_state_changed()
            or self._soft_state_changed()
        )

    def ready(self) -> Ready:
        """All that is to be done now. The host must do it, and then call `advance()`."""
        assert self._steps_on_advance is None, "the last Ready was not advanced"
        raft = self._raft
        log = raft.log
        entries = log.unstable.next_entries()
        committed_entries = log.next_committed_entries()
        must_sync = bool(entries)
        hard_state = None
        if self._hard_state_changed():
            hard_state = HardState(raft.term, raft.vote, log.committed)
            before = self._hard_state
            must_sync = must_sync or raft.term != before.term or raft.vote != before.vote
            self._hard_state = hard_state
        soft_state = None
        if self._soft_state_changed():
            soft_state = self._soft_state = SoftState(raft.leader, raft.role)
        self._accept(committed_entries)
        return Ready(soft_state, hard_state, (), entries, None, committed_entries, (), must_sync)

    def advance(self) -> None:
        """The last Ready is persisted and applied."""
        steps = self._steps_on_advance
        assert steps is not None, "there is no Ready to advance"
        self._steps_on_advance = None
        step = self._raft.step
        for message in steps:
            step(message)

    @property
    def must_persist(self) -> bool:
        """Whether the next Ready holds more than what follows from what is stored already."""
        raft = self._raft
        told = self._hard_state
        return bool(
            raft.log.unstable.has_next_entries()
            or raft.messages_after_append
            or raft.term != told.term
            or raft.vote != told.vote
        )

    @property
    def leads(self) -> bool:
        """Whether this replica is the leader of its term: `status()` without making one."""
        return self._raft.role is _LEADER

    def status(self) -> Status:
        """A copy of the replica's vital signs."""
        raft = self._raft
        log = raft.log
        return Status(
            id=raft.id,
            role=raft.role,
            leader=raft.leader,
            term=raft.term,
            vote=raft.vote,
            commit=log.committed,
            applied=log.applied,
            first_index=log.first_index(),
            last_index=log.last_index(),
        )

    def _accept(self, committed_entries: list[Entry]) -> None:
        """Note what the Ready being made will let the core know.

        The order matters: this replica's own answers find their entries in the unstable log, the
        next step removes them from it, and what is applied is applied last.
        """
        raft = self._raft
        log = raft.log
        steps = raft.messages_after_append
        raft.messages_after_append = []
        if log.unstable.entries:
            index = log.last_index()
            steps.append(
                Message(
                    _STORAGE_APPEND_RESPONSE,
                    raft.id,
                    APPEND_THREAD,
                    raft.term,
                    log.term(index),
                    index,
                )
            )
            log.unstable.accept_in_progress()
        if committed_entries:
            steps.append(
                Message(_STORAGE_APPLY_RESPONSE, raft.id, APPLY_THREAD, entries=committed_entries)
            )
            log.accept_applying(committed_entries[-1].index)
        self._steps_on_advance = steps

    def _hard_state_changed(self) -> bool:
        raft = self._raft
        told = self._hard_state
        return raft.log.committed != told.commit or raft.term != told.term or raft.vote != told.vote

    def _soft_state_changed(self) -> bool:
        raft = self._raft
        told = self._soft_state
        return raft.role is not told.role or raft.leader != told.leader
