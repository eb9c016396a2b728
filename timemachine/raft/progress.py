"""What a leader knows of one replica's log, and how fast it may send to it."""

from enum import IntEnum

from timemachine.raft.inflights import Inflights


class ProgressState(IntEnum):
    """How the leader sends entries to a replica. The numbers are etcd's."""

    PROBE = 0
    """One append at a time, until it is known where the two logs agree (dissertation 3.5)."""
    REPLICATE = 1
    """One append behind the other, without waiting for the answers (10.2.1)."""
    SNAPSHOT = 2
    """None, until the snapshot that was sent is installed (5.1)."""


class Progress:
    """One replica, as its leader sees it. The leader has one for itself, too.

    Invariants:
    1. `match < next`.
    2. `match` never falls within a term: it is what the replica said is durable.
    3. `pending_snapshot` is not 0 only in SNAPSHOT, and then `next` lies right behind it when
       the snapshot was sent.
    4. `inflights` is empty outside of REPLICATE.
    """

    __slots__ = (
        "append_paused",
        "inflights",
        "is_learner",
        "match",
        "next",
        "pending_snapshot",
        "recent_active",
        "sent_commit",
        "state",
    )

    def __init__(
        self,
        *,
        inflights: Inflights,
        match: int = 0,
        next: int = 1,
        state: ProgressState = ProgressState.PROBE,
        is_learner: bool = False,
        recent_active: bool = False,
    ) -> None:
        self.match = match
        """The replica's log is known to equal the leader's up to here, and to be durable there."""
        self.next = next
        """The index of the next entry to send."""
        self.state = state
        self.pending_snapshot = 0
        """Where the snapshot ends that the replica is to install; 0 for none."""
        self.sent_commit = 0
        """The highest commit index that is on its way, in an append or heartbeat of this state."""
        self.recent_active = recent_active
        """Whether the replica was heard of since this was last cleared (for check-quorum)."""
        self.append_paused = False
        """No append until something is heard of the replica: the last one was a probe."""
        self.is_learner = is_learner
        self.inflights = inflights

    def copy(self) -> "Progress":
        """A copy that shares the window: a new configuration takes it over."""
        twin = Progress(
            inflights=self.inflights,
            match=self.match,
            next=self.next,
            state=self.state,
            is_learner=self.is_learner,
            recent_active=self.recent_active,
        )
        twin.pending_snapshot = self.pending_snapshot
        twin.sent_commit = self.sent_commit
        twin.append_paused = self.append_paused
        return twin

    def become_probe(self) -> None:
        """Find out where the logs agree, beginning behind what is known to match.

        After a snapshot that is known to have arrived that is at its end.
        """
        pending = self.pending_snapshot if self.state is ProgressState.SNAPSHOT else 0
        self._reset(ProgressState.PROBE)
        self.next = max(self.match, pending) + 1
        self._forget_sent_commit()

    def become_replicate(self) -> None:
        """The logs agree up to `match`: send what follows, message after message."""
        self._reset(ProgressState.REPLICATE)
        self.next = self.match + 1

    def become_snapshot(self, index: int) -> None:
        """A snapshot that ends at `index` was sent."""
        self._reset(ProgressState.SNAPSHOT)
        self.pending_snapshot = index
        self.next = index + 1
        self.sent_commit = index

    def sent_entries(self, count: int, size: int) -> None:
        """An append with `count` entries from `next` on, of `size` bytes, was sent.

        In REPLICATE it is taken for received, and the flow pauses when the window is full. In
        PROBE an append with entries is the last one until an answer.
        """
        assert self.state is not ProgressState.SNAPSHOT, "no appends while a snapshot is pending"
        if self.state is ProgressState.REPLICATE:
            if count:
                self.next += count
                self.inflights.add(self.next - 1, size)
            self.append_paused = self.inflights.full()
        elif count:
            self.append_paused = True

    def can_bump_commit(self, index: int) -> bool:
        """Whether an append that says that `index` is committed may tell the replica news.

        It does not once all that was sent to it is known to be committed there.
        """
        return self.sent_commit < index and self.sent_commit < self.next - 1

    def maybe_update(self, index: int) -> bool:
        """The replica says that its log matches up to `index`; whether that is news."""
        if index <= self.match:
            return False
        self.match = index
        self.next = max(self.next, index + 1)
        self.append_paused = False
        return True

    def maybe_decr_to(self, rejected: int, hint: int) -> bool:
        """The replica rejected an append behind `rejected`, and knows no better than `hint`.

        False for an old rejection, which changes nothing: of what it acknowledged since, or of
        another probe than the last one.
        """
        if self.state is ProgressState.REPLICATE:
            if rejected <= self.match:
                return False
            # The rest of the window went astray as well.
            self.next = self.match + 1
            self._forget_sent_commit()
            return True
        if rejected != self.next - 1:
            return False
        self.next = max(min(rejected, hint + 1), self.match + 1)
        self._forget_sent_commit()
        self.append_paused = False
        return True

    def is_paused(self) -> bool:
        """Whether no append may be sent now."""
        return self.append_paused or self.state is ProgressState.SNAPSHOT

    def _reset(self, state: ProgressState) -> None:
        self.append_paused = False
        self.pending_snapshot = 0
        self.state = state
        self.inflights.reset()

    def _forget_sent_commit(self) -> None:
        """What was said about entries that have to be sent again most likely did not arrive."""
        self.sent_commit = min(self.sent_commit, self.next - 1)
