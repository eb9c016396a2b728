"""timemachine/raft/confchange.py: from one membership to the next."""

import pytest

from timemachine.raft.confchange import Changer, ConfChangeRefused, Membership, restore
from timemachine.raft.messages import ConfChangeSingle, ConfChangeType, ConfState
from timemachine.raft.tracker import Tracker

KINDS = {
    "v": ConfChangeType.ADD_NODE,
    "l": ConfChangeType.ADD_LEARNER,
    "r": ConfChangeType.REMOVE_NODE,
    "u": ConfChangeType.UPDATE_NODE,
}


def changes(text: str) -> list[ConfChangeSingle]:
    """`v1 l2 r3 u4`: make 1 a voter, 2 a learner, remove 3, update 4."""
    return [ConfChangeSingle(KINDS[word[0]], int(word[1:])) for word in text.split()]


def group(conf_state: ConfState) -> Tracker:
    """The tracker of a group."""
    return put(Tracker(8, 100), restore(Tracker(8, 100), 10, conf_state))


def put(tracker: Tracker, membership: Membership) -> Tracker:
    """Put a membership into force."""
    tracker.config, tracker.progress = membership
    return tracker


def test_simple_changes_one_voter() -> None:
    """4.1: adding or removing one keeps a member common to any two majorities."""
    tracker = group(ConfState(voters=(1, 2), learners=(3,)))
    put(tracker, Changer(tracker, 20).simple(changes("v3 l4 l5 r5")))
    assert ConfState(voters=(1, 2, 3), learners=(4,)) == tracker.conf_state()
    assert [10, 10, 10, 20] == [progress.next for progress in tracker.progress.values()]
    put(tracker, Changer(tracker, 20).simple(changes("r1 u2")))
    assert ConfState(voters=(2, 3), learners=(4,)) == tracker.conf_state()


def test_nobody_is_nobody() -> None:
    """A host that finds a committed change unfit voids it by the id 0."""
    tracker = group(ConfState(voters=(1,)))
    assert (
        ConfState(voters=(1,))
        == put(tracker, Changer(tracker, 9).simple(changes("r0 v0 l0"))).conf_state()
    )


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("v4 v5", "more than one voter changed"),
        ("v4 r1", "more than one voter changed"),
        ("r1 r2 r3", "removed all voters"),
        ("l1 l2 l3", "removed all voters"),
    ],
)
def test_simple_refuses_more(what: str, why: str) -> None:
    """4.3: that needs a joint configuration. What is refused has changed nothing."""
    tracker = group(ConfState(voters=(1, 2, 3)))
    with pytest.raises(ConfChangeRefused, match=why):
        Changer(tracker, 9).simple(changes(what))
    assert ConfState(voters=(1, 2, 3)) == tracker.conf_state()
    assert not any(progress.is_learner for progress in tracker.progress.values())


def test_a_joint_configuration_begins_and_ends() -> None:
    """4.3: the old voters have their say until it ends; who was only among them is gone then."""
    tracker = group(ConfState(voters=(1, 2, 3)))
    put(tracker, Changer(tracker, 20).enter_joint(True, changes("r1 l2 v4 l5")))
    assert (
        ConfState(
            voters=(3, 4),
            learners=(5,),
            voters_outgoing=(1, 2, 3),
            learners_next=(2,),
            auto_leave=True,
        )
        == tracker.conf_state()
    )
    assert [5] == [member for member, each in tracker.progress.items() if each.is_learner]
    put(tracker, Changer(tracker, 30).leave_joint())
    assert ConfState(voters=(3, 4), learners=(2, 5)) == tracker.conf_state()
    assert [2, 3, 4, 5] == list(tracker.progress)
    assert [10, 10, 20, 20] == [progress.next for progress in tracker.progress.values()]
    assert [2, 5] == [member for member, each in tracker.progress.items() if each.is_learner]


def test_a_joint_configuration_refuses_all_but_its_end() -> None:
    """One change after the other."""
    tracker = group(ConfState(voters=(1,), voters_outgoing=(1, 2)))
    changer = Changer(tracker, 9)
    with pytest.raises(ConfChangeRefused, match="already joint"):
        changer.enter_joint(False, [])
    with pytest.raises(ConfChangeRefused, match="in joint config"):
        changer.simple([])


def test_what_cannot_become_joint_or_end() -> None:
    """There must be voters to join, and something to leave."""
    with pytest.raises(ConfChangeRefused, match="zero-voter"):
        Changer(Tracker(8), 0).enter_joint(False, changes("v1"))
    with pytest.raises(ConfChangeRefused, match="non-joint"):
        Changer(Tracker(8), 0).leave_joint()
    tracker = group(ConfState(voters=(1, 2)))
    with pytest.raises(ConfChangeRefused, match="removed all voters"):
        Changer(tracker, 9).enter_joint(False, changes("r1 l2"))


def test_a_new_member_counts_as_active_and_has_the_windows_limits() -> None:
    """A leader that checks its quorum does not step down because it has added somebody."""
    tracker = group(ConfState(voters=(1,)))
    put(tracker, Changer(tracker, 0).simple(changes("v2")))
    new = tracker.progress[2]
    assert (True, 0, 1) == (new.recent_active, new.match, new.next)
    assert (8, 100) == (new.inflights.size, new.inflights.bytes_max)


def test_progress_is_kept_when_a_role_changes() -> None:
    """A learner that is promoted need not be probed again."""
    tracker = group(ConfState(voters=(1, 2), learners=(3,)))
    tracker.progress[3].match = 7
    put(tracker, Changer(tracker, 20).simple(changes("v3")))
    assert (7, False) == (tracker.progress[3].match, tracker.progress[3].is_learner)
    put(tracker, Changer(tracker, 20).simple(changes("l3 l3")))
    assert (7, True) == (tracker.progress[3].match, tracker.progress[3].is_learner)


@pytest.mark.parametrize(
    "conf_state",
    [
        ConfState(),
        ConfState(voters=(1, 2, 3)),
        ConfState(voters=(1, 2, 3), learners=(4, 5, 6)),
        ConfState(voters=(1, 2, 3), voters_outgoing=(3, 4, 5)),
        ConfState(
            voters=(1, 2, 3),
            learners=(5,),
            voters_outgoing=(1, 2, 4, 6),
            learners_next=(4,),
            auto_leave=True,
        ),
    ],
)
def test_restore_builds_what_is_described(conf_state: ConfState) -> None:
    """From the membership of a snapshot back to the same."""
    assert conf_state == group(conf_state).conf_state()
