"""One replica of one group: a Raft core and a machine, and the rows that make both durable.

Still no I/O. The host (`node/runtime.py`) calls `gather`, which takes what is waiting through the
log and leaves every resulting row in the overlay; writes the overlay's batch with one sync; and
calls `persisted`, which tells the core and hands back the answers, messages and effects that may
now be seen. Nothing that depends on a batch leaves before it is durable; what a leader sends to
its followers does not, and may leave during the sync (`early`; dissertation 10.2.1).

Committed entries are applied in the batch of the cycle that hands them out. That may be the batch
that stores them here: they are committed by what others have stored.

Fusing: while the group has one voter, which leads, and no pending configuration change, an entry
is certain to be committed once it is stored, so `gather` applies it in the batch that would store
it, and that batch stores commit >= applied. Only the host may do so; the core learns of it as it
would learn of any stored entry. And since nobody else reads this log, an entry that is applied in
the same batch is not written at all: the log is compacted up to it at once, as if it had been.

Who belongs to the group changes when the entry that says so is applied, and the row that tells it
is in the same batch (dissertation, chapter 4). A group may grow out of a single voter, and shrink
to one: `sole` follows.

Leading is not yet serving: a new leader may lack what its predecessor committed, until an entry of
its own term is applied (dissertation 6.4). And it may have been replaced without knowing it, so
what cannot be taken back, a send, needs the lease as well (`may_fire`).
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from timemachine import codec, limits
from timemachine.errors import (
    NotLeader,
    ProposalDropped,
    StoreDamaged,
    TimeMachineError,
    TooManyRequests,
)
from timemachine.group import SOLE, GroupConfig, node_of
from timemachine.lease import Lease, Promise
from timemachine.logrows import LogRows
from timemachine.raft import (
    ConfChangeV2,
    Config,
    ConfState,
    Entry,
    EntryType,
    HardState,
    Message,
    MessageType,
    RawNode,
    ReadState,
    Ready,
    Snapshot,
    SnapshotMetadata,
    read_conf_change,
)
from timemachine.raft.election import TRANSFER_CONTEXT
from timemachine.storage.api import Reading, Store
from timemachine.storage.keys import ReplicaKeys, u64
from timemachine.storage.overlay import Overlay

Done = Callable[[Any], None]
"""Gets the result of a command, or the TimeMachineError that kept it from being applied."""

_NORMAL: Final = EntryType.NORMAL
_HEARTBEAT: Final = MessageType.HEARTBEAT
_HEARTBEAT_RESPONSE: Final = MessageType.HEARTBEAT_RESPONSE
_EARLY: Final = frozenset({MessageType.APPEND, MessageType.HEARTBEAT})
_VOTES: Final = frozenset({MessageType.VOTE, MessageType.PRE_VOTE})
_STAMP_BYTES: Final = 8
NO_INDEX: Final = 1 << 63
"""Behind every log: nobody needs what is kept of one."""
_STAMPS_PER_MS: Final = 1_000

RESTING_LEADER: Final = 1
"""It leads, and its host has offered to let the group sleep, or does."""
RESTING_FOLLOWER: Final = 2
"""It sleeps under its leader, whose node speaks for it."""


class Machine(Protocol):
    """What a vnode needs of its state machine; see `JobMachine`."""

    @property
    def applied_index(self) -> int: ...  # noqa: D102

    def apply(self, index: int, term: int, data: bytes, batch: list[Any] | None) -> list[Any]: ...  # noqa: D102

    def flush(self) -> None: ...  # noqa: D102

    def take_effects(self) -> list[Any]: ...  # noqa: D102

    def rebase(self, keys: ReplicaKeys, store: Reading) -> None: ...  # noqa: D102


class Gate:
    """Whether the replicas of a node may fire at all: not while its wall clock is wrong.

    Who is the only voter fires by its own clock: nobody else could.
    """

    __slots__ = ("open",)

    def __init__(self) -> None:
        self.open = True


class Outcome(NamedTuple):
    """What a durable cycle of one vnode lets the world see.

    `messages` go to other replicas; `moved` says that this replica began or ceased to serve.
    """

    answers: list[tuple[Done, Any]]
    effects: list[Any]
    applied_index: int
    messages: Sequence[Message] = ()
    moved: bool = False


class Vnode:
    """One replica. `group` is (collection uid, vnode index); uid 0 is the meta group.

    `id` is this replica's. `sole` says that nobody else belongs to the group, `early` holds what
    may leave before the batch of this cycle is durable, `promise` is what this replica owes
    leaders that it has answered, `lease` what others owe to it. `resting` says that the replica is
    asleep or may fall asleep, and `acked_ms` what its node was answered meanwhile
    (`timemachine/liveness.py`). `kept_from` tells behind which index the log is needed by who gets
    an image. `switched` hears of a snapshot: the keys before, those from now on; `reformed` of
    another membership, as soon as it is applied. `gate` is shared by all replicas of a node.
    """

    __slots__ = (
        "_answers",
        "_applied_term",
        "_gathered",
        "_gathered_term",
        "_hard_state",
        "_log",
        "_pending",
        "_late",
        "_reads",
        "_reads_asked",
        "_reads_known",
        "_reads_term",
        "_ready",
        "_served_term",
        "_staged",
        "_stalled",
        "_store",
        "acked_ms",
        "core",
        "early",
        "gate",
        "group",
        "id",
        "kept_from",
        "keys",
        "lease",
        "machine",
        "overlay",
        "promise",
        "reformed",
        "resting",
        "sole",
        "switched",
    )

    def __init__(
        self,
        group: tuple[int, int],
        keys: ReplicaKeys,
        overlay: Overlay,
        machine: Machine,
        store: Store,
        config: GroupConfig = SOLE,
    ) -> None:
        """Take up the replica from its rows; a range without rows is a new replica.

        Raises StoreDamaged when the rows contradict each other.
        """
        self.group = group
        self.id = config.id
        self.keys = keys
        self.overlay = overlay
        self.machine = machine
        self.early: list[Message] = []
        self.resting = 0
        self.gate = Gate()
        self.kept_from: Callable[[tuple[int, int]], int] = _nothing_kept
        self.acked_ms: Callable[[tuple[int, int]], dict[int, float]] = lambda _: {}
        self.switched: Callable[[ReplicaKeys, ReplicaKeys], None] = lambda *_: None
        self.reformed: Callable[[Vnode], None] = lambda _: None
        self._store = store
        self._pending: list[tuple[Any, Done | None]] = []
        self._answers: list[tuple[Done, Any]] = []
        self._gathered: list[tuple[list[Any], list[Done | None]]] = []
        self._gathered_term = 0
        self._applied_term = 0
        self._served_term = 0
        self._stalled = False
        self._ready: Ready | None = None
        self._late: Sequence[Message] = ()
        self._reads: dict[bytes, Done] = {}
        self._reads_asked = 0
        self._reads_known: list[tuple[int, Done]] = []
        self._reads_term = 0
        self._staged: tuple[SnapshotMetadata, ReplicaKeys] | None = None
        self._log = log = LogRows(group, keys, overlay, store, config)
        self._hard_state = state = log.hard_state
        members = log.members
        self.sole = self._is_sole(members)
        applied = machine.applied_index
        base_index = log.base[0]
        if not base_index <= applied <= state.commit <= log.last:
            raise StoreDamaged(
                f"Vnode {group}: applied {applied}, commit {state.commit} and the log"
                f" ({base_index} to {log.last}) contradict each other."
            )
        log.storage.applied = (applied, log.storage.term(applied))
        self.lease = Lease(config.id, (), config.lease_ms)
        self.lease.set_voters(members.voters, members.voters_outgoing)
        self.promise = Promise(config.vote_wait_ms, config.started_ms)
        self.core = RawNode(_core_config(config, applied), log.storage)
        if members.voters == (config.id,) and not members.voters_outgoing:
            self.core.campaign()  # it needs nobody else's vote

    # --- inputs ----------------------------------------------------------------------------

    def propose(self, command: Any, done: Done | None = None) -> None:
        """Put a command into the next entry. `done` hears of it once it is durable."""
        self._pending.append((command, done))

    def read(self, done: Done) -> None:
        """Call `done` when what is applied here is no older than this call (dissertation 6.4).

        It gets None, or NotLeader; at once TooManyRequests, when the core would lose it.
        """
        if len(self._reads) >= limits.RAFT_READS_WAITING_MAX:
            done(TooManyRequests("Too many reads are waiting for a majority."))
            return
        self._reads_asked += 1
        self._reads_term = self.core.term
        context = u64(self._reads_asked)
        self._reads[context] = done
        self.core.read_index(context)

    def step(self, message: Message, mono_ms: float) -> None:
        """Take a message of another replica; `mono_ms` is this node's monotonic clock.

        Raises what `RawNode.step` raises.
        """
        kind = message.type
        if kind is _HEARTBEAT:
            if message.term >= self.core.term:
                self.promise.answer(mono_ms)
        elif kind is _HEARTBEAT_RESPONSE:
            stamp = message.context[-_STAMP_BYTES:]
            message = msgspec.structs.replace(message, context=message.context[:-_STAMP_BYTES])
            sent_ms = int.from_bytes(stamp, "big") / _STAMPS_PER_MS
            if message.term == self.core.term and self.core.leads and sent_ms <= mono_ms:
                self.lease.answered(message.term, message.from_, sent_ms)
        elif (
            kind in _VOTES
            and (mono_ms < self.promise.until_ms or self.resting == RESTING_FOLLOWER)
            and message.context != TRANSFER_CONTEXT
        ):
            return
        self.core.step(message)

    def tick(self, mono_ms: float) -> None:
        """Let one unit of time pass.

        The first tick after a heartbeat may come at once, and ten of them do not take ten ticks'
        time. So it is looked at whether this replica may vote yet, for itself.
        """
        core = self.core
        if mono_ms < self.promise.until_ms and core.impatient:
            return
        core.tick()

    def campaign(self) -> None:
        """Stand for election now: for the first leader of a new group."""
        self.core.campaign()

    def transfer(self, node: int) -> None:
        """Hand the leadership over to the voter on that node, if it can take it."""
        for voter in self.members.voters:
            if node_of(voter) == node:
                self.core.transfer_leader(voter)

    def change_members(self, change: ConfChangeV2) -> None:
        """Propose a change of membership; see `RawNode.propose_conf_change`.

        It may come to nothing. That it happened shows in `members`.
        """
        try:
            self.core.propose_conf_change(change)
        except ProposalDropped:
            return  # whoever wants it asks again

    def resign(self) -> None:
        """Cease to lead."""
        self.core.resign()

    def install(self, message: Message, keys: ReplicaKeys) -> bool:
        """Take a snapshot whose image is durable under `keys`; False where it is not needed.

        The next cycle switches over to it.
        """
        snapshot = message.snapshot
        assert snapshot is not None
        if self._staged is not None or self.core.installing is not None:
            return False
        self.core.step(message)
        if self.core.installing != snapshot.metadata:
            return False
        self._staged = (snapshot.metadata, keys)
        return True

    @property
    def staged(self) -> ReplicaKeys | None:
        """The keys of an image that was taken and is not switched to yet."""
        return None if self._staged is None else self._staged[1]

    # --- how it stands ---------------------------------------------------------------------

    def drop_log(self, held_index: int) -> bool:
        """Drop the part of the log that all members have, up to that index; False for nothing.

        Between two cycles, into the batch that the next one writes.
        """
        if self.sole or self._staged is not None or self.core.installing is not None:
            return False
        index = min(held_index, self.machine.applied_index, self.kept_from(self.group))
        dropped = self._log.drop_to(index)
        if dropped:
            self._log.put_state(self._hard_state)
        return dropped

    def has_work(self) -> bool:
        """Whether `gather` would do anything."""
        core = self.core
        # Who has become the only voter takes commands, and may not lead yet: they wait for that.
        return bool(self._pending and not self._stalled and core.leads) or core.has_ready()

    @property
    def newborn(self) -> bool:
        """Whether this replica knows of no leader yet, nor of anything that one has done."""
        core = self.core
        return not self.sole and core.term == 0 and self.machine.applied_index == 0

    def is_leader(self) -> bool:
        """Whether this replica leads, as far as it knows."""
        return self.core.leads

    @property
    def leader(self) -> int:
        """The number of the node that leads, as far as is known here; 0 for nobody."""
        return node_of(self.core.leader)

    @property
    def members(self) -> ConfState:
        """Who belongs to the group, as of what is applied here."""
        return self._log.members

    @property
    def plain(self) -> bool:
        """Whether all members vote, each on a node of its own, and no change is under way."""
        members = self._log.members
        return not (members.learners or members.voters_outgoing) and (
            len({node_of(voter) for voter in members.voters}) == len(members.voters)
        )

    def _is_sole(self, members: ConfState) -> bool:
        return members == ConfState(voters=(self.id,))

    @property
    def serving(self) -> bool:
        """Whether this replica leads, and its rows show all that its predecessors committed."""
        return self.core.leads and self._served_term == self._hard_state.term

    def may_fire(self, mono_ms: float) -> bool:
        """Whether it serves, and no other replica can have been elected by that time."""
        if not self.serving:
            return False
        if self.sole:
            return True
        if self.core.lease_given_up or not self.gate.open:
            return False
        if mono_ms < self.lease.until_ms:
            return True
        return self.resting == RESTING_LEADER and mono_ms < self.lease.until(
            self.term, self.acked_ms(self.group)
        )

    def idle(self) -> bool:
        """Whether it leads, and nothing is to be done for any voter whose node is alive."""
        if not self.serving or self._pending or self._gathered or not self._only_talks():
            return False
        if not self.plain:
            return False
        return not self._reads and not self._reads_known and self.core.replicated

    def follows(self, leader: int, term: int, index: int) -> bool:
        """Whether it follows that replica in that term, with just that log, all of it applied."""
        core = self.core
        return (
            core.leader == leader
            and core.term == term
            and not core.leads
            and core.quiet
            and self._only_talks()
            and self.machine.applied_index == index == self.last_index
        )

    def _only_talks(self) -> bool:
        """Whether the cycle that is under way, if any, has messages for others and no more.

        Where thousands of groups are awake, heartbeats and their answers fill every cycle. If they
        counted as something to do, none of these groups could ever fall asleep.
        """
        ready = self._ready
        return ready is None or not (
            ready.entries
            or ready.committed_entries
            or ready.read_states
            or ready.hard_state is not None
            or ready.snapshot is not None
        )

    def position(self) -> tuple[int, int, int, int]:
        """What a message may change that concerns others: term, leader, end of log, commit."""
        core = self.core
        return core.term, core.leader, core.last_index, core.commit

    @property
    def last_index(self) -> int:
        """Index of the newest entry of the log, durable or not."""
        return self.core.last_index

    @property
    def log_base(self) -> int:
        """Index of the entry behind which the kept log begins."""
        return self._log.base[0]

    def takes_proposals(self) -> bool:
        """Whether a proposal made now could be committed."""
        return self.sole or (self.core.leads and not self.core.hands_over)

    @property
    def term(self) -> int:
        """The current term."""
        return self._hard_state.term

    # --- one cycle -------------------------------------------------------------------------

    def gather(self, mono_ms: float = 0.0) -> None:
        """Take what is waiting through the log, up to rows in the overlay."""
        core = self.core
        if self._pending and core.leads:
            self._propose_pending()
        if not core.has_ready():
            return
        ready = self._ready = core.ready()
        self._stalled = False
        log = self._log
        members = log.members
        if ready.hard_state is not None:
            self._hard_state = ready.hard_state
        if ready.snapshot is not None:
            self._switch(ready.snapshot)
        self._apply(ready.committed_entries)
        entries = ready.entries
        if entries:
            if self.sole and self._is_certain(entries[0]):
                self._apply(entries)
                log.begin_behind(entries[-1].index, entries[-1].term)
            else:
                log.write(entries)
        if log.members is not members:
            log.drop_first()
        changed = bool(entries or ready.committed_entries)
        if changed:
            self.machine.flush()
        if not self.sole:
            self._sort_messages(ready.messages, mono_ms)
            self._let_go()
            if ready.committed_entries:
                applied_index = self.machine.applied_index
                if log.is_long(applied_index):
                    needed_index = min(core.needed_index, self.kept_from(self.group))
                    log.drop_older(applied_index, needed_index)
            elif not changed and ready.hard_state is None:
                return  # only messages: nothing is worth a row
        state = self._hard_state
        applied_index = self.machine.applied_index
        if applied_index > state.commit:
            self._hard_state = state = HardState(state.term, state.vote, applied_index)
        log.put_state(state)

    def _propose_pending(self) -> None:
        """Cut the waiting commands into entries of bounded size and propose each.

        Those that would be too many bytes for one cycle wait for the next.
        """
        pending, self._pending = self._pending, []
        self._gathered_term = self._hard_state.term
        if len(pending) <= limits.ENTRY_COMMANDS_SMALL:
            if not self._propose_entry(pending):
                self._pending = pending
            return
        begin = size = 0
        for number, (command, _) in enumerate(pending, 1):
            size += limits.COMMAND_OVERHEAD_BYTES + len(getattr(command, "meta", None) or b"")
            if size >= limits.ENTRY_BYTES_TARGET or number == len(pending):
                if not self._propose_entry(pending[begin:number]):
                    self._pending = pending[begin:]
                    return
                begin, size = number, 0

    def _propose_entry(self, chunk: list[tuple[Any, Done | None]]) -> bool:
        """Propose one entry; False if the core has too much to do first. An idle core takes any."""
        batch = [command for command, _ in chunk]
        dones = [done for _, done in chunk]
        try:
            self.core.propose(codec.encode(batch))
        except ProposalDropped:
            # Several voters, or about to be: until something is committed, or a transfer has ended.
            self._stalled = not self.sole or self.core.changes_members
            assert self._gathered or self._stalled, "a core that has nothing to do refused an entry"
            return False
        self._gathered.append((batch, dones))
        return True

    def _is_certain(self, entry: Entry) -> bool:
        """Whether an entry that is not stored yet cannot but be committed: see "Fusing" above."""
        return (
            self.core.leads
            and entry.term == self._hard_state.term
            and entry.index == self.machine.applied_index + 1
            and not self.core.changes_members
        )

    def _apply(self, entries: Sequence[Entry]) -> None:
        """Apply entries that are not applied yet, with the commands at hand where they are ours."""
        machine = self.machine
        for entry in entries:
            if entry.index <= machine.applied_index:
                continue
            if entry.type is not _NORMAL:
                self._change(entry)
                continue
            batch: list[Any] | None = None
            dones: list[Done | None] = []
            self._applied_term = entry.term
            if entry.data and self._gathered and entry.term == self._gathered_term:
                batch, dones = self._gathered.pop(0)
            results = machine.apply(entry.index, entry.term, entry.data, batch)
            for done, result in zip(dones, results, strict=False):
                if done is not None:
                    self._answers.append((done, result))

    def _change(self, entry: Entry) -> None:
        """Apply an entry that changes the membership."""
        members = self.core.apply_conf_change(read_conf_change(entry))
        self._applied_term = entry.term
        self.machine.apply(entry.index, entry.term, b"", None)
        self._log.change_members(members)
        self._follow(members)

    def _follow(self, members: ConfState) -> None:
        """Another membership is in force."""
        self.sole = self._is_sole(members)
        self.lease.set_voters(members.voters, members.voters_outgoing)
        self.reformed(self)

    def _sort_messages(self, messages: Sequence[Message], mono_ms: float) -> None:
        """Part what may leave at once from what waits for the batch of this cycle."""
        late = []
        for message in messages:
            kind = message.type
            if kind is _HEARTBEAT:
                stamp = int(mono_ms * _STAMPS_PER_MS).to_bytes(_STAMP_BYTES, "big")
                context = message.context + stamp
                self.early.append(msgspec.structs.replace(message, context=context))
            elif kind in _EARLY:
                self.early.append(message)
            else:
                late.append(message)
        self._late = late

    def _let_go(self) -> None:
        """Tell those who wait for entries of a term that this replica does not lead any more."""
        term = self._hard_state.term if self.core.leads else 0
        if not (self._gathered or self._reads or self._reads_known or self._pending):
            return
        error = NotLeader(self.leader)
        if term != self._gathered_term:
            for _, dones in self._gathered:
                self._answers += [(done, error) for done in dones if done is not None]
            self._gathered = []
        if term != self._reads_term:
            self._answers += [(done, error) for done in self._reads.values()]
            self._answers += [(done, error) for _, done in self._reads_known]
            self._reads, self._reads_known = {}, []
        if not term:
            self._answers += [(done, error) for _, done in self._pending if done is not None]
            self._pending = []

    def _switch(self, snapshot: Snapshot) -> None:
        """Go on from the image of a snapshot, in the batch of this cycle."""
        assert self._staged is not None
        metadata, keys = self._staged
        assert metadata == snapshot.metadata
        self._staged = None
        before, self.keys = self.keys, keys
        self._log.switch(keys, metadata)
        self.machine.rebase(keys, self._store)
        if self.machine.applied_index != metadata.index:
            raise StoreDamaged(
                f"Vnode {self.group}: the image of a snapshot that ends at {metadata.index} is"
                f" applied up to {self.machine.applied_index}."
            )
        self._applied_term = metadata.term
        self._follow(metadata.conf_state)
        self.switched(before, keys)

    def persisted(self) -> Outcome | None:
        """The batch with what was gathered is durable: tell the core, release what waited."""
        ready = self._ready
        if ready is None:
            return None
        self._ready = None
        core = self.core
        log = self._log
        applied_index = self.machine.applied_index
        log.written(
            ready.snapshot, ready.entries, self._hard_state, (applied_index, self._applied_term)
        )
        core.advance()
        messages: Sequence[Message] = ()
        if self.sole:
            if applied_index == log.storage.last_index():
                # What the core now calls committed is applied and stored as such already.
                while core.has_ready() and not core.must_persist:
                    read_states = core.ready().read_states
                    core.advance()
                    if read_states:
                        self._know_reads(read_states)
        else:
            messages, self._late = self._late, ()
        if self._reads or self._reads_known:
            self._know_reads(ready.read_states)
            self._answer_reads(applied_index)
        log.forget(core.applied)
        answers, self._answers = self._answers, []
        # Not as soon as it is applied: what is read here is read from the store.
        term = self._hard_state.term
        served_term = term if core.leads and self._applied_term == term else 0
        moved = served_term != self._served_term
        self._served_term = served_term
        return Outcome(answers, self.machine.take_effects(), applied_index, messages, moved)

    def _know_reads(self, states: Sequence[ReadState]) -> None:
        """These reads wait for an index that is known."""
        for state in states:
            done = self._reads.pop(state.context, None)
            if done is not None:
                self._reads_known.append((state.index, done))

    def _answer_reads(self, applied_index: int) -> None:
        """Release the reads whose index is known and applied."""
        if self._reads_known:
            known, self._reads_known = self._reads_known, []
            for index, done in known:
                if index <= applied_index:
                    self._answers.append((done, None))
                else:
                    self._reads_known.append((index, done))

    def fail(self, error: TimeMachineError) -> list[tuple[Done, Any]]:
        """The node must stop: whoever waits for an answer gets `error` instead."""
        waiting = [done for done, _ in self._answers]
        waiting += [done for _, done in self._pending if done is not None]
        for _, dones in self._gathered:
            waiting += [done for done in dones if done is not None]
        waiting += self._reads.values()
        waiting += [done for _, done in self._reads_known]
        self._answers, self._pending, self._gathered = [], [], []
        self._reads, self._reads_known = {}, []
        return [(done, error) for done in waiting]


def _nothing_kept(_: tuple[int, int]) -> int:
    return NO_INDEX


def _core_config(config: GroupConfig, applied: int) -> Config:
    return Config(
        id=config.id,
        applied=applied,
        election_tick=config.election_tick,
        heartbeat_tick=config.heartbeat_tick,
        draw=config.draw,
        pre_vote=True,
        check_quorum=True,
        forward_proposals=False,
        step_down_on_removal=True,
        message_bytes_max=config.message_bytes_max,
        inflight_messages_max=config.inflight_messages_max,
        inflight_bytes_max=max(config.inflight_bytes_max, config.message_bytes_max),
        uncommitted_size_max=config.uncommitted_size_max,
        committed_size_per_ready_max=config.committed_size_per_ready_max,
    )
