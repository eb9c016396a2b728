"""Linearizable reads without a log entry (dissertation 6.4): what etcd tests of them."""

from typing import Any

import pytest

from tests.raft.network import Network, group
from tests.raft.peer import Peer
from timemachine.errors import ConfigError
from timemachine.raft import Config, Message, MessageType, ReadState, Role
from timemachine.raft.messages import Entry


def led_by_1(*, learners: tuple[int, ...] = (), **settings: Any) -> Network:
    """Three voters, or one and learners; 1 leads."""
    voters = (1,) if learners else (1, 2, 3)
    network = group(*voters, learners=learners, **settings)
    network.campaign(1)
    assert Role.LEADER is network[1].role()
    return network


@pytest.mark.parametrize("lease", [False, True])
def test_every_replica_can_read(lease: bool) -> None:
    """The index is what is committed when the read comes in, also through a follower."""
    network = led_by_1(check_quorum=True, lease_reads=lease)
    committed = 1
    for number, reader in enumerate((1, 2, 3, 1, 2, 3)):
        for _ in range(10):
            network.propose(1)
        committed += 10
        context = b"read %d" % number
        network.read(reader, context)
        assert ReadState(committed, context) == network[reader].reads[-1]


def test_a_read_costs_a_round_of_heartbeats() -> None:
    """Or the leader might have been replaced, and know nothing of it (6.4)."""
    network = led_by_1()
    network.delivered.clear()
    network.read(1, b"context")
    assert 2 == network.kinds().count(MessageType.HEARTBEAT)
    network.isolate(1)
    network.read(1, b"too late")
    assert [b"context"] == [read.context for read in network[1].reads]


def test_a_lease_costs_no_round() -> None:
    """Nobody else can be elected meanwhile (6.4.1)."""
    network = led_by_1(check_quorum=True, lease_reads=True)
    network.delivered.clear()
    network.read(1, b"context")
    assert [] == network.delivered
    assert [ReadState(1, b"context")] == network[1].reads


def test_a_lease_needs_the_check_of_the_quorum() -> None:
    """Without it a leader that is cut off would lead, and read, for ever."""
    with pytest.raises(ConfigError, match="lease_reads"):
        Config(id=1, lease_reads=True).validate()


def test_a_leader_that_hands_over_has_no_lease() -> None:
    """The other one may be elected at once."""
    network = led_by_1(check_quorum=True, lease_reads=True)
    network.ignore(MessageType.TIMEOUT_NOW)
    network.transfer(1, 2)
    network.isolate(1)
    network.read(1, b"context")
    assert [] == network[1].reads


def test_learners_read_like_others() -> None:
    """They follow, too; but their answers confirm nothing."""
    network = led_by_1(learners=(2,))
    for number, reader in enumerate((1, 2)):
        network.propose(1)
        network.read(reader, b"context")
        assert [ReadState(2 + number, b"context")] == network[reader].reads
    peer = Peer(1, (1, 2), learners=(3,))
    peer.lead_committed()
    peer.node.read_index(b"context")
    for message in peer.settle():
        if message.to == 3:
            peer.hear(MessageType.HEARTBEAT_RESPONSE, 3, context=message.context)
    assert [] == peer.reads


def test_a_new_leader_waits_for_its_first_commit() -> None:
    """Before it, it does not know all that its predecessor has committed (6.4, step 1)."""
    peer = Peer()
    sent = peer.lead()
    peer.node.read_index(b"first")
    peer.node.read_index(b"second")
    assert [] == peer.settle()
    # It commits the entry of its term, and asks on behalf of both reads.
    heartbeats = [
        message
        for each in sent[:1]
        for message in peer.accept(each)
        if message.type is MessageType.HEARTBEAT
    ]
    assert {2, 3} == {message.to for message in heartbeats}
    assert [] == peer.reads
    last = heartbeats[-1]
    peer.hear(MessageType.HEARTBEAT_RESPONSE, last.to, context=last.context)
    assert [ReadState(1, b"first"), ReadState(1, b"second")] == peer.reads


def test_a_new_leader_with_a_lease_waits_as_well() -> None:
    """The lease says that nobody else leads, not what is committed."""
    peer = Peer(check_quorum=True, lease_reads=True)
    sent = peer.lead()
    peer.node.read_index(b"context")
    assert [] == peer.settle()
    assert [] == peer.reads
    peer.accept(sent[0])
    assert [ReadState(1, b"context")] == peer.reads


def test_one_round_confirms_all_reads_before_it() -> None:
    """And leaves nothing behind."""
    peer = Peer()
    peer.lead_committed()
    contexts = [b"%d" % number for number in range(5)]
    rounds = []
    for context in contexts:
        peer.node.read_index(context)
        rounds.append(peer.settle())
    third = rounds[2][0]
    peer.hear(MessageType.HEARTBEAT_RESPONSE, 2, context=third.context)
    assert contexts[:3] == [read.context for read in peer.reads]
    # The same answer again, and an older one, confirm nothing new.
    for each in (third, rounds[0][0]):
        peer.hear(MessageType.HEARTBEAT_RESPONSE, 2, context=each.context)
    assert contexts[:3] == [read.context for read in peer.reads]
    peer.hear(MessageType.HEARTBEAT_RESPONSE, 3, context=rounds[4][1].context)
    assert contexts == [read.context for read in peer.reads]
    # Heartbeats carry nothing any more.
    assert {b""} == {message.context for message in peer.tick()}


def test_an_answer_to_an_earlier_round_confirms_no_later_read() -> None:
    """It was given before the read came in: by then the leader might have been replaced."""
    peer = Peer()
    peer.lead_committed()
    peer.node.read_index(b"first")
    first = peer.settle()[0]
    peer.node.read_index(b"second")
    peer.settle()
    peer.hear(MessageType.HEARTBEAT_RESPONSE, 2, context=first.context)
    assert [b"first"] == [read.context for read in peer.reads]


def test_a_lost_round_is_repeated_by_the_next_heartbeat() -> None:
    """So a read is not lost with a message."""
    peer = Peer()
    peer.lead_committed()
    peer.node.read_index(b"context")
    peer.settle()
    heartbeat = peer.tick()[0]
    peer.hear(MessageType.HEARTBEAT_RESPONSE, heartbeat.to, context=heartbeat.context)
    assert [ReadState(1, b"context")] == peer.reads


def test_reads_are_forgotten_with_the_leadership() -> None:
    """Whoever asked asks again."""
    peer = Peer()
    peer.lead_committed()
    peer.node.read_index(b"context")
    heartbeat = peer.settle()[0]
    peer.hear(MessageType.APPEND, 2, term=2)
    peer.campaign()
    sent = peer.hear(MessageType.VOTE_RESPONSE, 2)
    peer.accept_all(sent)
    peer.hear(MessageType.HEARTBEAT_RESPONSE, 2, context=heartbeat.context)
    assert [] == peer.reads


def test_a_follower_without_leader_loses_the_read() -> None:
    """There is nobody to ask."""
    peer = Peer()
    peer.node.read_index(b"context")
    assert [] == peer.settle()
    assert [] == peer.reads


def test_a_follower_asks_its_leader() -> None:
    """And gets the answer with the context it gave."""
    peer = Peer()
    peer.hear(MessageType.HEARTBEAT, 2, term=1)
    peer.node.read_index(b"context")
    (asked,) = peer.settle()
    assert (MessageType.READ_INDEX, 2, 1) == (asked.type, asked.to, asked.from_)
    peer.hear(MessageType.READ_INDEX_RESPONSE, 2, index=7, entries=asked.entries)
    assert [ReadState(7, b"context")] == peer.reads


def test_one_voter_answers_at_once() -> None:
    """It is the majority."""
    peer = Peer(voters=(1,))
    peer.node.read_index(b"too early")
    peer.lead()
    peer.node.read_index(b"context")
    peer.settle()
    assert [ReadState(1, b"context")] == peer.reads


def test_a_leader_answers_the_follower_that_asked() -> None:
    """The answer goes back to it alone."""
    peer = Peer(check_quorum=True, lease_reads=True)
    peer.lead_committed()
    entries = (Entry(data=b"context"),)
    sent = peer.hear(MessageType.READ_INDEX, 3, term=0, entries=entries)
    assert [
        Message(MessageType.READ_INDEX_RESPONSE, 3, 1, sent[0].term, index=1, entries=entries)
    ] == sent
