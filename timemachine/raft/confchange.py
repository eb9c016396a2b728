"""Changes of membership: what a group becomes, or why it cannot (dissertation, chapter 4).

Nothing here changes a tracker. Each operation gives a new configuration and a new table of
progress, which the caller puts into force together.
"""

from collections.abc import Iterable

from timemachine.errors import TimeMachineError
from timemachine.raft.inflights import Inflights
from timemachine.raft.messages import (
    NO_NODE,
    ConfChangeSingle,
    ConfChangeType,
    ConfState,
)
from timemachine.raft.progress import Progress
from timemachine.raft.quorum import JointVoters
from timemachine.raft.tracker import Tracker, TrackerConfig

Membership = tuple[TrackerConfig, dict[int, Progress]]


class ConfChangeRefused(TimeMachineError):
    """The group cannot change its members like that."""

    code = "raft_conf_change_refused"


class Changer:
    """The operations on the membership that `tracker` holds.

    `last_index` is where the log ends; whoever is new is probed from there.
    """

    __slots__ = ("_last_index", "_tracker")

    def __init__(self, tracker: Tracker, last_index: int) -> None:
        self._tracker = tracker
        self._last_index = last_index

    def enter_joint(
        self,
        auto_leave: bool,  # noqa: FBT001 - as ConfState has it
        changes: Iterable[ConfChangeSingle],
    ) -> Membership:
        """Begin a joint configuration (dissertation 4.3): from (1 2) to, say, (1 3)&&(1 2).

        The voters of now become the outgoing half, and `changes` make the incoming half out of
        them. Raises ConfChangeRefused if the configuration is joint already, or would be left
        without voters.
        """
        if self._tracker.config.joint:
            raise ConfChangeRefused("config is already joint")
        voters = self._tracker.config.voters.incoming
        if not voters:
            # Members may be added to nobody, for a start; but nobody has no majority to join.
            raise ConfChangeRefused("can't make a zero-voter config joint")
        draft = self._draft()
        draft.outgoing = set(voters)
        draft.apply(changes)
        return draft.finish(auto_leave=auto_leave)

    def leave_joint(self) -> Membership:
        """End a joint configuration: the incoming half rules alone.

        Who was in the outgoing half only is gone, or becomes a learner if it was to. Raises
        ConfChangeRefused if the configuration is not joint.
        """
        if not self._tracker.config.joint:
            raise ConfChangeRefused("can't leave a non-joint config")
        draft = self._draft()
        draft.leave()
        return draft.finish()

    def simple(self, changes: Iterable[ConfChangeSingle]) -> Membership:
        """Apply `changes` in one step, without a joint configuration (dissertation 4.1).

        That is safe only if at most one voter comes or goes: then any old majority and any new
        one have a member in common. Raises ConfChangeRefused for more, in a joint configuration,
        and if nobody would be left.
        """
        if self._tracker.config.joint:
            raise ConfChangeRefused("can't apply simple config change in joint config")
        draft = self._draft()
        draft.apply(changes)
        if len(draft.incoming ^ self._tracker.config.voters.incoming) > 1:
            raise ConfChangeRefused("more than one voter changed without entering joint config")
        return draft.finish()

    def _draft(self) -> "_Draft":
        _check(self._tracker.config, self._tracker.progress)
        return _Draft(self._tracker, self._last_index)


class _Draft:
    """A membership that is being changed: sets that can grow and shrink."""

    def __init__(self, tracker: Tracker, last_index: int) -> None:
        config = tracker.config
        self.incoming = set(config.voters.incoming)
        self.outgoing = set(config.voters.outgoing)
        self._learners = set(config.learners)
        self._learners_next = set(config.learners_next)
        self._progress = {member: each.copy() for member, each in tracker.progress.items()}
        self._tracker = tracker
        self._last_index = last_index

    def apply(self, changes: Iterable[ConfChangeSingle]) -> None:
        """Make `changes` in their order. Raises ConfChangeRefused if no voter would be left."""
        for change in changes:
            member = change.node_id
            if member == NO_NODE:
                # How a host voids a change that it finds unfit after it was committed.
                continue
            if change.type is ConfChangeType.ADD_NODE:
                self._make_voter(member)
            elif change.type is ConfChangeType.ADD_LEARNER:
                self._make_learner(member)
            elif change.type is ConfChangeType.REMOVE_NODE:
                self._remove(member)
            else:
                assert change.type is ConfChangeType.UPDATE_NODE
        if not self.incoming:
            raise ConfChangeRefused("removed all voters")

    def leave(self) -> None:
        """Drop the outgoing half."""
        for member in self._learners_next:
            self._learners.add(member)
            self._progress[member].is_learner = True
        self._learners_next.clear()
        for member in self.outgoing - self.incoming - self._learners:
            del self._progress[member]
        self.outgoing.clear()

    def finish(self, *, auto_leave: bool = False) -> Membership:
        """The membership, checked."""
        config = TrackerConfig(
            voters=JointVoters(frozenset(self.incoming), frozenset(self.outgoing)),
            auto_leave=auto_leave,
            learners=frozenset(self._learners),
            learners_next=frozenset(self._learners_next),
        )
        _check(config, self._progress)
        return config, dict(sorted(self._progress.items()))

    def _make_voter(self, member: int) -> None:
        self.incoming.add(member)
        self._learners.discard(member)
        self._learners_next.discard(member)
        progress = self._progress.get(member)
        if progress is None:
            self._start(member, is_learner=False)
        else:
            progress.is_learner = False

    def _make_learner(self, member: int) -> None:
        progress = self._progress.get(member)
        if progress is None:
            self._learners.add(member)
            self._start(member, is_learner=True)
            return
        if progress.is_learner:
            return
        self._remove(member)
        self._progress[member] = progress
        if member in self.outgoing:
            # It has a vote until the joint configuration ends.
            self._learners_next.add(member)
        else:
            progress.is_learner = True
            self._learners.add(member)

    def _remove(self, member: int) -> None:
        self.incoming.discard(member)
        self._learners.discard(member)
        self._learners_next.discard(member)
        if member not in self.outgoing:
            self._progress.pop(member, None)

    def _start(self, member: int, *, is_learner: bool) -> None:
        """Follow a new member's log, from the end of ours.

        It counts as recently heard of: it had no time to say anything yet, and a leader that
        checks its quorum must not step down for that.
        """
        tracker = self._tracker
        self._progress[member] = Progress(
            inflights=Inflights(tracker.inflight_messages_max, tracker.inflight_bytes_max),
            next=max(self._last_index, 1),
            is_learner=is_learner,
            recent_active=True,
        )


def restore(tracker: Tracker, last_index: int, conf_state: ConfState) -> Membership:
    """The membership that `conf_state` describes, for a `tracker` without members.

    A joint configuration is built as it came about: first the outgoing half, then out of that
    the incoming one. Raises ConfChangeRefused for a state that no group can be in.
    """
    work = Tracker(tracker.inflight_messages_max, tracker.inflight_bytes_max)
    learners = (*conf_state.learners, *conf_state.learners_next)
    incoming = [
        *(ConfChangeSingle(ConfChangeType.ADD_NODE, member) for member in conf_state.voters),
        *(ConfChangeSingle(ConfChangeType.ADD_LEARNER, member) for member in learners),
    ]
    outgoing = conf_state.voters_outgoing
    one_by_one = [ConfChangeSingle(ConfChangeType.ADD_NODE, member) for member in outgoing]
    for change in one_by_one or incoming:
        work.config, work.progress = Changer(work, last_index).simple([change])
    if not outgoing:
        return work.config, work.progress
    removals = [ConfChangeSingle(ConfChangeType.REMOVE_NODE, member) for member in outgoing]
    return Changer(work, last_index).enter_joint(conf_state.auto_leave, [*removals, *incoming])


def _check(config: TrackerConfig, progress: dict[int, Progress]) -> None:
    """The invariants of TrackerConfig, and that the table of progress fits it."""
    voters = config.voters
    members = voters.ids() | config.learners | config.learners_next
    assert members <= progress.keys(), f"no progress of {members - progress.keys()}"
    assert config.learners_next <= voters.outgoing - voters.incoming
    assert not config.learners & voters.ids()
    for member in members:
        assert progress[member].is_learner is (member in config.learners)
    assert config.joint or not (config.learners_next or config.auto_leave)
