"""Handing the leadership over (dissertation 3.10): what etcd tests of it."""

from typing import Any

import pytest

from tests.raft.network import Network, group
from tests.raft.peer import Peer
from timemachine.errors import ProposalDropped
from timemachine.raft import NO_NODE, Message, MessageType, Role
from timemachine.raft.messages import (
    ConfChange,
    ConfChangeSingle,
    ConfChangeTransition,
    ConfChangeType,
    ConfChangeV2,
)

ELECTION_TICK = 10


def led_by_1(**settings: Any) -> Network:
    """Three replicas, of which 1 leads."""
    network = group(1, 2, 3, election_tick=ELECTION_TICK, **settings)
    network.campaign(1)
    assert Role.LEADER is network[1].role()
    return network


def pending_to_3(**settings: Any) -> Network:
    """Replica 1 is to hand over to 3, which cannot hear it."""
    network = led_by_1(**settings)
    network.isolate(3)
    network.transfer(1, 3)
    assert 3 == network[1].node.status().transferee
    return network


def check(network: Network, leader: int) -> None:
    """Replica 1 follows `leader`, or is the leader, and hands over to nobody."""
    status = network[1].node.status()
    assert (leader, NO_NODE) == (status.leader, status.transferee)
    assert (Role.LEADER if leader == 1 else Role.FOLLOWER) is status.role


@pytest.mark.parametrize("check_quorum", [False, True])
def test_to_a_replica_that_is_up_to_date(check_quorum: bool) -> None:
    """It campaigns at once, and wins; also when the others would stick to their leader."""
    network = led_by_1(check_quorum=check_quorum)
    network.transfer(1, 2)
    check(network, 2)
    # And back, with an entry more.
    network.propose(2)
    network.transfer(2, 1)
    check(network, 1)


def test_a_follower_passes_the_wish_on() -> None:
    """The host need not know who leads."""
    network = led_by_1()
    network.transfer(2, 2)
    check(network, 2)
    network.propose(2)
    network.transfer(1, 1)
    check(network, 1)


def test_to_a_replica_that_is_behind() -> None:
    """It is brought up to date first."""
    network = led_by_1()
    network.isolate(3)
    network.propose(1)
    network.heal()
    assert 1 == network[1].progress(3).match
    network.transfer(1, 3)
    check(network, 3)


def test_to_a_replica_that_needs_a_snapshot() -> None:
    """It takes over when it has installed it, and not before."""
    network = led_by_1()
    network.isolate(3)
    network.propose(1)
    network[1].compact(network[1].commit)
    network.heal()
    held: list[Message] = []

    def hold(message: Message) -> bool:
        answer = message.type is MessageType.APPEND_RESPONSE and message.from_ == 3
        if answer and not message.reject:
            held.append(message)
            return False
        return True

    network.filter = hold
    network.transfer(1, 3)
    # It learns by the heartbeat's answer that it has to send a snapshot.
    network.tick(1)
    assert Role.LEADER is network[1].role()
    assert [2] == [snapshot.metadata.index for snapshot in network[3].snapshots]
    network.filter = None
    network.run([message for each in held for message in network[1].step(each)])
    check(network, 3)


def test_to_oneself() -> None:
    """Nothing changes."""
    network = led_by_1()
    network.transfer(1, 1)
    check(network, 1)


def test_to_nobody_of_the_group() -> None:
    """Nothing changes."""
    network = led_by_1()
    network.transfer(1, 4)
    check(network, 1)


def test_to_a_learner() -> None:
    """Nothing changes: it must not lead."""
    network = group(1, 2, learners=(3,))
    network.campaign(1)
    network.transfer(1, 3)
    check(network, 1)


def test_is_given_up_after_an_election_timeout() -> None:
    """Then the leader goes on leading, and takes proposals."""
    network = pending_to_3()
    network.tick(1)
    assert 3 == network[1].node.status().transferee
    network.tick(1, ELECTION_TICK - 1)
    check(network, 1)
    network.propose(1)
    assert [b"data"] == network[1].data


def test_proposals_are_refused_meanwhile() -> None:
    """Or the other might never get up to date."""
    network = pending_to_3()
    with pytest.raises(ProposalDropped):
        network.propose(1)
    # Those of others as well, who are not told.
    network.propose(2)
    assert 1 == network[1].progress(1).match == network[1].last_index


def test_ends_with_a_newer_term() -> None:
    """Whoever is elected meanwhile is the leader."""
    network = pending_to_3()
    network.campaign(2)
    check(network, 2)


def test_ends_when_the_other_is_removed() -> None:
    """Nobody is left to hand over to."""
    network = led_by_1()
    network.ignore(MessageType.TIMEOUT_NOW)
    network.transfer(1, 3)
    assert 3 == network[1].node.status().transferee
    network[1].node.apply_conf_change(ConfChange(ConfChangeType.REMOVE_NODE, 3))
    check(network, 1)


def test_ends_when_the_other_becomes_a_learner() -> None:
    """A learner must not lead."""
    network = led_by_1()
    network.ignore(MessageType.TIMEOUT_NOW)
    network.transfer(1, 3)
    demotion = (
        ConfChangeSingle(ConfChangeType.REMOVE_NODE, 3),
        ConfChangeSingle(ConfChangeType.ADD_LEARNER, 3),
    )
    node = network[1].node
    node.apply_conf_change(ConfChangeV2(ConfChangeTransition.AUTO, demotion))
    node.apply_conf_change(ConfChangeV2())
    check(network, 1)


def test_back_to_oneself() -> None:
    """A pending transfer is called off by asking the leader to hand over to itself."""
    network = pending_to_3()
    network.transfer(1, 1)
    check(network, 1)


def test_to_another_instead() -> None:
    """The newer wish counts."""
    network = pending_to_3()
    network.transfer(1, 2)
    check(network, 2)


def test_asking_again_does_not_prolong_it() -> None:
    """Or impatience could keep a group from taking proposals for ever."""
    network = pending_to_3()
    network.tick(1)
    network.transfer(1, 3)
    network.tick(1, ELECTION_TICK - 1)
    check(network, 1)


def test_a_replica_that_was_removed_does_not_campaign() -> None:
    """TIMEOUT_NOW reaches who is no member: neither it nor votes make it a leader."""
    peer = Peer(1, (2, 3, 4))
    assert [] == peer.hear(MessageType.TIMEOUT_NOW, 2)
    for voter in (2, 3):
        assert [] == peer.hear(MessageType.VOTE_RESPONSE, voter)
    assert Role.FOLLOWER is peer.role()


def test_a_learner_does_not_campaign() -> None:
    """Neither by itself nor because a leader that does not know better asks it to."""
    network = group(1, learners=(2,))
    network.campaign(2)
    assert Role.FOLLOWER is network[2].role()
    network.campaign(1)
    assert Role.LEADER is network[1].role()
    assert [] == network[2].hear(MessageType.TIMEOUT_NOW, 1)
    assert Role.FOLLOWER is network[2].role()


@pytest.mark.parametrize("joint", [False, True])
def test_who_has_not_applied_a_change_of_membership_does_not_campaign(joint: bool) -> None:
    """It does not know whose votes it needs (4.1); once it has applied the change, it does."""
    network = led_by_1()
    held = network[2]
    removal = ConfChange(ConfChangeType.REMOVE_NODE, 3)
    # Replica 2 learns that the change is committed, and does not get round to applying it.
    network[1].node.propose_conf_change(removal.as_v2() if joint else removal)
    network.filter = lambda message: message.to != 2 or message.commit < 2
    network.run()
    network.filter = None
    commit = Message(
        MessageType.APPEND, 2, 1, 1, 1, network[2].last_index, commit=network[1].commit
    )
    held.hold = True
    held.step(commit)
    assert network[1].commit == held.commit == 2
    held.tick(ELECTION_TICK)
    held.hear(MessageType.TIMEOUT_NOW, 1)
    assert Role.FOLLOWER is held.role()
    held.hold = False
    network.run()
    network.transfer(1, 2)
    assert (Role.FOLLOWER, Role.LEADER) == (network[1].role(), held.role())
