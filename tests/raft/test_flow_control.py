"""How much may be on its way to a follower, and how much waits at the leader (10.2.1, 10.2.2)."""

from typing import Any

import pytest

from tests.raft.peer import Peer
from timemachine.errors import ProposalDropped
from timemachine.raft import Message, MessageType, Role
from timemachine.raft.progress import ProgressState

WINDOW = 4


def replicating(**settings: Any) -> Peer:
    """A leader of two that knows the other's log to match."""
    peer = Peer(voters=(1, 2), **settings)
    peer.lead()
    peer.hear(MessageType.APPEND_RESPONSE, 2, index=1)
    assert ProgressState.REPLICATE is peer.progress(2).state
    return peer


def with_a_full_window() -> Peer:
    """The same, with as many appends on their way as may be: those of the entries 2 to 5."""
    peer = replicating(inflight_messages_max=WINDOW)
    for _ in range(WINDOW):
        assert 1 == len(peer.propose(b"data"))
    assert peer.progress(2).inflights.full()
    return peer


def test_a_full_window_stops_the_flow() -> None:
    """Proposals are taken, and wait."""
    peer = with_a_full_window()
    for _ in range(3):
        assert [] == peer.propose(b"data")
    assert (5, WINDOW) == (peer.progress(2).next - 1, peer.progress(2).inflights.count())


def test_an_answer_moves_the_window() -> None:
    """By what it answers: from the oldest on. Answers that are older still move nothing."""
    peer = with_a_full_window()
    for index in range(2, 2 + WINDOW):
        peer.propose(b"data")
        sent = peer.hear(MessageType.APPEND_RESPONSE, 2, index=index)
        entries = [entry.index for message in sent for entry in message.entries]
        assert [index + WINDOW] == entries
        assert peer.progress(2).inflights.full()
        for old in range(index):
            assert [] == peer.hear(MessageType.APPEND_RESPONSE, 2, index=old)
        assert peer.progress(2).inflights.full()


def test_a_heartbeats_answer_lets_one_empty_append_through() -> None:
    """If all in the window was lost, its answer says so; nobody else would (10.2.1)."""
    peer = with_a_full_window()
    for _ in range(3):
        (probe,) = peer.hear(MessageType.HEARTBEAT_RESPONSE, 2)
        assert (MessageType.APPEND, 5, []) == (probe.type, probe.index, list(probe.entries))
        assert [] == peer.propose(b"data")
        assert peer.progress(2).inflights.full()
    # It is answered with where the follower is: everything behind is sent again.
    sent = peer.hear(MessageType.APPEND_RESPONSE, 2, index=5, reject=True, reject_hint=1)
    assert [(1, 2)] == [(message.index, message.entries[0].index) for message in sent]
    assert ProgressState.PROBE is peer.progress(2).state


def test_the_window_is_bounded_in_bytes() -> None:
    """The message that crosses the line is the last one."""
    peer = replicating(message_bytes_max=1, inflight_bytes_max=200)
    assert [1, 1, 1, 0, 0] == [len(peer.propose(bytes(80))) for _ in range(5)]
    sent = peer.hear(MessageType.APPEND_RESPONSE, 2, index=3)
    assert [[5], [6]] == [[entry.index for entry in message.entries] for message in sent]


def test_the_window_is_bounded_in_messages_and_bytes_at_once() -> None:
    """Whichever bound is reached first: small entries share messages, and large ones go alone."""
    # A message holds two small entries and their overhead; the window counts data only.
    peer = Peer(
        voters=(1, 2), message_bytes_max=2100, inflight_messages_max=3, inflight_bytes_max=9000
    )
    peer.lead()
    # The follower is probed, so these wait: 2 to 11, then 12 to 17, then 18 to 23.
    for size, count in ((1000, 10), (5000, 6), (1000, 6)):
        for _ in range(count):
            assert [] == peer.propose(bytes(size))

    def answered(index: int) -> list[list[int]]:
        sent = peer.hear(MessageType.APPEND_RESPONSE, 2, index=index)
        return [[each.index for each in message.entries] for message in sent if message.entries]

    # Three messages of 2000 bytes.
    assert [[2, 3], [4, 5], [6, 7]] == answered(1)
    # 9000 bytes in three messages: both bounds.
    assert [[8, 9], [10, 11], [12]] == answered(7)
    # The oldest message is through: 7000 bytes wait in two, and the third may cross the line.
    assert [[13]] == answered(9)
    # Entry 12 is through as well: two large entries are all that fit.
    assert [[14]] == answered(12)
    assert (2, True) == (peer.progress(2).inflights.count(), peer.progress(2).inflights.full())
    assert [[15]] == answered(13)
    assert [[16], [17]] == answered(15)
    assert [[18, 19], [20, 21], [22, 23]] == answered(17)
    assert [] == answered(23)
    assert (23, 0) == (peer.commit, peer.progress(2).inflights.count())


def test_an_append_is_bounded_in_bytes() -> None:
    """Many small entries share a message, but not more than a few."""
    peer = Peer(voters=(1, 2), message_bytes_max=2048)
    peer.lead()
    for _ in range(10):
        peer.propose(bytes(1000))
    sent = peer.hear(MessageType.APPEND_RESPONSE, 2, index=1)
    sizes = [sum(len(entry.data) for entry in message.entries) for message in sent]
    assert 10_000 == sum(sizes)
    assert max(sizes) <= 2048


def test_a_probe_is_alone_until_it_is_answered() -> None:
    """By the append's answer, or a heartbeat's; then it is one again."""
    peer = Peer(voters=(1, 2))
    sent = peer.lead()
    assert 1 == len(sent)
    for _ in range(3):
        assert [] == peer.propose(b"data")
    for _ in range(2):
        (probe,) = peer.hear(MessageType.HEARTBEAT_RESPONSE, 2)
        assert (MessageType.APPEND, 0) == (probe.type, probe.index)
        assert [] == peer.propose(b"data")
    (rest,) = peer.hear(MessageType.APPEND_RESPONSE, 2, index=1)[-1:]
    assert peer.last_index == rest.entries[-1].index


def test_what_could_not_be_sent_makes_a_probe() -> None:
    """The host says so; without it a lost append would leave a hole until an answer tells."""
    peer = replicating()
    for _ in range(3):
        peer.propose(b"data")
    assert 5 == peer.progress(2).next
    peer.node.report_unreachable(2)
    progress = peer.progress(2)
    assert (ProgressState.PROBE, 2, 0) == (
        progress.state,
        progress.next,
        progress.inflights.count(),
    )


def test_an_answer_while_probing_begins_replication() -> None:
    """Even if it says nothing new: the logs are known to match there."""
    peer = replicating()
    peer.propose(b"data")
    peer.hear(MessageType.APPEND_RESPONSE, 2, index=2)
    peer.node.report_unreachable(2)
    peer.hear(MessageType.APPEND_RESPONSE, 2, index=2)
    progress = peer.progress(2)
    assert (ProgressState.REPLICATE, 2, 3) == (progress.state, progress.match, progress.next)


def test_proposals_are_bounded() -> None:
    """A leader without majority refuses when it holds enough; it takes more when that commits.

    One proposal is always taken when nothing waits, however large, and empty ones always.
    """
    peer = Peer(uncommitted_size_max=100)
    peer.lead_committed()
    sent: list[Message] = []
    for _ in range(10):
        sent += peer.propose(bytes(10))
    with pytest.raises(ProposalDropped):
        peer.propose(bytes(10))
    sent += peer.propose(b"")
    peer.accept_all(sent)
    assert 12 == peer.commit
    sent = peer.propose(bytes(1000))
    with pytest.raises(ProposalDropped):
        peer.propose(b"x")
    peer.accept_all(sent)
    peer.propose(b"x")


def test_a_new_leader_begins_to_count_anew() -> None:
    """What it had as a leader before is somebody else's now."""
    peer = Peer(uncommitted_size_max=100)
    peer.lead_committed()
    peer.propose(bytes(100))
    peer.hear(MessageType.HEARTBEAT, 2, term=2)
    peer.lead()
    assert Role.LEADER is peer.role()
    peer.propose(bytes(100))
    with pytest.raises(ProposalDropped):
        peer.propose(b"x")
