"""timemachine/raft/progress.py: what may be sent to a follower, and what it is known to have."""

import pytest

from timemachine.raft.inflights import Inflights
from timemachine.raft.progress import Progress, ProgressState


def progress(
    state: ProgressState = ProgressState.PROBE, *, match: int = 0, next_: int = 1, window: int = 8
) -> Progress:
    """A follower in `state`."""
    return Progress(inflights=Inflights(window), match=match, next=next_, state=state)


def test_a_probe_with_entries_pauses_until_an_answer() -> None:
    """3.5: without knowing where the logs agree, sending more would be sending in vain."""
    follower = progress(match=2, next_=6)
    follower.sent_entries(0, 0)
    assert not follower.is_paused()
    follower.sent_entries(3, 30)
    assert follower.is_paused()
    assert (6, 0) == (follower.next, follower.inflights.count())
    assert follower.maybe_update(6)
    assert not follower.is_paused()
    assert (6, 7) == (follower.match, follower.next)


def test_replication_pauses_when_the_window_is_full() -> None:
    """10.2.1: what is sent is taken for received, up to the size of the window."""
    follower = progress(ProgressState.REPLICATE, match=2, next_=3, window=2)
    follower.sent_entries(4, 40)
    assert (7, 1, False) == (follower.next, follower.inflights.count(), follower.is_paused())
    follower.sent_entries(1, 10)
    assert (8, 2, True) == (follower.next, follower.inflights.count(), follower.is_paused())
    follower.inflights.free_le(6)
    follower.sent_entries(0, 0)
    assert (8, 1, False) == (follower.next, follower.inflights.count(), follower.is_paused())


def test_nothing_is_sent_behind_a_snapshot() -> None:
    """5.1: it waits for what the snapshot brings."""
    follower = progress(ProgressState.REPLICATE, match=2, next_=5)
    follower.sent_entries(1, 10)
    follower.become_snapshot(20)
    assert (20, 21, 20) == (follower.pending_snapshot, follower.next, follower.sent_commit)
    assert follower.is_paused()
    assert 0 == follower.inflights.count()
    with pytest.raises(AssertionError, match="pending"):
        follower.sent_entries(1, 10)


def test_after_a_snapshot_it_is_probed_behind_it() -> None:
    """If it arrived; if it did not, the caller has set `pending_snapshot` to 0 first."""
    follower = progress(match=2, next_=3)
    follower.become_snapshot(20)
    follower.become_probe()
    assert (21, 0, ProgressState.PROBE) == (
        follower.next,
        follower.pending_snapshot,
        follower.state,
    )
    follower.become_snapshot(30)
    follower.pending_snapshot = 0
    follower.become_probe()
    assert (3, 2) == (follower.next, follower.sent_commit)


def test_what_follows_the_match_is_sent_again_in_a_new_state() -> None:
    """The window belongs to the state that filled it."""
    follower = progress(ProgressState.REPLICATE, match=2, next_=3, window=1)
    follower.sent_entries(4, 40)
    follower.become_probe()
    assert (3, 0, False) == (follower.next, follower.inflights.count(), follower.is_paused())
    follower.maybe_update(4)
    follower.become_replicate()
    assert (5, ProgressState.REPLICATE) == (follower.next, follower.state)


def test_match_never_falls() -> None:
    """An old answer is no news."""
    follower = progress(match=5, next_=9)
    assert [False, False, True] == [follower.maybe_update(index) for index in (3, 5, 6)]
    assert (6, 9) == (follower.match, follower.next)
    assert follower.maybe_update(12)
    assert (12, 13) == (follower.match, follower.next)


@pytest.mark.parametrize(
    ("next_", "rejected", "hint", "genuine", "then"),
    [
        (10, 9, 9, True, 9),  # it knows no better: one back
        (10, 9, 4, True, 5),  # as far as it says (3.5, the end)
        (10, 9, 0, True, 3),  # but never behind what is known to match
        (10, 5, 4, False, 10),  # of another probe
        (3, 2, 0, True, 3),
    ],
)
def test_a_rejected_probe_goes_back(
    next_: int, rejected: int, hint: int, genuine: bool, then: int
) -> None:
    """Between the match and the hint, and only for the last probe."""
    follower = progress(match=2, next_=next_)
    follower.sent_entries(1, 10)
    follower.sent_commit = 9
    assert genuine is follower.maybe_decr_to(rejected, hint)
    assert then == follower.next
    assert genuine is not follower.is_paused()
    assert (min(9, then - 1) if genuine else 9) == follower.sent_commit


def test_a_rejection_while_replicating_goes_back_to_the_match() -> None:
    """Unless it is older than the match."""
    follower = progress(ProgressState.REPLICATE, match=5, next_=10)
    follower.sent_commit = 8
    assert not follower.maybe_decr_to(5, 5)
    assert 10 == follower.next
    assert follower.maybe_decr_to(6, 2)
    assert (6, 5) == (follower.next, follower.sent_commit)


def test_commit_is_worth_telling_only_as_far_as_entries_were_sent() -> None:
    """A follower cannot commit what it does not have."""
    follower = progress(ProgressState.REPLICATE, match=2, next_=6)
    follower.sent_commit = 3
    assert [False, False, True, True] == [follower.can_bump_commit(i) for i in (2, 3, 4, 9)]
    follower.sent_commit = 5
    assert not follower.can_bump_commit(9)


def test_a_copy_shares_nothing_but_the_window() -> None:
    """A refused change of membership leaves no trace."""
    follower = progress(match=2, next_=6)
    follower.become_snapshot(9)
    follower.recent_active = True
    twin = follower.copy()
    for name in Progress.__slots__:
        assert getattr(follower, name) == getattr(twin, name)
    twin.is_learner = True
    assert not follower.is_learner
