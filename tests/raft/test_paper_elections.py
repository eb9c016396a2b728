"""Terms and elections, one test for each of etcd's `raft_paper_test.go`.

Sections are those of Ongaro's dissertation (2014), and after the slash those of the paper, "In
Search of an Understandable Consensus Algorithm" (extended version, 2014). The other half of these
tests is in `test_paper_replication`.
"""

import random

import pytest

from tests.raft.peer import Peer, in_state, log_of
from timemachine.raft import NO_NODE, HardState, Message, MessageType, Role

ELECTION_TICK = 10


def dice(seed: int) -> object:
    """Dice of one's own, for `Config.draw`."""
    return random.Random(seed).randrange


def followed_in_term_2(role: Role) -> None:
    """A replica in `role` in term 1 meets a message of term 2."""
    peer = in_state(role)
    assert 1 == peer.term
    peer.hear(MessageType.APPEND, 2, term=2)
    assert (2, Role.FOLLOWER, 2) == (peer.term, peer.role(), peer.leader)


def test_follower_updates_its_term_from_a_message() -> None:
    """3.3 / 5.1: a server whose term is smaller than the other's takes over the larger one."""
    followed_in_term_2(Role.FOLLOWER)


def test_candidate_updates_its_term_from_a_message() -> None:
    """3.3 / 5.1: a candidate whose term is out of date is a follower at once."""
    followed_in_term_2(Role.CANDIDATE)


def test_leader_updates_its_term_from_a_message() -> None:
    """3.3 / 5.1: a leader whose term is out of date is a follower at once."""
    followed_in_term_2(Role.LEADER)


def test_a_stale_term_is_rejected() -> None:
    """3.3 / 5.1: a request with a stale term is rejected (by ignoring it, as in etcd)."""
    peer = Peer(hard_state=HardState(term=2))
    entries = log_of(1)
    assert [] == peer.hear(MessageType.APPEND, 2, term=1, entries=entries, commit=1)
    assert (2, NO_NODE, [], 0) == (peer.term, peer.leader, peer.log, peer.commit)


def test_a_server_starts_as_a_follower() -> None:
    """3.4 / 5.2: when servers start up, they begin as followers."""
    assert Role.FOLLOWER is Peer().role()
    assert Role.FOLLOWER is Peer(hard_state=HardState(term=3, vote=1)).role()


def test_a_leader_sends_heartbeats() -> None:
    """3.4 / 5.2: a leader sends heartbeats to all followers: without entries, log index or term."""
    peer = Peer(heartbeat_tick=2)
    peer.lead()
    for _ in range(10):
        peer.propose(b"x")
    assert [] == peer.tick()
    assert [
        Message(MessageType.HEARTBEAT, 2, 1, 1),
        Message(MessageType.HEARTBEAT, 3, 1, 1),
    ] == peer.tick()


def starts_an_election(role: Role) -> None:
    """A replica in `role` in term 1 hears nothing for the longest election time-out."""
    peer = in_state(role, election_tick=ELECTION_TICK)
    sent = peer.tick(2 * ELECTION_TICK - 1)
    assert (2, Role.CANDIDATE, 1) == (peer.term, peer.role(), peer.vote)
    assert [
        Message(MessageType.VOTE, 2, 1, 2),
        Message(MessageType.VOTE, 3, 1, 2),
    ] == sent
    # Its own vote is one of two that it needs.
    peer.hear(MessageType.VOTE_RESPONSE, 3)
    assert Role.LEADER is peer.role()


def test_a_follower_starts_an_election() -> None:
    """3.4 / 5.2: a follower that hears nothing over the election time-out begins an election.

    It increments its term, votes for itself, and asks all other servers for their votes.
    """
    starts_an_election(Role.FOLLOWER)


def test_a_candidate_starts_a_new_election() -> None:
    """3.4 / 5.2: a candidate that gets no majority times out and begins another election."""
    starts_an_election(Role.CANDIDATE)


@pytest.mark.parametrize(
    ("size", "votes", "role"),
    [
        # With votes of a majority, it has won.
        (1, {}, Role.LEADER),
        (3, {2: True, 3: True}, Role.LEADER),
        (3, {2: True}, Role.LEADER),
        (5, {2: True, 3: True, 4: True, 5: True}, Role.LEADER),
        (5, {2: True, 3: True, 4: True}, Role.LEADER),
        (5, {2: True, 3: True}, Role.LEADER),
        # Refused by a majority, it follows.
        (3, {2: False, 3: False}, Role.FOLLOWER),
        (5, {2: False, 3: False, 4: False, 5: False}, Role.FOLLOWER),
        (5, {2: True, 3: False, 4: False, 5: False}, Role.FOLLOWER),
        # Otherwise it stays a candidate.
        (3, {}, Role.CANDIDATE),
        (5, {2: True}, Role.CANDIDATE),
        (5, {2: False, 3: False}, Role.CANDIDATE),
        (5, {}, Role.CANDIDATE),
    ],
)
def test_an_election_in_one_round(size: int, votes: dict[int, bool], role: Role) -> None:
    """3.4 / 5.2: an election is won, lost, or undecided."""
    peer = Peer(voters=range(1, size + 1))
    peer.campaign()
    for voter, granted in votes.items():
        peer.hear(MessageType.VOTE_RESPONSE, voter, term=1, reject=not granted)
    assert (role, 1) == (peer.role(), peer.term)


@pytest.mark.parametrize(
    ("vote", "candidate", "granted"),
    [
        (NO_NODE, 2, True),
        (NO_NODE, 3, True),
        (2, 2, True),
        (3, 3, True),
        (2, 3, False),
        (3, 2, False),
    ],
)
def test_a_follower_votes_once_a_term(vote: int, candidate: int, granted: bool) -> None:
    """3.4 / 5.2: at most one candidate a term gets the vote, the first one that asks."""
    peer = Peer(hard_state=HardState(term=1, vote=vote))
    answer = Message(MessageType.VOTE_RESPONSE, candidate, 1, 1, reject=not granted)
    assert [answer] == peer.hear(MessageType.VOTE, candidate, term=1)
    assert (candidate if granted else vote) == peer.vote


@pytest.mark.parametrize("term", [1, 2])
def test_a_candidate_falls_back(term: int) -> None:
    """3.4 / 5.2: a candidate that hears of a leader of its term, or a newer one, follows it."""
    peer = in_state(Role.CANDIDATE)
    peer.hear(MessageType.APPEND, 2, term=term)
    assert (Role.FOLLOWER, 2, term) == (peer.role(), peer.leader, peer.term)


def timeouts_drawn(role: Role) -> set[int]:
    """After how many ticks a replica in `role` has campaigned, in many elections."""
    peer = in_state(role, election_tick=ELECTION_TICK, draw=dice(1))
    ticks = set()
    for _ in range(50 * ELECTION_TICK):
        if role is Role.FOLLOWER:
            peer.hear(MessageType.HEARTBEAT, 2, term=peer.term + 1)
        count = 1
        while not peer.tick():
            count += 1
        ticks.add(count)
    return ticks


ALL_TIMEOUTS = set(range(ELECTION_TICK, 2 * ELECTION_TICK))


def test_the_election_timeout_of_a_follower_is_randomized() -> None:
    """3.4 / 5.2: every time-out from one to two times the configured one occurs."""
    assert timeouts_drawn(Role.FOLLOWER) == ALL_TIMEOUTS


def test_the_election_timeout_of_a_candidate_is_randomized() -> None:
    """3.4 / 5.2: a candidate draws a new time-out at the start of each election."""
    assert timeouts_drawn(Role.CANDIDATE) == ALL_TIMEOUTS


def conflicts(role: Role, rounds: int) -> int:
    """In how many of `rounds` several of five replicas in `role` campaign at the same tick."""
    peers = [
        Peer(each, range(1, 6), election_tick=ELECTION_TICK, draw=dice(each))
        for each in range(1, 6)
    ]
    found = 0
    for _ in range(rounds):
        term = max(peer.term for peer in peers) + 1
        for peer in peers:
            if role is Role.FOLLOWER:
                peer.hear(MessageType.VOTE_RESPONSE, peer.id % 5 + 1, term=term, reject=True)
            else:
                peer.campaign()
            assert role is peer.role()
        campaigns = 0
        while not campaigns:
            campaigns = sum(bool(peer.tick()) for peer in peers)
        found += campaigns > 1
    return found


def test_election_timeouts_of_followers_rarely_conflict() -> None:
    """3.4, 9.3 / 5.2: in most cases only one server times out, so that votes are not split."""
    assert conflicts(Role.FOLLOWER, 300) <= 90


def test_election_timeouts_of_candidates_rarely_conflict() -> None:
    """3.4, 9.3 / 5.2: the same after a split vote, or it would be split again and again."""
    assert conflicts(Role.CANDIDATE, 300) <= 90


@pytest.mark.parametrize(("terms", "term"), [((1,), 2), ((1, 2), 3)])
def test_a_vote_request_tells_the_candidates_log(terms: tuple[int, ...], term: int) -> None:
    """3.6.1 / 5.4.1: the request holds where the candidate's log ends, and goes to all others."""
    peer = Peer(election_tick=ELECTION_TICK)
    peer.hear(MessageType.APPEND, 2, term=term - 1, entries=log_of(*terms))
    assert [
        Message(MessageType.VOTE, 2, 1, term, terms[-1], len(terms)),
        Message(MessageType.VOTE, 3, 1, term, terms[-1], len(terms)),
    ] == peer.tick(2 * ELECTION_TICK - 1)


@pytest.mark.parametrize(
    ("terms", "log_term", "index", "granted"),
    [
        # Of the same last term the longer log is newer.
        ((1,), 1, 1, True),
        ((1,), 1, 2, True),
        ((1, 1), 1, 1, False),
        # The candidate's last term is newer.
        ((1,), 2, 1, True),
        ((1,), 2, 2, True),
        ((1, 1), 2, 1, True),
        # The voter's last term is newer.
        ((2,), 1, 1, False),
        ((2,), 1, 2, False),
        ((2, 2), 1, 1, False),
        ((1, 2), 1, 1, False),
    ],
)
def test_a_voter_refuses_an_older_log(
    terms: tuple[int, ...], log_term: int, index: int, granted: bool
) -> None:
    """3.6.1 / 5.4.1: no vote for a candidate whose log is less up to date than the voter's."""
    peer = Peer(voters=(1, 2), log=log_of(*terms))
    (answer,) = peer.hear(MessageType.VOTE, 2, term=3, log_term=log_term, index=index)
    assert (MessageType.VOTE_RESPONSE, granted) == (answer.type, not answer.reject)
