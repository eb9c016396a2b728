"""The replicas of one group, the messages between them, and the duties of their hosts.

A small world with the manners of etcd's own test environment: nothing moves by itself, each disk
writes at once, the state machine appends every command to a string and keeps a snapshot for every
entry that it has applied.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from tests.etcd.texts import message_text, ready_text
from timemachine.raft import Config, MemoryStorage, RawNode
from timemachine.raft.messages import (
    APPEND_THREAD,
    APPLY_THREAD,
    ConfState,
    Entry,
    EntryType,
    HardState,
    Message,
    MessageType,
    Snapshot,
    SnapshotMetadata,
    read_conf_change,
)

UNLIMITED: Final = 2**62
_THREADS: Final = frozenset({APPEND_THREAD, APPLY_THREAD})


class HistoryStorage(MemoryStorage):
    """A storage whose newest snapshot is always that of the entry that was applied last."""

    __slots__ = ("history",)

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__()
        self.history = [snapshot]

    def snapshot(self) -> Snapshot:
        """See Storage."""
        return self.history[-1]


class Replica:
    """One member, with its disk, its state machine, and what its two threads have to do."""

    def __init__(self, config: Config, bootstrap: Snapshot | None) -> None:
        self.config = config
        self.id = config.id
        self.storage = HistoryStorage(bootstrap or Snapshot())
        if bootstrap is not None:
            self.storage.apply_snapshot(bootstrap)
        self.append_work: list[Message] = []
        self.apply_work: list[Message] = []
        self.node = RawNode(config, self.storage)

    def persist(
        self, hard_state: HardState | None, entries: Sequence[Entry], snapshot: Snapshot | None
    ) -> None:
        """Write what a Ready, or a message to the append thread, asks for."""
        if hard_state is not None and hard_state != HardState():
            self.storage.set_hard_state(hard_state)
        if snapshot is not None:
            assert not entries, "a snapshot and entries at once"
            self.storage.apply_snapshot(snapshot)
        else:
            self.storage.append(entries)

    def apply(self, entries: Sequence[Entry]) -> None:
        """Apply committed entries, and keep a snapshot of what each of them leads to."""
        for entry in entries:
            last = self.storage.history[-1]
            members: ConfState = last.metadata.conf_state
            data = entry.data
            if entry.type is not EntryType.NORMAL:
                change = read_conf_change(entry)
                members = self.node.apply_conf_change(change)
                data = change.context
            metadata = SnapshotMetadata(members, entry.index, entry.term)
            self.storage.history.append(Snapshot(last.data + data, metadata))


class Group:
    """All replicas, and what is on its way between them."""

    def __init__(self) -> None:
        self.replicas: list[Replica] = []
        self.messages: list[Message] = []

    def replica(self, number: int) -> Replica:
        """The replica with the id `number`; the first one is 1. Raises IndexError."""
        if not 1 <= number <= len(self.replicas):
            raise IndexError(f"no replica {number}")
        return self.replicas[number - 1]

    def add(self, config: Config, bootstrap: Snapshot | None) -> None:
        """Start one more replica, with the next id."""
        config = msgspec.structs.replace(config, id=len(self.replicas) + 1)
        self.replicas.append(Replica(config, bootstrap))

    def process_ready(self, replica: Replica) -> str:
        """Do the duties of one Ready, and say what it held."""
        ready = replica.node.ready()
        threaded = replica.config.async_storage_writes
        if not threaded:
            replica.persist(ready.hard_state, ready.entries, ready.snapshot)
            replica.apply(ready.committed_entries)
        for message in ready.messages:
            if message.to not in _THREADS:
                self.messages.append(message)
                continue
            assert threaded, "messages to threads that are not there"
            if message.type is MessageType.STORAGE_APPEND:
                replica.append_work.append(message)
            else:
                assert message.type is MessageType.STORAGE_APPLY
                replica.apply_work.append(message)
        if not threaded:
            replica.node.advance()
        return ready_text(ready)

    def process_append_thread(self, replica: Replica) -> str:
        """Write what the oldest message to the append thread asks for."""
        if not replica.append_work:
            return "no append work to perform"
        message = replica.append_work.pop(0)
        hard_state = HardState(message.term, message.vote, message.commit)
        replica.persist(hard_state, message.entries, message.snapshot)
        return self._respond(message)

    def process_apply_thread(self, replica: Replica) -> str:
        """Apply what the oldest message to the apply thread asks for."""
        if not replica.apply_work:
            return "no apply work to perform"
        message = replica.apply_work.pop(0)
        replica.apply(message.entries)
        return self._respond(message)

    def _respond(self, message: Message) -> str:
        self.messages.extend(message.responses)
        lines = [
            "Processing:",
            message_text(msgspec.structs.replace(message, responses=())),
            "Responses:",
            *(message_text(each) for each in message.responses),
        ]
        return "".join(f"{line}\n" for line in lines)

    def waiting_for(
        self, number: int, kind: MessageType | None = None, *, lossy: bool = False
    ) -> list[Message]:
        """The messages to a replica, of one kind or of any; with `lossy` only those of others.

        What a replica says to itself does not pass the network, so it cannot get lost.
        """
        return [
            message
            for message in self.messages
            if message.to == number
            and (kind is None or message.type is kind)
            and not (lossy and (message.from_ == message.to or message.from_ in _THREADS))
        ]

    def take(self, messages: list[Message]) -> None:
        """These messages are no longer on their way."""
        taken = {id(message) for message in messages}
        self.messages = [message for message in self.messages if id(message) not in taken]
