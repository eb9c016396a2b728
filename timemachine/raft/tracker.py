"""Who belongs to a group, how far each of them is, and who voted."""

from typing import TYPE_CHECKING

import msgspec

from timemachine.raft.messages import ConfState
from timemachine.raft.quorum import JointVoters, VoteResult

if TYPE_CHECKING:
    from timemachine.raft.progress import Progress


class TrackerConfig(msgspec.Struct, frozen=True, gc=False):
    """The membership that is in force. Frozen: a change makes a new one (`confchange`).

    Invariants:
    1. A learner is no voter, in neither half.
    2. `learners_next` are voters of the outgoing half only: those who become learners when the
       joint configuration ends. They cannot be learners before, by invariant 1.
    3. Outside of a joint configuration `learners_next` is empty and `auto_leave` is False.
    """

    voters: JointVoters = JointVoters()
    auto_leave: bool = False
    """Whether the leader ends the joint configuration by itself, once it is applied."""
    learners: frozenset[int] = frozenset()
    learners_next: frozenset[int] = frozenset()

    @property
    def joint(self) -> bool:
        """Whether two majorities have to agree (dissertation 4.3)."""
        return bool(self.voters.outgoing)


class Tracker:
    """A leader's, or candidate's, book about the members of its group."""

    __slots__ = ("config", "inflight_bytes_max", "inflight_messages_max", "progress", "votes")

    def __init__(self, inflight_messages_max: int, inflight_bytes_max: int = 0) -> None:
        """A group without members; the limits are those of each member's window.

        `inflight_bytes_max` is in bytes, 0 for no limit.
        """
        self.inflight_messages_max = inflight_messages_max
        self.inflight_bytes_max = inflight_bytes_max
        self.config = TrackerConfig()
        self.progress: dict[int, Progress] = {}
        """Every voter and learner, in the order of their ids."""
        self.votes: dict[int, bool] = {}
        """What was answered in the present election, and by whom."""

    def conf_state(self) -> ConfState:
        """The membership in the form that snapshots keep; ids rise."""
        config = self.config
        return ConfState(
            voters=tuple(sorted(config.voters.incoming)),
            learners=tuple(sorted(config.learners)),
            voters_outgoing=tuple(sorted(config.voters.outgoing)),
            learners_next=tuple(sorted(config.learners_next)),
            auto_leave=config.auto_leave,
        )

    def is_singleton(self) -> bool:
        """Whether one voter decides alone."""
        voters = self.config.voters
        return len(voters.incoming) == 1 and not voters.outgoing

    def committed(self) -> int:
        """The highest index that the voters acknowledged."""
        return self.config.voters.committed(
            {member: progress.match for member, progress in self.progress.items()}
        )

    def quorum_active(self) -> bool:
        """Whether a majority was heard of recently."""
        active = {
            member: progress.recent_active
            for member, progress in self.progress.items()
            if not progress.is_learner
        }
        return self.config.voters.vote(active) is VoteResult.WON

    def record_vote(self, member: int, granted: bool) -> None:  # noqa: FBT001 - the answer itself
        """`member` answered; a second answer does not count."""
        self.votes.setdefault(member, granted)

    def tally_votes(self) -> tuple[int, int, VoteResult]:
        """How many granted and how many refused their vote, and what that means.

        Votes of those who are not voters any more do not count.
        """
        votes = [
            self.votes[member]
            for member, progress in self.progress.items()
            if member in self.votes and not progress.is_learner
        ]
        granted = sum(votes)
        return granted, len(votes) - granted, self.config.voters.vote(self.votes)

    def reset_votes(self) -> None:
        """A new election begins."""
        self.votes = {}

    def voter_ids(self) -> list[int]:
        """The voters of both halves; ids rise."""
        return sorted(self.config.voters.ids())

    def learner_ids(self) -> list[int]:
        """The learners; ids rise."""
        return sorted(self.config.learners)
