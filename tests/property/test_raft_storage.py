"""MemoryStorage behaves like a dumb dictionary of entries."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from timemachine.raft import (
    Compacted,
    ConfState,
    Entry,
    EntryUnavailable,
    MemoryStorage,
    Snapshot,
    SnapshotMetadata,
    SnapshotOutOfDate,
)
from timemachine.raft.messages import entry_bytes


class StorageAgainstTwin(RuleBasedStateMachine):
    """Every index from 0 on has an entry in `twin`, or it has none; `cut` is what is compacted."""

    def __init__(self) -> None:
        super().__init__()
        self.storage = MemoryStorage()
        self.twin: dict[int, Entry] = {0: Entry()}
        self.cut = 0
        self.snapshot_index = 0

    def last(self) -> int:
        """The newest index, or that of the cut."""
        return max(self.twin)

    @rule(
        back=st.integers(0, 6),
        more=st.integers(0, 3),
        size=st.integers(1, 4),
        data=st.binary(max_size=8),
    )
    def append(self, back: int, more: int, size: int, data: bytes) -> None:
        """Write at the end, over the end, or partly over what is compacted."""
        first = max(1, self.last() + 1 - back)
        term = self.twin[self.last()].term + more
        entries = [Entry(term, first + offset, data=data) for offset in range(size)]
        self.storage.append(entries)
        if entries[-1].index <= self.cut:
            return
        for index in [index for index in self.twin if index >= max(first, self.cut + 1)]:
            del self.twin[index]
        self.twin.update({each.index: each for each in entries if each.index > self.cut})

    @rule(offset=st.integers(-2, 6))
    def compact(self, offset: int) -> None:
        """Drop from the front."""
        index = self.cut + offset
        if offset <= 0:
            with pytest.raises(Compacted):
                self.storage.compact(index)
        elif index <= self.last():
            self.storage.compact(index)
            self.cut = index

    @precondition(lambda self: self.last() > self.cut)
    @rule(data=st.data())
    def create_snapshot(self, data: st.DataObject) -> None:
        """Take a snapshot anywhere in the log."""
        index = data.draw(st.integers(self.cut, self.last()))
        if index <= self.snapshot_index:
            with pytest.raises(SnapshotOutOfDate):
                self.storage.create_snapshot(index)
        else:
            created = self.storage.create_snapshot(index, data=b"image")
            assert (index, self.twin[index].term) == (
                created.metadata.index,
                created.metadata.term,
            )
            self.snapshot_index = index

    @rule(ahead=st.integers(-2, 4))
    def apply_snapshot(self, ahead: int) -> None:
        """Install a snapshot from elsewhere."""
        index = max(1, self.snapshot_index + ahead)
        term = self.twin[self.last()].term + 1
        snapshot = Snapshot(b"", SnapshotMetadata(ConfState((1,)), index, term))
        if 0 != self.snapshot_index >= index:
            with pytest.raises(SnapshotOutOfDate):
                self.storage.apply_snapshot(snapshot)
        else:
            self.storage.apply_snapshot(snapshot)
            self.twin = {index: Entry(term, index)}
            self.cut = self.snapshot_index = index

    @rule(data=st.data(), size_max=st.integers(0, 200))
    def read(self, data: st.DataObject, size_max: int) -> None:
        """Read a range, with a limit."""
        low = data.draw(st.integers(0, self.last() + 2))
        high = data.draw(st.integers(low, self.last() + 3))
        if low <= self.cut:
            with pytest.raises(Compacted):
                self.storage.entries(low, high, size_max)
        elif high > self.last() + 1:
            with pytest.raises(EntryUnavailable):
                self.storage.entries(low, high, size_max)
        else:
            expected: list[Entry] = []
            for index in range(low, high):
                entry = self.twin[index]
                if expected and sum(map(entry_bytes, [*expected, entry])) > size_max:
                    break
                expected.append(entry)
            assert expected == self.storage.entries(low, high, size_max)

    @invariant()
    def the_same_terms_everywhere(self) -> None:
        """First and last index and every term agree, and beyond them errors."""
        assert (self.cut + 1, self.last()) == (
            self.storage.first_index(),
            self.storage.last_index(),
        )
        for index in range(self.cut, self.last() + 1):
            assert self.twin[index].term == self.storage.term(index)
        if self.cut > 0:
            with pytest.raises(Compacted):
                self.storage.term(self.cut - 1)
        with pytest.raises(EntryUnavailable):
            self.storage.term(self.last() + 1)


TestStorageAgainstTwin = StorageAgainstTwin.TestCase
