"""Changes of membership (dissertation, chapter 4): what etcd tests of them."""

import pytest

from tests.raft.network import Network, group
from tests.raft.peer import Peer
from timemachine.errors import ProposalDropped
from timemachine.raft import ConfState, Entry, EntryType, HardState, MessageType, Role
from timemachine.raft.messages import (
    ConfChange,
    ConfChangeSingle,
    ConfChangeTransition,
    ConfChangeType,
    ConfChangeV2,
    conf_change_entry,
    read_conf_change,
)
from timemachine.raft.rawnode import PeerUnknown

ADD = ConfChangeType.ADD_NODE
LEARNER = ConfChangeType.ADD_LEARNER
REMOVE = ConfChangeType.REMOVE_NODE

AUTO = ConfChangeTransition.AUTO
IMPLICIT = ConfChangeTransition.JOINT_IMPLICIT
EXPLICIT = ConfChangeTransition.JOINT_EXPLICIT


def change(*singles: tuple[ConfChangeType, int], how: ConfChangeTransition = AUTO) -> ConfChangeV2:
    """A change of the general form."""
    return ConfChangeV2(how, tuple(ConfChangeSingle(kind, member) for kind, member in singles))


def alone() -> Peer:
    """The leader of a group of one."""
    peer = Peer(voters=(1,))
    peer.lead()
    return peer


def join(network: Network, *new: int) -> None:
    """Let replicas take part that have nothing yet, and whom the leader was told to add.

    They begin with a snapshot that names them, so it is one from behind that change; a snapshot
    that does not name its receiver is ignored. Who got the log from its first entry on instead
    would not learn who belonged to the group before it: that is said by the snapshot at index 0
    that the group was born from.
    """
    network[1].compact(network[1].commit)
    for each in new:
        network.peers[each] = Peer(each, ())
    for _ in range(3):
        network.tick(1)


def appended(peer: Peer) -> list[EntryType]:
    """What kinds of entries its log holds behind the opening one."""
    return [entry.type for entry in peer.log[1:]]


@pytest.mark.parametrize(
    ("proposed", "members", "later"),
    [
        # One voter more, in all spellings.
        (ConfChange(ADD, 2), ConfState((1, 2)), None),
        (change((ADD, 2)), ConfState((1, 2)), None),
        (
            change((ADD, 2), how=IMPLICIT),
            ConfState((1, 2), voters_outgoing=(1,), auto_leave=True),
            ConfState((1, 2)),
        ),
        (
            change((ADD, 2), how=EXPLICIT),
            ConfState((1, 2), voters_outgoing=(1,)),
            ConfState((1, 2)),
        ),
        # A learner.
        (ConfChange(LEARNER, 2), ConfState((1,), learners=(2,)), None),
        (change((LEARNER, 2)), ConfState((1,), learners=(2,)), None),
        (
            change((LEARNER, 2), how=EXPLICIT),
            ConfState((1,), learners=(2,), voters_outgoing=(1,)),
            ConfState((1,), learners=(2,)),
        ),
        # Several at once, the leader's own demotion among them.
        (
            change((ADD, 2), (LEARNER, 1), (LEARNER, 3)),
            ConfState((2,), (3,), (1,), (1,), auto_leave=True),
            ConfState((2,), (1, 3)),
        ),
        (
            change((ADD, 2), (LEARNER, 1), (LEARNER, 3), how=EXPLICIT),
            ConfState((2,), (3,), (1,), (1,)),
            ConfState((2,), (1, 3)),
        ),
    ],
)
def test_a_change_is_proposed_and_applied(
    proposed: ConfChange | ConfChangeV2, members: ConfState, later: ConfState | None
) -> None:
    """One that is joint is left: by the leader itself, or when the host asks for it."""
    peer = alone()
    peer.node.propose_conf_change(proposed)
    sent = peer.settle()
    assert members == peer.conf_states[0]
    assert proposed == read_conf_change(peer.applied[1])
    if later is None:
        assert 1 == len(peer.conf_states)
        return
    if not members.auto_leave:
        peer.node.propose_conf_change(ConfChangeV2())
        sent += peer.settle()
    # The joint configuration's majority includes 2 by now.
    while len(peer.conf_states) == 1:
        assert peer.last_index > peer.commit
        sent = [message for message in sent if message.to == 2] or peer.tick()
        peer.hear(MessageType.APPEND_RESPONSE, 2, index=peer.last_index)
    assert later == peer.conf_states[1]
    assert later == peer.node.status().conf_state


def test_auto_leave_is_proposed_by_the_next_leader() -> None:
    """Whoever leads when the joint configuration is applied ends it."""
    network = group(1, 2, 3)
    network.campaign(1)
    # All have the change, and nobody knows that it is committed.
    network.ignore(MessageType.APPEND_RESPONSE)
    network[1].node.propose_conf_change(change((ADD, 1), (REMOVE, 3)))
    network.run()
    assert [] == network[1].conf_states
    network.heal()
    network.campaign(2)
    assert Role.LEADER is network[2].role()
    assert ConfState((1, 2)) == network[1].node.status().conf_state
    assert [ConfState((1, 2), voters_outgoing=(1, 2, 3), auto_leave=True), ConfState((1, 2))] == (
        network[2].conf_states
    )


def test_one_change_at_a_time() -> None:
    """A second one is appended as an empty entry until the first is applied (4.1)."""
    peer = Peer()
    peer.lead_committed()
    for member in (4, 5):
        peer.node.propose_conf_change(ConfChange(ADD, member))
    sent = peer.settle()
    assert [EntryType.CONF_CHANGE, EntryType.NORMAL] == appended(peer)
    assert b"" == peer.log[-1].data
    peer.accept_all(sent)
    assert (1, 2, 3, 4) == peer.node.status().conf_state.voters
    peer.node.propose_conf_change(ConfChange(ADD, 5))
    peer.settle()
    assert EntryType.CONF_CHANGE is peer.log[-1].type


def test_one_change_at_a_time_within_a_proposal() -> None:
    """The first of several in one message is taken."""
    peer = Peer()
    peer.lead_committed()
    entries = [conf_change_entry(ConfChange(ADD, member)) for member in (4, 5)]
    peer.hear(MessageType.PROPOSE, 1, term=0, entries=entries)
    assert [EntryType.CONF_CHANGE, EntryType.NORMAL] == appended(peer)


def test_no_change_while_the_configuration_is_joint() -> None:
    """But its end; and no end of what is not joint."""
    peer = Peer()
    peer.lead_committed()
    peer.node.propose_conf_change(ConfChangeV2())
    sent = peer.settle()
    assert [EntryType.NORMAL] == appended(peer)
    peer.node.propose_conf_change(change((ADD, 3), how=EXPLICIT))
    peer.accept_all([*sent, *peer.settle()])
    assert (1, 2, 3) == peer.node.status().conf_state.voters_outgoing
    peer.node.propose_conf_change(ConfChange(ADD, 4))
    peer.accept_all(peer.settle())
    assert EntryType.NORMAL is peer.log[-1].type
    peer.node.propose_conf_change(ConfChangeV2())
    peer.accept_all(peer.settle())
    assert ConfState((1, 2, 3)) == peer.node.status().conf_state


def test_a_new_leader_waits_for_changes_in_its_log() -> None:
    """It may hold one that is not applied; it need not look, all up to its end must be (4.1)."""
    old = [Entry(1, 1), Entry(1, 2)]
    peer = Peer(log=old, hard_state=HardState(1))
    sent = peer.lead()
    peer.node.propose_conf_change(ConfChange(ADD, 4))
    sent += peer.settle()
    assert [EntryType.NORMAL] * 3 == appended(peer)
    peer.accept_all(sent)
    peer.node.propose_conf_change(ConfChange(ADD, 4))
    peer.settle()
    assert EntryType.CONF_CHANGE is peer.log[-1].type


def test_a_change_of_nobody_changes_nothing() -> None:
    """It is how a host voids one that it finds unfit; the next one can follow."""
    peer = alone()
    peer.node.propose_conf_change(ConfChange(ADD, 0))
    peer.settle()
    assert [ConfState((1,))] == peer.conf_states
    for _ in range(2):
        peer.node.propose_conf_change(ConfChange(LEARNER, 2))
        peer.settle()
    assert [ConfState((1,), (2,))] * 2 == peer.conf_states[1:]


def test_adding_twice_is_adding_once() -> None:
    """And others can be added behind it."""
    peer = alone()
    for member in (1, 1, 2):
        peer.node.propose_conf_change(ConfChange(ADD, member))
        peer.settle()
    assert [(1,), (1,), (1, 2)] == [members.voters for members in peer.conf_states]


def test_a_learner_is_promoted_and_takes_over() -> None:
    """It campaigns only from then on."""
    network = group(1, learners=(2,), election_tick=10)
    network.campaign(1)
    network[2].tick(20)
    assert Role.FOLLOWER is network[2].role()
    network[1].node.propose_conf_change(ConfChange(ADD, 2))
    network.run()
    network.tick(1)
    assert ConfState((1, 2)) == network[2].node.status().conf_state
    network.tick(2, 10)
    assert (Role.FOLLOWER, Role.LEADER) == (network[1].role(), network[2].role())


def test_removing_a_member_can_commit_what_waits() -> None:
    """Fewer voters need fewer copies: two proposals wait for 2, who is removed (4.2.2)."""
    peer = Peer(voters=(1, 2))
    peer.lead_committed()
    peer.node.propose_conf_change(ConfChange(REMOVE, 2))
    sent = peer.settle()
    peer.propose(b"hello")
    assert [] == peer.data
    for message in sent:
        peer.accept(message)
    assert [b"hello"] == peer.data
    assert (1,) == peer.node.status().conf_state.voters


def test_who_was_removed_is_not_listened_to() -> None:
    """An answer from outside the group is refused, aloud."""
    peer = Peer(voters=(1, 2))
    peer.lead_committed()
    peer.node.apply_conf_change(ConfChange(REMOVE, 2))
    with pytest.raises(PeerUnknown):
        peer.hear(MessageType.APPEND_RESPONSE, 2, index=1)


def test_a_removed_leader_leads_until_it_steps_down() -> None:
    """It may have to replicate its own removal (4.2.2); it takes no proposals any more."""
    network = group(1, 2, 3)
    network.campaign(1)
    network[1].node.propose_conf_change(ConfChange(REMOVE, 1))
    network.run()
    assert Role.LEADER is network[1].role()
    assert ConfState((2, 3)) == network[2].node.status().conf_state
    with pytest.raises(ProposalDropped):
        network.propose(1)
    network = group(1, 2, 3, step_down_on_removal=True)
    network.campaign(1)
    network[1].node.propose_conf_change(ConfChange(REMOVE, 1))
    network.run()
    assert Role.FOLLOWER is network[1].role()


def test_replacing_two_of_three_at_once() -> None:
    """4.3: through a joint configuration; the old ones are needed until it ends."""
    network = group(1, 2, 3)
    network.campaign(1)
    swap = change((ADD, 4), (ADD, 5), (REMOVE, 2), (REMOVE, 3))
    network[1].node.propose_conf_change(swap)
    network.run()
    join(network, 4, 5)
    network.propose(1)
    assert ConfState((1, 4, 5)) == network[1].node.status().conf_state
    assert [b"data"] == network[4].data == network[5].data
    assert [] == network[2].data
    network.isolate(1)
    network.campaign(4)
    assert Role.LEADER is network[4].role()


def test_a_joint_configuration_needs_both_majorities() -> None:
    """Neither the old nor the new ones decide alone."""
    network = group(1, 2, 3)
    network.campaign(1)
    swap = change((ADD, 4), (ADD, 5), (REMOVE, 2), (REMOVE, 3), how=EXPLICIT)
    network[1].node.propose_conf_change(swap)
    network.run()
    join(network, 4, 5)
    commit = network[1].commit
    for gone in ((2, 3), (4, 5)):
        for each in gone:
            network.isolate(each)
        network.propose(1)
        assert commit == network[1].commit
        network.heal()
        for _ in range(3):
            network.tick(1)
        commit += 1
        assert commit == network[1].commit


def test_a_late_joiner_gets_all() -> None:
    """It is probed at the end of the log, and found out to need a snapshot."""
    network = Network([Peer(1, (1,))])
    network.campaign(1)
    for _ in range(5):
        network.propose(1)
    network[1].node.propose_conf_change(ConfChange(ADD, 2))
    network.run()
    join(network, 2)
    network.propose(1)
    assert network[1].commit == network[2].commit
    assert 1 == len(network[2].snapshots)
    assert ConfState((1, 2)) == network[2].node.status().conf_state
