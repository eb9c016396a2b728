"""A host for tests: it does the duties of a Ready one by one and can crash between any two."""

from timemachine.raft import (
    Config,
    ConfState,
    Entry,
    HardState,
    MemoryStorage,
    RawNode,
    Ready,
    Snapshot,
    SnapshotMetadata,
)

UNLIMITED = 2**63


def empty_storage(*voters: int) -> MemoryStorage:
    """The storage of a new group."""
    storage = MemoryStorage()
    members = ConfState(voters=voters)
    storage.apply_snapshot(Snapshot(metadata=SnapshotMetadata(conf_state=members)))
    return storage


class Host:
    """One replica with a disk that forgets, in a crash, what was not synced.

    Entries only ever come with `must_sync`, so `storage` holds them durably. A commit index and
    what the machine applied may wait for a later sync; `crash()` takes them back to the last one.
    """

    def __init__(
        self, *, committed_size_per_ready_max: int = 4096, uncommitted_size_max: int = 4096
    ) -> None:
        self.committed_size_per_ready_max = committed_size_per_ready_max
        self.uncommitted_size_max = uncommitted_size_max
        self.storage = empty_storage(1)
        self.machine: list[Entry] = []
        self._synced_hard_state = HardState()
        self._synced_machine: list[Entry] = []
        self.node = self._start()

    def _start(self) -> RawNode:
        applied = self.machine[-1].index if self.machine else 0
        config = Config(
            id=1,
            applied=applied,
            committed_size_per_ready_max=self.committed_size_per_ready_max,
            uncommitted_size_max=self.uncommitted_size_max,
        )
        return RawNode(config, self.storage)

    def persist(self, ready: Ready) -> None:
        """Duty 1."""
        self.storage.append(ready.entries)
        if ready.hard_state is not None:
            self.storage.set_hard_state(ready.hard_state)
        if ready.must_sync:
            self.sync()

    def sync(self) -> None:
        """Make everything durable that was written so far."""
        self._synced_hard_state = self.storage.initial_state()[0]
        self._synced_machine = list(self.machine)

    def apply(self, ready: Ready) -> None:
        """Duty 3."""
        for entry in ready.committed_entries:
            assert entry.index == len(self.machine) + 1, "entries are applied once and in order"
            self.machine.append(entry)

    def handle(self) -> Ready:
        """Do all duties of one Ready."""
        ready = self.node.ready()
        self.persist(ready)
        self.apply(ready)
        self.node.advance()
        return ready

    def settle(self) -> list[Ready]:
        """Do all there is to do."""
        done = []
        while self.node.has_ready():
            done.append(self.handle())
        return done

    def lead(self) -> None:
        """Win an election."""
        self.node.campaign()
        self.settle()

    def restart(self) -> None:
        """Crash, and start again from the disk."""
        self.storage.set_hard_state(self._synced_hard_state)
        self.machine = list(self._synced_machine)
        self.node = self._start()

    def data(self) -> list[bytes]:
        """What was applied, without the empty entries of leaders."""
        return [entry.data for entry in self.machine if entry.data]


def leading_host() -> Host:
    """A host whose replica has just become leader of term 1, at index 1, with nothing to do."""
    host = Host()
    host.lead()
    return host
