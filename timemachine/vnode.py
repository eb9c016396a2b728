"""One replica of one group: a Raft core and a machine, and the rows that make both durable.

Still no I/O. The host (`node/runtime.py`) calls `gather`, which takes what is waiting through the
log and leaves every resulting row in the overlay; writes the overlay's batch with one sync; and
calls `persisted`, which tells the core and hands back the answers and effects that may now be
seen. Nothing that depends on a batch leaves before it is durable.

Fusing: while the group has one voter and no pending configuration change, an entry is certain to
be committed once it is stored, so `gather` applies it in the batch that would store it, and that
batch stores commit >= applied. Only the host may do so; the core learns of it as it would learn of
any stored entry. And since nobody else reads this log, an entry that is applied in the same batch
is not written at all: the log is compacted up to it at once, as if it had been.
"""

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import msgspec

from timemachine import codec, limits
from timemachine.errors import ProposalDropped, ReplicaStopped, StoreDamaged, TimeMachineError
from timemachine.raft import (
    Config,
    ConfState,
    Entry,
    EntryType,
    HardState,
    MemoryStorage,
    RawNode,
    Ready,
    Snapshot,
    SnapshotMetadata,
)
from timemachine.storage.api import Store
from timemachine.storage.keys import ReplicaKeys, u64
from timemachine.storage.overlay import Overlay

Done = Callable[[Any], None]
"""Gets the result of a command, or the TimeMachineError that kept it from being applied."""


class Machine(Protocol):
    """What a vnode needs of its state machine; see `JobMachine`."""

    @property
    def applied_index(self) -> int: ...  # noqa: D102

    def apply(self, index: int, term: int, data: bytes, batch: list[Any] | None) -> list[Any]: ...  # noqa: D102

    def flush(self) -> None: ...  # noqa: D102

    def take_effects(self) -> list[Any]: ...  # noqa: D102


class Outcome(NamedTuple):
    """What a durable cycle of one vnode lets the world see."""

    answers: list[tuple[Done, Any]]
    effects: list[Any]
    applied_index: int


class LogState(msgspec.Struct, frozen=True, array_like=True):
    """The hard state row: etcd's three, and where the kept log begins."""

    term: int = 0
    vote: int = 0
    commit: int = 0
    base_index: int = 0
    base_term: int = 0


class LoggedEntry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A row of the log. `crc` is the CRC-32 of `data`, checked when the log is read back."""

    term: int
    type: int
    crc: int
    data: bytes


_read_log_state = codec.decoder(LogState)
_read_entry = codec.decoder(LoggedEntry)
_SOLE_REPLICA_ID = 1


class Vnode:
    """One replica. `group` is (collection uid, vnode index); uid 0 is the meta group."""

    __slots__ = (
        "_answers",
        "_base",
        "_gathered",
        "_hard_state",
        "_pending",
        "_ready",
        "_row_index",
        "_storage",
        "core",
        "group",
        "keys",
        "machine",
        "overlay",
    )

    def __init__(
        self,
        group: tuple[int, int],
        keys: ReplicaKeys,
        overlay: Overlay,
        machine: Machine,
        store: Store,
    ) -> None:
        """Take up the replica from its rows; a range without rows is a new replica.

        Raises StoreDamaged when the rows contradict each other.
        """
        self.group = group
        self.keys = keys
        self.overlay = overlay
        self.machine = machine
        self._pending: list[tuple[Any, Done | None]] = []
        self._answers: list[tuple[Done, Any]] = []
        self._gathered: list[tuple[list[Any], list[Done | None]]] = []
        self._ready: Ready | None = None
        row = store.get(keys.hard_state)
        state: LogState = LogState() if row is None else _read_log_state(row)
        self._hard_state = HardState(state.term, state.vote, state.commit)
        self._base = (state.base_index, state.base_term)
        self._storage = storage = MemoryStorage()
        members = ConfState(voters=(_SOLE_REPLICA_ID,))
        metadata = SnapshotMetadata(members, state.base_index, state.base_term)
        storage.apply_snapshot(Snapshot(metadata=metadata))
        storage.set_hard_state(self._hard_state)
        storage.append(self._read_log(store, state.base_index))
        self._row_index = storage.last_index()
        applied = machine.applied_index
        if not state.base_index <= applied <= state.commit <= storage.last_index():
            raise StoreDamaged(
                f"Vnode {group}: applied {applied}, commit {state.commit} and the log"
                f" ({state.base_index} to {storage.last_index()}) contradict each other."
            )
        self.core = RawNode(Config(id=_SOLE_REPLICA_ID, applied=applied), storage)
        self.core.campaign()

    def _read_log(self, store: Store, base_index: int) -> list[Entry]:
        entries: list[Entry] = []
        start = self.keys.log + u64(base_index + 1)
        at = len(self.keys.log)
        for key, value in store.scan(start, self.keys.log_stop, 1_000_000):
            index = int.from_bytes(key[at:], "big")
            logged: LoggedEntry = _read_entry(value)
            if index != base_index + len(entries) + 1:
                raise StoreDamaged(f"Vnode {self.group}: log entry {index} follows a gap.")
            if zlib.crc32(logged.data) != logged.crc:
                raise StoreDamaged(f"Vnode {self.group}: log entry {index} fails its checksum.")
            entries.append(Entry(logged.term, index, EntryType(logged.type), logged.data))
        return entries

    # --- inputs ----------------------------------------------------------------------------

    def propose(self, command: Any, done: Done | None = None) -> None:
        """Put a command into the next entry. `done` hears of it once it is durable."""
        self._pending.append((command, done))

    def has_work(self) -> bool:
        """Whether `gather` would do anything."""
        return bool(self._pending) or self.core.has_ready()

    def is_leader(self) -> bool:
        """Whether this replica may propose and fire."""
        return self.core.leads

    @property
    def term(self) -> int:
        """The current term."""
        return self._hard_state.term

    # --- one cycle -------------------------------------------------------------------------

    def gather(self) -> None:
        """Take what is waiting through the log, up to rows in the overlay."""
        core = self.core
        if self._pending and self.is_leader():
            self._propose_pending()
        if not core.has_ready():
            return
        ready = self._ready = core.ready()
        if ready.hard_state is not None:
            self._hard_state = ready.hard_state
        self._apply(ready.committed_entries)
        entries = ready.entries
        if entries and self._is_certain(entries[0]):
            self._apply(entries)
            self._compact(entries[-1])
        else:
            self._write_entries(entries)
        if ready.entries or ready.committed_entries:
            self.machine.flush()
        state = self._hard_state
        commit = max(state.commit, self.machine.applied_index)
        self._hard_state = HardState(state.term, state.vote, commit)
        self.overlay.put(
            self.keys.hard_state,
            codec.encode(LogState(state.term, state.vote, commit, *self._base)),
        )

    def _propose_pending(self) -> None:
        """Cut the waiting commands into entries of bounded size and propose each.

        Those that would be too many bytes for one cycle wait for the next.
        """
        pending, self._pending = self._pending, []
        if len(pending) <= limits.ENTRY_COMMANDS_SMALL:
            self._propose_entry(pending)
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
            assert self._gathered, "a core that has nothing to do has refused an entry"
            return False
        self._gathered.append((batch, dones))
        return True

    def _is_certain(self, entry: Entry) -> bool:
        """Whether an entry that is not stored yet cannot but be committed: see "Fusing" above."""
        return entry.term == self._hard_state.term and entry.index == self.machine.applied_index + 1

    def _write_entries(self, entries: Any) -> None:
        log = self.keys.log
        put = self.overlay.put
        for entry in entries:
            data = entry.data
            row = LoggedEntry(entry.term, int(entry.type), zlib.crc32(data), data)
            put(log + u64(entry.index), codec.encode(row))
            self._row_index = entry.index

    def _apply(self, entries: Any) -> None:
        """Apply entries that are not applied yet, with the commands at hand where they are ours."""
        machine = self.machine
        for entry in entries:
            if entry.index <= machine.applied_index:
                continue
            if entry.type is not EntryType.NORMAL:
                raise ReplicaStopped(f"Entry {entry.index} is of type {entry.type.name}.")
            batch: list[Any] | None = None
            dones: list[Done | None] = []
            if entry.data and self._gathered and entry.term == self._hard_state.term:
                batch, dones = self._gathered.pop(0)
            results = machine.apply(entry.index, entry.term, entry.data, batch)
            for done, result in zip(dones, results, strict=False):
                if done is not None:
                    self._answers.append((done, result))

    def _compact(self, last: Entry) -> None:
        """Let the log begin behind `last`, which is applied; nobody needs what was before."""
        log = self.keys.log
        for index in range(self._base[0] + 1, self._row_index + 1):
            self.overlay.delete(log + u64(index))
        self._base = (last.index, last.term)

    def persisted(self) -> Outcome | None:
        """The batch with what was gathered is durable: tell the core, release what waited."""
        ready = self._ready
        if ready is None:
            return None
        self._ready = None
        storage = self._storage
        storage.append(ready.entries)
        storage.set_hard_state(self._hard_state)
        core = self.core
        core.advance()
        if self.machine.applied_index == storage.last_index():
            # What the core now calls committed is applied and stored as such already.
            while core.has_ready() and not core.must_persist:
                core.ready()
                core.advance()
        if self._base[0] >= storage.first_index():
            storage.compact(self._base[0])
        answers, self._answers = self._answers, []
        return Outcome(answers, self.machine.take_effects(), self.machine.applied_index)

    def fail(self, error: TimeMachineError) -> list[tuple[Done, Any]]:
        """The node must stop: whoever waits for an answer gets `error` instead."""
        waiting = [done for done, _ in self._answers]
        waiting += [done for _, done in self._pending if done is not None]
        for _, dones in self._gathered:
            waiting += [done for done in dones if done is not None]
        self._answers, self._pending, self._gathered = [], [], []
        return [(done, error) for done in waiting]
