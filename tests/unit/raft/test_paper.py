"""The sentences of the dissertation that say something about a single voter, one test each.

Sections are those of Ongaro, "Consensus: Bridging Theory and Practice" (2014); where the sentence
also stands in the shorter "In Search of an Understandable Consensus Algorithm" (extended version,
2014), its section follows after a slash. Sentences about what replicas say to each other have no
test here, because one voter says nothing.
"""

import pytest

from tests.unit.raft.host import Host, empty_storage, leading_host
from timemachine.errors import ProposalDropped
from timemachine.raft import Config, Entry, HardState, RawNode, Role
from timemachine.raft.core import Raft
from timemachine.raft.messages import Message, MessageType


def test_a_server_begins_as_a_follower() -> None:
    """3.4 / 5.2: when servers start up, they begin as followers."""
    assert Role.FOLLOWER is RawNode(Config(id=1), empty_storage(1)).status().role
    host = leading_host()
    host.restart()
    assert Role.FOLLOWER is host.node.status().role


def test_a_follower_starts_an_election_after_the_election_time_out() -> None:
    """3.4 / 5.2: a follower that hears nothing for the election time-out begins an election."""
    node = RawNode(Config(id=1, election_tick=10), empty_storage(1))
    for _ in range(9):
        node.tick()
    assert Role.FOLLOWER is node.status().role
    node.tick()
    assert Role.CANDIDATE is node.status().role


def test_a_candidate_increments_its_term_and_votes_for_itself() -> None:
    """3.4 / 5.2: to begin an election, a follower increments its term and votes for itself."""
    host = leading_host()
    host.restart()
    assert 1 == host.node.status().term
    host.node.campaign()
    status = host.node.status()
    assert (2, 1, Role.CANDIDATE) == (status.term, status.vote, status.role)


def test_a_majority_of_votes_makes_a_leader() -> None:
    """3.4 / 5.2: a candidate with the votes of a majority wins; of one voter, its own suffices."""
    host = Host()
    host.lead()
    assert (Role.LEADER, 1) == (host.node.status().role, host.node.status().leader)


def test_a_candidate_starts_over_when_the_election_times_out() -> None:
    """3.4 / 5.2: a candidate that neither wins nor loses starts a new election in a new term."""
    node = RawNode(Config(id=1, election_tick=10), empty_storage(1))
    node.campaign()
    for _ in range(10):
        node.tick()
    assert (Role.CANDIDATE, 2) == (node.status().role, node.status().term)


def test_at_most_one_vote_per_term() -> None:
    """3.4 / 5.2: a server votes at most once in a term, also when it crashed after voting."""
    host = Host()
    votes = []
    for _ in range(3):
        host.node.campaign()
        ready = host.node.ready()
        assert ready.hard_state is not None
        votes.append((ready.hard_state.term, ready.hard_state.vote))
        host.persist(ready)
        host.restart()
    assert [(1, 1), (2, 1), (3, 1)] == votes


def test_a_stale_term_is_rejected() -> None:
    """3.3 / 5.1: a message with a stale term has no effect."""
    raft = Raft(Config(id=1), empty_storage(1))
    raft.become_candidate()
    raft.become_candidate()
    raft.step(Message(MessageType.VOTE_RESPONSE, 1, 1, term=1))
    assert (Role.CANDIDATE, 2) == (raft.role, raft.term)


def test_a_leader_appends_commands_to_its_log() -> None:
    """3.5 / 5.3: the leader appends a command to its log as a new entry, with its term."""
    host = leading_host()
    host.restart()
    host.lead()
    host.node.propose(b"command")
    assert [Entry(2, 3, data=b"command")] == host.node.ready().entries


def test_a_leader_never_overwrites_its_own_entries() -> None:
    """3.5 / 5.3 (leader append-only): a new leader appends behind what its log holds."""
    host = leading_host()
    host.node.propose(b"old")
    host.persist(host.node.ready())
    before = host.storage.entries(1, 3, 4096)
    host.restart()
    host.lead()
    assert before == host.storage.entries(1, 3, 4096)
    assert Entry(2, 3) == host.storage.entries(3, 4, 4096)[0]


def test_only_a_leader_appends() -> None:
    """3.5 / 5.3: entries come from the leader alone."""
    host = Host()
    with pytest.raises(ProposalDropped):
        host.node.propose(b"x")
    assert not host.node.has_ready()


def test_an_entry_is_committed_once_a_majority_stored_it() -> None:
    """3.5 / 5.3: an entry commits once a majority stored it; of one voter, once it is stored."""
    host = leading_host()
    host.node.propose(b"x")
    ready = host.node.ready()
    assert 1 == host.node.status().commit
    host.persist(ready)
    host.node.advance()
    assert 2 == host.node.status().commit


def test_committing_an_entry_commits_all_before_it() -> None:
    """3.5 / 5.3: committing an entry commits the preceding ones, those of older terms included."""
    host = leading_host()
    host.node.propose(b"older")
    host.persist(host.node.ready())
    host.restart()
    host.lead()
    assert 3 == host.node.status().commit
    assert [1, 1, 2] == [entry.term for entry in host.machine]


def test_committed_entries_are_applied_in_log_order() -> None:
    """3.5 / 5.3: a server applies committed entries to its state machine in log order."""
    host = leading_host()
    for number in range(20):
        host.node.propose(b"%d" % number)
        if number % 3 == 0:
            host.settle()
    host.settle()
    assert [b"%d" % number for number in range(20)] == host.data()


def test_an_older_term_is_never_committed_by_counting() -> None:
    """3.6.2 / 5.4.2: only entries of the leader's own term are committed by counting copies."""
    host = leading_host()
    host.node.propose(b"older")
    host.persist(host.node.ready())
    storage = host.storage
    raft = Raft(Config(id=1), storage)
    raft.become_candidate()
    raft.become_leader()
    raft.step(Message(MessageType.APPEND_RESPONSE, 1, 1, raft.term, index=2))
    assert 1 == raft.log.committed
    raft.step(Message(MessageType.APPEND_RESPONSE, 1, 1, raft.term, index=3))
    assert 3 == raft.log.committed


def test_a_leader_opens_its_term_with_a_blank_entry() -> None:
    """6.4 / 8: a leader commits a blank no-op entry at the start of its term."""
    host = Host()
    host.lead()
    host.restart()
    host.lead()
    assert [Entry(1, 1), Entry(2, 2)] == host.machine


def test_term_vote_and_entries_are_persisted_before_they_count() -> None:
    """3.8: a server persists term and vote, and new entries before they count for commitment."""
    host = Host()
    host.node.campaign()
    vote = host.handle()
    assert (HardState(1, 1, 0), True) == (vote.hard_state, vote.must_sync)
    append = host.handle()
    assert ([Entry(1, 1)], True) == (append.entries, append.must_sync)
    commit = host.handle()
    assert ([Entry(1, 1)], False) == (commit.committed_entries, commit.must_sync)


def test_the_commit_index_may_be_lost() -> None:
    """3.8: the commit index can be reinitialised to zero on a restart and is found again."""
    host = leading_host()
    host.node.propose(b"x")
    host.settle()
    node = RawNode(Config(id=1), host.storage)
    assert 2 == node.status().commit
    host.storage.set_hard_state(HardState(1, 1, 0))
    host.machine.clear()
    host.node = RawNode(Config(id=1), host.storage)
    host.lead()
    assert [b"x"] == host.data()
