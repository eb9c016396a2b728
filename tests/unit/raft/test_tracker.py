"""timemachine/raft/tracker.py: the members of a group and their votes."""

from timemachine.raft.confchange import restore
from timemachine.raft.messages import ConfState
from timemachine.raft.quorum import INFINITE, VoteResult
from timemachine.raft.tracker import Tracker

JOINT = ConfState(
    voters=(1, 2, 3), learners=(5,), voters_outgoing=(1, 2, 4), learners_next=(4,), auto_leave=True
)


def tracker(conf_state: ConfState) -> Tracker:
    """A tracker of the members that `conf_state` names."""
    result = Tracker(8)
    result.config, result.progress = restore(result, 10, conf_state)
    return result


def test_conf_state_is_what_was_restored() -> None:
    """Ids come out sorted, whatever their order was."""
    assert JOINT == tracker(JOINT).conf_state()
    assert ConfState(voters=(1, 2)) == tracker(ConfState(voters=(2, 1))).conf_state()


def test_members_come_in_the_order_of_their_ids() -> None:
    """What is sent to all is sent in an order that does not depend on a hash."""
    group = tracker(ConfState(voters=(9, 1, 300), learners=(4,)))
    assert [1, 4, 9, 300] == list(group.progress)
    assert [1, 9, 300] == group.voter_ids()
    assert [4] == group.learner_ids()


def test_singleton_has_one_voter_and_no_other_half() -> None:
    """Learners do not matter."""
    assert tracker(ConfState(voters=(1,), learners=(2,))).is_singleton()
    assert not tracker(ConfState(voters=(1, 2))).is_singleton()
    assert not tracker(ConfState(voters=(1,), voters_outgoing=(1,))).is_singleton()
    assert not Tracker(8).is_singleton()


def test_committed_is_what_the_voters_match() -> None:
    """Of both halves; learners have no say."""
    group = tracker(JOINT)
    assert 0 == group.committed()
    for member, match in ((1, 9), (2, 7), (3, 8), (4, 3), (5, 50)):
        group.progress[member].match = match
    assert 7 == group.committed()
    assert INFINITE == Tracker(8).committed()


def test_quorum_is_active_with_a_majority_heard_of() -> None:
    """Six of six learners would not help."""
    group = tracker(ConfState(voters=(1, 2, 3), learners=(4, 5)))
    assert group.quorum_active()
    for progress in group.progress.values():
        progress.recent_active = False
    group.progress[1].recent_active = group.progress[4].recent_active = True
    assert not group.quorum_active()
    group.progress[2].recent_active = True
    assert group.quorum_active()


def test_votes_are_counted_once() -> None:
    """A second answer changes nothing; learners and strangers do not count."""
    group = tracker(ConfState(voters=(1, 2, 3), learners=(4,)))
    for member, granted in ((1, True), (2, False), (2, True), (4, True), (9, True)):
        group.record_vote(member, granted)
    assert (1, 1, VoteResult.PENDING) == group.tally_votes()
    group.record_vote(3, True)
    assert (2, 1, VoteResult.WON) == group.tally_votes()
    group.reset_votes()
    assert (0, 0, VoteResult.PENDING) == group.tally_votes()
