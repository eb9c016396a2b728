"""Who leads (dissertation 3.4, 3.6.1): what etcd tests beyond the paper's sentences."""

import pytest

from tests.raft.network import Network, group
from tests.raft.peer import Peer, in_state, log_of
from timemachine.raft import NO_NODE, HardState, Message, MessageType, Role

both = pytest.mark.parametrize("pre_vote", [False, True])


@both
@pytest.mark.parametrize(
    ("silent", "elected"),
    [((), True), ((3,), True), ((2, 3), False), ((2, 3, 4), False), ((2, 3), True)],
)
def test_a_majority_elects(pre_vote: bool, silent: tuple[int, ...], elected: bool) -> None:
    """Others may be silent; without a majority the candidate stays one."""
    size = 5 if elected and len(silent) == 2 else 4 if len(silent) == 3 else 3
    voters = range(1, size + 1)
    network = Network(
        Peer(each, voters, pre_vote=pre_vote) for each in voters if each not in silent
    )
    network.campaign(1)
    loser = Role.PRE_CANDIDATE if pre_vote else Role.CANDIDATE
    assert (Role.LEADER if elected else loser) is network[1].role()
    assert (0 if pre_vote and not elected else 1) == network[1].term


@both
def test_leadership_passes_from_one_to_the_next(pre_vote: bool) -> None:
    """Every replica can depose the one before, without anything being proposed."""
    network = group(1, 2, 3, pre_vote=pre_vote)
    for candidate in (1, 2, 3):
        network.campaign(candidate)
        expected = [Role.FOLLOWER] * 3
        expected[candidate - 1] = Role.LEADER
        assert expected == network.roles()


@both
def test_a_leader_may_overwrite_newer_entries(pre_vote: bool) -> None:
    """That are not committed: a minority wrote them (3.6.2, figure 3.7).

    1 led term 1 and wrote to 2 as well; 3 led term 2, was elected by 4 and 5, and wrote to nobody.
    """
    network = Network(
        [
            Peer(1, range(1, 6), pre_vote=pre_vote, log=log_of(1)),
            Peer(2, range(1, 6), pre_vote=pre_vote, log=log_of(1)),
            Peer(3, range(1, 6), pre_vote=pre_vote, log=log_of(2)),
            Peer(4, range(1, 6), pre_vote=pre_vote, hard_state=HardState(2, 3)),
            Peer(5, range(1, 6), pre_vote=pre_vote, hard_state=HardState(2, 3)),
        ]
    )
    # The first campaign tells 1 of the term that there is.
    network.campaign(1)
    if not pre_vote:
        assert (Role.FOLLOWER, 2) == (network[1].role(), network[1].term)
    network.campaign(1)
    assert (Role.LEADER, 3) == (network[1].role(), network[1].term)
    assert {(1, 3)} == {tuple(peer.terms) for peer in network.peers.values()}


@pytest.mark.parametrize("role", list(Role))
def test_a_vote_in_a_newer_term_is_given_from_any_role(role: Role) -> None:
    """To a candidate whose log is no older; the voter then follows nobody yet."""
    peer = in_state(role, pre_vote=role is Role.PRE_CANDIDATE)
    last = peer.last_index
    answers = peer.hear(MessageType.VOTE, 2, term=7, index=last + 1, log_term=7)
    assert [Message(MessageType.VOTE_RESPONSE, 2, 1, 7)] == answers
    assert (Role.FOLLOWER, NO_NODE, 7, 2) == (peer.role(), peer.leader, peer.term, peer.vote)


@pytest.mark.parametrize("kind", [MessageType.VOTE, MessageType.PRE_VOTE])
@pytest.mark.parametrize("role", [Role.CANDIDATE, Role.LEADER])
def test_who_campaigns_or_leads_has_voted_in_its_term(role: Role, kind: MessageType) -> None:
    """For itself: nobody else gets a vote there, however new the log."""
    peer = in_state(role)
    before = (peer.role(), peer.term, peer.vote, peer.leader)
    (answer,) = peer.hear(kind, 2, log_term=peer.term, index=peer.last_index + 1)
    assert (2, peer.term, True) == (answer.to, answer.term, answer.reject)
    assert before == (role, 1, 1, peer.leader)
    assert before == (peer.role(), peer.term, peer.vote, peer.leader)


def test_dueling_candidates() -> None:
    """Two campaign in one term, one wins; later the other's newer term ends that."""
    network = group(1, 2, 3)
    network.cut(1, 3)
    network.campaign(1)
    network.campaign(3)
    # 3 could not reach 1, and 2 has voted.
    assert [Role.LEADER, Role.FOLLOWER, Role.CANDIDATE] == network.roles()
    network.heal()
    network.campaign(3)
    # Its log is shorter, so nobody elects it; but its term has to be taken over.
    assert [Role.FOLLOWER, Role.FOLLOWER, Role.FOLLOWER] == network.roles()
    assert [2, 2, 2] == network.terms()
    assert [[1], [1], []] == [network[each].terms for each in (1, 2, 3)]


def test_a_candidate_concedes() -> None:
    """It hears of the leader of its term, follows, and gets what is committed."""
    network = group(1, 2, 3)
    network.isolate(1)
    network.campaign(1)
    network.campaign(3)
    network.heal()
    network.tick(3)
    network.propose(3)
    assert (Role.FOLLOWER, 1) == (network[1].role(), network[1].term)
    assert [b"data"] == network[1].data == network[2].data == network[3].data


FROM_A_LEADER = pytest.mark.parametrize("kind", [MessageType.HEARTBEAT, MessageType.APPEND])


@FROM_A_LEADER
def test_a_candidate_that_comes_back_enters_the_newer_term(kind: MessageType) -> None:
    """The others were in more elections than it: the first word of their leader is enough."""
    network = group(1, 2, 3)
    network.campaign(1)
    network.isolate(3)
    network.campaign(2)
    network.campaign(1)
    network.campaign(3)
    assert [Role.LEADER, Role.FOLLOWER, Role.CANDIDATE] == network.roles()
    assert [3, 3, 2] == network.terms()
    network.heal()
    network.run([Message(kind, 3, 1, 3)])
    assert [Role.LEADER, Role.FOLLOWER, Role.FOLLOWER] == network.roles()
    assert [3, 3, 3] == network.terms()
    network.propose(1)
    assert (1, [1, 2, 3, 3]) == (network[3].leader, network[3].terms)


@FROM_A_LEADER
@pytest.mark.parametrize("behind", [False, True])
def test_a_candidate_that_comes_back_brings_the_newer_term(kind: MessageType, behind: bool) -> None:
    """Without check-quorum it minds no leader of an older term; its next campaign moves everybody.

    With a shorter log it is not elected in that, and follows the next leader.
    """
    network = group(1, 2, 3)
    network.campaign(1)
    network.isolate(3)
    if behind:
        network.propose(1)
    for _ in range(3):
        network.campaign(3)
    network.heal()
    network.delivered.clear()
    network.run([Message(kind, 3, 1, 1)])
    assert [kind] == network.kinds()
    assert [Role.LEADER, Role.FOLLOWER, Role.CANDIDATE] == network.roles()
    assert [1, 1, 4] == network.terms()
    network.campaign(3)
    assert [5, 5, 5] == network.terms()
    assert (Role.FOLLOWER if behind else Role.LEADER) is network[3].role()
    if behind:
        network.campaign(1)
    leader, term = (1, 6) if behind else (3, 5)
    network.propose(leader, b"settled")
    assert {(leader, term)} == {(peer.leader, peer.term) for peer in network.peers.values()}
    expected = [b"data", b"settled"] if behind else [b"settled"]
    assert [expected] * 3 == [network[each].data for each in (1, 2, 3)]


def test_old_messages_change_nothing() -> None:
    """A leader of a term that is over still speaks."""
    network = group(1, 2, 3)
    for candidate in (1, 2, 1):
        network.campaign(candidate)
    network[1].hear(MessageType.APPEND, 2, term=2, entries=log_of(2, first=3))
    network.propose(1)
    assert {(1, 2, 3, 3)} == {tuple(peer.terms) for peer in network.peers.values()}
    assert {4} == {peer.commit for peer in network.peers.values()}


@pytest.mark.parametrize("role", [Role.FOLLOWER, Role.CANDIDATE])
@pytest.mark.parametrize("kind", [MessageType.HEARTBEAT, MessageType.APPEND])
def test_a_candidate_gives_up_for_a_leader_and_waits_anew(role: Role, kind: MessageType) -> None:
    """Its patience begins again with what it heard."""
    peer = in_state(role, election_tick=10)
    peer.tick(9)
    peer.hear(kind, 2, term=peer.term)
    assert (Role.FOLLOWER, 2) == (peer.role(), peer.leader)
    assert [] == peer.tick(9)
    assert peer.tick()


@pytest.mark.parametrize("kind", [MessageType.VOTE, MessageType.APPEND])
@pytest.mark.parametrize("role", list(Role))
def test_every_role_steps_down_for_a_newer_term(role: Role, kind: MessageType) -> None:
    """An append names the leader of it, a request for a vote does not."""
    peer = in_state(role, pre_vote=role is Role.PRE_CANDIDATE)
    log = list(peer.log)
    peer.hear(kind, 2, term=3, log_term=3)
    leader = 2 if kind is MessageType.APPEND else NO_NODE
    assert (Role.FOLLOWER, 3, leader) == (peer.role(), peer.term, peer.leader)
    assert log == peer.log


@pytest.mark.parametrize(
    ("elapsed", "chance"), [(5, 0.0), (10, 0.1), (13, 0.4), (15, 0.6), (18, 0.9), (20, 1.0)]
)
def test_the_chance_to_campaign_rises_with_time(elapsed: int, chance: float) -> None:
    """Evenly, from none before the time-out to certainty at twice of it."""
    campaigned = 0
    for drawn in range(10):
        peer = Peer(election_tick=10, draw=lambda count, drawn=drawn: drawn % count)
        campaigned += bool(peer.tick(elapsed))
    assert chance == campaigned / 10


def test_a_leader_that_is_told_to_campaign_leads_on() -> None:
    """In its term."""
    peer = Peer()
    peer.lead()
    assert [] == peer.campaign()
    assert (Role.LEADER, 1) == (peer.role(), peer.term)


def test_who_is_no_member_does_not_campaign() -> None:
    """Nor does a learner, however long it hears nothing; a voter does."""
    strangers = [
        Peer(1, ()),
        Peer(1, (2, 3)),
        Peer(1, (2,), learners=(1,)),
    ]
    for peer in strangers:
        assert [] == peer.tick(100) == peer.campaign()
        assert Role.FOLLOWER is peer.role()
    assert Peer(1, (1, 2)).tick(20)


def test_a_learner_votes_when_asked() -> None:
    """It may have been made a voter without knowing it yet (4.2.1)."""
    peer = Peer(2, (1,), learners=(2,))
    answers = peer.hear(MessageType.VOTE, 1, term=2, log_term=11, index=11)
    assert [Message(MessageType.VOTE_RESPONSE, 1, 2, 2)] == answers


def test_votes_of_an_election_that_is_lost_do_not_count() -> None:
    """A vote of one's own that becomes durable late is of a term that is over (3.8)."""
    peer = Peer()
    peer.hold = True
    peer.campaign()
    ready = peer.node.ready()
    assert ready.hard_state is not None
    peer.hear(MessageType.APPEND, 2, term=1)
    assert Role.FOLLOWER is peer.role()
    peer.storage.set_hard_state(ready.hard_state)
    peer.node.advance()
    assert (Role.FOLLOWER, 2, 1) == (peer.role(), peer.leader, peer.term)


def test_a_pre_vote_of_ones_own_does_not_count_as_a_vote() -> None:
    """It becomes durable when the replica is a candidate already."""
    peer = Peer(pre_vote=True)
    peer.hold = True
    peer.campaign()
    peer.node.ready()
    peer.hear(MessageType.PRE_VOTE_RESPONSE, 2, term=1)
    peer.hear(MessageType.PRE_VOTE_RESPONSE, 3, term=1)
    assert Role.CANDIDATE is peer.role()
    peer.node.advance()
    assert Role.CANDIDATE is peer.role()
    ready = peer.node.ready()
    assert ready.hard_state == HardState(1, 1, 0)
    peer.hear(MessageType.VOTE_RESPONSE, 2, term=1)
    assert Role.CANDIDATE is peer.role()
    peer.node.advance()
    assert Role.LEADER is peer.role()


def test_a_log_that_becomes_durable_after_the_term_counts_for_nobody() -> None:
    """The old leader's own acknowledgement is of a term that is over."""
    peer = Peer()
    peer.lead_committed()
    peer.hold = True
    peer.node.propose(b"data")
    ready = peer.node.ready()
    peer.hear(MessageType.APPEND, 2, term=2, index=1, log_term=1)
    assert (Role.FOLLOWER, 2) == (peer.role(), peer.term)
    peer.storage.append(ready.entries)
    peer.node.advance()
    assert (Role.FOLLOWER, 1) == (peer.role(), peer.commit)
