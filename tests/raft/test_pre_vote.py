"""Asking before one enters a new term (dissertation 9.6): what etcd tests of it."""

import pytest

from tests.raft.network import Network, group
from tests.raft.peer import Peer, in_state, log_of
from timemachine.raft import NO_NODE, HardState, Message, MessageType, Role


def led_by_1(*, third: bool = True) -> Network:
    """Three replicas that ask first, of which 1 leads; the third one may not ask."""
    network = Network(Peer(each, pre_vote=third or each != 3) for each in (1, 2, 3))
    network.campaign(1)
    assert [Role.LEADER, Role.FOLLOWER, Role.FOLLOWER] == network.roles()
    return network


def test_a_campaign_has_two_rounds() -> None:
    """The first changes nobody's term or vote, the second is an election."""
    peer = Peer(pre_vote=True, log=log_of(1))
    asked = peer.campaign()
    assert [Message(MessageType.PRE_VOTE, to, 1, 2, 1, 1) for to in (2, 3)] == asked
    assert (Role.PRE_CANDIDATE, 1, 0) == (peer.role(), peer.term, peer.vote)
    asked = peer.hear(MessageType.PRE_VOTE_RESPONSE, 3, term=2)
    assert [Message(MessageType.VOTE, to, 1, 2, 1, 1) for to in (2, 3)] == asked
    assert (Role.CANDIDATE, 2, 1) == (peer.role(), peer.term, peer.vote)


def test_a_refused_round_ends_there() -> None:
    """In the old term."""
    peer = Peer(pre_vote=True)
    peer.campaign()
    for voter in (2, 3):
        peer.hear(MessageType.PRE_VOTE_RESPONSE, voter, term=0, reject=True)
    assert (Role.FOLLOWER, 0) == (peer.role(), peer.term)


def test_a_refusal_may_tell_of_a_newer_term() -> None:
    """Then that is entered."""
    peer = Peer(pre_vote=True)
    peer.campaign()
    peer.hear(MessageType.PRE_VOTE_RESPONSE, 2, term=5, reject=True)
    assert (Role.FOLLOWER, 5) == (peer.role(), peer.term)


@pytest.mark.parametrize("role", list(Role))
def test_every_role_answers_the_question_and_stays(role: Role) -> None:
    """It promises nothing, so more than one may be told yes."""
    peer = in_state(role, pre_vote=role is Role.PRE_CANDIDATE)
    before = (peer.role(), peer.term, peer.vote, peer.leader)
    last = peer.last_index
    for asking in (2, 3):
        answers = peer.hear(MessageType.PRE_VOTE, asking, term=7, index=last + 1, log_term=7)
        assert [Message(MessageType.PRE_VOTE_RESPONSE, asking, 1, 7)] == answers
    assert before == (peer.role(), peer.term, peer.vote, peer.leader)


def test_an_old_question_is_answered() -> None:
    """With no, and the term of now, so that who asks learns of it."""
    peer = Peer(hard_state=HardState(term=5))
    assert [Message(MessageType.PRE_VOTE_RESPONSE, 2, 1, 5, reject=True)] == peer.hear(
        MessageType.PRE_VOTE, 2, term=3
    )


@pytest.mark.parametrize(
    ("log_term", "index", "granted"),
    [(0, 0, False), (1, 9, False), (2, 1, False), (2, 2, True), (2, 3, True), (3, 1, True)],
)
def test_a_question_is_judged_by_the_log(log_term: int, index: int, granted: bool) -> None:
    """As a vote is (3.6.1)."""
    peer = Peer(log=log_of(1, 2))
    (answer,) = peer.hear(MessageType.PRE_VOTE, 2, term=3, log_term=log_term, index=index)
    assert granted is not answer.reject


@pytest.mark.parametrize("kind", [MessageType.VOTE, MessageType.PRE_VOTE])
@pytest.mark.parametrize("longer", [False, True])
@pytest.mark.parametrize(("vote", "free"), [(NO_NODE, True), (1, False), (2, True), (3, False)])
def test_who_asks_may_still_vote_in_its_term(
    vote: int, free: bool, longer: bool, kind: MessageType
) -> None:
    """It has not entered the next one: only a vote that it gave before binds it (3.4, 3.6.1)."""
    settings = {"log": log_of(1, 1), "hard_state": HardState(1, vote)}
    peer = in_state(Role.PRE_CANDIDATE, pre_vote=True, **settings)
    (answer,) = peer.hear(kind, 2, log_term=1, index=2 if longer else 1)
    granted = free and longer
    assert (2, 1, not granted) == (answer.to, answer.term, answer.reject)
    given = 2 if granted and kind is MessageType.VOTE else vote
    assert (Role.PRE_CANDIDATE, 1, given) == (peer.role(), peer.term, peer.vote)


@pytest.mark.parametrize("kind", [MessageType.HEARTBEAT, MessageType.APPEND])
def test_a_pre_vote_of_ones_own_that_comes_late_does_not_count(kind: MessageType) -> None:
    """A leader of the term was heard of before it became durable (3.8)."""
    peer = Peer(pre_vote=True, hard_state=HardState(1))
    peer.hold = True
    peer.campaign()
    assert Role.PRE_CANDIDATE is peer.role()
    peer.node.ready()
    peer.hear(kind, 2)
    peer.node.advance()
    assert (Role.FOLLOWER, 2) == (peer.role(), peer.leader)
    assert (1, NO_NODE) == (peer.term, peer.vote)
    assert {} == peer.node._raft.tracker.votes


def test_dueling_pre_candidates() -> None:
    """Who has the shorter log, or comes when there is a leader, disturbs nobody."""
    network = group(1, 2, 3, pre_vote=True)
    network.cut(1, 3)
    network.campaign(1)
    network.campaign(3)
    assert [Role.LEADER, Role.FOLLOWER, Role.FOLLOWER] == network.roles()
    network.heal()
    network.campaign(3)
    assert [Role.LEADER, Role.FOLLOWER, Role.FOLLOWER] == network.roles()
    assert [1, 1, 1] == network.terms()


def test_a_replica_of_an_older_term_can_complete_an_election() -> None:
    """It was cut off; when it comes back, the leader goes: one of the two must get to lead."""
    network = led_by_1()
    network.isolate(3)
    network.campaign(3)
    assert Role.PRE_CANDIDATE is network[3].role()
    network.campaign(2)
    assert [2, 2, 1] == network.terms()
    assert [Role.FOLLOWER, Role.LEADER, Role.PRE_CANDIDATE] == network.roles()
    network.heal()
    network.isolate(2)
    network.campaign(3)
    network.campaign(1)
    assert Role.LEADER in {network[1].role(), network[3].role()}


def test_a_split_vote_is_settled_in_the_next_round() -> None:
    """Both may be told yes by the other, and then meet as candidates of one term."""
    network = led_by_1()
    network.isolate(1)
    network.run([*network[2].campaign(), *network[3].campaign()])
    assert [Role.LEADER, Role.CANDIDATE, Role.CANDIDATE] == network.roles()
    assert [1, 2, 2] == network.terms()
    network.campaign(2)
    assert [Role.LEADER, Role.LEADER, Role.FOLLOWER] == network.roles()
    assert [1, 3, 3] == network.terms()


def came_back_with_a_newer_term() -> Network:
    """A group that is being taught to ask: 3 did not, and comes back with a newer term.

    1 leads, 2 follows, and 3 has a shorter log and is a pre-candidate of term 3.
    """
    network = led_by_1(third=False)
    network.isolate(3)
    network.propose(1)
    network.campaign(3)
    network.campaign(3)
    assert [Role.LEADER, Role.FOLLOWER, Role.CANDIDATE] == network.roles()
    assert [1, 1, 3] == network.terms()
    network.peers[3] = Peer(
        3, pre_vote=True, log=network[3].log, hard_state=HardState(3, 3, network[3].commit)
    )
    network.heal()
    return network


def test_an_election_completes_while_replicas_learn_to_ask() -> None:
    """The one that is ahead in terms but behind in its log must not block the others."""
    network = came_back_with_a_newer_term()
    network.isolate(1)
    network.campaign(3)
    network.campaign(2)
    assert [Role.FOLLOWER, Role.PRE_CANDIDATE] == sorted([network[2].role(), network[3].role()])
    network.campaign(3)
    network.campaign(2)
    assert Role.LEADER is network[2].role()
    assert Role.FOLLOWER is network[3].role()


def test_a_stuck_pre_candidate_is_freed() -> None:
    """It cannot be elected, nor follow a leader of an older term; the leader learns of its term."""
    network = came_back_with_a_newer_term()
    for _ in range(2):
        network.campaign(3)
        assert [Role.LEADER, Role.FOLLOWER, Role.PRE_CANDIDATE] == network.roles()
    network.tick(1)
    assert Role.FOLLOWER is network[1].role()
    assert network[1].term == network[3].term


def test_who_leads_asks_nobody() -> None:
    """A leader that is told to campaign goes on leading."""
    peer = Peer(voters=(1,), pre_vote=True)
    peer.lead()
    assert [] == peer.campaign()
    assert (Role.LEADER, 1) == (peer.role(), peer.term)


def test_one_voter_elects_itself() -> None:
    """Through both rounds."""
    peer = Peer(voters=(1,), pre_vote=True)
    assert [] == peer.campaign()
    assert Role.LEADER is peer.role()
