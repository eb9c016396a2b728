"""The rows of a log: where it begins, and what is found again at the next start."""

import pytest

from timemachine import codec
from timemachine.group import GroupConfig
from timemachine.logrows import LogRows, LogState
from timemachine.raft import Entry, HardState
from timemachine.storage.keys import ReplicaKeys
from timemachine.storage.memory import MemoryStore
from timemachine.storage.overlay import Overlay

GROUP = (7, 0)
KEYS = ReplicaKeys(1)
THREE = GroupConfig(id=1, voters=(1, 2, 3), log_entries_max=0)


class Rows:
    """A log over a store, cycle by cycle."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.overlay = Overlay(self.store)
        self.log = self.read()

    def read(self) -> LogRows:
        """The log as the next start finds it."""
        return LogRows(GROUP, KEYS, self.overlay, self.store, THREE)

    def cycle(self, entries: list[Entry], applied: int) -> None:
        """One cycle: write entries, apply up to some index, cut the log, make it durable."""
        log = self.log
        if entries:
            log.write(entries)
        log.drop_older(applied, applied)
        state = HardState(9, 0, applied)
        log.put_state(state)
        self.store.write(self.store.prepare(self.overlay.seal()))
        self.overlay.settled()
        log.written(None, entries, state, (applied, 0))
        log.forget()


def _entries(first: int, *terms: int) -> list[Entry]:
    return [Entry(term, first + place, data=b"x") for place, term in enumerate(terms)]


@pytest.mark.parametrize("applied", [2, 3, 4])
def test_a_log_begins_with_the_term_that_its_entry_has_now(applied: int) -> None:
    """Also where what it begins behind was replaced in the batch that cuts it.

    (Named: it began with the term of the entry that was replaced. After a restart the replica
    could not agree with any leader about where its log begins.)
    """
    rows = Rows()
    rows.cycle(_entries(1, 1), 0)
    rows.cycle(_entries(2, 1, 1), 1)
    terms = {0: 0, 1: 1, 2: 2, 3: 3, 4: 4}
    rows.cycle(_entries(2, 2, 3, 4), applied)
    rows.cycle([], applied)
    row = rows.store.get(KEYS.hard_state)
    assert row is not None
    state = codec.decoder(LogState)(row)
    assert state.base_index > 0
    assert terms[state.base_index] == state.base_term
    found = rows.read()
    assert 4 == found.last
    kept = range(state.base_index, 5)
    assert [terms[index] for index in kept] == [found.storage.term(index) for index in kept]
