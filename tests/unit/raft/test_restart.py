"""A crash at any point of the duties loses nothing persisted and commits nothing that was not."""

from tests.unit.raft.host import Host, leading_host
from timemachine.raft import Config, Entry, HardState, RawNode, Role, SoftState


def test_a_vote_that_was_not_persisted_elects_nobody() -> None:
    """Before its vote is durable a candidate does not lead; after a crash the term was not used."""
    host = Host()
    host.node.campaign()
    ready = host.node.ready()
    assert (HardState(1, 1, 0), True) == (ready.hard_state, ready.must_sync)
    assert Role.CANDIDATE is host.node.status().role
    host.restart()
    assert (0, 0) == (host.node.status().term, host.node.status().vote)


def test_a_vote_that_was_persisted_is_remembered() -> None:
    """A crash between persist and advance keeps the vote, and the next election is a new term."""
    host = Host()
    host.node.campaign()
    host.persist(host.node.ready())
    host.restart()
    status = host.node.status()
    assert (Role.FOLLOWER, 1, 1) == (status.role, status.term, status.vote)
    host.lead()
    assert (Role.LEADER, 2) == (host.node.status().role, host.node.status().term)
    assert [Entry(2, 1)] == host.machine


def test_an_entry_that_was_not_persisted_was_never_there() -> None:
    """A proposal handed out but not written is not committed, and gone after the crash."""
    host = leading_host()
    host.node.propose(b"lost")
    host.node.ready()
    assert 1 == host.node.status().commit
    host.restart()
    host.lead()
    assert [] == host.data()


def test_an_entry_that_was_persisted_survives() -> None:
    """A proposal written but not advanced is uncommitted after the crash, and then commits."""
    host = leading_host()
    host.node.propose(b"kept")
    host.persist(host.node.ready())
    assert 1 == host.node.status().commit
    host.restart()
    assert (1, 2) == (host.node.status().commit, host.node.status().last_index)
    host.lead()
    assert [Entry(1, 1), Entry(1, 2, data=b"kept"), Entry(2, 3)] == host.machine


def test_an_entry_is_committed_by_advance_and_not_before() -> None:
    """The replica's own copy counts only once the host says that it is durable."""
    host = leading_host()
    host.node.propose(b"x")
    host.persist(host.node.ready())
    assert not host.node.has_ready()
    assert 1 == host.node.status().commit
    host.node.advance()
    assert 2 == host.node.status().commit


def test_an_entry_proposed_during_a_write_is_not_committed_by_it() -> None:
    """Advance covers what the Ready held, not what came after it."""
    host = leading_host()
    host.node.propose(b"a")
    ready = host.node.ready()
    host.node.propose(b"b")
    host.persist(ready)
    host.node.advance()
    assert (2, 3) == (host.node.status().commit, host.node.status().last_index)
    host.restart()
    host.lead()
    assert [b"a"] == host.data()


def test_a_commit_index_that_was_not_synced_is_found_again() -> None:
    """Losing the commit index loses no entry: the next leader commits it anew."""
    host = leading_host()
    host.node.propose(b"x")
    last = host.settle()[-1]
    assert (HardState(1, 1, 2), False) == (last.hard_state, last.must_sync)
    host.restart()
    assert (1, []) == (host.node.status().commit, host.data())
    host.lead()
    assert [b"x"] == host.data()


def test_a_restarted_replica_resumes_where_its_machine_stands() -> None:
    """It is a follower with commit and applied set, and hands out only what was not applied."""
    host = leading_host()
    for data in (b"a", b"b", b"c"):
        host.node.propose(data)
        host.settle()
    host.sync()
    node = RawNode(Config(id=1, applied=2), host.storage)
    status = node.status()
    assert (Role.FOLLOWER, 1, 4, 2) == (status.role, status.term, status.commit, status.applied)
    ready = node.ready()
    assert [Entry(1, 3, data=b"b"), Entry(1, 4, data=b"c")] == ready.committed_entries
    assert (None, None, False) == (ready.soft_state, ready.hard_state, ready.must_sync)


def test_a_restarted_leader_leads_a_later_term() -> None:
    """Leadership is not resumed: it is won again, in the next term."""
    host = leading_host()
    host.restart()
    host.node.campaign()
    first, second, *_ = host.settle()
    assert (SoftState(0, Role.CANDIDATE), HardState(2, 1, 0)) == (
        first.soft_state,
        first.hard_state,
    )
    assert (SoftState(1, Role.LEADER), [Entry(2, 2)]) == (second.soft_state, second.entries)


def test_a_restart_after_compaction_starts_at_the_cut() -> None:
    """Entries that were applied and compacted are neither needed nor handed out again."""
    host = leading_host()
    host.node.propose(b"a")
    host.settle()
    host.sync()
    host.storage.compact(2)
    host.restart()
    status = host.node.status()
    assert (2, 2, 3, 2) == (status.commit, status.applied, status.first_index, status.last_index)
    host.lead()
    assert [Entry(1, 1), Entry(1, 2, data=b"a"), Entry(2, 3)] == host.machine
