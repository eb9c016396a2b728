"""A joint change ends where its parts, made one by one, end; and it can be restored anywhere."""

from hypothesis import given
from hypothesis import strategies as st

from timemachine.raft.confchange import Changer, ConfChangeRefused, restore
from timemachine.raft.messages import ConfChangeSingle, ConfChangeType, ConfState
from timemachine.raft.tracker import Tracker

CHANGES = st.lists(
    st.builds(ConfChangeSingle, st.sampled_from(ConfChangeType), st.integers(1, 6)), max_size=8
)
STATES = st.builds(
    lambda voters, learners: ConfState(
        voters=tuple(sorted(voters)), learners=tuple(sorted(learners - voters))
    ),
    st.sets(st.integers(1, 6), min_size=1, max_size=4),
    st.sets(st.integers(1, 6), max_size=3),
)


def group(conf_state: ConfState) -> Tracker:
    """The tracker of a group."""
    tracker = Tracker(8)
    tracker.config, tracker.progress = restore(tracker, 10, conf_state)
    return tracker


@given(STATES, CHANGES)
def test_joint_and_one_by_one_end_alike(start: ConfState, changes: list[ConfChangeSingle]) -> None:
    """If one by one is possible at all: the last voter cannot leave before another comes."""
    alone = group(start)
    try:
        for change in changes:
            alone.config, alone.progress = Changer(alone, 20).simple([change])
    except ConfChangeRefused:
        return
    joint = group(start)
    joint.config, joint.progress = Changer(joint, 20).enter_joint(True, changes)
    assert set(start.voters) == joint.config.voters.outgoing
    joint.config, joint.progress = Changer(joint, 20).leave_joint()
    assert alone.conf_state() == joint.conf_state()
    assert {member: each.is_learner for member, each in alone.progress.items()} == {
        member: each.is_learner for member, each in joint.progress.items()
    }


@given(STATES, CHANGES, st.booleans())
def test_every_membership_can_be_restored(
    start: ConfState, changes: list[ConfChangeSingle], auto_leave: bool
) -> None:
    """A snapshot may be taken in the middle of a joint configuration."""
    joint = group(start)
    try:
        joint.config, joint.progress = Changer(joint, 20).enter_joint(auto_leave, changes)
    except ConfChangeRefused:
        return
    restored = group(joint.conf_state())
    assert joint.config == restored.config
    assert joint.progress.keys() == restored.progress.keys()


@given(STATES, CHANGES)
def test_a_simple_change_keeps_a_common_member_of_any_two_majorities(
    start: ConfState, changes: list[ConfChangeSingle]
) -> None:
    """4.1: that is why it may do without a joint configuration."""
    tracker = group(start)
    try:
        config, _ = Changer(tracker, 20).simple(changes)
    except ConfChangeRefused:
        return
    old, new = tracker.config.voters.incoming, config.voters.incoming
    majorities = len(old) // 2 + 1 + len(new) // 2 + 1
    assert majorities > len(old | new)
