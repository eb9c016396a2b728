"""For followers that need what the log no longer holds: snapshots (dissertation, chapter 5)."""

from typing import TYPE_CHECKING

from timemachine.raft import membership
from timemachine.raft.confchange import restore as restore_members
from timemachine.raft.messages import Message, MessageType, Role, Snapshot
from timemachine.raft.progress import ProgressState
from timemachine.raft.tracker import Tracker

if TYPE_CHECKING:
    from timemachine.raft.core import Raft


# The leader.


def reported(raft: "Raft", message: Message) -> None:
    """SNAPSHOT_STATUS, of a leader: the host says how the snapshot to `from_` fared.

    The next append waits: for the answer of the follower that installed it, or, when it failed,
    for a heartbeat's answer.
    """
    progress = raft.tracker.progress.get(message.from_)
    if progress is None or progress.state is not ProgressState.SNAPSHOT:
        return
    if message.reject:
        # So that the probe begins where the follower is, not where it should have been.
        progress.pending_snapshot = 0
    progress.become_probe()
    progress.append_paused = True


# A follower.


def take(raft: "Raft", message: Message) -> None:
    """SNAPSHOT: start over from it, unless the log has it all; say how far the log goes."""
    raft.check_promise(message)
    log = raft.log
    if _restore(raft, message.snapshot or Snapshot()):
        index = log.last_index()
    else:
        index = log.committed
    raft.promise(Message(MessageType.APPEND_RESPONSE, message.from_, raft.id, raft.term, 0, index))


def _restore(raft: "Raft", snapshot: Snapshot) -> bool:
    """Put `snapshot` in place of log and membership; False if it is not needed or not for us."""
    log = raft.log
    metadata = snapshot.metadata
    if metadata.index <= log.committed:
        return False
    assert raft.role is Role.FOLLOWER
    members = metadata.conf_state
    if raft.id not in (*members.voters, *members.learners, *members.voters_outgoing):
        raft.say(f"ignores a snapshot for {members}")
        return False
    if log.matches(metadata.index, metadata.term):
        # Nothing is missing: the log only did not know yet that it is committed.
        log.commit_to(metadata.index)
        return False
    log.restore(snapshot)
    before = raft.tracker
    if raft.overtaken is None:
        raft.overtaken = before
    raft.tracker = Tracker(before.inflight_messages_max, before.inflight_bytes_max)
    membership.switch_config(raft, *restore_members(raft.tracker, log.last_index(), members))
    membership.check_restored(raft, members)
    raft.say(f"starts over from a snapshot that ends at {metadata.index}")
    return True
