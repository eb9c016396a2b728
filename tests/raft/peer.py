"""A replica and its host, in memory."""

from collections.abc import Iterable, Sequence
from typing import Any

from timemachine.raft import (
    NO_NODE,
    Config,
    ConfState,
    Entry,
    EntryType,
    HardState,
    MemoryStorage,
    Message,
    MessageType,
    RawNode,
    ReadState,
    Role,
    Snapshot,
    SnapshotMetadata,
)
from timemachine.raft.messages import read_conf_change
from timemachine.raft.progress import Progress

UNLIMITED = 2**62


def log_of(*terms: int, first: int = 1) -> list[Entry]:
    """Entries with these terms, from the index `first` on."""
    return [Entry(term, first + place) for place, term in enumerate(terms)]


def data_of(entries: Iterable[Entry]) -> list[bytes]:
    """What clients proposed among `entries`: not the empty entries of new leaders."""
    return [entry.data for entry in entries if entry.type is EntryType.NORMAL and entry.data]


class Peer:
    """A replica whose host persists, sends, applies and advances at once, whenever it is asked to.

    Inputs give what the replica sent because of them; what it applied, and the reads that it may
    answer, are collected. `hold` is set to keep its disk from writing: then Readys wait.
    """

    def __init__(
        self,
        id: int = 1,
        voters: Sequence[int] = (1, 2, 3),
        *,
        learners: Sequence[int] = (),
        log: Sequence[Entry] = (),
        hard_state: HardState | None = None,
        snapshot: Snapshot | None = None,
        applied: int = 0,
        **settings: Any,
    ) -> None:
        self.id = id
        self.storage = MemoryStorage()
        members = ConfState(voters=tuple(voters), learners=tuple(learners))
        if snapshot is None:
            snapshot = Snapshot(metadata=SnapshotMetadata(conf_state=members))
        self.storage.apply_snapshot(snapshot)
        self.storage.append(log)
        if hard_state is None and log:
            hard_state = HardState(term=log[-1].term, commit=snapshot.metadata.index)
        if hard_state is not None:
            self.storage.set_hard_state(hard_state)
        defaults: dict[str, object] = {
            "committed_size_per_ready_max": UNLIMITED,
            "uncommitted_size_max": UNLIMITED,
            "message_bytes_max": UNLIMITED,
            "inflight_messages_max": 256,
            "inflight_bytes_max": UNLIMITED,
        }
        self._settings = {**defaults, **settings}
        self.applied: list[Entry] = []
        self.conf_states: list[ConfState] = []
        self.snapshots: list[Snapshot] = []
        self.reads: list[ReadState] = []
        self.hold = False
        self.node = self._start(applied)

    def _start(self, applied: int) -> RawNode:
        return RawNode(
            Config(id=self.id, applied=applied, **self._settings),
            self.storage,
        )

    # Inputs.

    def settle(self) -> list[Message]:
        """Do all duties there are; what was sent."""
        sent: list[Message] = []
        while not self.hold and self.node.has_ready():
            ready = self.node.ready()
            if ready.snapshot is not None:
                self.storage.apply_snapshot(ready.snapshot)
                self.snapshots.append(ready.snapshot)
            self.storage.append(ready.entries)
            if ready.hard_state is not None:
                self.storage.set_hard_state(ready.hard_state)
            sent += ready.messages
            for entry in ready.committed_entries:
                if entry.type is not EntryType.NORMAL:
                    change = read_conf_change(entry)
                    self.conf_states.append(self.node.apply_conf_change(change))
            self.applied += ready.committed_entries
            self.reads += ready.read_states
            self.node.advance()
        return sent

    def step(self, message: Message) -> list[Message]:
        """Give the replica a message; what it sent because of it."""
        self.node.step(message)
        return self.settle()

    def hear(self, type: MessageType, from_: int, **fields: Any) -> list[Message]:
        """Give the replica a message from `from_`, of its own term unless `fields` say another."""
        fields.setdefault("term", self.term)
        return self.step(Message(type, self.id, from_, **fields))

    def tick(self, count: int = 1) -> list[Message]:
        """Let time pass; what the replica sent meanwhile."""
        sent = []
        for _ in range(count):
            self.node.tick()
            sent += self.settle()
        return sent

    def campaign(self) -> list[Message]:
        """Have the replica campaign; what it sent."""
        self.node.campaign()
        return self.settle()

    def propose(self, data: bytes) -> list[Message]:
        """Propose `data`; what the replica sent."""
        self.node.propose(data)
        return self.settle()

    def lead(self) -> list[Message]:
        """Have the replica win an election with every vote; what it sent as the leader."""
        requests = self.campaign()
        sent: list[Message] = []
        for request in requests:
            if self.role() is not Role.CANDIDATE:
                break
            sent += self.hear(MessageType.VOTE_RESPONSE, request.to)
        assert self.role() is Role.LEADER
        return sent

    def lead_committed(self) -> None:
        """Lead, with the opening entry committed everywhere and nothing on its way."""
        self.accept_all(self.lead())

    def accept(self, message: Message) -> list[Message]:
        """Answer an append as a follower that takes it would; what the replica sent then."""
        if message.type is not MessageType.APPEND:
            return []
        index = message.index + len(message.entries)
        return self.hear(MessageType.APPEND_RESPONSE, message.to, index=index)

    def accept_all(self, sent: Sequence[Message]) -> None:
        """Answer appends as followers that take everything, until there are no more."""
        while sent:
            sent = [each for message in sent for each in self.accept(message)]

    def restart(self, applied: int = 0) -> None:
        """Forget all but the disk."""
        self.node = self._start(applied)
        self.settle()

    def compact(self, index: int, data: bytes = b"") -> None:
        """Take a snapshot at `index` and drop the log up to there."""
        members = self.node.status().conf_state
        self.storage.create_snapshot(index, members, data)
        self.storage.compact(index)

    # What there is to see.

    def role(self) -> Role:
        """What it is."""
        return self.node.status().role

    @property
    def term(self) -> int:
        """The newest term that it knows of."""
        return self.node.status().term

    @property
    def leader(self) -> int:
        """Whom it follows; NO_NODE for nobody."""
        return self.node.status().leader

    @property
    def vote(self) -> int:
        """Whom it voted for in its term."""
        return self.node.status().vote

    @property
    def commit(self) -> int:
        """Up to where it knows the log to be committed."""
        return self.node.status().commit

    @property
    def last_index(self) -> int:
        """Where its log ends."""
        return self.node.status().last_index

    @property
    def log(self) -> list[Entry]:
        """What is on its disk."""
        first, last = self.storage.first_index(), self.storage.last_index()
        return self.storage.entries(first, last + 1, UNLIMITED) if first <= last else []

    @property
    def terms(self) -> list[int]:
        """The terms of what is on its disk."""
        return [entry.term for entry in self.log]

    @property
    def data(self) -> list[bytes]:
        """What clients proposed, of what it applied."""
        return data_of(self.applied)

    def progress(self, member: int) -> Progress:
        """How far a leader knows `member` to be."""
        return self.node.status().progress[member]


def in_state(role: Role, **settings: Any) -> Peer:
    """Replica 1 of three, in `role` in term 1; a follower follows 2."""
    peer = Peer(**settings)
    if role is Role.FOLLOWER:
        peer.hear(MessageType.HEARTBEAT, 2, term=1)
        assert (Role.FOLLOWER, 2) == (peer.role(), peer.leader)
    elif role is Role.LEADER:
        peer.lead()
    else:
        peer.campaign()
        assert (role, NO_NODE) == (peer.role(), peer.leader)
    return peer
