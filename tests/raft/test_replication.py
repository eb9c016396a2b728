"""How the log gets to the followers (dissertation 3.5, 3.6.2): what etcd tests beyond the paper."""

import pytest

from tests.raft.network import Network, group
from tests.raft.peer import Peer, in_state, log_of
from timemachine.errors import ProposalDropped
from timemachine.raft import Entry, HardState, Message, MessageType, Role
from timemachine.raft.log import Log
from timemachine.raft.progress import ProgressState
from timemachine.raft.quorum import majority_committed


def test_what_is_proposed_is_applied_everywhere() -> None:
    """In one order, over changes of the leader."""
    network = group(1, 2, 3)
    network.campaign(1)
    network.propose(1, b"one")
    network.campaign(2)
    network.propose(2, b"two")
    for peer in network.peers.values():
        assert [b"one", b"two"] == peer.data


@pytest.mark.parametrize(("present", "taken"), [((1, 2, 3), True), ((1, 2), True), ((1,), False)])
def test_a_proposal_needs_a_majority(present: tuple[int, ...], taken: bool) -> None:
    """With one it is committed, without one there is no leader to take it."""
    network = Network(Peer(each, (1, 2, 3)) for each in present)
    network.campaign(1)
    if taken:
        network.propose(1)
    else:
        with pytest.raises(ProposalDropped):
            network.propose(1)
    for peer in network.peers.values():
        assert ([b"data"] if taken else []) == peer.data


@pytest.mark.parametrize("silent", [(), (3,)])
def test_a_follower_passes_proposals_on(silent: tuple[int, ...]) -> None:
    """To its leader."""
    network = Network(Peer(each, (1, 2, 3)) for each in (1, 2, 3) if each not in silent)
    network.campaign(1)
    network.propose(2)
    for peer in network.peers.values():
        assert [b"data"] == peer.data


def test_a_follower_may_be_told_not_to_pass_proposals_on() -> None:
    """Then it refuses them, and the host finds the leader."""
    network = group(1, 2, 3, forward_proposals=False)
    network.campaign(1)
    with pytest.raises(ProposalDropped):
        network.propose(2)
    network.propose(1)
    assert [b"data"] == network[2].data


def test_a_candidate_takes_no_proposals() -> None:
    """It does not lead, and knows nobody who does."""
    with pytest.raises(ProposalDropped):
        in_state(Role.CANDIDATE).propose(b"data")


def test_one_voter_commits_alone() -> None:
    """It is the majority; two are committed in order."""
    peer = Peer(voters=(1,))
    peer.lead()
    for data in (b"one", b"two"):
        assert [] == peer.propose(data)
    assert (3, [b"one", b"two"]) == (peer.commit, peer.data)


def test_entries_of_an_old_term_wait_for_one_of_the_new() -> None:
    """A new leader cannot commit them by sending them (3.6.2); its first own entry does."""
    network = group(1, 2, 3, 4, 5)
    network.campaign(1)
    for each in (3, 4, 5):
        network.cut(1, each)
    network.propose(1, b"one")
    network.propose(1, b"two")
    assert 1 == network[1].commit
    network.heal()
    # No opening entry gets through.
    network.ignore(MessageType.APPEND)
    network.campaign(2)
    assert (Role.LEADER, 1) == (network[2].role(), network[2].commit)
    network.heal()
    network.tick(2)
    assert [b"one", b"two"] == network[2].data
    network.propose(2, b"three")
    assert {5} == {peer.commit for peer in network.peers.values()}


@pytest.mark.parametrize(
    ("matches", "terms", "term", "committed"),
    [
        # One.
        ((1,), (1,), 1, 1),
        ((1,), (1,), 2, 0),
        ((2,), (1, 2), 2, 2),
        ((1,), (2,), 2, 1),
        # Odd.
        ((2, 1, 1), (1, 2), 1, 1),
        ((2, 1, 1), (1, 1), 2, 0),
        ((2, 1, 2), (1, 2), 2, 2),
        ((2, 1, 2), (1, 1), 2, 0),
        # Even.
        ((2, 1, 1, 1), (1, 2), 1, 1),
        ((2, 1, 1, 1), (1, 1), 2, 0),
        ((2, 1, 1, 2), (1, 2), 1, 1),
        ((2, 1, 1, 2), (1, 1), 2, 0),
        ((2, 1, 2, 2), (1, 2), 2, 2),
        ((2, 1, 2, 2), (1, 1), 2, 0),
    ],
)
def test_what_is_committed(
    matches: tuple[int, ...], terms: tuple[int, ...], term: int, committed: int
) -> None:
    """The highest index that a majority has, if its entry is of the leader's term."""
    peer = Peer(log=log_of(*terms), hard_state=HardState(terms[-1]))
    log = Log(peer.storage, 2**62)
    acked = dict(enumerate(matches))
    log.maybe_commit(majority_committed(acked.keys(), acked), term)
    assert committed == log.committed


@pytest.mark.parametrize(
    ("index", "log_term", "terms", "commit", "last", "committed", "rejected"),
    [
        # The entry before differs, or is missing.
        (2, 3, (), 3, 2, 0, True),
        (3, 3, (), 3, 2, 0, True),
        # It matches.
        (1, 1, (), 1, 2, 1, False),
        (0, 0, (2,), 1, 1, 1, False),
        (2, 2, (2, 2), 3, 4, 3, False),
        (2, 2, (2,), 4, 3, 3, False),
        (1, 1, (2,), 4, 2, 2, False),
        # Committed is at most what was compared.
        (1, 1, (), 3, 2, 1, False),
        (1, 1, (2,), 3, 2, 2, False),
        (2, 2, (), 3, 2, 2, False),
        (2, 2, (), 4, 2, 2, False),
    ],
)
def test_an_append_is_taken_or_rejected(
    index: int,
    log_term: int,
    terms: tuple[int, ...],
    commit: int,
    last: int,
    committed: int,
    rejected: bool,
) -> None:
    """What the log looks like then, and how far it is committed."""
    peer = Peer(voters=(1, 2), log=log_of(1, 2), hard_state=HardState(2))
    entries = log_of(*terms, first=index + 1)
    (answer,) = peer.hear(
        MessageType.APPEND, 2, index=index, log_term=log_term, entries=entries, commit=commit
    )
    assert (last, committed) == (peer.last_index, peer.commit)
    assert rejected is answer.reject


@pytest.mark.parametrize(("commit", "committed"), [(1, 2), (2, 2), (3, 3)])
def test_a_heartbeat_tells_what_is_committed(commit: int, committed: int) -> None:
    """It never falls."""
    peer = Peer(voters=(1, 2), log=log_of(1, 2, 3), hard_state=HardState(3, 0, 2))
    (answer,) = peer.hear(MessageType.HEARTBEAT, 2, commit=commit, context=b"context")
    assert committed == peer.commit
    assert Message(MessageType.HEARTBEAT_RESPONSE, 2, 1, 3, context=b"context") == answer


def test_a_heartbeats_answer_shows_who_is_behind() -> None:
    """Then an append is due, until the follower is up to date."""
    peer = Peer(voters=(1, 2), log=log_of(1, 2, 3), hard_state=HardState(3))
    peer.lead()
    for _ in range(2):
        (sent,) = peer.hear(MessageType.HEARTBEAT_RESPONSE, 2)
        assert MessageType.APPEND is sent.type
    peer.accept_all([Message(MessageType.APPEND, 2, 1, 4, index=4)])
    assert peer.last_index == peer.progress(2).match
    assert [] == peer.hear(MessageType.HEARTBEAT_RESPONSE, 2)


def test_a_heartbeat_commits_no_more_than_is_known_to_match() -> None:
    """Behind that, the follower's log may differ."""
    peer = Peer(voters=(1, 2, 3))
    peer.lead_committed()
    for message in peer.propose(b"data"):
        if message.to == 2:
            peer.accept(message)
    assert 2 == peer.commit
    assert {2: 2, 3: 1} == {message.to: message.commit for message in peer.tick()}


def test_all_answers_end_a_wait() -> None:
    """An acknowledgement of a probe lets the next append through, to each one for itself."""
    peer = Peer()
    opening = peer.lead()
    assert [2, 3] == [message.to for message in opening]
    peer.accept(opening[0])
    sent = peer.propose(b"data")
    assert [2] == [message.to for message in sent]
    # 3 still waits, and gets both entries when it has answered.
    sent = peer.accept(opening[1])
    assert [(3, [2])] == [
        (message.to, [entry.index for entry in message.entries])
        for message in sent
        if message.entries
    ]


@pytest.mark.parametrize(
    ("index", "reject", "match", "next_"),
    [
        (3, True, 0, 3),  # an old rejection, of another probe
        (2, True, 0, 2),  # the probe in front of the last one
        (2, False, 2, 4),  # accepted: what follows is sent at once
        (0, False, 0, 4),  # nothing new, but the logs match there: all of it is sent
    ],
)
def test_a_leader_takes_answers(index: int, reject: bool, match: int, next_: int) -> None:
    """And knows more of the follower's log, or does not."""
    peer = Peer(log=log_of(1, 1), hard_state=HardState(1))
    peer.lead()
    assert (0, 3) == (peer.progress(2).match, peer.progress(2).next)
    hint = index - 1 if reject else 0
    peer.hear(MessageType.APPEND_RESPONSE, 2, index=index, reject=reject, reject_hint=hint)
    progress = peer.progress(2)
    assert (match, next_) == (progress.match, progress.next)


def test_reordered_appends_do_not_confuse() -> None:
    """A rejection that comes late, for an append that arrived too early, is behind the match."""
    leader, follower = Peer(1, (1, 2)), Peer(2, (1, 2))
    for message in leader.lead():
        leader.accept(message)
    follower.hear(MessageType.APPEND, 1, term=1, entries=log_of(1))
    (first,) = leader.propose(b"one")
    (second,) = leader.propose(b"two")
    (late,) = follower.step(second)
    assert (True, 1, 2) == (late.reject, late.reject_hint, late.index)
    (answer,) = follower.step(first)
    leader.step(answer)
    assert 2 == leader.progress(2).match
    leader.node.report_unreachable(2)
    assert ProgressState.PROBE is leader.progress(2).state
    (again,) = leader.step(late)
    assert 2 == again.index


@pytest.mark.parametrize(
    ("leaders", "followers", "hint", "then"),
    [
        # The leader finds the place fast.
        ((1, 2, 2, 4, 4, 4, 4), (1, 2, 2, *[3] * 8), (3, 7), (2, 3)),
        ((1, 2, 2, 3, 4, 4, 4, 5), (1, 2, 2, 3, *[3] * 7), (3, 8), (3, 4)),
        # The follower finds it.
        ((1, 1, 1, 1), (1, 2, 2, 4), (1, 1), (1, 1)),
        ((1, 1, 1, 1, 1, 1), (1, 2, 2, 4), (1, 1), (1, 1)),
        ((1, 1, 1, 1), (1, 2, 2, 4, 4, 4), (1, 1), (1, 1)),
        # The follower's log is only shorter.
        ((1, 1, 1, 4, 5), (1, 1, 1, 4), (4, 4), (4, 4)),
        # Both jump over a term.
        ((2, *[5] * 8), (2, *[4] * 5), (4, 6), (2, 1)),
        ((2, 2, 2, 2, 2), (2, *[4] * 7), (2, 1), (2, 1)),
    ],
)
def test_fast_log_rejection(
    leaders: tuple[int, ...],
    followers: tuple[int, ...],
    hint: tuple[int, int],
    then: tuple[int, int],
) -> None:
    """3.5, at its end: a probe or two for each term in which the logs differ, not for each entry.

    `hint` is (term, index) of the follower's guess, `then` those of the leader's next probe.
    """
    before = HardState(max(leaders[-1], followers[-1]))
    leader = Peer(log=log_of(*leaders), hard_state=before)
    leader.lead()
    follower = Peer(2, log=log_of(*followers), hard_state=before)
    (probe,) = leader.hear(MessageType.HEARTBEAT_RESPONSE, 2)
    (answer,) = follower.hear(
        MessageType.APPEND,
        1,
        term=probe.term,
        index=probe.index,
        log_term=probe.log_term,
        entries=probe.entries,
    )
    assert answer.reject
    assert hint == (answer.log_term, answer.reject_hint)
    (probe,) = leader.hear(
        MessageType.APPEND_RESPONSE,
        2,
        index=answer.index,
        reject=True,
        log_term=answer.log_term,
        reject_hint=answer.reject_hint,
    )
    assert then == (probe.log_term, probe.index)


def test_learners_get_the_log_and_do_not_count() -> None:
    """What only they have is not committed (4.2.1)."""
    network = group(1, 2, learners=(3,))
    network.campaign(1)
    network.propose(1, b"all")
    assert [b"all"] == network[3].data
    network.isolate(2)
    network.propose(1, b"not committed")
    assert (4 - 1, 2) == (network[3].last_index, network[1].commit)
    assert [b"all"] == network[1].data


def test_proposals_of_one_round_share_an_append() -> None:
    """One write and one message for all of them (10.2.2)."""
    peer = Peer(voters=(1, 2))
    peer.lead_committed()
    peer.hold = True
    peer.node.ready()
    peer.node.advance()
    progress = peer.node._raft.tracker.progress[2]
    progress.become_probe()
    for number in range(5):
        peer.node.propose(b"%d" % number)
    ready = peer.node.ready()
    assert [2, 3, 4, 5, 6] == [entry.index for entry in ready.entries]
    assert 1 == len(ready.messages)
    assert [Entry(1, 2, data=b"0")] == list(ready.messages[0].entries)
