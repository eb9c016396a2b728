"""Log and Unstable behave like one dumb list, whatever of it is stored, in progress or neither."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from timemachine.raft import Entry, MemoryStorage
from timemachine.raft.log import Log
from timemachine.raft.messages import entry_bytes


class LogAgainstList(RuleBasedStateMachine):
    """`twin[i]` is the entry at index i + 1; what it holds beside is counted by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.storage = MemoryStorage()
        self.log = Log(self.storage, committed_size_per_ready_max=100)
        self.twin: list[Entry] = []
        self.committed = 0
        self.applied = 0
        self.cut = 0
        self.stored: list[Entry] = []
        # Writes the host took and has not finished, oldest first, each with the term in force.
        self.writes: list[list[Entry]] = []

    @rule(
        back=st.integers(0, 4),
        more=st.integers(0, 2),
        size=st.integers(1, 4),
        data=st.binary(max_size=40),
    )
    def append(self, back: int, more: int, size: int, data: bytes) -> None:
        """A leader adds to the end; another leader, in a newer term, replaces some of it."""
        keep = max(self.committed, len(self.twin) - back)
        replaces = keep < len(self.twin)
        term = (self.twin[-1].term if self.twin else 1) + max(more, 1 if replaces else 0)
        entries = [Entry(term, keep + 1 + offset, data=data) for offset in range(size)]
        self.log.append(entries)
        self.twin[keep:] = entries

    @rule()
    def hand_out(self) -> None:
        """The host takes what is new and starts writing."""
        assert self.log.unstable.has_next_entries() == bool(self.log.unstable.next_entries())
        entries = self.log.unstable.next_entries()
        if entries:
            self.writes.append(entries)
        self.log.unstable.accept_in_progress()
        assert [] == self.log.unstable.next_entries()

    @precondition(lambda self: self.writes)
    @rule()
    def finish_write(self) -> None:
        """The oldest write is durable; the core hears of it unless a later one is under way."""
        entries = self.writes.pop(0)
        self.storage.append(entries)
        del self.stored[entries[0].index - 1 :]
        self.stored.extend(entries)
        if not self.writes:
            self.log.unstable.stable_to(entries[-1].index, entries[-1].term)

    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        """Some majority has more of the log."""
        index = data.draw(st.integers(self.committed, len(self.twin)))
        if index > self.committed:
            term = self.twin[index - 1].term
            assert not self.log.maybe_commit(index, term + 1)
            assert self.log.maybe_commit(index, term)
            self.committed = index

    @rule()
    def apply(self) -> None:
        """The host applies one parcel: contiguous, within the limit, never nothing."""
        entries = self.log.next_committed_entries()
        assert self.log.has_next_committed_entries() == bool(entries)
        assert self.twin[self.applied : self.applied + len(entries)] == entries
        if entries:
            assert len(entries) == 1 or sum(map(entry_bytes, entries)) <= 100
            self.log.accept_applying(entries[-1].index)
            self.log.applied_to(entries[-1].index)
            self.applied += len(entries)
        else:
            assert self.committed == self.applied

    @rule(data=st.data())
    def compact(self, data: st.DataObject) -> None:
        """The host drops what it has applied and stored for good."""
        limit = min(self.applied, len(self.stored), self.log.unstable.offset - 1)
        if limit > self.cut and not self.writes:
            self.cut = data.draw(st.integers(self.cut + 1, limit))
            self.storage.compact(self.cut)

    @rule(data=st.data(), size_max=st.integers(0, 200))
    def read(self, data: st.DataObject, size_max: int) -> None:
        """A range reads the same, wherever its entries are."""
        low = data.draw(st.integers(self.cut + 1, len(self.twin) + 1))
        high = data.draw(st.integers(low, len(self.twin) + 1))
        expected: list[Entry] = []
        for entry in self.twin[low - 1 : high - 1]:
            if expected and sum(map(entry_bytes, [*expected, entry])) > size_max:
                break
            expected.append(entry)
        assert expected == self.log.slice(low, high, size_max)

    @invariant()
    def the_same_log(self) -> None:
        """Ends, terms and marks agree with the list; the unstable part is well-formed."""
        log, unstable = self.log, self.log.unstable
        assert (self.cut + 1, len(self.twin)) == (log.first_index(), log.last_index())
        for index in range(self.cut + 1, len(self.twin) + 1):
            assert self.twin[index - 1].term == log.term(index)
        assert (self.committed, self.applied) == (log.committed, log.applied)
        assert log.applied <= log.applying <= log.committed <= log.last_index()
        end = unstable.offset + len(unstable.entries)
        assert unstable.offset <= unstable.offset_in_progress <= end
        assert list(range(unstable.offset, end)) == [entry.index for entry in unstable.entries]


TestLogAgainstList = LogAgainstList.TestCase
