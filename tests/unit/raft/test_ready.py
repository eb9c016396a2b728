"""timemachine/raft/ready.py: what a Ready holds in each step of a single voter's life."""

import pytest

from tests.unit.raft.host import Host, leading_host
from timemachine.raft.messages import Entry, HardState, Role, SoftState
from timemachine.raft.ready import Ready


def test_a_new_replica_has_nothing_to_do() -> None:
    """Before the first input there is no Ready, and asking for one gives an empty one."""
    node = Host().node
    assert not node.has_ready()
    assert Ready(entries=[], committed_entries=[]) == node.ready()


def test_an_election_is_three_readys() -> None:
    """Vote; leadership with an empty entry; the commit of that entry."""
    host = Host()
    host.node.campaign()
    empty = Entry(1, 1)
    assert [
        Ready(
            SoftState(0, Role.CANDIDATE),
            HardState(1, 1, 0),
            entries=[],
            committed_entries=[],
            must_sync=True,
        ),
        Ready(SoftState(1, Role.LEADER), entries=[empty], committed_entries=[], must_sync=True),
        Ready(hard_state=HardState(1, 1, 1), entries=[], committed_entries=[empty]),
    ] == host.settle()


def test_a_proposal_is_two_readys() -> None:
    """Entries to be synced; then their commit, which needs no sync of its own."""
    host = leading_host()
    host.node.propose(b"a")
    host.node.propose(b"b")
    entries = [Entry(1, 2, data=b"a"), Entry(1, 3, data=b"b")]
    assert [
        Ready(entries=entries, committed_entries=[], must_sync=True),
        Ready(hard_state=HardState(1, 1, 3), entries=[], committed_entries=entries),
    ] == host.settle()


def test_a_ready_may_hold_new_and_committed_entries_at_once() -> None:
    """A proposal made during a write travels with the commit of what was written."""
    host = leading_host()
    host.node.propose(b"a")
    ready = host.node.ready()
    host.node.propose(b"b")
    host.persist(ready)
    host.node.advance()
    both = host.node.ready()
    assert [Entry(1, 3, data=b"b")] == both.entries
    assert [Entry(1, 2, data=b"a")] == both.committed_entries
    assert (HardState(1, 1, 2), True) == (both.hard_state, both.must_sync)


def test_what_is_handed_out_is_not_ready_again() -> None:
    """Between ready and advance there is nothing new to do, until there is."""
    host = leading_host()
    host.node.propose(b"a")
    host.node.ready()
    assert not host.node.has_ready()
    host.node.propose(b"b")
    assert host.node.has_ready()


def test_what_is_being_applied_is_not_ready_again() -> None:
    """Committed entries are announced once, and the rest of a long list after the next advance."""
    host = Host(committed_size_per_ready_max=1)
    host.lead()
    host.node.propose(b"a")
    host.handle()
    assert [Entry(1, 2, data=b"a")] == host.node.ready().committed_entries
    assert not host.node.has_ready()
    host.node.propose(b"b")
    host.node.advance()
    assert [] == host.node.ready().committed_entries


def test_ready_and_advance_take_turns() -> None:
    """A second ready without advance, and an advance without ready, are bugs of the host."""
    node = leading_host().node
    with pytest.raises(AssertionError, match="no Ready"):
        node.advance()
    node.ready()
    with pytest.raises(AssertionError, match="not advanced"):
        node.ready()
