"""Changes of membership: when they are proposed, and when they are applied.

What a change makes of a membership is in `confchange`; here is when one is let into the log, and
what else changes with it. A configuration is in force when its entry is applied, not when it is
appended (that differs from the dissertation, and is why a replica does not campaign before it
has applied what it knows to be committed).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from timemachine.errors import ProposalDropped, StoreDamaged
from timemachine.raft import reads, sending
from timemachine.raft.confchange import Changer
from timemachine.raft.messages import (
    NO_NODE,
    ConfChangeV2,
    ConfState,
    Entry,
    EntryType,
    Message,
    MessageType,
    Role,
    conf_change_entry,
    read_conf_change,
)
from timemachine.raft.progress import Progress
from timemachine.raft.tracker import Tracker, TrackerConfig

if TYPE_CHECKING:
    from timemachine.raft.core import Raft


# Proposing.


def checked(raft: "Raft", entries: Sequence[Entry]) -> tuple[list[Entry], int]:
    """Proposed `entries`, with an empty one in place of each change that must not be appended.

    And the index of the last change among them, 0 for none. Only one change may be on its way at
    a time, counted from its proposal to its application here (dissertation 4.1): two neighbours
    always share a majority, two that are further apart need not.
    """
    passed: list[Entry] = []
    pending = raft.pending_conf_index
    found = 0
    for entry in entries:
        if entry.type is EntryType.NORMAL:
            passed.append(entry)
            continue
        change = read_conf_change(entry).as_v2()
        reason = _objection(raft, change, pending) if raft.validate_conf_changes else None
        if reason is not None:
            raft.say(f"ignores a change of membership: {reason}")
            passed.append(Entry())
            continue
        passed.append(entry)
        pending = found = raft.log.last_index() + len(passed)
    return passed, found


def _objection(raft: "Raft", change: ConfChangeV2, pending: int) -> str | None:
    """Why `change` must not be appended now, or None."""
    joint = bool(raft.tracker.config.voters.outgoing)
    if pending > raft.log.applied:
        return f"another one may be at {pending}, applied is {raft.log.applied}"
    if joint and change.changes:
        return "the joint configuration has to be left first"
    if not joint and not change.changes:
        return "there is no joint configuration to leave"
    return None


def leave_joint_when_due(raft: "Raft") -> None:
    """Propose to leave a joint configuration that is applied and is to be left by itself.

    A transfer of leadership refuses the proposal. It is tried again with each entry applied, and
    by the next leader.
    """
    if raft.role is not Role.LEADER or raft.log.applied < raft.pending_conf_index:
        return
    leave = Message(
        MessageType.PROPOSE, from_=raft.id, entries=(conf_change_entry(ConfChangeV2()),)
    )
    try:
        raft.step(leave)
    except ProposalDropped:
        raft.say("cannot leave the joint configuration yet")


# Applying.


def apply_change(raft: "Raft", change: ConfChangeV2) -> ConfState:
    """Put a committed change into force. Raises ConfChangeRefused if it does not fit.

    While a snapshot is being installed, its membership is in force, and that includes the change.
    Then it only tells the host what the membership was at its own place in the log.
    """
    overtaken = raft.overtaken
    if overtaken is not None:
        overtaken.config, overtaken.progress = _changed(overtaken, raft.log.last_index(), change)
        return overtaken.conf_state()
    switch_config(raft, *_changed(raft.tracker, raft.log.last_index(), change))
    return raft.tracker.conf_state()


def _changed(
    tracker: Tracker, last_index: int, change: ConfChangeV2
) -> tuple[TrackerConfig, dict[int, Progress]]:
    """What `change` makes of the membership in `tracker`."""
    changer = Changer(tracker, last_index)
    if change.leaves_joint:
        return changer.leave_joint()
    if change.enters_joint:
        return changer.enter_joint(change.auto_leave, change.changes)
    return changer.simple(change.changes)


def switch_config(raft: "Raft", config: TrackerConfig, progress: dict[int, Progress]) -> None:
    """Take a configuration over, with all that hangs on it."""
    tracker = raft.tracker
    tracker.config = config
    tracker.progress = progress
    own = raft.own = progress.get(raft.id)
    raft.peers = tuple(sorted(member for member in progress if member != raft.id))
    raft.alone = not raft.peers and own is not None and not own.is_learner
    raft.auto_leave = config.auto_leave
    raft.promised = {
        member: raft.promised[member] for member in raft.peers if member in raft.promised
    }
    if raft.role is not Role.LEADER:
        return
    if own is None or own.is_learner:
        raft.say("leads a group that it is no longer a voter of")
        if raft.step_down_on_removal:
            raft.become_follower(raft.term, NO_NODE)
        return
    if raft.log.maybe_commit(tracker.committed(), raft.term):
        # Fewer voters can need fewer copies.
        sending.broadcast_append(raft)
    else:
        # Who is new need not wait for a heartbeat.
        for peer in raft.peers:
            sending.send_append(raft, peer, even_empty=False)
    if raft.transferee not in config.voters.ids():
        raft.transferee = NO_NODE
    reads.confirm(raft)


def check_restored(raft: "Raft", conf_state: ConfState) -> None:
    """Raise StoreDamaged unless the members that were restored are those of `conf_state`."""
    restored = raft.tracker.conf_state()
    if _in_order(conf_state) != _in_order(restored):
        raise StoreDamaged(f"The membership {conf_state} makes no sense, it became {restored}.")


def _in_order(state: ConfState) -> tuple[object, ...]:
    return (
        sorted(state.voters),
        sorted(state.learners),
        sorted(state.voters_outgoing),
        sorted(state.learners_next),
        state.auto_leave,
    )
