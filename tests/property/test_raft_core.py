"""A single voter under any order of inputs, duties and crashes keeps Raft's promises."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.unit.raft.host import Host
from timemachine.errors import ProposalDropped
from timemachine.raft import Entry, Ready, Role


class CrashingHost(RuleBasedStateMachine):
    """The duties of a Ready are done one at a time; a crash may come between any two."""

    def __init__(self) -> None:
        super().__init__()
        self.host = Host(committed_size_per_ready_max=100, uncommitted_size_max=30)
        self.ready: Ready | None = None
        self.duty = 0
        self.proposed = 0
        self.applied_ever: dict[int, Entry] = {}
        self.vote_of_term: dict[int, int] = {}

    @rule()
    def campaign(self) -> None:
        """A leader ignores it."""
        self.host.node.campaign()

    @rule(ticks=st.integers(1, 12))
    def tick(self, ticks: int) -> None:
        """Up to more than one election time-out."""
        for _ in range(ticks):
            self.host.node.tick()

    @rule(size=st.integers(0, 3))
    def propose(self, size: int) -> None:
        """Each proposal has its own data, so that the log shows which one it is."""
        leads = self.host.node.status().role is Role.LEADER
        self.proposed += 1
        try:
            self.host.node.propose(b"%d" % self.proposed * size)
        except ProposalDropped:
            assert not leads or size > 0
        else:
            assert leads

    @precondition(lambda self: self.ready is None and self.host.node.has_ready())
    @rule()
    def take_ready(self) -> None:
        """What has_ready announces is there, and entries are always to be synced."""
        self.ready = self.host.node.ready()
        assert Ready(entries=[], committed_entries=[]) != self.ready
        assert self.ready.must_sync or not self.ready.entries
        self.duty = 1

    @precondition(lambda self: self.ready is not None)
    @rule()
    def do_next_duty(self) -> None:
        """Persist; apply; advance."""
        assert self.ready is not None
        if self.duty == 1:
            self.host.persist(self.ready)
        elif self.duty == 2:
            self.host.apply(self.ready)
            for entry in self.ready.committed_entries:
                assert entry == self.applied_ever.setdefault(entry.index, entry)
        else:
            self.host.node.advance()
            self.ready = None
        self.duty += 1

    @rule(synced=st.booleans())
    def crash(self, synced: bool) -> None:
        """Lose the process, and whatever was written without a sync unless one came by chance."""
        if synced:
            self.host.sync()
        stored = self.durable_entries()
        self.host.restart()
        assert stored == self.durable_entries()
        assert Role.FOLLOWER is self.host.node.status().role
        self.ready = None

    @precondition(lambda self: self.ready is None)
    @rule()
    def compact(self) -> None:
        """Drop what is applied, once that is durable."""
        self.host.sync()
        applied = len(self.host.machine)
        if self.host.storage.first_index() <= applied == self.host.node.status().applied:
            self.host.storage.compact(applied)

    def durable_entries(self) -> list[Entry]:
        """All entries on the disk."""
        storage = self.host.storage
        return storage.entries(storage.first_index(), storage.last_index() + 1, 10**9)

    @invariant()
    def committed_entries_are_durable(self) -> None:
        """Nothing is committed or applied that is not on the disk."""
        status = self.host.node.status()
        assert status.applied <= status.commit <= self.host.storage.last_index()
        assert len(self.host.machine) <= status.commit

    @invariant()
    def one_vote_a_term(self) -> None:
        """A durable vote is never given to anyone else in its term; a leader has it."""
        durable = self.host.storage.initial_state()[0]
        if durable.vote:
            assert durable.vote == self.vote_of_term.setdefault(durable.term, durable.vote)
        status = self.host.node.status()
        if status.role is Role.LEADER:
            assert (status.term, status.id) == (durable.term, durable.vote)

    def teardown(self) -> None:
        """Left in peace, the replica leads and everything durable is applied, unchanged."""
        kept = self.durable_entries()
        self.host.restart()
        self.host.lead()
        assert Role.LEADER is self.host.node.status().role
        for entry in kept:
            assert entry == self.host.machine[entry.index - 1]
        for index, entry in self.applied_ever.items():
            assert entry == self.host.machine[index - 1]


TestCrashingHost = CrashingHost.TestCase
