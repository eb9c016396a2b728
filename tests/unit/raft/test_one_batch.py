"""The host of a single voter may store and apply in one batch: the core neither knows nor minds."""

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.raft.host import empty_storage
from timemachine.raft import Config, Entry, HardState, MemoryStorage, RawNode, Ready, Role


class FusingHost:
    """Each batch holds entries, hard state, and what applying those entries wrote, all or nothing.

    `storage` and `machine` are the disk: only `write` changes them, and a crash keeps them.
    """

    def __init__(self) -> None:
        self.storage = empty_storage(1)
        self.machine: list[Entry] = []
        self.answered: list[bytes] = []
        self.restart()

    def restart(self) -> None:
        """Start from the disk."""
        self.node = RawNode(Config(id=1, applied=len(self.machine)), self.storage)
        self.hard_state = self.storage.initial_state()[0]

    def write(self, ready: Ready) -> None:
        """One synced batch."""
        self.hard_state = ready.hard_state or self.hard_state
        to_apply = [entry for entry in ready.committed_entries if entry.index > len(self.machine)]
        applied = len(self.machine) + len(to_apply)
        if ready.entries and ready.entries[0].index == applied + 1:
            to_apply.extend(ready.entries)
        self.storage.append(ready.entries)
        self.machine.extend(to_apply)
        commit = max(self.hard_state.commit, len(self.machine))
        self.hard_state = HardState(self.hard_state.term, self.hard_state.vote, commit)
        self.storage.set_hard_state(self.hard_state)

    def finish(self, ready: Ready) -> None:
        """After the batch: tell the core, and the clients whose entries are committed."""
        self.answered.extend(entry.data for entry in ready.committed_entries if entry.data)
        self.node.advance()

    def settle(self) -> int:
        """Do all there is to do; how many batches that took."""
        batches = 0
        while self.node.has_ready():
            ready = self.node.ready()
            self.write(ready)
            self.finish(ready)
            batches += 1
        return batches


def entries_of(storage: MemoryStorage) -> list[Entry]:
    """The whole log."""
    return storage.entries(1, storage.last_index() + 1, 10**9)


def test_the_machine_is_ahead_of_the_core_by_one_ready() -> None:
    """What was just written is applied in the same batch, and answered when it is committed."""
    host = FusingHost()
    host.node.campaign()
    host.settle()
    host.node.propose(b"x")
    host.write(host.node.ready())
    assert [b"", b"x"] == [entry.data for entry in host.machine]
    assert HardState(1, 1, 2) == host.storage.initial_state()[0]
    assert (1, []) == (host.node.status().commit, host.answered)
    host.node.advance()
    host.settle()
    assert [b"x"] == host.answered


def test_a_restart_right_after_the_batch_knows_all_as_committed_and_applied() -> None:
    """The stored commit is not less than the applied index, so the disk is accepted as it is."""
    host = FusingHost()
    host.node.campaign()
    host.settle()
    host.node.propose(b"x")
    host.write(host.node.ready())
    host.restart()
    assert (2, 2) == (host.node.status().commit, host.node.status().applied)
    assert not host.node.has_ready()


@given(st.lists(st.sampled_from(["propose", "settle", "write", "crash", "crash in batch"])))
def test_no_order_of_crashes_tells_a_client_what_is_not_so(steps: list[str]) -> None:
    """Answered commands stay, each is applied once, and the machine is the log up to the commit."""
    host = FusingHost()
    number = 0
    for step in steps:
        if step == "propose" and host.node.status().role is Role.LEADER:
            number += 1
            host.node.propose(b"%d" % number)
        elif step == "settle":
            host.node.campaign()
            host.settle()
        elif step == "write" and host.node.has_ready():
            host.write(host.node.ready())
            host.restart()
        elif step == "crash in batch" and host.node.has_ready():
            host.node.ready()
            host.restart()
        elif step == "crash":
            host.restart()
        durable = host.storage.initial_state()[0]
        assert len(host.machine) <= durable.commit <= host.storage.last_index()
        assert entries_of(host.storage)[: len(host.machine)] == host.machine
    host.node.campaign()
    host.settle()
    assert entries_of(host.storage) == host.machine
    applied = [entry.data for entry in host.machine if entry.data]
    assert sorted(set(applied), key=int) == applied
    assert set(host.answered) <= set(applied)
