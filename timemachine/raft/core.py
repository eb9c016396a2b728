"""The state of one replica, its transitions, and the rules about terms."""

from typing import TYPE_CHECKING, Final

from timemachine.errors import ReplicaStopped, StoreDamaged
from timemachine.raft import election, membership
from timemachine.raft.confchange import restore
from timemachine.raft.config import Config
from timemachine.raft.inflights import Inflights
from timemachine.raft.log import Log
from timemachine.raft.messages import (
    NO_NODE,
    HardState,
    Message,
    MessageType,
    ReadState,
    Role,
    Snapshot,
    entry_bytes,
)
from timemachine.raft.progress import Progress
from timemachine.raft.proposals import append_opening_entry
from timemachine.raft.reads import ReadQueue
from timemachine.raft.roles import HANDLERS
from timemachine.raft.storage import Storage
from timemachine.raft.tracker import Tracker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from timemachine.raft.messages import Entry
    from timemachine.raft.roles import Handler

# The members of an enum that every cycle of every vnode needs: looking one up on its class costs
# as much as making a message.
_FOLLOWER: Final = Role.FOLLOWER
_CANDIDATE: Final = Role.CANDIDATE
_PRE_CANDIDATE: Final = Role.PRE_CANDIDATE
_LEADER: Final = Role.LEADER

_FROM_A_LEADER: Final = frozenset({MessageType.APPEND, MessageType.HEARTBEAT, MessageType.SNAPSHOT})


class Raft:
    """The algorithm of one replica: a state, and what each input does to it.

    What the kinds of message do is told by `roles.HANDLERS` and the modules named there; here is
    what they share. Outputs are left in `log` (a snapshot and entries to persist, entries to
    apply), in `messages`, in `messages_after_append` (what may be said once everything so far is
    durable, `owes_others` if not only to itself) and in `read_states`; `RawNode` collects them.

    Invariants:
    1. `term` never falls, and `vote` changes only with it, from nobody to somebody.
    2. A leader has voted for itself in its term, and that vote is durable.
    3. `leader` is this replica exactly while it leads.
    4. `alone` says that this replica is the only voter and nobody else is a member. Then there
       is nobody to send to, and what is durable here is durable on a majority.
    5. `own` is this replica's own progress, None if it is not a member, and `peers` are the
       other members in the order of their ids, so that the same calls give the same messages in
       the same order.
    6. `overtaken` is the membership before a snapshot that is being installed, else None.
    """

    __slots__ = (
        "alone",
        "auto_leave",
        "check_quorum",
        "draw",
        "election_elapsed",
        "election_tick",
        "election_timeout",
        "forward_proposals",
        "handlers",
        "heartbeat_elapsed",
        "heartbeat_tick",
        "id",
        "leader",
        "lease_given_up",
        "lease_reads",
        "log",
        "message_bytes_max",
        "messages",
        "messages_after_append",
        "overtaken",
        "owes_others",
        "own",
        "peers",
        "pending_conf_index",
        "pre_vote",
        "promised",
        "read_states",
        "reads",
        "role",
        "step_down_on_removal",
        "term",
        "trace",
        "tracker",
        "transferee",
        "uncommitted_bytes",
        "uncommitted_size_max",
        "validate_conf_changes",
        "vote",
        "waiting_reads",
    )

    def __init__(self, config: Config, storage: Storage) -> None:
        config.validate()
        hard_state, conf_state = storage.initial_state()
        self.id = config.id
        self.term = hard_state.term
        self.vote = hard_state.vote
        self.leader = NO_NODE
        self.role: Role = _FOLLOWER
        self.handlers: dict[MessageType, Handler] = HANDLERS[_FOLLOWER]
        self.trace: Callable[[str], None] | None = config.trace

        self.log = Log(
            storage,
            config.committed_size_per_ready_max,
            overlapping=config.async_storage_writes,
        )
        self.messages: list[Message] = []
        self.messages_after_append: list[Message] = []
        self.owes_others = False
        self.read_states: list[ReadState] = []

        self.tracker = Tracker(config.inflight_messages_max, config.inflight_bytes_max)
        self.peers: tuple[int, ...] = ()
        self.own: Progress | None = None
        self.promised: dict[int, int] = {}
        self.overtaken: Tracker | None = None
        self.alone = False
        self.auto_leave = False
        self.pending_conf_index = 0
        self.step_down_on_removal = config.step_down_on_removal
        self.validate_conf_changes = config.validate_conf_changes

        self.election_tick = config.election_tick
        self.heartbeat_tick = config.heartbeat_tick
        self.draw = config.draw
        self.election_timeout = config.election_tick
        self.election_elapsed = 0
        self.heartbeat_elapsed = 0
        self.pre_vote = config.pre_vote
        self.check_quorum = config.check_quorum
        self.transferee = NO_NODE

        self.reads = ReadQueue()
        self.waiting_reads: list[Message] = []
        self.lease_reads = config.lease_reads
        self.lease_given_up = False

        self.forward_proposals = config.forward_proposals
        self.message_bytes_max = config.message_bytes_max
        self.uncommitted_bytes = 0
        self.uncommitted_size_max = config.uncommitted_size_max

        self._take_up(hard_state, config.applied)
        membership.switch_config(self, *restore(self.tracker, self.log.last_index(), conf_state))
        membership.check_restored(self, conf_state)
        self.become_follower(self.term, NO_NODE)

    def _take_up(self, hard_state: HardState, applied: int) -> None:
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

    # --- outputs ---------------------------------------------------------------------------

    def promise(self, message: Message) -> None:
        """Send a vote, or an answer to entries, once all it rests on is durable here.

        That may be a message to this replica itself: so it counts its own vote and its own log by
        the same rule as everybody else's (dissertation 3.8).
        """
        self.messages_after_append.append(message)
        if message.to != self.id:
            self.owes_others = True

    def say(self, event: str) -> None:
        """Tell the host's log of something rare."""
        if self.trace is not None:
            self.trace(f"{self.id} in term {self.term}: {event}")

    # --- inputs ----------------------------------------------------------------------------

    def step(self, message: Message) -> None:
        """Take one input.

        Raises ReplicaStopped for a kind that no role takes as an input, and ProposalDropped for a
        proposal that is not taken; in both cases nothing has changed. Raises StoreDamaged if the
        message proves that this replica has lost what it once had.
        """
        term = message.term
        if term and term != self.term:
            if term < self.term:
                self._answer_the_past(message)
                return
            if not self._enter_term(message):
                return
        handler = self.handlers.get(message.type)
        if handler is None:
            raise ReplicaStopped(
                f"{self.role.name} {self.id} in term {self.term} cannot take"
                f" {message.type.name} from {message.from_} in term {message.term}."
            )
        handler(self, message)

    def _enter_term(self, message: Message) -> bool:
        """Follow into the newer term of `message` (3.3); whether the message is to be handled."""
        kind = message.type
        if kind is MessageType.VOTE or kind is MessageType.PRE_VOTE:
            if self._has_live_leader() and message.context != election.TRANSFER_CONTEXT:
                # Stickiness (4.2.3): a replica that was removed or cut off cannot know better.
                self.say(f"ignored {kind.name} of {message.from_}, the leader was heard of lately")
                return False
            if kind is MessageType.PRE_VOTE:
                return True  # a question, not a term
        elif kind is MessageType.PRE_VOTE_RESPONSE and not message.reject:
            return True  # in the term that is not entered yet
        self.say(f"{kind.name} of {message.from_} has the newer term {message.term}")
        leader = message.from_ if kind in _FROM_A_LEADER else NO_NODE
        self.become_follower(message.term, leader)
        return True

    def _has_live_leader(self) -> bool:
        return (
            self.check_quorum
            and self.leader != NO_NODE
            and self.election_elapsed < self.election_tick
        )

    def _answer_the_past(self, message: Message) -> None:
        """Deal with a message of a term that is over: mostly, ignore it (3.3)."""
        kind = message.type
        if kind is MessageType.HEARTBEAT or kind is MessageType.APPEND:
            if self.check_quorum or self.pre_vote:
                # The sender leads a majority that ignores our campaigns. Unless it hears of our
                # term, neither of us can ever follow the other.
                self.promise(
                    Message(MessageType.APPEND_RESPONSE, message.from_, self.id, self.term)
                )
        elif kind is MessageType.PRE_VOTE:
            # Without an answer, candidates of different terms could wait for each other for ever.
            election.refuse(self, message)
        elif kind is MessageType.STORAGE_APPEND_RESPONSE and message.snapshot is not None:
            # The entries may have been replaced meanwhile, a snapshot is committed in any term.
            self.installed(message.snapshot)

    def check_promise(self, message: Message) -> None:
        """Refuse to follow a leader that remembers more of this log than is there.

        Under one leader a log never gets shorter than what was acknowledged to it, and under
        another one not shorter than what of that was committed (`promised`). If it is, the disk
        has lost entries that a majority counted on, and the vote may be gone as well. Raises
        StoreDamaged: the host stops the replica, and only a new one, with a new id, may take its
        place. It is not fed the entries again.
        """
        if message.acked > self.log.last_index():
            raise StoreDamaged(
                f"Replica {self.id} acknowledged entries up to {message.acked} to"
                f" {message.from_} in term {message.term}, its log ends at"
                f" {self.log.last_index()}."
            )

    def acked_by(self, member: int, match: int) -> int:
        """Up to where `member` has to have the log: `match`, or what it promised earlier."""
        return max(match, self.promised.get(member, 0))

    def tick(self) -> None:
        """Let one unit of time pass: a leader sends heartbeats, another one may campaign."""
        if self.role is _LEADER:
            if not self.alone:
                self._tick_leader()
            return
        self.election_elapsed += 1
        if self.election_elapsed >= self.election_timeout and election.promotable(self):
            self.election_elapsed = 0
            self.step(Message(MessageType.HUP, from_=self.id))

    def _tick_leader(self) -> None:
        self.heartbeat_elapsed += 1
        self.election_elapsed += 1
        if self.election_elapsed >= self.election_tick:
            self.election_elapsed = 0
            if self.check_quorum:
                self.step(Message(MessageType.CHECK_QUORUM, from_=self.id))
            # The transfer has failed: take proposals again (3.10).
            self.transferee = NO_NODE
        if self.role is _LEADER and self.heartbeat_elapsed >= self.heartbeat_tick:
            self.heartbeat_elapsed = 0
            self.step(Message(MessageType.BEAT, from_=self.id))

    # --- transitions -----------------------------------------------------------------------

    def become_follower(self, term: int, leader: int) -> None:
        """Follow `leader`, or nobody yet, in `term`."""
        self._reset(term)
        self.leader = leader
        self._become(_FOLLOWER)

    def become_pre_candidate(self) -> None:
        """Ask who would vote for this replica in the next term, and change nothing else (9.6)."""
        assert self.role is not _LEADER
        self.tracker.reset_votes()
        self.leader = NO_NODE
        self._become(_PRE_CANDIDATE)

    def become_candidate(self) -> None:
        """Enter the next term and vote for oneself; the vote counts once it is durable."""
        assert self.role is not _LEADER
        self._reset(self.term + 1)
        self.vote = self.id
        self._become(_CANDIDATE)

    def become_leader(self) -> None:
        """Lead the term, and open it with an empty entry.

        Entries of earlier terms are committed only along with one of this term (dissertation
        3.6.2), and this one does not wait for a client.
        """
        assert self.role is _CANDIDATE
        assert self.vote == self.id
        self._reset(self.term)
        self.leader = self.id
        self._become(_LEADER)
        own = self.own
        assert own is not None
        own.become_replicate()
        own.recent_active = True
        # The log may hold a configuration change that is not applied yet. Waiting until all of it
        # is applied is safe, and cheaper than to read it (Ongaro's correction of 2015 to 4.1).
        self.pending_conf_index = self.log.last_index()
        append_opening_entry(self)

    def _become(self, role: Role) -> None:
        self.role = role
        self.handlers = HANDLERS[role]
        self.say(f"is {role.name}")

    def _reset(self, term: int) -> None:
        """Forget what belonged to the role so far, and with a new term the vote."""
        if term != self.term:
            assert term > self.term
            self.term = term
            self.vote = NO_NODE
        self.leader = NO_NODE
        self.election_elapsed = 0
        self.heartbeat_elapsed = 0
        self.election_timeout = self.election_tick + self.draw(self.election_tick)
        self.transferee = NO_NODE
        self.lease_given_up = False
        self.tracker.reset_votes()
        self._forget_progress()
        self.pending_conf_index = 0
        self.uncommitted_bytes = 0
        self.reads = ReadQueue()
        self.waiting_reads = []

    def _forget_progress(self) -> None:
        """A new leader knows of the members' logs nothing but its own.

        What it saw acknowledged before, and is committed, stays in `promised`: the members still
        have to have that, whoever led meanwhile.
        """
        tracker = self.tracker
        last = self.log.last_index()
        for member, before in tracker.progress.items():
            if before.match and member != self.id:
                acked = min(before.match, self.log.committed)
                self.promised[member] = max(acked, self.promised.get(member, 0))
        tracker.progress = {
            member: Progress(
                inflights=Inflights(tracker.inflight_messages_max, tracker.inflight_bytes_max),
                match=last if member == self.id else 0,
                next=last + 1,
                is_learner=before.is_learner,
            )
            for member, before in tracker.progress.items()
        }
        self.own = tracker.progress.get(self.id)

    # --- what the host has done ------------------------------------------------------------

    def applied(self, entries: "Sequence[Entry]") -> None:
        """The state machine has applied these entries."""
        log = self.log
        size = sum([entry_bytes(entry) for entry in entries]) if log.overlapping else 0
        index = entries[-1].index
        if index < log.applied:
            index = log.applied  # a snapshot has overtaken them
        log.applied_to(index, size)
        if self.auto_leave:
            membership.leave_joint_when_due(self)

    def installed(self, snapshot: Snapshot) -> None:
        """Storage and state machine hold this snapshot."""
        log = self.log
        log.unstable.stable_snapshot_to(snapshot.metadata.index)
        if log.unstable.snapshot is None:
            self.overtaken = None
        log.applied_to(max(snapshot.metadata.index, log.applied))
        if self.auto_leave:
            membership.leave_joint_when_due(self)
