"""Replication and commitment, one test for each of etcd's `raft_paper_test.go`.

Sections are those of Ongaro's dissertation (2014), and after the slash those of the paper, "In
Search of an Understandable Consensus Algorithm" (extended version, 2014). The other half of these
tests is in `test_paper_elections`.
"""

from typing import Any

import pytest

from tests.raft.network import Network
from tests.raft.peer import Peer, in_state, log_of
from timemachine.raft import Entry, HardState, Message, MessageType, Role


def test_a_leader_starts_replication() -> None:
    """3.5 / 5.3: a leader appends a proposal to its log and sends it to all other servers.

    With it go index and term of the entry before. The entry is written to stable storage.
    """
    peer = Peer()
    peer.lead_committed()
    last = peer.last_index
    sent = peer.propose(b"some data")
    entries = [Entry(1, last + 1, data=b"some data")]
    assert [
        Message(MessageType.APPEND, to, 1, 1, 1, last, entries, commit=last, acked=last)
        for to in (2, 3)
    ] == sent
    assert (last, last + 1) == (peer.commit, peer.last_index)
    assert entries == peer.log[-1:]


def test_a_leader_commits_an_entry() -> None:
    """3.5 / 5.3: what is safely replicated is applied, and the followers are told the index."""
    peer = Peer()
    peer.lead_committed()
    last = peer.last_index
    told: list[Message] = []
    for message in peer.propose(b"some data"):
        told += peer.accept(message)
    assert last + 1 == peer.commit
    assert Entry(1, last + 1, data=b"some data") == peer.applied[-1]
    assert {2, 3} == {message.to for message in told}
    assert {(MessageType.APPEND, last + 1)} == {(each.type, each.commit) for each in told}


@pytest.mark.parametrize(
    ("size", "acceptors", "committed"),
    [
        (1, set(), True),
        (3, set(), False),
        (3, {2}, True),
        (3, {2, 3}, True),
        (5, set(), False),
        (5, {2}, False),
        (5, {2, 3}, True),
        (5, {2, 3, 4}, True),
        (5, {2, 3, 4, 5}, True),
    ],
)
def test_a_leader_counts_acknowledgements(size: int, acceptors: set[int], committed: bool) -> None:
    """3.5 / 5.3: an entry is committed once its leader has it on a majority of the servers."""
    peer = Peer(voters=range(1, size + 1))
    peer.lead_committed()
    last = peer.last_index
    for message in peer.propose(b"some data"):
        if message.to in acceptors:
            peer.accept(message)
    assert committed is (peer.commit > last)


@pytest.mark.parametrize("terms", [(), (2,), (1, 2), (1,)])
def test_a_leader_commits_preceding_entries(terms: tuple[int, ...]) -> None:
    """3.5 / 5.3: with an entry all before it are committed, also those of earlier leaders."""
    log = log_of(*terms)
    peer = Peer(log=log, hard_state=HardState(term=2))
    peer.accept_all([*peer.lead(), *peer.propose(b"some data")])
    last = len(terms)
    assert [*log, Entry(3, last + 1), Entry(3, last + 2, data=b"some data")] == peer.applied


@pytest.mark.parametrize(
    ("data", "commit"),
    [
        ((b"some data",), 1),
        ((b"some data", b"some data2"), 2),
        ((b"some data2", b"some data"), 2),
        ((b"some data", b"some data2"), 1),
    ],
)
def test_a_follower_applies_what_is_committed(data: tuple[bytes, ...], commit: int) -> None:
    """3.5 / 5.3: once a follower learns that an entry is committed, it applies it, in order."""
    peer = in_state(Role.FOLLOWER)
    entries = [Entry(1, index, data=each) for index, each in enumerate(data, start=1)]
    peer.hear(MessageType.APPEND, 2, entries=entries, commit=commit)
    assert commit == peer.commit
    assert entries[:commit] == peer.applied


@pytest.mark.parametrize(
    ("log_term", "index", "answer"),
    [
        # It matches in what is committed, and behind that.
        (0, 0, {"index": 1}),
        (1, 1, {"index": 1}),
        (2, 2, {"index": 2}),
        # There is another entry, or none.
        (1, 2, {"index": 2, "reject": True, "reject_hint": 1, "log_term": 1}),
        (3, 3, {"index": 3, "reject": True, "reject_hint": 2, "log_term": 2}),
    ],
)
def test_a_follower_checks_an_append(log_term: int, index: int, answer: dict[str, Any]) -> None:
    """3.5 / 5.3: a follower refuses entries unless it has the entry that stands before them."""
    peer = Peer(log=log_of(1, 2), hard_state=HardState(term=2, commit=1))
    answers = peer.hear(MessageType.APPEND, 2, term=2, log_term=log_term, index=index)
    assert [Message(MessageType.APPEND_RESPONSE, 2, 1, 2, **answer)] == answers


@pytest.mark.parametrize(
    ("log_term", "index", "terms", "log", "written"),
    [
        (2, 2, (3,), [1, 2, 3], [3]),
        (1, 1, (3, 4), [1, 3, 4], [3, 4]),
        (0, 0, (1,), [1, 2], []),
        (0, 0, (3,), [3], [3]),
    ],
)
def test_a_follower_appends_entries(
    log_term: int, index: int, terms: tuple[int, ...], log: list[int], written: list[int]
) -> None:
    """3.5 / 5.3: what conflicts is deleted, with all behind it; what is new is appended and stored.

    What is there already is not written again.
    """
    peer = Peer(log=log_of(1, 2), hard_state=HardState(term=4))
    peer.hold = True
    entries = log_of(*terms, first=index + 1)
    peer.hear(MessageType.APPEND, 2, term=4, log_term=log_term, index=index, entries=entries)
    ready = peer.node.ready()
    assert written == [entry.term for entry in ready.entries]
    peer.storage.append(ready.entries)
    assert log == peer.terms


@pytest.mark.parametrize(
    "terms",
    [
        (1, 1, 1, 4, 4, 5, 5, 6, 6),
        (1, 1, 1, 4),
        (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6),
        (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7),
        (1, 1, 1, 4, 4, 4, 4),
        (1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3),
    ],
    ids="abcdef",
)
def test_a_leader_makes_a_followers_log_like_its_own(terms: tuple[int, ...]) -> None:
    """3.5 / 5.3, figure 7: it finds the last entry they agree on, and sends what follows it."""
    log = log_of(1, 1, 1, 4, 4, 5, 5, 6, 6, 6)
    leader = Peer(1, log=log, hard_state=HardState(term=8, commit=10))
    follower = Peer(2, log=log_of(*terms), hard_state=HardState(term=7))
    network = Network([leader, follower])
    network.campaign(1)
    # The follower's log may be newer, so the third one's vote is needed.
    network.run(leader.hear(MessageType.VOTE_RESPONSE, 3, term=9))
    network.propose(1)
    assert Role.LEADER is leader.role()
    assert [*log, Entry(9, 11), Entry(9, 12, data=b"data")] == follower.log
    assert leader.log == follower.log
    assert 12 == leader.commit == follower.commit


@pytest.mark.parametrize(("index", "committed"), [(1, 0), (2, 0), (3, 3)])
def test_a_leader_only_commits_entries_of_its_term(index: int, committed: int) -> None:
    """3.6.2 / 5.4.2: only entries of the leader's own term are committed by counting copies."""
    peer = Peer(voters=(1, 2), log=log_of(1, 2), hard_state=HardState(term=2))
    peer.lead()
    peer.propose(b"")
    assert 3 == peer.term
    peer.hear(MessageType.APPEND_RESPONSE, 2, index=index)
    assert committed == peer.commit
